"""A window in which the temperature changes: power that follows it is no drift."""

import numpy as np
import pytest

from flopray.energy.estimator import PowerEstimate, estimate_power
from flopray.energy.load import LoadSpan, Warming
from flopray.energy.meter import Characteristics, Temperature
from flopray.testing.power_traces import SampledPower
from flopray.testing.simulated_meter import SimulatedMeter, VirtualClock, poll_simulated

POWER_W, SLOPE_W_PER_K, LENGTH_S = 300.0, 1.2, 1.5
METER = Characteristics(settle_s=0.15, power_noise_rel=0.005)


def estimate(seed: int, *, corrected: bool, told: bool = True) -> tuple[PowerEstimate, float]:
    """Power of a window on a board that warms up by 8 K in it, and the true mean power of its ticks."""
    cell_s = 0.001
    at_s = np.arange(0, 2.0, cell_s)
    true_c = 42.0 + 8.0 * (1 - np.exp(-at_s / 0.5))
    noise = np.repeat(np.random.default_rng(seed).normal(0, 0.005, len(at_s) // 100 + 1), 100)[: len(at_s)]
    power_w = POWER_W * (1 + noise) + SLOPE_W_PER_K * (true_c - 50.0)
    meter = SimulatedMeter(SampledPower(power_w, cell_s), VirtualClock(), jitter_rel=0.01, latency_s=0.004, seed=seed)
    readings = poll_simulated(meter, LENGTH_S, 0.1, seed)
    temperatures = [Temperature(t, float(np.rint(np.interp(t, at_s, true_c)))) for t in np.arange(0, LENGTH_S, 0.1)]
    got = estimate_power(
        readings,
        LoadSpan(0.0, LENGTH_S),
        meter=METER,
        warming=Warming(temperatures if told else (), (lambda power_w: 0.004 * power_w) if corrected else None),
    )
    return got, float(np.mean(power_w[(at_s > 0.2) & (at_s < LENGTH_S - 0.05)]))


def test_its_interval_is_narrower_and_still_holds_the_mean():
    plain = [estimate(seed, corrected=False)[0] for seed in range(60)]
    known = [estimate(seed, corrected=True) for seed in range(60)]
    narrow = np.median([got.power_rel_error for got, _ in known])
    assert narrow < 0.8 * np.median([got.power_rel_error for got in plain])
    assert (
        np.mean([got.drift_significant for got, _ in known]) < 0.1 < np.mean([got.drift_significant for got in plain])
    )
    assert np.mean([abs(got.power_w / truth - 1) <= got.power_rel_error for got, truth in known]) >= 0.9


def test_the_mean_power_stays_what_was_measured():
    ratio = [estimate(s, corrected=True)[0].power_w / estimate(s, corrected=False)[0].power_w for s in range(20)]
    assert np.mean(ratio) == pytest.approx(1.0, abs=1e-3)
    assert np.std(ratio) < 2e-3


def test_the_temperature_is_the_mean_over_its_ticks():
    got, _ = estimate(1, corrected=False)
    at_s = np.linspace(0.2, 1.4, 200)
    assert got.temperature_c == pytest.approx(np.mean(42.0 + 8.0 * (1 - np.exp(-at_s / 0.5))), abs=0.4)
    assert estimate(1, corrected=True, told=False)[0].temperature_c is None
