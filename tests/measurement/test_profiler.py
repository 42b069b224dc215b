"""A profiler on this machine's CPU: a record for each phase of every point, whatever happens to it."""

import dataclasses
import json
import math
import pickle
import subprocess
import sys
import time

import pytest
import torch

from flopray.energy.board_factor import BoardFactor
from flopray.energy.nvml import GpuState
from flopray.errors import MeterError, NoEnergySource, OutOfMemory
from flopray.measurement.device import Device
from flopray.measurement.profiler import Profiler
from flopray.measurement.start_up import StartUp
from flopray.point import Point
from flopray.records import TRAINING_PHASES, Status
from flopray.settings import MeasureSettings
from flopray.store import entry
from flopray.store.schema import RecordSchema
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import Faults, SimulatedMeter
from flopray.workloads.base import closed_columns
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

pytestmark = pytest.mark.usefixtures("peak_measured_once")

PHASES = TRAINING_PHASES

POWER_W = 40.0


def spec(**fields) -> Point:
    defaults = {"n_layers": 2, "width": 32, "tokens": 16}
    return make_point(**{"workload": "mlp", "device_type": "CPU", **defaults, **fields})


def settings(**fields) -> MeasureSettings:
    return MeasureSettings(**{"target_error": 0.3, "max_seconds": 0.3, "sentinel_every_s": 0.0, **fields})


@pytest.fixture
def profiler(monkeypatch):
    """Makes profilers whose device has the given meter, or no energy source."""
    made = []

    def make(meter=None, *, sentinel=None, start_up=None, **fields) -> Profiler:
        def open_meter(self):
            if meter is None:
                raise NoEnergySource("this machine counts no joules: buy one that does")
            return meter

        monkeypatch.setattr(Device, "open_meter", open_meter)
        opening = Profiler(Device("CPU", threads=1), settings(**fields), run="r", sentinel=sentinel, start_up=start_up)
        made.append(opening.open())
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.slow
def test_opening_notes_its_parts_and_the_first_point_its_first_window(profiler, monkeypatch):
    start_up = StartUp()
    begin_s = time.monotonic()
    opened = profiler(simulated(), sentinel=spec(), sentinel_every_s=60.0, phases=("forward",), start_up=start_up)
    opened_s = time.monotonic() - begin_s
    parts = ["meter", "idle clocks", "idle power", "board factor", "waking", "awake idle power", "imports"]
    assert list(start_up.parts_s) == parts
    assert start_up.parts_s["idle power"] >= 1.0  # it is measured for a second
    assert sum(start_up.parts_s.values()) <= opened_s
    assert opened.first_window_after_s is None
    (record,) = opened.measure_point(spec())
    first_s = opened.first_window_after_s
    assert record.warmup_s < first_s < record.device_wall_s - record.window_s
    opened.measure_point(spec(width=16))
    assert opened.first_window_after_s == first_s
    assert list(start_up.parts_s) == parts


def simulated(**options) -> SimulatedMeter:
    return SimulatedMeter(ConstantPower(POWER_W), period_s=0.02, latency_s=0.0005, **options)


def durable(records) -> bool:
    """Whether the journal would take the records: no NaN, no infinity, every value of its column's type."""
    trial_id, _, line = entry.encode(records, RecordSchema(MLP()))
    assert json.loads(line)["entry"]["trial_id"] == trial_id
    return True


