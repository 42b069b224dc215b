"""The parts of a start make up the whole, and imports leave the garbage collector as it was."""

import gc
import itertools
import sys
import threading
from contextlib import nullcontext

import pytest

from flopray.measurement.start_up import StartUp, imported_meanwhile, importing


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


def test_a_module_is_imported_while_the_block_runs():
    sys.modules.pop("wave", None)
    with imported_meanwhile("wave"):
        pass
    assert "wave" in sys.modules
    with imported_meanwhile("this_is_not_there"), imported_meanwhile(None):  # who needs it meets the error
        pass


def test_an_interrupt_in_the_block_leaves_no_import_behind():
    with pytest.raises(KeyboardInterrupt), imported_meanwhile("colorsys"):
        raise KeyboardInterrupt
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("import ")]
