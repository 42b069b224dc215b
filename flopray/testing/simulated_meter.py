"""A meter whose true energy is known: for tests and benches; nothing else opens it.

The counter of a real device is modelled as power integrated up to each tick, cut to whole quanta and visible from the
tick on. Ticks come with a period and jitter; a read takes a random time and samples the counter somewhere inside it.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from flopray.energy.meter import Characteristics, Reading
from flopray.energy.poller import TickWatcher
from flopray.errors import MeterError
from flopray.testing.power_traces import PowerTrace


class Clock(Protocol):
    """Where a simulated meter gets its time from."""

    def now(self) -> float:
        """Seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Lets time pass."""
        ...


class VirtualClock:
    """A clock that only advances when someone sleeps on it: a minute of readings in a few milliseconds."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        """Seconds that were slept so far, plus the start."""
        return self._now_s

    def sleep(self, seconds: float) -> None:
        """Advances the clock at once."""
        self._now_s += seconds


class RealClock:
    """The host clock of every other meter, for tests with threads."""

    def now(self) -> float:
        """Seconds of `time.perf_counter`."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Blocks the calling thread."""
        time.sleep(seconds)


@dataclass(frozen=True)
class Faults:
    """What can go wrong with a counter, to be injected.

    Attributes:
        missed_tick_rate: fraction of ticks at which the counter does not advance (the next one catches up).
        slow_read_rate: fraction of reads that take ten times as long.
        reset_s: time at which the counter starts again from zero.
        wrap_j: the counter starts again from zero whenever it reaches this value.
        fail_s: from this time on reads raise `MeterError`.
    """

    missed_tick_rate: float = 0.0
    slow_read_rate: float = 0.0
    reset_s: float | None = None
    wrap_j: float | None = None
    fail_s: float | None = None


