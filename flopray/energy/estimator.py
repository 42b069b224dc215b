"""Power and energy per iteration from the ticks of a cumulative counter, with a 95 % interval.

The counter is exact at its ticks and shows nothing between them: a window that starts and ends anywhere is wrong by up
to a tick at either edge. So power is the slope of energy over the times of the ticks inside the load, which no edge
enters. What is left is the blur of each tick's time (it lies between two reads), the counter's quantum, the scatter of
the power itself and its drift; `flopray.energy.regression` has the model. Energy per iteration is power times time per
iteration, and the time comes from device events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from flopray.energy.fluctuation import MAX_POINTS, MIN_PHASED_ITERATION_S, candidates
from flopray.energy.iterations import LONG_TICKS, SEEN_S, Iterations, missed_between, scatter_of_few, unseen_share
from flopray.energy.load import LoadSpan, Warming
from flopray.energy.meter import Characteristics, Reading
from flopray.energy.regression import Posterior, fit
from flopray.energy.ticks import TickPeriod, Ticks, find_ticks, measure_tick_period, refuse_frozen
from flopray.errors import MeterError, WindowTooShort
from flopray.units import counted

__all__ = [
    "MIN_TICKS",
    "EnergyEstimate",
    "PowerEstimate",
    "TickPeriod",
    "estimate_energy",
    "estimate_power",
    "estimate_ticks",
    "measure_tick_period",
    "ticks_in_load",
]

#: Fewest ticks that give a slope and its error.
MIN_TICKS = 3
#: Fewest ticks from which a drift can be told.
MIN_DRIFT_TICKS = 5
#: More jumps of a counter than this share of its ticks (and more than one) are a failure of the meter.
MAX_JUMP_SHARE = 0.1
#: So many times a counter may go back in a window, which is then too short, and not the meter wrong.
MOST_RESETS = 3
#: With more ticks than this, only every second, third, ... is used: their blur is then far below what power fluctuates.
MAX_LINE_TICKS = 600
#: `Characteristics.tick_error_share` of an interval far wider than usual: the tick came near its end, while the poller
#: still slept.
VARIANCE_OF_WIDE = 1 / 4
_DEFAULT, _UNKNOWN = Characteristics(), Warming()
#: By how many standard deviations of a tick's time the ticks at two phases seem closer than they are, both together.
BLUR = 4.0
#: Drift counts as significant when this share of its distribution is on one side of zero, two-sided.
DRIFT_LEVEL = 0.97


@dataclass(frozen=True)
class PowerEstimate:
    """Mean power of a device over the ticks of a window.

    Attributes:
        power_w: slope of energy over tick times.
        power_rel_error: half width of its 95 % interval over `power_w`; includes the scatter of ticks and power, the
            quantum, the meter's own error, and half of a significant drift.
        ticks: ticks that were used.
        window_s: from the first to the last of them.
        tick_period_s: mean distance of neighbouring ticks.
        drift_rel: change of power across the window over `power_w`; 0 where there are too few ticks to tell.
        drift_significant: the drift is more than the scatter explains.
        power_noise_rel: standard deviation of the mean power of one tick over `power_w`, as the fit found it.
        unseen_share: part of an iteration that no tick saw because ticks and iterations beat; 0 without a beat.
        missed_rel: half width, over `power_w`, of what power may have done between the parts of an iteration that ticks
            saw, if a sensor may see parts only; it is in the error.
        jump_j: what jumps of the counter would have added, which were left out; 0 without one.
        temperature_c: of the device, mean from the first to the last of the ticks; None where it reports none.
    """

    power_w: float
    power_rel_error: float
    ticks: int
    window_s: float
    tick_period_s: float
    drift_rel: float
    drift_significant: bool
    power_noise_rel: float
    unseen_share: float
    missed_rel: float
    jump_j: float
    temperature_c: float | None


@dataclass(frozen=True)
class EnergyEstimate(PowerEstimate):
    """`PowerEstimate` and what it means for one iteration.

    Attributes:
        energy_j: energy of one iteration, whole device.
        energy_rel_error: half width of its 95 % interval over `energy_j`; adds the error of the time per iteration.
    """

    energy_j: float
    energy_rel_error: float


def estimate_power(
    readings: Sequence[Reading],
    load: LoadSpan,
    *,
    meter: Characteristics = _DEFAULT,
    tick_period_s: float | None = None,
    warming: Warming = _UNKNOWN,
) -> PowerEstimate:
    """Mean power during a load.

    Args:
        readings: of a `Poller`, or any readings in the order of time.
        load: what the device did.
        meter: what is known of the meter; ticks before `load.start_s + meter.settle_s` are dropped.
        tick_period_s: of the counter where it was measured before; only used to say how long a window is needed.
        warming: of the device meanwhile.

    Raises:
        MeterError: no tick in a second and more: the counter is frozen.
        WindowTooShort: fewer than `MIN_TICKS` ticks; `needed_s` counts from `load.start_s`.
        MeterError: the counter jumps or goes back again and again.
    """
    start_s, end_s = load.start_s, load.end_s
    all_ticks = find_ticks(readings, meter.max_power_w)
    ticks = all_ticks.where(ticks_in_load(all_ticks, start_s=start_s, end_s=end_s, meter=meter))
    _, counts = np.unique(ticks.segment, return_counts=True)
    if len(all_ticks.jump_j) > max(1, MAX_JUMP_SHARE * len(all_ticks)):
        raise MeterError(
            f"the energy counter jumped {len(all_ticks.jump_j)} times in {counted(len(all_ticks), 'tick')}, by up to "
            f"{np.max(all_ticks.jump_j):.3g} J, more than the device can take: do not trust it"
        )
    if len(ticks) < MIN_TICKS or len(ticks) - len(counts) < MIN_TICKS - 1:
        _refuse_broken(all_ticks, readings, start_s, end_s)
        raise _too_short(all_ticks, len(ticks), end_s - start_s, meter.settle_s, tick_period_s)
    refuse_frozen(all_ticks, end_s - start_s, min(end_s, readings[-1].before_s))
    temperature_c = None
    if warming.temperatures:
        at_tick_c = np.interp(ticks.time_s, *np.array(warming.temperatures).T)
        temperature_c, kelvin_s = _swing(ticks.time_s, at_tick_c)
        if warming.slope_w_per_k is not None:
            rough_w = float((ticks.energy_j[-1] - ticks.energy_j[0]) / (ticks.time_s[-1] - ticks.time_s[0]))
            ticks = replace(ticks, energy_j=ticks.energy_j - warming.slope_w_per_k(max(rough_w, 0.0)) * kelvin_s)
    return replace(estimate_ticks(ticks, meter=meter, iterations=load.iterations), temperature_c=temperature_c)


def _refuse_broken(ticks: Ticks, readings: Sequence[Reading], start_s: float, end_s: float) -> None:
    """Refuse a counter that gives too few ticks because it stands still or keeps going back, in any window.

    Raises:
        MeterError: saying which.
    """
    if readings:
        refuse_frozen(ticks, end_s - start_s, min(end_s, readings[-1].before_s))
    went_back = sum(later.energy_j < earlier.energy_j for earlier, later in pairwise(readings))
    if went_back > max(MOST_RESETS, MAX_JUMP_SHARE * len(ticks)):
        raise MeterError(
            f"the energy counter went back {went_back} times in {counted(len(ticks), 'tick')}: something resets it, or "
            "it is not a counter; do not trust it"
        )


def ticks_in_load(ticks: Ticks, *, start_s: float, end_s: float, meter: Characteristics = _DEFAULT) -> np.ndarray:
    """Which ticks lie in a load and contain nothing from before it; shape (n,).

    Args:
        ticks: of the counter.
        start_s, end_s: of the load, see `LoadSpan`.
        meter: see `estimate_power`.
    """
    return (ticks.after_s >= start_s + meter.settle_s) & (ticks.before_s <= end_s)


def estimate_ticks(
    ticks: Ticks, *, meter: Characteristics = _DEFAULT, iterations: Iterations | None = None
) -> PowerEstimate:
    """Mean power over ticks that all lie in the same kind of load.

    Args:
        ticks: `MIN_TICKS` or more, of which `MIN_TICKS - 1` follow another one of their segment.
        meter: what is known of the meter.
        iterations: see `LoadSpan`.
    """
    segments = len(np.unique(ticks.segment))
    few = ticks.where(np.arange(len(ticks)) % math.ceil(len(ticks) / MAX_LINE_TICKS) == 0)
    line = _Line(few, meter, iterations)
    slope, drift_rel, significant = line.slope(), 0.0, False
    window_s = float(ticks.time_s[-1] - ticks.time_s[0])
    if len(ticks) - segments >= MIN_DRIFT_TICKS - 1:
        bend = line.bend()
        drift_rel = bend.mean * window_s / line.gap_s / slope.mean
        significant = abs(bend.mean) > bend.half_width(DRIFT_LEVEL)
    # A power that drifts has no single value: the interval then covers it from one end of the window to the other.
    rel_error = math.hypot(slope.half_width() / slope.mean, meter.rel_error, drift_rel / 2 if significant else 0.0)
    # What no tick saw may have any power from none to twice that of what they saw.
    rel_error += line.unseen
    missed_rel = line.missed_rel(ticks, iterations)
    rel_error = math.hypot(rel_error, missed_rel, line.scatter_rel(window_s))
    return PowerEstimate(
        power_w=slope.mean * line.rough_w,
        power_rel_error=rel_error,
        ticks=len(ticks),
        window_s=window_s,
        tick_period_s=line.gap_s,
        drift_rel=drift_rel,
        drift_significant=significant,
        power_noise_rel=slope.walk,
        unseen_share=line.unseen,
        missed_rel=missed_rel,
        jump_j=float(np.sum(ticks.jump_j)),
        temperature_c=None,
    )


def _swing(time_s: np.ndarray, temperature_c: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean temperature over time, and the integral of what differs from it up to each time; 0 at both ends."""
    gaps_s = np.diff(time_s)
    pairs_c = (temperature_c[1:] + temperature_c[:-1]) / 2
    mean_c = float(gaps_s @ pairs_c / gaps_s.sum())
    return mean_c, np.concatenate([[0.0], np.cumsum(gaps_s * (pairs_c - mean_c))])


