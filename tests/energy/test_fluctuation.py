"""Candidates for how power may vary between ticks."""

import numpy as np
import pytest

from flopray.energy.fluctuation import SLOW, SWING, WHITE, candidates

TIMES_S = 0.1 * np.arange(12)


def summed(covariance_of_power, cells=1100):
    """Covariance of the energies since the first tick, by adding up small cells of time."""
    edges_s = np.linspace(0, TIMES_S[-1], cells + 1)
    middle_s, cell_s = (edges_s[1:] + edges_s[:-1]) / 2, edges_s[1]
    inside = (middle_s[None, :] < TIMES_S[:, None]) * cell_s
    return inside @ covariance_of_power(np.abs(middle_s[:, None] - middle_s[None, :])) @ inside.T


@pytest.mark.parametrize(("sd", "damping_s", "period_s"), SWING)
def test_a_swing_is_the_integral_of_a_damped_oscillation(sd, damping_s, period_s):
    known = candidates(TIMES_S, 0.1)
    number = len(WHITE) * len(SLOW) + list(SWING).index((sd, damping_s, period_s))
    (least_sd, least_tau_s), *_ = SLOW
    expected = summed(
        lambda apart_s: (
            sd**2 * np.exp(-apart_s / damping_s) * np.cos(2 * np.pi * apart_s / period_s)
            + least_sd**2 * np.exp(-apart_s / least_tau_s)
        )
    )
    assert known.covariance[number] == pytest.approx(expected, rel=1e-3, abs=1e-6 * expected.max())
    assert known.weight[number] == SWING[sd, damping_s, period_s]


def test_power_that_wanders_is_the_integral_of_its_covariance():
    known = candidates(TIMES_S, 0.1)
    for number, ((sd, tau_s), weight) in enumerate(SLOW.items()):
        expected = summed(lambda apart_s, sd=sd, tau_s=tau_s: sd**2 * np.exp(-apart_s / tau_s))
        assert known.covariance[number] == pytest.approx(expected, rel=1e-3, abs=1e-6 * expected.max())
        assert known.weight[number] == pytest.approx(WHITE[0.0] * weight)


def test_a_drift_is_told_without_swings():
    assert len(candidates(TIMES_S, 0.1, slow=False).weight) == len(WHITE)


def test_each_swing_meets_each_pattern_of_a_long_iteration():
    short, long = candidates(TIMES_S, 0.1), candidates(TIMES_S, 0.1, iterations=TIMES_S / 0.05, iteration_s=0.05)
    assert len(long.weight) % len(short.weight) == 0
    assert len(short.weight) == len(WHITE) * len(SLOW) + len(SWING)
