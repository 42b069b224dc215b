"""The simulated meter itself: the truth of the other tests must be true."""

import numpy as np
import pytest

from flopray.errors import MeterError
from flopray.testing.power_traces import (
    ConstantPower,
    NoisyPower,
    RampPower,
    SinePower,
    SquarePower,
    StepPower,
    swinging_power,
    switching_power,
    wandering_power,
)
from flopray.testing.simulated_meter import Faults, SimulatedMeter, VirtualClock


@pytest.mark.parametrize(
    "trace",
    [
        *(
            ConstantPower(100.0),
            RampPower(100.0, 7.0),
            StepPower(100.0, 50.0, 1.3),
            NoisyPower(100.0, 0.1, 0.01, 3.0, 1),
        ),
        *(SquarePower(100.0, 45.0, 0.095, 0.2, 0.3), SinePower(100.0, 10.0, 0.5, 0.2)),
        *(wandering_power(100.0, 0.02, 0.5, 3.0, 1), switching_power(100.0, 0.01, 0.5, 3.0, 1)),
        swinging_power(100.0, 0.02, 0.5, 1.0, 3.0, 1),
    ],
)
def test_energy_is_the_integral_of_power(trace):
    """Compared with a numerical derivative and its sum, which are independent of the closed forms."""
    at_s = np.linspace(0, 2.5, 25_001)
    energy_j = trace.energy_j(at_s)
    power_w = np.gradient(energy_j, at_s)
    assert np.sum(power_w) * (at_s[1] - at_s[0]) == pytest.approx(energy_j[-1] - energy_j[0], rel=1e-3)
    if isinstance(trace, RampPower):
        assert power_w[20_000] == pytest.approx(100 + 7 * 2.0, rel=1e-3)
    if isinstance(trace, StepPower):
        assert (power_w[12_900], power_w[13_100]) == (pytest.approx(100), pytest.approx(50))
    if isinstance(trace, NoisyPower):
        assert power_w[:-1].reshape(-1, 100).mean(axis=1).std() == pytest.approx(10.0, rel=0.2)


def test_reads_show_the_counter_at_the_last_tick():
    meter = SimulatedMeter(
        ConstantPower(100.0), VirtualClock(50.0), period_s=0.1, jitter_rel=0.0, latency_s=0.002, seed=4
    )
    previous = meter.read()
    values = {previous.energy_j}
    for _ in range(2000):
        reading = meter.read()
        assert 0.001 <= reading.after_s - reading.before_s <= 0.003
        assert reading.before_s == previous.after_s
        # never ahead of the truth, never more than a tick behind it
        shown_j = reading.energy_j - 1000.0
        assert shown_j <= meter.true_energy_j(50.0, reading.after_s) + 1e-9
        assert shown_j >= meter.true_energy_j(50.0, reading.before_s) - 100 * 0.1 - 0.001 - 1e-9
        values.add(reading.energy_j)
        previous = reading
    assert len(values) == pytest.approx(2001 * 0.002 / 0.1, abs=2)
    assert all(abs(value * 1000 - round(value * 1000)) < 1e-6 for value in values)


def test_noise_that_wanders_has_its_size_and_its_memory():
    power_w = np.diff(wandering_power(100.0, 0.02, 0.5, 2000.0, 1).energy_j(np.arange(0, 2000.0, 0.1))) / 0.1
    assert power_w.std() == pytest.approx(2.0 * 0.97, rel=0.05)
    assert np.corrcoef(power_w[5:], power_w[:-5])[0, 1] == pytest.approx(np.exp(-1), abs=0.08)


def test_power_that_swings_has_its_size_and_comes_back_after_a_period():
    power_w = np.diff(swinging_power(100.0, 0.02, 0.5, 1.0, 2000.0, 1).energy_j(np.arange(0, 2000.0, 0.05))) / 0.05
    assert power_w.std() == pytest.approx(2.0, rel=0.05)
    half_s, whole_s = 10, 20
    assert np.corrcoef(power_w[half_s:], power_w[:-half_s])[0, 1] == pytest.approx(-np.exp(-1), abs=0.08)
    assert np.corrcoef(power_w[whole_s:], power_w[:-whole_s])[0, 1] == pytest.approx(np.exp(-2), abs=0.08)


def test_a_sensor_that_sees_part_of_each_tick_takes_it_for_all():
    """Iterations of 100 ms with 20 ms of half the power: the last 25 ms of a tick hold all of these 20 ms or nothing,
    so that each tick of one counter adds from 6 to 10 J, where all of the time adds 9 J."""
    trace = SquarePower(100.0, 50.0, 0.1, 0.2)
    shown_j = []
    for seed in range(12):
        meter = SimulatedMeter(trace, VirtualClock(), jitter_rel=0.0, seen_s=0.025, seed=seed)
        steps_j = np.diff(np.unique([meter.read().energy_j for _ in range(500)]))
        assert len(steps_j) > 15
        assert np.ptp(steps_j) < 0.01
        shown_j.append(steps_j[0])
    assert trace.mean_w == 90.0
    assert 6.0 <= min(shown_j) + 0.01 < 7.0
    assert max(shown_j) == pytest.approx(10.0, abs=0.01)


def test_same_seed_same_readings():
    def readings(seed):
        meter = SimulatedMeter(NoisyPower(100.0, 0.1, 0.01, 3.0, 1), VirtualClock(), seed=seed)
        return [meter.read() for _ in range(500)]

    assert readings(1) == readings(1)
    assert readings(1) != readings(2)


def test_faults():
    def values(**faults):
        meter = SimulatedMeter(ConstantPower(100.0), VirtualClock(), latency_s=0.01, faults=Faults(**faults), seed=1)
        return np.array([meter.read().energy_j for _ in range(300)])

    plain = values()
    assert np.all(np.diff(plain) >= 0)
    assert np.sum(np.diff(values(reset_s=1.5)) < 0) == 1
    assert np.sum(np.diff(values(wrap_j=100.0)) < 0) == pytest.approx(3, abs=1)
    assert len(set(values(missed_tick_rate=0.5))) < 0.7 * len(set(plain))
    with pytest.raises(MeterError):
        values(fail_s=1.0)
