"""One phase on this machine's CPU, with a meter of known truth: stated values, reached targets and types."""

import dataclasses
import math
import time

import pytest

from flopray.energy.estimator import estimate_energy
from flopray.energy.load import LoadSpan
from flopray.energy.meter import Reading
from flopray.measurement.columns import measured_columns
from flopray.measurement.device import Device
from flopray.measurement.phase import _doubt, _time_mean, measure_phase
from flopray.measurement.window import Window
from flopray.records import COLUMN_NAMES, PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.entry import encode
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import Faults, SimulatedMeter

POWER_W = 40.0
QUICK = MeasureSettings(phases=("forward",), target_error=0.3, max_seconds=0.3)


@pytest.fixture(scope="module")
def device():
    return Device("CPU", threads=1)


def meter(**options) -> SimulatedMeter:
    return SimulatedMeter(ConstantPower(POWER_W), period_s=0.02, latency_s=0.0005, **options)


def sleeping(seconds):
    return lambda: time.sleep(seconds)


def test_time_alone(device):
    columns = measured_columns(measure_phase(sleeping(0.002), device, None, QUICK))
    assert set(columns) <= COLUMN_NAMES
    energy = {name: value for name, value in columns.items() if name.startswith(("energy", "power"))}
    assert energy.pop("energy_status") == "not_requested"
    assert set(energy.values()) == {None}
    assert 0.002 <= columns["time_s"] < 0.02
    assert columns["time_clock"] == "perf_counter"
    error = columns["time_rel_error"]  # a busy machine sleeps too unevenly for an interval, or for a small one
    assert columns["time_converged"] is (error is not None and error <= 0.3)
    assert 0.8 * columns["window_s"] < columns["time_s"] * columns["time_iterations"] <= columns["window_s"] + 1e-9
    assert columns["warmup_iterations"] > 1
    assert (columns["target_error"], columns["max_seconds"]) == (0.3, 0.3)
    assert columns["memory_peak_bytes"] is None
    assert columns["other_processes"] is None


def test_energy_is_the_meters_power_times_the_time(device):
    settings = dataclasses.replace(QUICK, target_error=0.05, max_seconds=2.0)
    columns = measured_columns(measure_phase(sleeping(0.002), device, meter(), settings, tick_period_s=0.02))
    assert set(columns) <= COLUMN_NAMES
    assert columns["energy_status"] == "ok"
    assert columns["energy_source"] == "simulated"
    assert columns["power_w"] == pytest.approx(POWER_W, rel=0.1)
    assert columns["energy_j"] == pytest.approx(columns["power_w"] * columns["time_s"])
    assert columns["energy_converged"] == (columns["energy_rel_error"] <= 0.05)
    assert columns["energy_ticks"] >= 3
    assert columns["energy_tick_period_s"] == pytest.approx(0.02, rel=0.2)
    assert columns["energy_window_s"] <= columns["window_s"]


@pytest.mark.slow
def test_a_board_at_its_power_limit_is_watched_for_a_whole_cycle_of_its_limiter(device, monkeypatch):
    settings = dataclasses.replace(QUICK, target_error=0.9, max_seconds=5.0)
    free = measured_columns(measure_phase(sleeping(0.002), device, meter(), settings, tick_period_s=0.02))
    monkeypatch.setattr(device, "power_capped", lambda: True)
    capped = measured_columns(measure_phase(sleeping(0.002), device, meter(), settings, tick_period_s=0.02))
    assert free["energy_window_s"] < 0.9
    assert 1.0 <= capped["energy_window_s"] < 2.0
    assert capped["energy_converged"]


@pytest.mark.slow
def test_a_jump_of_the_counter_stands_in_the_record_and_not_in_the_power(device):
    class Jumping(SimulatedMeter):
        """100 kJ too many from 0.4 s after the first read on, however long the warm-up took."""

        first_s = None

        def _counter_j(self, at_s):
            self.first_s = at_s if self.first_s is None else self.first_s
            return super()._counter_j(at_s) + (1e5 if at_s > self.first_s + 0.4 else 0.0)

    jumping = Jumping(ConstantPower(POWER_W), period_s=0.02, latency_s=0.0005)
    # a target that is never reached: the window lasts until the cap, and has the jump in it
    settings = dataclasses.replace(QUICK, target_error=1e-6, max_seconds=1.0)
    columns = measured_columns(measure_phase(sleeping(0.002), device, jumping, settings, tick_period_s=0.02))
    assert columns["energy_status"] == "ok"
    assert columns["power_w"] == pytest.approx(POWER_W, rel=0.1)
    assert columns["energy_reason"].startswith("jump: the counter gained 1e+05 J")


def test_a_beat_of_iterations_and_ticks_stands_in_the_record(device):
    """A counter that adds up all power sees iterations of 20 ms whole, also with ticks of 20 ms."""
    whole = meter()
    whole.characteristics = dataclasses.replace(whole.characteristics, seen_share=1.0)
    columns = measured_columns(measure_phase(sleeping(0.02), device, whole, QUICK, tick_period_s=0.02))
    assert columns["energy_reason"] is None
    window = Window([0.1] * 20, 1, 0.0, 2.0)
    ticks = [Reading(0.1 * k + d, 0.1 * k + d, 4.0 * k + (d > 0) * 4.0) for k in range(20) for d in (-0.001, 0.001)]
    estimate = estimate_energy(ticks, LoadSpan(0.0, 2.0), time_per_iteration_s=0.1, time_rel_error=0.0)
    assert estimate.unseen_share == pytest.approx(0.75, abs=0.02)
    assert _doubt(estimate, window).startswith("beat: counter ticks of 0.1 s saw only 25% of iterations of 0.1 s")