class _Line:
    """The fits of energy over tick times, in units of a mean tick.

    Attributes:
        gap_s: usual distance of two ticks.
        rough_w: power without any weighing.
        unseen: see `PowerEstimate`.
    """

    def __init__(self, ticks: Ticks, meter: Characteristics, iterations: Iterations | None) -> None:
        time_s = ticks.time_s
        same = np.diff(ticks.segment) == 0
        self.gap_s = float(np.median(np.diff(time_s)[same]))
        self.rough_w = float(np.sum(np.diff(ticks.energy_j)[same]) / np.sum(np.diff(time_s)[same]))
        self._noise, self._time_s, self._segment = meter.power_noise_rel, time_s, ticks.segment
        x = (time_s - np.mean(time_s)) / self.gap_s
        y = (ticks.energy_j - ticks.energy_j[0]) / (self.rough_w * self.gap_s)
        variance = (
            _time_variance(ticks.width_s, meter.tick_error_share) + (meter.quantum_j / self.rough_w) ** 2 / 12
        ) / self.gap_s**2
        all_seen = meter.seen_share >= 1
        self._seen_s = self.gap_s if all_seen else min(SEEN_S, meter.seen_share * self.gap_s)
        shortest_s = MIN_PHASED_ITERATION_S if all_seen else min(MIN_PHASED_ITERATION_S, self._seen_s)
        phased = iterations is not None and iterations.mean_s >= shortest_s
        self._at = iterations.at(time_s) if iterations is not None and phased else None
        self._iteration_s = iterations.mean_s if iterations is not None else 0.0
        self.unseen = 0.0
        if self._at is not None:
            sure_s = self._seen_s
            if not all_seen and sure_s < SEEN_S:
                # Blurred ticks seem to be at more phases than they are; of 25 ms that takes little.
                blur_s = math.sqrt(float(np.median(_time_variance(ticks.width_s, meter.tick_error_share))))
                sure_s = max(sure_s / 2, sure_s - BLUR * blur_s)
            self.unseen = unseen_share(self._at, self._iteration_s, self.gap_s, sure_s)
        self._mean = _groups(ticks.segment)
        self._x, self._y, self._variance = self._mean @ x, self._mean @ y, self._mean**2 @ variance

    def missed_rel(self, ticks: Ticks, iterations: Iterations | None) -> float:
        """What a sensor may have missed between the phases that all ticks saw, over the mean power; 0 of short ones."""
        if self._at is None or iterations is None or self._seen_s >= self.gap_s or self._iteration_s < self._seen_s:
            return 0.0
        same = np.diff(ticks.segment) == 0
        power_w = np.diff(ticks.energy_j)[same] / np.diff(ticks.time_s)[same]
        phases = iterations.at(ticks.time_s)[1:][same]
        return missed_between(phases, power_w, self._seen_s / self._iteration_s) / self.rough_w

    def scatter_rel(self, window_s: float) -> float:
        """What a counter that sees all of its few long iterations cannot know of further ones; 0 of others.

        Where a sensor may see less, what it may have missed is larger.
        """
        if self._at is None or self._seen_s < self.gap_s or self._iteration_s < LONG_TICKS * self.gap_s:
            return 0.0
        return scatter_of_few(window_s / self._iteration_s)

    def slope(self) -> Posterior:
        """Mean power over `rough_w`."""
        return self._fit(1, slow=True)

    def bend(self) -> Posterior:
        """Change of power in a tick over `rough_w`."""
        return self._fit(2, slow=False)

    def _fit(self, degree: int, slow: bool) -> Posterior:
        noise = candidates(
            self._time_s,
            self.gap_s,
            known_noise=self._noise,
            iterations=self._at,
            iteration_s=self._iteration_s,
            seen_s=self._seen_s,
            slow=slow,
        )
        segment = np.rint(self._mean @ self._segment).astype(int)
        return fit(self._x, self._y, self._variance, segment, noise.averaged(self._mean / self.gap_s), degree=degree)


