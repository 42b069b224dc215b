"""One machine for the tests of a file; all processes that they start are ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("sweeps"))
    yield made
    made.clean_up()


@pytest.fixture
def standing(machine: Machine) -> Iterator[str]:
    """The flag that joins a cluster here, for tests of more than one sweep: Ray starts once for all of them."""
    flags = "--port=0 --num-cpus=2 --include-dashboard=false --min-worker-port=0 --max-worker-port=0"
    machine.ray(f"start --head {flags}")
    # As a sweep without --address leaves it, later: this cluster asks for none, and would refuse a driver that does.
    token = Path(machine.environment["HOME"]) / ".ray" / "auth_token"
    token.parent.mkdir(exist_ok=True)
    token.write_text("ab" * 32)
    yield "--address auto"
    token.unlink()
    machine.end_processes()