@pytest.mark.parametrize("low_j", [2.0, 4.0])
def test_iterations_that_are_seen_at_a_few_phases_alone_stand_in_the_record_where_power_changes(low_j):
    """40 W, and half of it in one of seven ticks: what happened in the 75 ms before and behind it was not seen."""
    ticks, joules = [], 0.0
    for k in range(30):
        ticks.append(Reading(0.1 * k - 0.001, 0.1 * k - 0.001, joules))
        joules += low_j if k % 7 == 3 else 4.0
        ticks.append(Reading(0.1 * k + 0.001, 0.1 * k + 0.001, joules))
    estimate = estimate_energy(ticks, LoadSpan(0.0, 3.0), time_per_iteration_s=0.7, time_rel_error=0.0)
    assert estimate.unseen_share == 0.0
    said = _doubt(estimate, Window([0.7] * 4, 1, 0.0, 2.8))
    if low_j == 4.0:
        assert estimate.energy_rel_error < 0.01
        assert said is None
        return
    missed_j, mean_j = 0.95 * 2 * 20.0 * 0.075 / 2, 0.7 * 40.0 - 2.0
    assert missed_j / mean_j <= estimate.energy_rel_error < 0.12
    assert said is not None
    assert said.startswith("beat: counter ticks of 0.1 s meet iterations of 0.7 s at some of their parts only")
    assert "± 5." in said


def test_a_window_without_ticks_is_a_typed_failure_and_time_stays(device):
    slow = SimulatedMeter(ConstantPower(POWER_W), period_s=30.0, latency_s=0.0005)
    columns = measured_columns(measure_phase(sleeping(0.002), device, slow, QUICK))
    assert columns["energy_status"] == "failed"
    assert "too few" in columns["energy_reason"]
    assert columns["energy_j"] is None
    assert columns["time_s"] >= 0.002


def test_a_meter_that_breaks_ends_the_window_and_time_stays(device):
    broken = meter(faults=Faults(fail_s=0.2))
    settings = dataclasses.replace(QUICK, max_seconds=20.0)
    columns = measured_columns(measure_phase(sleeping(0.002), device, broken, settings))
    assert columns["energy_status"] == "failed"
    assert "simulated failure" in columns["energy_reason"]
    assert columns["time_s"] >= 0.002
    assert columns["window_s"] < 10.0  # waiting does not help with a broken meter


def test_the_cap_is_kept_and_what_was_not_reached_is_said(device):
    settings = MeasureSettings(phases=("forward",), target_error=1e-6, max_seconds=0.5)
    columns = measured_columns(measure_phase(sleeping(0.001), device, None, settings))
    assert columns["time_converged"] is False
    assert columns["time_rel_error"] > 1e-6
    assert 0.5 <= columns["window_s"] < 5.0


@pytest.mark.slow
@pytest.mark.parametrize("with_meter", [False, True])
def test_a_window_of_few_laps_has_no_error_and_nothing_infinite(device, with_meter):
    columns = measured_columns(measure_phase(sleeping(0.2), device, meter() if with_meter else None, QUICK))
    assert columns["time_s"] >= 0.2
    assert columns["time_rel_error"] is None
    assert columns["time_converged"] is False
    assert all(math.isfinite(value) for value in columns.values() if type(value) is float)
    if with_meter:
        assert columns["energy_rel_error"] is None
        assert columns["energy_converged"] is False
        assert columns["energy_j"] == pytest.approx(POWER_W * columns["time_s"], rel=0.2)


@pytest.mark.parametrize(("lap_s", "known"), [(0.01, False), (0.2, True)])
def test_a_dozen_laps_have_an_error_where_each_is_a_long_iteration(lap_s, known):
    times_s = [lap_s, 1.01 * lap_s] * 6
    mean = _time_mean(Window(times_s, iterations_per_lap=1, start_s=0.0, end_s=sum(times_s)), 0.01)
    assert math.isfinite(mean.rel_error) == known


def test_the_columns_make_a_record(device):
    record = PhaseRecord.of(
        trial_id="0" * 16, phase="forward", **measured_columns(measure_phase(sleeping(0.002), device, meter(), QUICK))
    )
    assert record.time_s > 0
    assert record.energy_source == "simulated"
    assert record.power_drift_significant in (False, True)  # a busy machine may shift the reads of constant power
    assert abs(record.power_drift_rel) < 0.3
    assert encode([record])


def test_what_the_work_raises_is_the_callers_and_the_meters_thread_ends(device):
    counted = meter()
    calls = iter(range(10**9))

    def failing():
        if next(calls) > 200:
            raise RuntimeError("gone")
        time.sleep(0.001)

    with pytest.raises(RuntimeError, match="gone"):
        measure_phase(failing, device, counted, dataclasses.replace(QUICK, max_seconds=30.0, target_error=1e-6))
    reads = counted.reads
    time.sleep(0.1)
    assert counted.reads == reads
