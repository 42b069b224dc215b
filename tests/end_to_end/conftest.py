"""One machine for the tests of a file; nothing that they started is left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machine import Machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("sweeps"))
    yield made
    made.clean_up()
