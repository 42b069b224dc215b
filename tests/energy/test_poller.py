"""The poller: on the real clock with threads, and its logic on a virtual one."""

import time
from dataclasses import replace

import numpy as np
import pytest

from flopray.energy.estimator import estimate_power
from flopray.energy.idle import idle_power
from flopray.energy.load import LoadSpan
from flopray.energy.meter import Characteristics
from flopray.energy.poller import Poller, TickWatcher
from flopray.energy.ticks import find_ticks
from flopray.errors import MeterError, WindowTooShort
from flopray.testing.power_traces import ConstantPower
from flopray.testing.simulated_meter import Faults, RealClock, SimulatedMeter, VirtualClock, poll_simulated


def real_meter(seed=0, **options):
    settings = {"period_s": 0.05, "jitter_rel": 0.01, "latency_s": 0.002, **options}
    return SimulatedMeter(ConstantPower(300.0), RealClock(), seed=seed, **settings)


@pytest.mark.slow
def test_threaded_poller_measures_power():
    meter = real_meter()
    start_s = time.perf_counter()
    with Poller(meter) as poller:
        time.sleep(1.2)
        running = poller.readings()
        end_s = time.perf_counter()
        readings = poller.stop()
    got = estimate_power(readings, LoadSpan(start_s, end_s), meter=Characteristics(settle_s=0.0))
    assert abs(got.power_w / 300 - 1) < max(0.01, 2 * got.power_rel_error)
    assert 20 <= poller.ticks <= 25
    assert running == readings[: len(running)]
    assert poller.tick_period_s == pytest.approx(0.05, rel=0.05)
    assert poller.stop() == readings


def test_poller_reads_seldom_once_it_knows_the_period():
    """All reads of two seconds at 4 ms each would be 500; five a tick are enough."""
    meter = SimulatedMeter(ConstantPower(300.0), VirtualClock(), period_s=0.1, latency_s=0.004, seed=1)
    readings = poll_simulated(meter, 10.0, 0.1, seed=2)
    ticks = find_ticks(readings)
    assert len(ticks) >= 97
    assert meter.reads < 6.5 * len(ticks)
    assert np.percentile(ticks.width_s, 95) < 3 * 0.004


def test_fast_counters_are_not_chased():
    """A counter that ticks every millisecond (RAPL) is read around one tick in twenty or so, and still correctly."""
    meter = SimulatedMeter(
        ConstantPower(80.0), VirtualClock(), period_s=0.001, latency_s=0.00002, quantum_j=61e-6, seed=1
    )
    readings = poll_simulated(meter, 5.0, seed=2)
    ticks = find_ticks(readings)
    assert 150 < len(ticks) < 600
    got = estimate_power(readings, LoadSpan(0.0, 5.0), meter=Characteristics(quantum_j=61e-6))
    assert got.power_w == pytest.approx(80.0, rel=0.001)


