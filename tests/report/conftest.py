"""Figures that are made and not rendered, for tests of which figures exist and what is said about them."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def unrendered(monkeypatch):
    """A figure is saved as an empty file: to make its image takes ten times as long as to make the figure."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).touch())
