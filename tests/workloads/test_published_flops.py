"""The page of published models agrees with the counts, in full size on the meta device."""

import importlib
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_page_of_published_models_is_what_is_counted(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "docs"), *sys.path])
    make_flops = importlib.import_module("make_flops")
    assert len(make_flops.MODELS) >= 25
    assert make_flops.page() == make_flops.PAGE.read_text(encoding="utf-8")