def test_a_wrong_period_is_unlearned():
    meter = SimulatedMeter(ConstantPower(300.0), VirtualClock(), period_s=0.1, latency_s=0.004, seed=1)
    for wrong_s in (0.07, 0.02, 0.21):
        watcher = TickWatcher(meter, wrong_s, seed=3)
        end_s = meter.clock.now() + 5.0
        while meter.clock.now() < end_s:
            meter.clock.sleep(watcher.feed(meter.read()))
        ticks = find_ticks(watcher.readings)
        late = ticks.width_s[len(ticks) // 2 :]
        assert np.median(late) < 0.015, wrong_s


def test_dense_reads_are_not_locked_to_the_counter():
    """A counter and reads without any scatter: the place of the tick between two reads still varies from tick to tick.

    If it were locked or drifting, errors of neighbouring ticks would be correlated, which the regression cannot see.
    """

    class Regular(SimulatedMeter):
        def _draw(self):
            return 0.5

    meter = Regular(ConstantPower(300.0), VirtualClock(), period_s=0.1, jitter_rel=0.0, latency_s=0.004, seed=1)
    ticks = find_ticks(poll_simulated(meter, 60.0, 0.1, seed=2))
    true_s = (ticks.energy_j - 1000.0) / 300.0
    error_s = ticks.time_s - true_s
    error_s -= error_s.mean()
    assert error_s.std() > 0.0005
    assert abs(np.corrcoef(error_s[1:], error_s[:-1])[0, 1]) < 0.15


def test_meter_that_changes_on_read_gives_a_tick_for_each_read():
    class OnRead(SimulatedMeter):
        changes_on_read = True

        def _counter_j(self, at_s):
            return 300.0 * at_s

    meter = OnRead(ConstantPower(300.0), VirtualClock(), latency_s=0.0005)
    readings = poll_simulated(meter, 2.0)
    got = estimate_power(readings, LoadSpan(0.0, 2.0))
    assert got.power_w == pytest.approx(300.0, rel=0.001)
    assert got.tick_period_s == pytest.approx(0.02, rel=0.1)
    ticks = find_ticks(readings)
    assert np.max(ticks.width_s) < 0.001


def test_failure_in_the_thread_reaches_the_caller():
    meter = real_meter(faults=Faults(fail_s=0.1))
    poller = Poller(meter).start()
    time.sleep(0.3)
    with pytest.raises(MeterError, match="simulated failure"):
        poller.readings()
    with pytest.raises(MeterError, match="simulated failure"):
        poller.stop()


def test_unexpected_exception_in_the_thread_is_typed():
    class Broken(SimulatedMeter):
        def read(self):
            raise ZeroDivisionError("oops")

    poller = Poller(Broken(ConstantPower(1.0))).start()
    with pytest.raises(MeterError, match="oops"):
        poller.stop()


def test_poller_starts_once_and_stops():
    poller = Poller(real_meter(period_s=0.2), 0.2).start()
    with pytest.raises(RuntimeError):
        poller.start()
    time.sleep(0.3)
    poller.stop()
    assert Poller(real_meter()).stop() == []


def test_leaving_the_context_ends_the_thread_even_after_an_error():
    meter = real_meter()
    with pytest.raises(KeyError), Poller(meter):
        raise KeyError
    reads = meter.reads
    time.sleep(0.05)
    assert meter.reads == reads


def test_idle_power():
    meter = real_meter()
    meter.characteristics = replace(meter.characteristics, rel_error=0.05)
    got = idle_power(meter, 0.5)
    assert got.power_w == pytest.approx(300.0, rel=0.02)
    assert got.window_s < 0.7
    assert got.power_rel_error > 0.05


@pytest.mark.slow
def test_idle_power_goes_on_until_there_are_enough_ticks():
    got = idle_power(real_meter(period_s=0.2), 0.1)
    assert got.ticks >= 3
    assert got.power_w == pytest.approx(300.0, rel=0.05)


def test_idle_power_gives_up_on_a_dead_counter():
    with pytest.raises(WindowTooShort):
        idle_power(real_meter(period_s=1000.0), 0.1, max_seconds=0.3)


def test_ticks_that_were_slept_over_are_none_and_the_next_one_is_sharp():
    """A counter that ticks every millisecond is read every 20 ms: the time of its gain in between is unknown."""
    meter = SimulatedMeter(ConstantPower(50.0), VirtualClock(), period_s=0.001, latency_s=0.0001, quantum_j=61e-6)
    ticks = find_ticks(poll_simulated(meter, 2.0, 0.001, 0))
    assert 80 <= len(ticks) <= 110
    assert np.median(ticks.width_s) < 0.001
    assert (ticks.energy_j[-1] - ticks.energy_j[0]) / (ticks.time_s[-1] - ticks.time_s[0]) == pytest.approx(50.0, 0.001)


def test_what_was_taken_is_forgotten_but_for_the_reading_that_goes_on():
    poller = Poller(real_meter(period_s=0.02)).start()
    taken = []
    for _ in range(3):
        time.sleep(0.1)
        taken.append(poller.take())
    poller.stop()
    last = poller.take()
    assert all(one[-1] == after[0] for one, after in zip(taken, [*taken[1:], last], strict=True))
    whole = taken[0] + [reading for part in [*taken[1:], last] for reading in part[1:]]
    assert len(find_ticks(whole)) == poller.ticks
    assert poller.take() == last[-1:]
    assert poller.failure is None