@pytest.mark.slow
def test_every_phase_gives_a_complete_row(profiler):
    point = spec()
    records = profiler(phases=PHASES).measure_point(point, order_index=7, attempt=2)
    assert [record.phase for record in records] == list(PHASES)
    assert durable(records)
    for record in records:
        assert record.status == Status.OK
        assert record.status_reason is None
        assert (record.run, record.trial_id, record.order_index, record.attempt, record.seed) == (
            *("r", point.id),
            *(7, 2, 0),
        )
        assert (record.n_layers, record.width, record.tokens) == (2, 32, 16)
        assert record.time_s > 0
        assert record.flops_per_s == pytest.approx(record.model_flops / record.time_s)
        assert record.model_flops == closed_columns(point, record.phase)["model_flops"]
        assert record.started_unix_s < record.ended_unix_s
        assert record.device_wall_s >= sum(r.window_s for r in records)
        assert record.cpu_threads == 1
        assert record.torch_version == torch.__version__
        assert record.measured_peak_flops_per_s > 1e8
        if record.phase == "optimizer_step":
            assert record.mfu is None
            assert "elementwise" in record.mfu_reason
        else:
            assert record.mfu == pytest.approx(record.flops_per_s / record.measured_peak_flops_per_s)
        assert "note:no_limit_known" not in record.findings
    assert len({record.measured_peak_flops_per_s for record in records}) == 1


@pytest.mark.slow
def test_without_a_source_energy_is_missing_with_its_reason_and_never_zero(profiler):
    without = profiler(phases=("forward", "backward"))
    assert without.energy_reason.startswith("this machine counts no joules")
    for record in without.measure_point(spec()):
        assert record.status == Status.OK
        assert record.energy_status == Status.NO_ENERGY_SOURCE
        assert record.energy_reason == without.energy_reason
        energy = (record.energy_j, record.energy_rel_error, record.power_w, record.idle_power_w, record.active_energy_j)
        assert energy == (None,) * 5
        assert record.flops_per_j is None


@pytest.mark.slow
def test_energy_that_was_not_asked_for_is_not_looked_for(profiler):
    alone = profiler(simulated(), phases=("forward",), instruments=("time",))
    assert alone.energy_reason is None
    (record,) = alone.measure_point(spec())
    assert (record.energy_status, record.energy_j) == (Status.NOT_REQUESTED, None)


@pytest.mark.slow
def test_energy_and_what_follows_from_it(profiler):
    (record,) = profiler(simulated(), phases=("forward",), target_error=0.05, max_seconds=2.0).measure_point(spec())
    assert durable([record])
    assert record.energy_status == Status.OK
    assert record.energy_j == pytest.approx(POWER_W * record.time_s, rel=0.1)
    assert record.flops_per_j == pytest.approx(record.model_flops / record.energy_j)
    assert record.idle_power_w == pytest.approx(POWER_W, rel=0.1)
    assert record.active_energy_j == pytest.approx(record.energy_j - record.idle_power_w * record.time_s)


@pytest.mark.slow
def test_a_meter_that_broke_fails_the_energy_and_not_the_time(profiler):
    broken = profiler(simulated(faults=Faults(fail_s=0.0)), phases=("forward", "backward"))
    records = broken.measure_point(spec())
    assert durable(records)
    for record in records:
        assert (record.status, record.energy_status) == (Status.OK, Status.FAILED)
        assert "simulated failure" in record.energy_reason
        assert record.energy_j is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "reason"), [({"precision": "tf32"}, "tf32 exists only"), ({"execution": "graph"}, "CUDA")]
)
def test_what_a_cpu_cannot_do_is_unsupported_in_every_phase(profiler, fields, reason):
    records = profiler(simulated(), phases=PHASES).measure_point(spec(**fields))
    assert [record.phase for record in records] == list(PHASES)
    assert durable(records)
    for record in records:
        assert record.status == Status.UNSUPPORTED
        assert reason in record.status_reason
        assert record.traceback is None
        assert (record.time_s, record.energy_j, record.flops_per_s) == (None, None, None)
        assert record.model_flops > 0  # what it would have cost is known all the same
        assert record.energy_status == Status.FAILED
        assert record.energy_reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status", "traced"),
    [
        (RuntimeError("a kernel fell over\nwith a long story"), Status.FAILED, True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), Status.OUT_OF_MEMORY, False),
        (MemoryError(), Status.OUT_OF_MEMORY, False),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            Status.OUT_OF_MEMORY,
            False,
        ),
        (OutOfMemory("full"), Status.OUT_OF_MEMORY, False),
        (MeterError("lost"), Status.FAILED, False),
    ],
)
def test_one_phase_fails_alone_with_its_kind(profiler, monkeypatch, error, status, traced):
    import flopray.measurement.profiler as module

    real = module.BuiltPoint.phase

    def phase(self, name):
        if name == "backward":
            raise error
        return real(self, name)

    monkeypatch.setattr(module.BuiltPoint, "phase", phase)
    records = profiler(phases=("forward", "backward", "train_step")).measure_point(spec())
    assert durable(records)
    assert [record.status for record in records] == [Status.OK, status, Status.OK]
    failed = records[1]
    assert failed.status_reason
    assert "\n" not in failed.status_reason
    assert (failed.time_s, failed.energy_j) == (None, None)
    assert (failed.traceback is not None) == traced
    if traced:
        assert "a kernel fell over" in failed.traceback
        assert "with a long story" in failed.traceback


