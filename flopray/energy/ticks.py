"""From readings to ticks: when the counter advanced, as far as the readings tell, and how often it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flopray.energy.meter import Reading
from flopray.errors import WindowTooShort


@dataclass(frozen=True)
class Ticks:
    """Ticks of a counter; all arrays have shape (n,).

    Attributes:
        after_s, before_s: the tick happened after the one and before the other: the start of the last read that gave
            the old value, and the end of the first read that gave the new one.
        energy_j: the counter from the tick on.
        segment: 0, and 1 more after each reset or wrap-around of the counter.
    """

    after_s: np.ndarray
    before_s: np.ndarray
    energy_j: np.ndarray
    segment: np.ndarray

    @property
    def time_s(self) -> np.ndarray:
        """Middle of the interval that holds the tick."""
        return (self.after_s + self.before_s) / 2

    @property
    def width_s(self) -> np.ndarray:
        """Width of that interval."""
        return self.before_s - self.after_s

    def __len__(self) -> int:
        return len(self.energy_j)

    def where(self, mask: np.ndarray) -> Ticks:
        """The ticks that a mask of shape (n,) selects."""
        return Ticks(self.after_s[mask], self.before_s[mask], self.energy_j[mask], self.segment[mask])


def find_ticks(readings: Sequence[Reading]) -> Ticks:
    """Ticks of readings in the order of time; readings without a change between them are allowed but not needed.

    A reset is no tick: nobody knows how much energy it swallowed, so the first value after it only starts a segment.
    """
    if len(readings) < 2:
        return Ticks(*(np.zeros(0) for _ in range(3)), segment=np.zeros(0, dtype=int))
    table = np.array([(r.before_s, r.after_s, r.energy_j) for r in readings])
    step_j = np.diff(table[:, 2])
    segment = np.cumsum(step_j < 0)
    changed = step_j > 0
    return Ticks(table[:-1, 0][changed], table[1:, 1][changed], table[1:, 2][changed], segment[changed])


@dataclass(frozen=True)
class TickPeriod:
    """How often a counter advances.

    Attributes:
        period_s: mean distance of two ticks, counted over missed ones.
        p5_s, p95_s: percentiles of the observed distances of neighbouring ticks, the blur of the reads included.
    """

    period_s: float
    p5_s: float
    p95_s: float


def measure_tick_period(readings: Sequence[Reading]) -> TickPeriod:
    """Period of the counter, from a few ticks or more; idle or under load.

    Raises:
        WindowTooShort: fewer than four ticks.
    """
    ticks = find_ticks(readings)
    if len(ticks) < 4:
        span_s = readings[-1].after_s - readings[0].before_s if readings else 0.0
        needed_s = max(1.0, 5 * span_s / max(1, len(ticks)))
        raise WindowTooShort(
            f"{len(ticks)} counter ticks in {span_s:.2g} s do not show a period: watch for {needed_s:.2g} s", needed_s
        )
    gaps_s = np.diff(ticks.time_s)[np.diff(ticks.segment) == 0]
    periods = np.maximum(np.rint(gaps_s / np.median(gaps_s)), 1)
    single_s = gaps_s[periods == 1]
    low_s, high_s = np.percentile(single_s, [5, 95])
    return TickPeriod(float(np.sum(gaps_s) / np.sum(periods)), float(low_s), float(high_s))
