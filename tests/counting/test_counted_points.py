"""From ncu's table to the rows of a point: the whole way, with a stand-in for ncu and for the GPU's name."""

import json
import threading
import types

import pytest

from flopray.flops.executed.overheads import reconstruct
from flopray.measurement.counting import processes
from flopray.measurement.counting.ahead import counting_at_the_dispatcher
from flopray.measurement.device import Device
from flopray.measurement.profiler import Profiler
from flopray.records import Status
from flopray.settings import MeasureSettings
from flopray.sweep import count_ahead
from flopray.sweep.counting_plan import Expected
from flopray.sweep.limits import Limits
from flopray.sweep.recorder import Recorder
from flopray.workloads.registry import make_point

pytestmark = pytest.mark.usefixtures("peak_measured_once")

PHASES = ("forward", "backward", "optimizer_step", "train_step")


@pytest.fixture
def profiler(monkeypatch, stand_in):
    """Makes profilers of a CPU that says it is an H100."""
    columns = Device.columns
    monkeypatch.setattr(Device, "columns", lambda self: columns(self) | {"compute_capability": "9.0"})

    def make(*instruments, phases=PHASES):
        settings = MeasureSettings(phases=phases, instruments=instruments, max_seconds=0.3, target_error=0.5)
        return Profiler(Device("CPU", threads=1), settings).open()

    return make


def point(width, **fields):
    return make_point(workload="mlp", device_type="CPU", n_layers=3, width=width, tokens=8, **fields)


def test_counters_alone_measure_no_time(profiler):
    counting = profiler("counters", phases=("forward", "backward"))
    counting.count_ahead([point(16), point(32)])
    for width in (16, 32):
        for row in counting.measure_point(point(width)):
            assert (row.status, row.counters_status) == (Status.OK, Status.OK)
            assert row.time_s is None
            assert row.energy_status == Status.NOT_REQUESTED
            assert reconstruct(row.columns()) == row.executed_flops > 0
            assert row.ncu_version == "2025.3.1.0"
            assert {json.loads(text)["class"] for text in row.kernels} == {"gemm", "elementwise"}
            assert row.kernel_launches >= row.kernel_launches_counted


def test_counts_are_handed_over_and_a_reason_of_this_device_is_not(profiler, stand_in):
    giving, taking = (profiler("counters", phases=("forward",)) for _ in range(2))
    assert giving.environment == taking.environment
    giving.count_ahead([point(16)])
    outcome, version = giving.counting.give(point(16).id)
    taking.counting.take(point(16).id, outcome, version)
    stand_in("error:ERR_NVGPUCTRPERM - The user does not have permission")  # so nothing can be counted again
    (row,) = taking.measure_point(point(16))
    assert (row.counters_status, row.ncu_version) == (Status.OK, "2025.3.1.0")
    giving.count_ahead([point(32)])
    assert giving.counting.give(point(32).id) is None


def test_the_dispatcher_counts_while_ncu_does_and_not_while_something_is_measured():
    def counting():
        return [thread for thread in threading.enumerate() if thread.name == "flopray-dispatched"]

    with counting_at_the_dispatcher([point(16 * i) for i in range(1, 200)], ("forward", "backward")):
        assert counting()
    assert not counting()


def test_counters_stand_beside_time(profiler):
    rows = profiler("time", "counters", phases=("forward",)).measure_point(point(16))
    assert rows[0].time_s > 0
    assert rows[0].executed_flops > 0


def test_what_keeps_counters_away_costs_no_time(profiler, stand_in):
    stand_in("error:ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters")
    both = profiler("time", "counters", phases=("forward",))
    (row,) = both.measure_point(point(16))
    assert (row.status, row.counters_status) == (Status.OK, Status.NO_COUNTER_PERMISSION)
    assert row.executed_flops is None
    assert "NVreg_RestrictProfilingToAdminUsers=0" in row.counters_reason
    assert both.counters_reason == row.counters_reason
    alone = profiler("counters", phases=("forward",))
    (row,) = alone.measure_point(point(16))
    assert row.status == Status.NO_COUNTER_PERMISSION
    assert row.status_reason == row.counters_reason


class LocalRecorder:
    """A recorder whose methods are called here: `recorder.method.remote(...)`."""

    def __init__(self, recorder):
        self._recorder = recorder

    def __getattr__(self, name):
        return types.SimpleNamespace(remote=getattr(self._recorder, name))


@pytest.mark.slow
@pytest.mark.parametrize(("instruments", "batches"), [(("counters",), [1, 1, 1]), (("time", "counters"), [3])])
def test_points_that_are_only_counted_are_handed_out_chunk_by_chunk(profiler, monkeypatch, instruments, batches):
    monkeypatch.setattr(processes, "_FIRST_S", 0.0)
    monkeypatch.setattr(processes.Processes, "_learn", lambda *_: None)
    monkeypatch.setattr(count_ahead.ray, "get", lambda answer: answer)
    settings = MeasureSettings(phases=("forward",), instruments=instruments)
    recorder = Recorder(
        "run", set(), settings, Limits(), metrics=types.SimpleNamespace(refresh=lambda _: None), end=lambda _: None
    )
    points = [(number, point(width)) for number, width in enumerate((16, 32, 48))]
    recorder.expect([Expected(spec.id, "CPU", spec.fields(), 1.0) for _, spec in points], {"CPU": 1})
    counting = profiler(*instruments, phases=("forward",))
    ahead = count_ahead.CountAhead(counting, LocalRecorder(recorder), "trial", "CPU@a:1", points)
    taken = []
    while ahead.left:
        taken.append(ahead.take())
        assert all(counting.counting.give(spec.id) for _, spec in taken[-1])
    assert [len(batch) for batch in taken] == batches
    assert sorted(number for batch in taken for number, _ in batch) == [0, 1, 2]
    events = recorder.take()
    assert "counting: " in events.working_on["CPU@a:1"]
    assert len([line for line in events.spent if "ncu counted" in line]) == 3
    # what a process that ends here has counted is not counted again
    assert set(recorder.claim_counting("again", counting.environment, [spec.id for _, spec in points]).counted) == {
        spec.id for _, spec in points
    }