def test_a_point_that_cannot_be_built_fails_in_every_phase_and_the_next_one_is_measured(profiler, monkeypatch):
    import flopray.measurement.profiler as module

    working = profiler(phases=("forward", "backward"))
    with monkeypatch.context() as patch:
        patch.setattr(module.BuiltPoint, "__init__", lambda *a, **k: (_ for _ in ()).throw(MemoryError()))
        assert [record.status for record in working.measure_point(spec())] == [Status.OUT_OF_MEMORY] * 2
    assert [record.status for record in working.measure_point(spec())] == [Status.OK] * 2
    assert working.healthy()


def test_memory_that_cannot_be_had_is_out_of_memory(profiler):
    # 2**22 x 2**22 weights of 4 bytes: 64 TiB, more than any address space that torch asks for is given.
    records = profiler(phases=("forward",)).measure_point(spec(n_layers=1, width=2**22, tokens=1))
    assert [record.status for record in records] == [Status.OUT_OF_MEMORY]
    assert durable(records)


@pytest.mark.slow
def test_drift_of_the_sentinel_stands_in_the_row_and_in_its_error(profiler):
    drifting = profiler(simulated(), sentinel=spec(), phases=("forward",), sentinel_every_s=1e6, max_seconds=0.5)
    (first,) = drifting.measure_point(spec())
    assert first.sentinel_age_s is None  # the baseline waits until a point has warmed the device
    (steady,) = drifting.measure_point(spec())
    assert (steady.sentinel_time_drift, steady.sentinel_energy_drift) == (None, None)
    assert steady.sentinel_time_drift_error is None
    assert steady.sentinel_age_s > 0
    first_time = dataclasses.replace(drifting._sentinel._baseline.timing, rel_error=0.01)
    drifting._sentinel._baseline = dataclasses.replace(drifting._sentinel._baseline, timing=first_time)
    later = dataclasses.replace(first_time, time_s=1.5 * first_time.time_s)
    without = dataclasses.replace(drifting._sentinel._baseline.energy, energy_j=None)
    drifting._sentinel._last = dataclasses.replace(drifting._sentinel._baseline, timing=later, energy=without)
    (drifted,) = drifting.measure_point(spec())
    assert drifted.sentinel_time_drift == pytest.approx(0.5)
    assert drifted.sentinel_energy_drift is None
    # Less what the sentinel's own scatter may have made of it. On a busy machine a window may not tell its error.
    assert drifted.time_rel_error is None or drifted.time_rel_error >= 0.499
    assert drifted.sentinel_age_s >= steady.sentinel_age_s
    assert durable([drifted])


def test_a_sentinel_that_cannot_run_does_not_stop_the_points(profiler):
    records = profiler(sentinel=spec(precision="tf32"), phases=("forward",), sentinel_every_s=10.0).measure_point(
        spec()
    )
    assert [record.status for record in records] == [Status.OK]
    assert records[0].sentinel_time_drift is None