class SimulatedMeter:
    """See the module's docstring; the attributes are those of `Meter`.

    Args:
        trace: the true power, from time 0 on, which is when the meter is made.
        clock: a `VirtualClock` or a `RealClock`.
        period_s: mean distance of two ticks.
        jitter_rel: standard deviation of that distance over the period.
        latency_s: mean time a read takes; each takes 0.5 to 1.5 times as long.
        sample_at: at which fraction of a read the counter is sampled; None: a random one for each read.
        quantum_j: resolution of the counter.
        start_j: value of the counter at time 0.
        seen_s: how much of each period the sensor sees, at its end; it assumes the same power for the rest
            (https://arxiv.org/abs/2312.02741 found 25 of 100 ms). None: all of it.
        faults: what goes wrong.
        temperature: of the device in Celsius by seconds from time 0 on; None: the device reports none.
        seed: of all random draws.
    """

    source = "simulated"
    changes_on_read = False

    def __init__(
        self,
        trace: PowerTrace,
        clock: Clock | None = None,
        *,
        period_s: float = 0.1,
        jitter_rel: float = 0.01,
        latency_s: float = 0.004,
        sample_at: float | None = None,
        quantum_j: float = 0.001,
        start_j: float = 1000.0,
        seen_s: float | None = None,
        faults: Faults | None = None,
        temperature: Callable[[float], float] | None = None,
        seed: int = 0,
    ) -> None:
        self.read_cost_s = latency_s
        self.characteristics = Characteristics(quantum_j=quantum_j, settle_s=1.5 * period_s)
        self.reads = 0
        self._trace = trace
        self._clock = clock or RealClock()
        self._origin_s = self._clock.now()
        self._period_s, self._jitter_rel = period_s, jitter_rel
        self._latency_s, self._sample_at = latency_s, sample_at
        self._start_j = start_j
        self._faults = faults or Faults()
        self._temperature = temperature
        self._rng = np.random.default_rng(seed)
        self._uniform = iter(())
        self._seen_s = seen_s
        self._tick_s = [-self._rng.random() * period_s]
        self._summed_j = float(trace.energy_j(np.array(self._tick_s))[0])
        self._value_j = [self._visible(np.array(self._tick_s), np.array([self._summed_j]))[0]]

    @property
    def clock(self) -> Clock:
        """The clock that the meter runs on."""
        return self._clock

    def true_energy_j(self, start_s: float, end_s: float) -> float:
        """Energy between two times of the clock, without any counter in between."""
        at_s = np.array([start_s, end_s]) - self._origin_s
        first, last = self._trace.energy_j(at_s)
        return float(last - first)

    def read(self) -> Reading:
        """See `Meter`."""
        self.reads += 1
        latency_s = self._latency_s * (0.5 + self._draw())
        if self._faults.slow_read_rate and self._draw() < self._faults.slow_read_rate:
            latency_s *= 10
        sample_at = self._draw() if self._sample_at is None else self._sample_at
        before_s = self._clock.now()
        self._clock.sleep(latency_s)
        after_s = self._clock.now()
        at_s = before_s + sample_at * (after_s - before_s) - self._origin_s
        if self._faults.fail_s is not None and at_s >= self._faults.fail_s:
            raise MeterError("simulated failure of the meter")
        return Reading(before_s, after_s, self._counter_j(at_s))

    def temperature_c(self) -> float | None:
        """See `Meter`; in whole degrees, as a GPU reports it."""
        return (
            None if self._temperature is None else float(round(self._temperature(self._clock.now() - self._origin_s)))
        )

    def close(self) -> None:
        """See `Meter`."""

    def _draw(self) -> float:
        """A uniform random number from 0 to 1; drawn in blocks, since single draws are slow."""
        value = next(self._uniform, None)
        if value is None:
            self._uniform = iter(self._rng.random(256).tolist())
            value = next(self._uniform)
        return value

    def _counter_j(self, at_s: float) -> float:
        while self._tick_s[-1] <= at_s:
            self._extend()
        return self._value_j[bisect.bisect_right(self._tick_s, at_s) - 1]

    def _extend(self, count: int = 64) -> None:
        """Appends the next ticks and the counter's values at them."""
        gaps = self._period_s * np.maximum(1 + self._jitter_rel * self._rng.standard_normal(count), 0.1)
        ticks_s = self._tick_s[-1] + np.cumsum(gaps)
        values_j = self._visible(ticks_s, self._sum(ticks_s, gaps))
        if self._faults.missed_tick_rate:
            kept = self._rng.random(count) >= self._faults.missed_tick_rate
            kept[-1] = True
            ticks_s, values_j = ticks_s[kept], values_j[kept]
        self._tick_s.extend(ticks_s.tolist())
        self._value_j.extend(values_j.tolist())

    def _sum(self, ticks_s: np.ndarray, gaps_s: np.ndarray) -> np.ndarray:
        """What the sensor has summed up to each tick, from time 0 on, in joules."""
        if self._seen_s is None:
            return self._trace.energy_j(ticks_s)
        seen_j = self._trace.energy_j(ticks_s) - self._trace.energy_j(ticks_s - self._seen_s)
        summed_j = self._summed_j + np.cumsum(seen_j / self._seen_s * gaps_s)
        self._summed_j = float(summed_j[-1])
        return summed_j

    def _visible(self, ticks_s: np.ndarray, summed_j: np.ndarray) -> np.ndarray:
        """What the counter shows from each tick on, in joules."""
        energy_j = self._start_j + summed_j
        if self._faults.reset_s is not None:
            at_reset_j = self._start_j + float(self._trace.energy_j(np.array([self._faults.reset_s]))[0])
            energy_j = np.where(ticks_s >= self._faults.reset_s, energy_j - at_reset_j, energy_j)
        if self._faults.wrap_j is not None:
            energy_j = np.mod(energy_j, self._faults.wrap_j)
        quantum_j = self.characteristics.quantum_j
        return np.floor(energy_j / quantum_j) * quantum_j


def poll_simulated(
    meter: SimulatedMeter, seconds: float, tick_period_s: float | None = None, seed: int | None = None
) -> list[Reading]:
    """What a `Poller` would keep of a meter in the next seconds of its clock, without a thread."""
    watcher = TickWatcher(meter, tick_period_s, seed)
    end_s = meter.clock.now() + seconds
    while meter.clock.now() < end_s:
        meter.clock.sleep(watcher.feed(meter.read()))
    return watcher.readings
