"""The estimator against truth: simulated counters with known energy, polled like real ones."""

import math

import numpy as np
import pytest

from flopray.energy.estimator import estimate_power
from flopray.energy.iterations import Iterations
from flopray.energy.load import LoadSpan
from flopray.energy.meter import Characteristics
from flopray.testing.power_traces import ConstantPower, NoisyPower, RampPower, SquarePower, StepPower
from flopray.testing.simulated_meter import SimulatedMeter, VirtualClock, poll_simulated

CASES = 1_200


def random_case(seed):
    """One counter and one window, all drawn at random: relative error, stated error, ticks, drift flagged."""
    rng = np.random.default_rng(seed)
    period_s = rng.uniform(0.02, 0.2)
    power_w = math.exp(rng.uniform(math.log(20), math.log(700)))
    quantum_j = 0.001 if rng.random() < 0.7 else 10 ** rng.uniform(-3, -2)
    meter = SimulatedMeter(
        ConstantPower(power_w),
        VirtualClock(rng.uniform(0, 1000)),
        period_s=period_s,
        jitter_rel=rng.uniform(0, 0.05),
        latency_s=rng.uniform(0.001, 0.010),
        sample_at=rng.random() if rng.random() < 0.5 else None,
        quantum_j=quantum_j,
        seed=seed,
    )
    start_s = meter.clock.now()
    length_s = 0.15 + rng.uniform(4, 26) * period_s
    readings = poll_simulated(meter, length_s, period_s if rng.random() < 0.5 else None, seed)
    got = estimate_power(readings, LoadSpan(start_s, start_s + length_s), meter=Characteristics(quantum_j=quantum_j))
    return got.power_w / power_w - 1, got.power_rel_error, got.ticks, got.drift_significant


@pytest.fixture(scope="module")
def constant_power():
    return np.array([random_case(seed) for seed in range(CASES)], dtype=float)


@pytest.mark.slow
def test_stated_interval_covers_the_truth_in_95_percent(constant_power):
    error, stated, ticks, _ = constant_power.T
    covered = np.abs(error) <= stated
    assert covered.mean() >= 0.95
    # not only on average: short and long windows alike, with room for the share of few cases
    for low, high in ((5, 8), (8, 14), (14, 27)):
        some = covered[(ticks >= low) & (ticks < high)]
        assert len(some) > 100
        assert some.mean() >= 0.95, (low, high, some.mean())


@pytest.mark.slow
def test_stated_interval_is_not_wide_for_nothing(constant_power):
    """The interval of steady power is wider because power might vary, and narrows with each tick."""
    error, stated, ticks, _ = constant_power.T
    for low, high, most in ((8, 14, 6.0), (14, 27, 4.0)):
        some = (ticks >= low) & (ticks < high)
        assert np.median(stated[some]) < most * np.percentile(np.abs(error[some]), 95)


@pytest.mark.slow
def test_estimate_is_not_biased(constant_power):
    error, stated, _, _ = constant_power.T
    pull = error / stated
    assert abs(pull.mean()) < 4 * pull.std() / math.sqrt(CASES)


def test_constant_power_is_rarely_called_drifting(constant_power):
    assert constant_power[:, 3].mean() < 0.05


def counter(trace, seed, **options):
    settings = {"period_s": 0.1, "jitter_rel": 0.01, "latency_s": 0.004, **options}
    return SimulatedMeter(trace, VirtualClock(), seed=seed, **settings)


def measured(trace, seconds, seed, settle_s=0.15, known_noise=0.0, **options):
    meter = counter(trace, seed, **options)
    readings = poll_simulated(meter, seconds, 0.1, seed)
    known = Characteristics(settle_s=settle_s, power_noise_rel=known_noise)
    return estimate_power(readings, LoadSpan(0.0, seconds), meter=known), meter


def test_error_falls_as_theory_says():
    """n ticks T apart with independent errors s: rel. error s/T * sqrt(12 / (n (n^2 - 1))), so n**-1.5 at best.

    The weights of the ticks allow for power that wanders, which makes it somewhat larger.
    s: latencies are uniform in (0.5, 1.5) L and sampled at random, which makes the tick's interval 2 L wide in the
    mean and s between 0.35 and 0.5 L.
    """
    counts, rms = np.array([5, 10, 20, 40, 80]), []
    for count in counts:
        errors = [
            measured(ConstantPower(300.0), 0.05 + count * 0.1, seed, settle_s=0.05)[0].power_w / 300 - 1
            for seed in range(60)
        ]
        rms.append(np.sqrt(np.mean(np.square(errors))))
    slope = np.polyfit(np.log(counts), np.log(rms), 1)[0]
    assert -1.65 < slope < -1.1
    for count, error in zip(counts, rms, strict=True):
        unit = 0.004 / 0.1 * math.sqrt(12 / (count * (count**2 - 1)))
        assert 0.3 * unit < error < 1.5 * unit


def test_error_from_fluctuating_power_falls_with_the_root():
    """Where the power itself fluctuates, its mean is only as good as the number of ticks: n**-0.5."""
    counts, rms = np.array([5, 20, 80]), []
    for count in counts:
        errors = []
        for seed in range(60):
            trace = NoisyPower(300.0, 0.05, 0.1, 0.2 + count * 0.1, seed)
            got, _ = measured(trace, 0.05 + count * 0.1, seed, settle_s=0.05, latency_s=0.0002, jitter_rel=0.0)
            errors.append(got.power_w / 300 - 1)
        rms.append(np.sqrt(np.mean(np.square(errors))))
    assert np.polyfit(np.log(counts), np.log(rms), 1)[0] == pytest.approx(-0.5, abs=0.12)