@pytest.mark.slow
@pytest.mark.parametrize(("meter", "measured"), [(None, 0), (simulated(), 1)])
def test_the_sentinel_wakes_a_device_only_where_something_comes_of_it(profiler, monkeypatch, meter, measured):
    """Before the first point its value is not kept: it serves idle power and raises the clocks."""
    calls = []
    monkeypatch.setattr(Profiler, "_wake", lambda self: calls.append(self))
    made = profiler(meter, sentinel=spec(), phases=("forward",), sentinel_every_s=1e6)
    assert len(calls) == measured
    assert made._sentinel.due  # the baseline is measured after the first point either way


class Gpu(Device):
    """This CPU, which says that it is a GPU of a temperature."""

    def __init__(self, temperature_c: float | None) -> None:
        super().__init__("CPU", threads=1)
        self.is_cuda, self.temperature_c = True, temperature_c

    def columns(self):
        known = {"device_name": "NVIDIA X", "device_uuid": "GPU-1", "driver_version": "580", "power_limit_w": 700.0}
        return super().columns() | known if not self.is_cuda else known | {"device_type": "CPU"}

    def state(self):
        return GpuState(self.temperature_c, 1e9, 1e9, "", 700.0)

    def open_meter(self):
        return simulated()

    def peak_memory_bytes(self):
        return 5

    synchronize = release = reset_peak_memory = lambda self: None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("temperature_c", "reason"), [(51.0, None), (None, "the device reports no temperature, so none can be held")]
)
def test_a_held_temperature_stands_in_each_row(monkeypatch, temperature_c, reason):
    monkeypatch.setattr("flopray.measurement.filler._PROBE_S", 0.01)
    monkeypatch.setattr("flopray.measurement.profiler.WAKE_S", 0.02)
    with Profiler(Gpu(temperature_c), settings(hold_temperature_c=50.0, phases=("forward", "backward"))) as held:
        rows = held.measure_point(spec())
    for row in rows:
        assert row.status == Status.OK
        assert (row.hold_temperature_c, row.hold_temperature_reason) == (50.0, reason)
        assert row.hold_temperature_s > 0
        assert row.memory_peak_bytes == 5
    assert durable(rows)


@pytest.mark.slow
def test_a_row_has_the_factor_of_its_board(monkeypatch):
    monkeypatch.setattr("flopray.measurement.profiler.WAKE_S", 0.02)
    known = BoardFactor(factor=1.02, rel_error=0.03, work_rel_error=0.035)
    for found, columns in ((known, (1.02, 0.035)), (BoardFactor(reason="no reference"), (None, None))):
        monkeypatch.setattr("flopray.measurement.device_power.known_factor", lambda *_, found=found: found)
        with Profiler(Gpu(51.0), settings(phases=("forward",))) as made:
            (row,) = made.measure_point(spec())
        assert (row.board_factor, row.board_factor_rel_error) == columns
        assert not [finding for finding in row.findings if "board" in finding]


@pytest.mark.slow
def test_findings_are_codes_of_the_audit(profiler):
    from flopray.audit import RULES

    for record in profiler(phases=PHASES).measure_point(spec()):
        for finding in record.findings:
            severity, rule = finding.split(":")
            assert severity in ("impossible", "implausible", "note")
            assert rule in {getattr(known, "name", known) for known in RULES}
        assert not math.isnan(record.time_rel_error or 0.0)


@pytest.mark.slow
def test_a_row_with_energy_gives_no_reason_for_having_none(profiler):
    (record,) = profiler(simulated(), phases=("forward",)).measure_point(spec())
    assert (record.energy_status, record.energy_reason) == ("ok", None)


@pytest.mark.slow
def test_records_are_plain_data_that_any_process_reads_without_torch(profiler):
    (record,) = profiler(simulated(), phases=("forward",)).measure_point(spec())
    for name, value in record.columns().items():
        assert type(value) in (str, int, float, bool, tuple, type(None)), name
    script = "import pickle, sys; pickle.load(sys.stdin.buffer); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], input=pickle.dumps(record), check=True)