def _groups(segment: np.ndarray) -> np.ndarray:
    """Means over neighbours of a segment, as many as a fit can take; shape (groups, n), each row adds up to 1."""
    size = max(1, math.ceil(len(segment) / MAX_POINTS))
    place = np.concatenate([np.arange(np.sum(segment == s)) // size for s in np.unique(segment)])
    group = np.cumsum(np.concatenate([[0], (np.diff(place) != 0) | (np.diff(segment) != 0)]))
    mean = (group[None, :] == np.arange(group[-1] + 1)[:, None]).astype(float)
    return mean / mean.sum(axis=1, keepdims=True)


def estimate_energy(
    readings: Sequence[Reading],
    load: LoadSpan,
    *,
    time_per_iteration_s: float,
    time_rel_error: float,
    meter: Characteristics = _DEFAULT,
    tick_period_s: float | None = None,
    warming: Warming = _UNKNOWN,
) -> EnergyEstimate:
    """Energy of one iteration of a load.

    Args:
        readings: of a `Poller`, or any readings in the order of time.
        load: what the device did; without iterations, all are as long as the mean, from its start on.
        time_per_iteration_s: mean time of one iteration, by the device's own events.
        time_rel_error: half width of its 95 % interval over it.
        meter: see `estimate_power`.
        tick_period_s: see there.
        warming: see there.

    Raises:
        WindowTooShort: too few ticks; `needed_s` counts from `load.start_s`.
        MeterError: see there.
    """
    if load.iterations is None and 0 < time_per_iteration_s < math.inf:
        load = replace(load, iterations=Iterations.regular(time_per_iteration_s, load.start_s, load.end_s))
    power = estimate_power(readings, load, meter=meter, tick_period_s=tick_period_s, warming=warming)
    fields = {name: getattr(power, name) for name in PowerEstimate.__dataclass_fields__}
    return EnergyEstimate(
        **fields,
        energy_j=power.power_w * time_per_iteration_s,
        energy_rel_error=math.hypot(power.power_rel_error, time_rel_error),
    )


def _time_variance(width_s: np.ndarray, tick_error_share: float) -> np.ndarray:
    """Variance of the ticks' times from the widths of their intervals, both of shape (n,)."""
    usual_s = float(np.median(width_s))
    share = np.where(width_s > 2.5 * usual_s, VARIANCE_OF_WIDE, tick_error_share)
    return share * np.maximum(width_s, usual_s / 2) ** 2


def _too_short(ticks: Ticks, found: int, length_s: float, settle_s: float, period_s: float | None) -> WindowTooShort:
    """The error that says how long the window must be."""
    if period_s is None:
        gaps_s = np.diff(ticks.time_s)
        period_s = float(np.median(gaps_s)) if len(gaps_s) else max(0.1, length_s)
    needed_s = max(settle_s + (MIN_TICKS + 1) * period_s, length_s + (MIN_TICKS - found) * period_s)
    return WindowTooShort(
        f"{found} counter ticks in a window of {length_s:.2g} s are too few to give a power: "
        f"{needed_s:.2g} s are needed",
        needed_s,
    )
