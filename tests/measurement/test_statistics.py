"""The interval of a mean covers the truth as often as it says, also for correlated neighbours."""

from pathlib import Path

import numpy as np
import pytest

from flopray.measurement.statistics import FEWEST_LONG_LAPS, batch_mean, half_widths, in_quadrature, student_half_widths

ROOT = Path(__file__).parents[2]
SERIES = 400  # a coverage of 0.93 is then known to 0.013
ENOUGH = 0.90 - 0.015


@pytest.fixture(scope="module")
def lap_coverage():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench"))
        import lap_coverage

        yield lap_coverage


def coverage(laps, truth=10.0):
    return np.mean(np.abs(laps.mean(axis=1) - truth) <= half_widths(laps))


@pytest.mark.slow
@pytest.mark.parametrize("length", [25, 50, 100, 300])
@pytest.mark.parametrize(
    "kind",
    [
        *("independent", "AR(1) 0.3", "AR(1) 0.5", "AR(1) 0.7", "AR(1) 0.9", "AR(1) -0.5", "AR(1) -0.9"),
        *("two states of 2.5 laps", "two states of 5 laps", "period 2", "period 3", "period 5", "bimodal"),
        *("lognormal 0.5", "lognormal 1", "three states of 2.5 laps", "three states of 5 laps"),
        *("moving average of 2", "moving average of 5", "swing of 8 laps"),
    ],
)
def test_laps_of_every_kind_are_covered(lap_coverage, kind, length):
    laps = lap_coverage.SERIES[kind](np.random.default_rng([1, length]), SERIES, length)
    assert coverage(laps) >= ENOUGH


@pytest.mark.parametrize("length", [50, 100, 300])
def test_states_of_a_tenth_of_the_window_are_covered(lap_coverage, length):
    from lap_series import two_states

    states = two_states(10 / length, 10 / length)
    assert coverage(states(np.random.default_rng(length), SERIES, length)) >= ENOUGH


@pytest.mark.parametrize("length", [25, 26, 30, 50, 100, 300, 1000])
def test_coverage_does_not_hide_in_width(length):
    laps = 10 + np.random.default_rng(length).standard_normal((SERIES, length))
    assert np.median(half_widths(laps) / student_half_widths(laps)) <= 1.3
    assert coverage(laps) >= 0.94


def test_students_interval_would_not_have_held(lap_coverage):
    laps = lap_coverage.SERIES["AR(1) 0.9"](np.random.default_rng(1), SERIES, 50)
    assert np.mean(np.abs(laps.mean(axis=1) - 10) <= student_half_widths(laps)) < 0.45


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "scatter", "target"),
    [
        ("independent", 0.05, 0.02),
        ("AR(1) 0.7", 0.05, 0.02),
        ("AR(1) 0.9", 0.01, 0.01),
        ("two states of 5 laps", 0.05, 0.02),
        ("period 2", 0.05, 0.02),
        ("bimodal", 0.05, 0.02),
    ],
)
def test_windows_that_the_stopping_rule_ends_are_covered(lap_coverage, kind, scatter, target):
    laps = lap_coverage.SERIES[kind](np.random.default_rng(3), SERIES // 2, 300)
    laps = 10 * (1 + scatter * (laps - 10) / np.std(laps - 10))
    held, converged, _ = lap_coverage.stopped(laps, target)
    assert held.mean() >= ENOUGH
    assert held[converged].mean() >= ENOUGH
    assert converged.mean() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("scatter", "target"), [(0.05, 0.02), (0.1, 0.05)])
def test_where_300_laps_hardly_tell_few_windows_are_said_to_converge(lap_coverage, scatter, target):
    """With a known AR(1) 0.9, the half width after 300 laps would be 1.2 and 0.96 times these targets."""
    laps = lap_coverage.SERIES["AR(1) 0.9"](np.random.default_rng(5), SERIES // 2, 300)
    laps = 10 * (1 + scatter * (laps - 10) / np.std(laps - 10))
    held, converged, _ = lap_coverage.stopped(laps, target)
    assert converged.mean() <= 0.25
    assert np.mean(converged & ~held) <= 0.05
    assert held.mean() >= 0.92


@pytest.mark.parametrize("length", [25, 50, 100])
def test_independent_laps_do_not_pay_for_it(length):
    laps = 10 + np.random.default_rng(length).standard_normal((SERIES, length))
    assert np.median(half_widths(laps, stopping=True) / half_widths(laps)) <= 1.0


def test_laps_that_alternate_do_not_widen_the_interval(lap_coverage):
    laps = lap_coverage.SERIES["period 2"](np.random.default_rng(2), 50, 100)
    assert np.median(half_widths(laps) / student_half_widths(laps)) < 0.3


def test_the_error_falls_with_the_square_root_of_the_length():
    rng = np.random.default_rng(2)
    short, long = (np.median(half_widths(10 + rng.standard_normal((300, laps)))) for laps in (200, 3200))
    assert short / long == pytest.approx(4.0, rel=0.1)


def test_few_laps_state_no_error_and_say_why():
    mean = batch_mean([1.0, 2.0] * 6)
    assert (mean.value, mean.rel_error) == (1.5, float("inf"))
    assert mean.reason == "12 laps tell too little about their scatter: 25 are needed"
    assert batch_mean([1.0, 2.0] * 12).reason
    assert batch_mean([1.0, 2.0] * 13).reason is None


def test_laps_of_long_iterations_have_an_error_from_five_on():
    laps = 10 + np.random.default_rng(5).standard_normal((SERIES, FEWEST_LONG_LAPS))
    means = [batch_mean(values, fewest=FEWEST_LONG_LAPS) for values in laps]
    assert np.mean([abs(mean.value - 10) <= mean.rel_error * mean.value for mean in means]) >= 0.95
    assert batch_mean(laps[0, :4], fewest=FEWEST_LONG_LAPS).rel_error == float("inf")


@pytest.mark.parametrize("count", [1, 2])
def test_few_values_say_nothing_about_their_error(count):
    mean = batch_mean([2.0] * count)
    assert mean.value == 2.0
    assert mean.rel_error == float("inf")


def test_equal_values_have_no_error():
    assert batch_mean([0.25] * 160).rel_error == 0.0


def test_a_mean_that_is_not_positive_has_no_relative_error():
    assert batch_mean([0.0] * 50).rel_error == float("inf")


def test_the_unit_does_not_matter():
    values = 1 + 0.1 * np.random.default_rng(3).random(200)
    assert batch_mean(values * 1e-6).rel_error == pytest.approx(batch_mean(values).rel_error)


def test_independent_errors_add_as_the_sides_of_a_right_angle():
    assert in_quadrature(0.03, 0.04) == pytest.approx(0.05)
    assert in_quadrature(-0.03, 0.04) == pytest.approx(0.05)
    assert in_quadrature(0.02) == pytest.approx(0.02)
    assert in_quadrature() == 0.0
