"""From readings to ticks: when the counter advanced, as far as the readings tell, and how often it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flopray.energy.meter import Reading
from flopray.errors import MeterError, WindowTooShort

#: No single device takes more: boards of 2026 have limits up to 1.4 kW, the processors of a machine 3 kW together.
MAX_POWER_W = 10_000.0
#: Nor does a device take this many times as much in one tick as in any other tick of a window.
MAX_POWER_RATIO = 10.0
#: With fewer other ticks, what is usual is unknown.
MIN_OTHER_TICKS = 4


#: The slowest counters that are known tick every 0.1 s.
FROZEN_AFTER_S = 1.0
#: A counter that ticks more slowly is given this many of its ticks.
STANDS_STILL = 5.0


@dataclass(frozen=True)
class Ticks:
    """Ticks of a counter; all arrays have shape (n,).

    Attributes:
        after_s, before_s: the tick happened after the one and before the other: the start of the last read that gave
            the old value, and the end of the first read that gave the new one.
        energy_j: the counter from the tick on.
        segment: 0, and 1 more after each reset, wrap-around or jump of the counter.
        jump_j: what the counter gained at jumps, which no device can have taken; shape (jumps,).
    """

    after_s: np.ndarray
    before_s: np.ndarray
    energy_j: np.ndarray
    segment: np.ndarray
    jump_j: np.ndarray = field(default_factory=lambda: np.zeros(0))

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
        return Ticks(self.after_s[mask], self.before_s[mask], self.energy_j[mask], self.segment[mask], self.jump_j)


def find_ticks(readings: Sequence[Reading], max_power_w: float | None = None) -> Ticks:
    """Ticks of readings in the order of time; readings without a change between them are allowed but not needed.

    A reset is not a tick: the energy lost in it is unknown, so the first value after it only starts a segment.
    A jump, which is a tick that means more power than any device takes, starts a segment too.

    Args:
        readings: in the order of time.
        max_power_w: the most power that the device can take where it is known; else `MAX_POWER_W`.
    """
    if len(readings) < 2:
        return Ticks(*(np.zeros(0) for _ in range(3)), segment=np.zeros(0, dtype=int))
    table = np.array([(r.before_s, r.after_s, r.energy_j) for r in readings])
    step_j = np.diff(table[:, 2])
    segment = np.cumsum(step_j < 0)
    changed = (step_j > 0) & ~np.array([r.slept for r in readings[1:]])
    ticks = Ticks(table[:-1, 0][changed], table[1:, 1][changed], table[1:, 2][changed], segment[changed])
    jumped = _jumps(ticks, min(max_power_w or MAX_POWER_W, MAX_POWER_W))
    if not jumped.any():
        return ticks
    gained_j = np.diff(ticks.energy_j, prepend=0.0)[jumped]
    return Ticks(ticks.after_s, ticks.before_s, ticks.energy_j, ticks.segment + np.cumsum(jumped), gained_j)


def _jumps(ticks: Ticks, max_power_w: float) -> np.ndarray:
    """Which ticks mean more power since the tick before than any device can take; shape (n,)."""
    jumped = np.zeros(len(ticks), dtype=bool)
    if len(ticks) < 2:
        return jumped
    # The longest time between the two ticks gives the least power.
    power_w = np.diff(ticks.energy_j) / (ticks.before_s[1:] - ticks.after_s[:-1])
    power_w[np.diff(ticks.segment) > 0] = 0.0
    jumped[1:] = power_w > max_power_w
    order = np.argsort(power_w)[::-1]
    plain = [k for k in order if not jumped[1 + k]]
    # One tick far above every other one, where there are others to compare it with.
    while len(plain) > MIN_OTHER_TICKS and power_w[plain[0]] > MAX_POWER_RATIO * power_w[plain[1]]:
        jumped[1 + plain.pop(0)] = True
    return jumped


@dataclass(frozen=True)
class TickPeriod:
    """How often a counter advances.

    Attributes:
        period_s: mean distance of two ticks, counted over missed ones.
        p5_s, p95_s: percentiles of the observed distances of neighbouring ticks, the blur of the reads included; the
            mean can lie outside of them where many ticks were missed.
    """

    period_s: float
    p5_s: float
    p95_s: float


def refuse_frozen(ticks: Ticks, seconds: float, until_s: float | None = None) -> None:
    """A counter that stands still for a second and more will not move in a longer window.

    Args:
        ticks: all that were seen.
        seconds: how long the counter was watched.
        until_s: host clock of the last read of it, where that is known.

    Raises:
        MeterError: no tick at all, or none any more.
    """
    why = "where counters tick every 0.1 s or faster; another user may have reset it, or the driver or virtual machine "
    why += "does not update it"
    if not len(ticks):
        if seconds >= FROZEN_AFTER_S:
            raise MeterError(f"the energy counter is frozen: it did not change in {seconds:.2g} s, {why}")
        return
    still_s = 0.0 if until_s is None else until_s - float(ticks.before_s[-1])
    usual_s = float(np.median(np.diff(ticks.time_s))) if len(ticks) > 1 else 0.0
    if still_s >= FROZEN_AFTER_S and still_s >= STANDS_STILL * usual_s:
        raise MeterError(f"the energy counter froze: it did not change in the last {still_s:.2g} s, {why}")


def measure_tick_period(readings: Sequence[Reading]) -> TickPeriod:
    """Period of the counter, from a few ticks or more; idle or under load.

    Raises:
        MeterError: the counter is frozen.
        WindowTooShort: fewer than four ticks.
    """
    ticks = find_ticks(readings)
    if len(ticks) < 4:
        span_s = readings[-1].after_s - readings[0].before_s if readings else 0.0
        refuse_frozen(ticks, span_s)
        needed_s = max(1.0, 5 * span_s / max(1, len(ticks)))
        raise WindowTooShort(
            f"{len(ticks)} counter ticks in {span_s:.2g} s do not show a period: watch for {needed_s:.2g} s", needed_s
        )
    gaps_s = np.diff(ticks.time_s)[np.diff(ticks.segment) == 0]
    periods = np.maximum(np.rint(gaps_s / np.median(gaps_s)), 1)
    single_s = gaps_s[periods == 1]
    low_s, high_s = np.percentile(single_s, [5, 95])
    return TickPeriod(float(np.sum(gaps_s) / np.sum(periods)), float(low_s), float(high_s))
