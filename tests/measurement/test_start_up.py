"""The parts of a start make up the whole, and imports leave the garbage collector as it was."""

import gc
import itertools
from contextlib import nullcontext

import pytest

from flopray.measurement.start_up import StartUp, importing


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by what it is told, from 100 s on."""
    steps_s = [100.0]
    monkeypatch.setattr("flopray.measurement.start_up.time.monotonic", lambda: sum(steps_s))
    return steps_s


def test_the_parts_are_the_whole(clock):
    start = StartUp()
    for part, seconds in (("imports", 6.1), ("device", 1.9), ("meter", 0.01), ("idle power", 4.3), ("device", 0.5)):
        clock.append(seconds)
        start.mark(part)
    assert start.parts_s == pytest.approx({"imports": 6.1, "device": 2.4, "meter": 0.01, "idle power": 4.3})
    clock.append(9.0)  # what has no name yet is not told
    assert start.line("ready") == "ready after 12.8 s (imports 6.1, device 2.4, idle power 4.3)"


def test_a_start_without_parts_is_told_as_that(clock):
    assert StartUp().line("ready") == "ready after 0.0 s"


@pytest.mark.parametrize(("enabled", "fails"), itertools.product((True, False), repeat=2))
def test_imports_run_without_the_collector_and_leave_it_as_it_was(enabled, fails):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ImportError) if fails else nullcontext(), importing():
            assert not gc.isenabled()
            if fails:
                raise ImportError("no such module")
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
