"""The interval of a mean covers the truth as often as it says, also where neighbours are alike."""

import numpy as np
import pytest

from flopray.statistics import GROUPS, batch_mean, in_quadrature

TRUTH = 10.0


def coverage(series) -> float:
    """Share of the series whose stated interval holds the truth."""
    inside = 0
    for values in series:
        mean = batch_mean(values)
        inside += abs(mean.value - TRUTH) <= mean.rel_error * mean.value
    return inside / len(series)


def correlated(rng, count, length, phi):
    """AR(1) series around the truth with a standard deviation of 1."""
    noise = rng.standard_normal((count, length)) * np.sqrt(1 - phi**2)
    values = np.empty((count, length))
    values[:, 0] = rng.standard_normal(count)
    for i in range(1, length):
        values[:, i] = phi * values[:, i - 1] + noise[:, i]
    return TRUTH + values


@pytest.mark.parametrize("length", [3, 5, 19, 20, 47, 200, 1000])
def test_independent_values_are_covered_in_95_of_100_cases(length):
    series = TRUTH + np.random.default_rng(length).standard_normal((3000, length))
    assert 0.935 <= coverage(series) <= 0.965


def test_groups_keep_most_of_the_coverage_where_neighbours_are_alike():
    series = correlated(np.random.default_rng(1), 2000, 1000, 0.8)
    naive = [1.96 * values.std(ddof=1) / np.sqrt(len(values)) for values in series]
    naive_coverage = np.mean([abs(v.mean() - TRUTH) <= h for v, h in zip(series, naive, strict=True)])
    assert naive_coverage < 0.60  # what a plain standard error would have claimed to be 95 %
    assert coverage(series) > 0.90


def test_the_error_falls_with_the_square_root_of_the_length():
    rng = np.random.default_rng(2)
    short, long = (
        np.mean([batch_mean(v).rel_error for v in TRUTH + rng.standard_normal((300, n))]) for n in (100, 1600)
    )
    assert short / long == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("count", [1, 2])
def test_few_values_say_nothing_about_their_error(count):
    mean = batch_mean([2.0] * count)
    assert mean.value == 2.0
    assert mean.rel_error == float("inf")


def test_equal_values_have_no_error():
    assert batch_mean([0.25] * 8 * GROUPS).rel_error == 0.0


def test_the_mean_is_of_all_values_also_of_those_that_fill_no_group():
    values = [100.0] * 7 + [1.0] * (2 * GROUPS)
    mean = batch_mean(values)
    assert mean.value == pytest.approx(np.mean(values))


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