def test_known_noise_of_the_meter_makes_intervals_honest():
    """Two percent of scatter a tick can hardly be seen in ten ticks, but it can be known."""
    covered = {0.0: 0, 0.02: 0}
    for noise in covered:
        for seed in range(100):
            trace = NoisyPower(300.0, 0.02, 0.1, 2.0, seed)
            got, _ = measured(trace, 1.2, seed, known_noise=noise)
            covered[noise] += abs(got.power_w / 300 - 1) <= got.power_rel_error
    assert covered[0.0] / 100 >= 0.92
    assert covered[0.02] / 100 >= 0.92


def test_strong_noise_is_found_without_being_told():
    covered = 0
    for seed in range(100):
        trace = NoisyPower(300.0, 0.2, 0.1, 6.0, seed)
        got, _ = measured(trace, 5.0, seed)
        covered += abs(got.power_w / 300 - 1) <= got.power_rel_error
        assert got.power_noise_rel > 0.05
    assert covered / 100 >= 0.88


@pytest.mark.parametrize("rel_per_window", [0.05, -0.05, 0.2])
def test_ramps_are_detected_with_their_size(rel_per_window):
    seconds = 3.0
    drifts, found = [], 0
    for seed in range(60):
        got, _ = measured(RampPower(300.0, 300.0 * rel_per_window / seconds), seconds, seed)
        drifts.append(got.drift_rel * seconds / got.window_s)
        found += got.drift_significant
    expected = rel_per_window / (1 + rel_per_window / 2)
    assert np.mean(drifts) == pytest.approx(expected, rel=0.1)
    assert found >= 57


def test_interval_of_a_ramp_reaches_both_ends():
    trace = RampPower(300.0, 10.0)
    got, _ = measured(trace, 3.0, 1)
    assert got.drift_significant
    for at_s in (0.3, 2.9):
        assert got.power_w * (1 - 1.1 * got.power_rel_error) <= 300 + 10 * at_s
        assert got.power_w * (1 + 1.1 * got.power_rel_error) >= 300 + 10 * at_s


@pytest.mark.parametrize("step_s", [0.8, 1.5, 2.2])
def test_steps_are_detected(step_s):
    found = [measured(StepPower(300.0, 345.0, step_s), 3.0, seed)[0].drift_significant for seed in range(60)]
    assert np.mean(found) > 0.9


def test_start_transient_is_dropped():
    """The load starts 0.5 s before the polling does; with 40 times the power, one wrong tick would show."""
    trace = StepPower(20.0, 600.0, 1.0)
    for seed in range(30):
        meter = counter(trace, seed)
        readings = poll_simulated(meter, 2.5, 0.1, seed)
        got = estimate_power(readings, LoadSpan(1.0, 2.5))
        assert abs(got.power_w / 600 - 1) < 0.01
        assert got.ticks in (13, 14)


def test_power_after_the_end_does_not_count():
    trace = StepPower(600.0, 60.0, 2.0)
    for seed in range(30):
        meter = counter(trace, seed)
        readings = poll_simulated(meter, 3.0, 0.1, seed)
        got = estimate_power(readings, LoadSpan(0.0, 2.0))
        assert abs(got.power_w / 600 - 1) < 0.006


@pytest.mark.slow
def test_stopping_at_the_target_does_not_pick_lucky_windows():
    """Stopping as soon as the stated error is small favours windows that look good by chance; still 95 %."""
    covered, loads_s = [], []
    for seed in range(60):
        readings = poll_simulated(counter(ConstantPower(300.0), seed), 3.0, 0.1, seed)
        for end_s in np.arange(0.55, 3.0, 0.1):
            seen = [r for r in readings if r.after_s <= end_s]
            got = estimate_power(seen, LoadSpan(0.0, end_s))
            if got.power_rel_error <= 0.01:
                break
        covered.append(abs(got.power_w / 300 - 1) <= got.power_rel_error)
        loads_s.append(end_s)
    assert np.mean(covered) >= 0.92
    assert np.median(loads_s) < 1.7


@pytest.mark.parametrize(
    ("period_s", "ratio", "seen"),
    [(0.05, 0.5, 0.25), (0.05, 1.0, 0.25), (0.05, 0.95, 0.25), (0.02, 1.0, 0.5), (0.02, 2.0, 0.5)],
)
def test_counters_that_tick_faster_see_less_of_an_iteration(period_s, ratio, seen):
    """A sensor that sees a part of each tick of 20 or 50 ms is wrong by up to 58 % where ticks beat with iterations."""
    for seed in range(4):
        trace = SquarePower(300.0, 135.0, ratio * period_s, 0.2, seed / 4)
        meter = SimulatedMeter(trace, VirtualClock(), period_s=period_s, seen_s=seen * period_s, seed=seed)
        readings = poll_simulated(meter, 2.0, period_s, seed)
        power = estimate_power(readings, LoadSpan(0.0, 2.0, Iterations.regular(ratio * period_s, 0.0, 2.0)))
        assert abs(power.power_w / trace.mean_w - 1) <= power.power_rel_error
        assert (power.unseen_share > 0.2) == (ratio != 0.95)
        whole = Characteristics(seen_share=1.0)  # a counter that is known to add up all power
        every = SimulatedMeter(trace, VirtualClock(), period_s=period_s, seed=seed)
        power = estimate_power(
            poll_simulated(every, 2.0, period_s, seed),
            LoadSpan(0.0, 2.0, Iterations.regular(ratio * period_s, 0.0, 2.0)),
            meter=whole,
        )
        assert power.unseen_share == 0.0
        assert abs(power.power_w / trace.mean_w - 1) <= power.power_rel_error < 0.2
