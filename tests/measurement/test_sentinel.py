"""The sentinel is measured when it is due and says how far the device has drifted since the first time."""

from dataclasses import replace

import pytest

from flopray.energy.nvml import GpuState
from flopray.energy.thermal import BoardTemperature
from flopray.measurement.result import Energy, PhaseResult, State, Timing
from flopray.measurement.sentinel import Sentinel


@pytest.fixture
def now(monkeypatch):
    clock = {"s": 50.0}
    monkeypatch.setattr("flopray.measurement.sentinel.time.monotonic", lambda: clock["s"])
    return clock


def result(time_s, time_rel_error=None, energy_j=None) -> PhaseResult:
    timing = Timing(time_s, time_rel_error, 10, "perf_counter", True, 1.0, 0.1, 3, 0.01, 3.0)
    return PhaseResult(timing, Energy("ok", energy_j=energy_j), State(None, None, None, None))


def sentinel(values, every_s=10.0) -> Sentinel:
    remaining = iter(values)
    return Sentinel(lambda: next(remaining), every_s=every_s)


def test_it_is_due_at_once_and_then_at_intervals(now):
    watched = sentinel([result(time_s=1.0)] * 2)
    assert watched.due
    watched.check()
    assert not watched.due
    now["s"] += 9.9
    assert not watched.due
    now["s"] += 0.2
    assert watched.due


def test_it_can_be_switched_off(now):
    off = sentinel([], every_s=0.0)
    assert not off.due
    now["s"] += 1e6
    assert not off.due
    assert off.columns() == {}


def test_drift_is_against_the_first_measurement_not_the_last(now):
    watched = sentinel([result(time_s=2.0, energy_j=10.0), result(time_s=2.2, energy_j=9.0), result(time_s=2.5)])
    watched.check()
    assert watched.columns() == {"sentinel_age_s": 0.0}  # one value says nothing of drift, and nothing is not 0
    watched.check()
    now["s"] += 3
    assert watched.columns() == pytest.approx(
        {"sentinel_time_drift": 0.1, "sentinel_energy_drift": -0.1, "sentinel_age_s": 3.0}
        | {"sentinel_time_drift_error": None, "sentinel_energy_drift_error": None}
    )
    watched.check()
    assert watched.columns()["sentinel_time_drift"] == pytest.approx(0.25)
    assert watched.columns()["sentinel_energy_drift"] is None


def test_a_drift_has_the_errors_of_both_measurements(now):
    watched = sentinel([result(time_s=2.0, time_rel_error=0.03), result(time_s=3.0, time_rel_error=0.04)])
    watched.check()
    watched.check()
    assert watched.columns()["sentinel_time_drift_error"] == pytest.approx(1.5 * 0.05)
    assert watched.columns()["sentinel_energy_drift_error"] is None


def test_measurements_that_scatter_by_more_than_they_differ_say_nothing_of_a_drift(now):
    watched = sentinel([result(1.0, 0.4), result(1.22, 0.8), result(10.0, 0.2), result(1.3, 0.3)])
    watched.check()
    seen = []
    for _ in range(3):
        watched.check()
        seen.append((watched.columns()["sentinel_time_drift"], watched.columns()["sentinel_time_drift_error"]))
    # 0.22 +- 1.09 holds everything; 9 +- 4.5 is a drift, though its error is above 100 %
    assert seen == [(None, None), pytest.approx((9.0, 10 * 0.2**0.5)), pytest.approx((0.3, 0.65))]


def test_without_energy_there_is_only_drift_of_time(now):
    watched = sentinel([result(time_s=2.0), result(time_s=2.0)])
    watched.check()
    watched.check()
    assert watched.columns()["sentinel_energy_drift"] is None


def test_the_first_success_is_the_baseline(now):
    watched = sentinel([None, result(time_s=4.0), result(time_s=5.0)])
    watched.check()
    assert watched.columns() == {}
    watched.check()
    watched.check()
    assert watched.columns()["sentinel_time_drift"] == pytest.approx(0.25)


def test_a_sentinel_that_failed_claims_no_drift(now):
    watched = sentinel([result(time_s=4.0), None])
    watched.check()
    watched.check()
    assert watched.columns() == {}


def at_temperature(temperature_c, power_w, throttle="") -> PhaseResult:
    energy = Energy("ok", energy_j=power_w, rel_error=0.004, power_w=power_w, power_rel_error=0.004)
    energy = replace(energy, temperature_c=temperature_c)
    state = GpuState(temperature_c, 1.98e9, 2.6e9, throttle, 700.0)
    return PhaseResult(
        Timing(1.0, 0.001, 10, "cuda_events", True, 1.0, 0.1, 3, 0.01, 3.0), energy, State(state, state, 0, 1)
    )


def test_what_temperature_explains_of_a_drift_is_told_apart(now):
    board = BoardTemperature("NVIDIA H100 80GB HBM3")
    slope = board.slope.at(300.0)[0]
    results = iter([at_temperature(42.0, 300.0), at_temperature(56.0, 300.0 + 14 * slope)])
    watched = Sentinel(lambda: next(results), every_s=10.0, board=board)
    watched.check()
    watched.check()
    columns = watched.columns()
    assert columns["sentinel_energy_drift"] == pytest.approx(14 * slope / 300, rel=1e-6)  # 5 %
    assert columns["sentinel_energy_drift_unexplained"] == pytest.approx(0.0, abs=0.004)
    assert 0.004 < columns["sentinel_energy_drift_unexplained_error"] < 0.03
    assert board.range_k == 14  # the sentinel taught the board


def test_a_drift_beyond_temperature_stays(now):
    board = BoardTemperature("NVIDIA H100 80GB HBM3")
    results = iter([at_temperature(50.0, 300.0), at_temperature(50.0, 330.0)])
    watched = Sentinel(lambda: next(results), every_s=10.0, board=board)
    watched.check()
    watched.check()
    assert watched.columns()["sentinel_energy_drift_unexplained"] == pytest.approx(0.1)


@pytest.mark.parametrize("second", [at_temperature(56.0, 320.0, "sw_power_cap"), result(1.0, energy_j=310.0)])
def test_where_temperature_says_nothing_the_drift_stands_as_it_is(now, second):
    results = iter([at_temperature(50.0, 300.0), second])
    watched = Sentinel(lambda: next(results), every_s=10.0, board=BoardTemperature("NVIDIA H100 80GB HBM3"))
    watched.check()
    watched.check()
    assert watched.columns()["sentinel_energy_drift"] is not None
    assert "sentinel_energy_drift_unexplained" not in watched.columns()
