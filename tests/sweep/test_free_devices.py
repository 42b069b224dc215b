"""A sweep that has to wait for a device says so, and for which; one that need not wait says nothing."""

import io

import pytest
from rich.console import Console

from flopray.measurement.start_up import StartUp
from flopray.monitoring.progress import Progress
from flopray.store.run import RunFolder
from flopray.sweep.free_devices import NodeResources, Waiting, waiting
from flopray.sweep.journal_writer import JournalWriterThread
from flopray.sweep.recorder import Events

CORES = {"CPU": 4, "H100": 1, "A100": 1}


def node(cpu, gpu=0, device_type=None, *, free=(0, 0)):
    typed = {f"accelerator_type:{device_type}": 1.0} if device_type else {}
    total = {"CPU": float(cpu), "memory": 1e9} | ({"GPU": float(gpu)} | typed if gpu else {})
    left = dict(zip(("CPU", "GPU"), map(float, free), strict=True))
    return NodeResources(total, {name: amount for name, amount in left.items() if amount})  # Ray leaves out what is 0


@pytest.mark.parametrize(
    ("device_types", "nodes"),
    [
        (["CPU"], [node(4, free=(4, 0))]),
        (["CPU"], [node(2, free=(0, 0)), node(8, free=(5, 0))]),
        (["H100"], [node(8, 8, "H100", free=(1, 1))]),
        (["H100"], [node(8, 2, free=(1, 1))]),  # of no known type: its type was said by a flag
        (["H100", "A100"], [node(8, 1, "H100", free=(2, 1)), node(8, 1, "A100", free=(2, 1))]),
    ],
)
def test_a_trial_that_can_start_is_not_told_of(device_types, nodes):
    assert waiting(CORES, device_types, nodes) == Waiting()


def test_a_busy_cluster_is_told_with_what_is_needed_and_who_is_there():
    found = waiting({"CPU": 2}, ["CPU"], [node(2)], others=["first"])
    assert found.all_types
    assert found.lines == (
        "waiting for a device: a trial on CPU needs 2 CPU cores of one node, where 0 are free now; "
        "other sweeps run there: first",
    )
    (line,) = waiting(CORES, ["H100"], [node(8, 2, "H100", free=(6, 0))]).lines
    assert "a trial on H100 needs 1 CPU core and 1 GPU of one node, where 6 and 0 are free now; `ray status`" in line


def test_cores_that_lie_on_two_nodes_are_no_device():
    found = waiting(CORES, ["CPU"], [node(4, free=(3, 0)), node(4, free=(2, 0))])
    assert "needs 4 CPU cores of one node, where 3 are free now" in found.lines[0]


def test_a_free_gpu_of_another_type_is_no_help():
    nodes = [node(8, 1, "H100", free=(8, 0)), node(8, 4, "A100", free=(8, 4))]
    found = waiting(CORES, ["H100", "A100"], nodes)
    assert [line.partition(" needs ")[0] for line in found.lines] == ["waiting for a device: a trial on H100"]
    assert not found.all_types


class Answers:
    """A recorder's handle whose writer answers what it is told to."""

    def __init__(self, monkeypatch):
        import ray

        self.events = Events()
        monkeypatch.setattr(ray, "get", lambda reference: reference)
        self.take = self

    def remote(self):
        events, self.events = self.events, Events()
        return events


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A writer that finds all devices in use at its second check, its recorder, and the output."""
    looks, screen = iter([Waiting(), Waiting(["waiting for a device: why"], all_types=True)]), io.StringIO()
    progress, recorder = Progress(Console(file=screen), total=4), Answers(monkeypatch)
    with RunFolder.create(tmp_path, "r", {}).writer() as journal:
        writer = JournalWriterThread(recorder, journal, progress, supersede=False, waits=lambda: next(looks))
        writer.tell_waiting()
        writer._once()
        writer._look_at = 0.0  # half a minute later
        progress._next_plain = 0.0
        yield writer, recorder, progress, screen


def test_a_device_that_was_taken_meanwhile_is_told_later(watched):
    writer, recorder, progress, screen = watched
    assert screen.getvalue().splitlines() == ["0/4 points | the first trial starts"]
    writer._once()
    assert screen.getvalue().splitlines()[1:] == ["waiting for a device: why", "0/4 points | waiting for a device"]
    writer._look_at = 0.0
    writer._once()  # told once
    recorder.events = Events(working_on={"CPU@a:1": "n=2"}, started=True)
    progress._next_plain = 0.0
    writer._once()
    assert screen.getvalue().splitlines()[3:] == ["0/4 points | now n=2"]


def test_the_start_of_the_command_is_told_once_a_trial_has_started(tmp_path, monkeypatch):
    recorder, told = Answers(monkeypatch), []
    progress = Progress(Console(file=io.StringIO()), total=4)
    monkeypatch.setattr(progress, "spent", told.append)
    with RunFolder.create(tmp_path, "r", {}).writer() as journal:
        writer = JournalWriterThread(recorder, journal, progress, supersede=False, start_up=StartUp())
        writer._once()
        assert told == []
        for _ in range(2):
            recorder.events = Events(started=True, spent=["CPU@a:1: ready after 2.6 s (imports 2.5)"])
            writer._once()
    assert told[0].startswith("the first trial started after ")
    assert told[1:] == ["CPU@a:1: ready after 2.6 s (imports 2.5)"] * 2


def test_a_sweep_whose_own_process_holds_the_device_is_not_told_to_wait(watched):
    writer, recorder, _, screen = watched
    recorder.events = Events(started=True)
    writer._once()
    assert "waiting" not in screen.getvalue()
