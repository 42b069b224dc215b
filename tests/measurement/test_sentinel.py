"""The sentinel is measured when it is due and says how far the device has drifted since the first time."""

import pytest

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
