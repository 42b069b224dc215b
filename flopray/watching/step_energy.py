"""Energy per step of a loop whose steps vary, by regressing counter ticks on step numbers.

Time per step scatters in a loop that is launched step by step (by 13 % in one measured on an H100). Energy per step
scatters less, because a waiting device takes less power. So each tick is placed at the number of steps done by then,
with the fraction, and energy is regressed on that number with the errors of `flopray.energy.regression`. Each span of
steps has an intercept of its own: energy in the pauses between spans does not count. Pauses within a span are too
short for a counter to see. Those that each step has belong to the steps (`Timeline.with_pauses`). The energy of the
others is between nothing and that of steps of the same length: half of that is subtracted, and half of it is in the
interval.

The interval is one of the mean under continued repetition, as far as the ticks can know it. Where steps wait for
something, the waits may change more slowly than ticks show. Times of steps show it better: the extra energy of a longer
step, by the ticks, times the error of the mean time of a step is part of the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flopray.energy.estimator import MIN_TICKS, estimate_ticks
from flopray.energy.iterations import Iterations
from flopray.energy.meter import Characteristics
from flopray.energy.ticks import Ticks
from flopray.errors import WindowTooShort
from flopray.measurement.statistics import FEWEST_LAPS, half_widths
from flopray.watching.timeline import SPAN_PAUSE_S, Timeline

#: With more spans than this each of them is one value of a series: the regression's cost grows with their cube.
MAX_SPANS = 16
#: More laps than this are averaged in groups.
MOST_LAPS = 2000


@dataclass(frozen=True)
class StepEnergy:
    """Energy of one step on one device.

    Attributes:
        energy_j: mean energy.
        rel_error: half width of its 95 % interval over `energy_j`.
        ticks: of the counter that were used.
        steps: between the first and the last of them, span by span.
        outside_share: share of the time in short pauses between steps.
    """

    energy_j: float
    rel_error: float
    ticks: int
    steps: float
    outside_share: float


def energy_per_step(ticks: Ticks, timeline: Timeline, meter: Characteristics | None = None) -> StepEnergy:
    """Energy per step over all steps of a timeline.

    Args:
        ticks: of one counter, on the host clock.
        timeline: the steps.
        meter: what is known of the meter; by default little.

    Raises:
        WindowTooShort: too few ticks lie in spans of steps.
    """
    meter = meter or Characteristics()
    if not timeline.steps:
        raise WindowTooShort("no step has ended yet", meter.settle_s)
    chosen = None
    # Pauses that end a span leave too few ticks where each step is followed by one: then they are part of the loop.
    for pause_s in (SPAN_PAUSE_S, math.inf):
        chosen = _Chosen(ticks, timeline, pause_s, meter.settle_s)
        if chosen.enough:
            break
    if chosen is None or not chosen.enough:
        seen = 0 if chosen is None else len(chosen.ticks)
        length_s = float(timeline.end_s[-1] - timeline.start_s[0])
        raise WindowTooShort(
            f"{seen} counter ticks in {length_s:.2g} s of steps are too few to tell their energy", 2 * length_s + 1.0
        )
    energy_j, rel_error = _fitted(chosen, meter)
    outside_share = chosen.outside_s / chosen.time_s
    waiting_j = chosen.waiting_w * mean_time_error_s(timeline.step_times_s)
    known = 1 - outside_share / 2
    return StepEnergy(
        energy_j=energy_j * known,
        rel_error=math.hypot(rel_error, waiting_j / energy_j) + (1 - known) / known,
        ticks=len(chosen.ticks),
        steps=chosen.steps,
        outside_share=outside_share,
    )


def mean_time_error_s(times_s: np.ndarray) -> float:
    """Half width of the 95 % interval of the mean time of steps; 0 where there are too few to tell.

    Args:
        times_s: of all steps; shape (steps,).
    """
    # Only changes over more than two thousandths of the steps matter: steps are averaged in groups.
    size = -(-len(times_s) // MOST_LAPS)
    laps = times_s[: len(times_s) // size * size].reshape(-1, size).mean(axis=1)
    return float(half_widths(laps[None])[0]) if len(laps) >= FEWEST_LAPS else 0.0


class _Chosen:
    """The ticks within spans, with step numbers in place of times.

    Attributes:
        ticks: with times that are steps done times the mean time of a step.
        iteration_s: mean time of a step.
        waiting_w: energy by which a step costs more for each second that it is longer.
        steps, time_s, outside_s: steps, seconds and seconds outside of steps between the ticks.
    """

    def __init__(self, ticks: Ticks, timeline: Timeline, pause_s: float, settle_s: float) -> None:
        span = timeline.spans(pause_s)
        first = np.flatnonzero(np.diff(span, prepend=-1))
        last = np.append(first[1:], len(span)) - 1
        starts_s, ends_s = timeline.start_s[first], timeline.end_s[last]
        at = np.searchsorted(starts_s, ticks.after_s, side="right") - 1
        inside = (at >= 0) & (ticks.after_s >= starts_s[at] + settle_s) & (ticks.before_s <= ends_s[at])
        at = at[inside]
        segment = at * (int(ticks.segment[-1]) + 1 if len(ticks) else 1) + ticks.segment[inside]
        # A tick alone in its segment has nothing to be compared with.
        _, place, count = np.unique(segment, return_inverse=True, return_counts=True)
        paired = count[place] > 1
        at, kept = at[paired], ticks.where(inside).where(paired)
        segment = np.unique(segment[paired], return_inverse=True)[1]
        self.iteration_s = float(np.mean(timeline.step_times_s))
        self.enough = len(kept) >= MIN_TICKS and len(kept) - len(np.unique(segment)) >= MIN_TICKS - 1
        self.ticks = kept
        if self.enough:
            self._place(kept, timeline, segment, at, (first, last))

    def _place(
        self,
        ticks: Ticks,
        timeline: Timeline,
        segment: np.ndarray,
        span: np.ndarray,
        ends: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Puts each tick at its step; `span` has that of each tick, `ends` the first and last piece of each span."""
        edge_s = np.concatenate([timeline.start_s, timeline.end_s[ends[1]]])
        edge_s.sort()
        # A pause within a span is part of a step: otherwise a tick in it would have no place.
        done = timeline.done(edge_s)
        at = np.interp(ticks.time_s, edge_s, done)
        same = np.diff(segment) == 0
        paused_s = timeline.outside_s(timeline.start_s[ends[0]])[span]
        outside_s = timeline.outside_s(ticks.time_s) - paused_s
        self.time_s = float(np.sum(np.diff(ticks.time_s)[same]))
        self.outside_s = float(np.sum(np.diff(outside_s)[same]))
        self.steps = float(np.sum(np.diff(at)[same]))
        self.waiting_w = _waiting_w(np.diff(ticks.energy_j)[same], np.diff(at)[same], np.diff(ticks.time_s)[same])
        # Pauses between spans stay, as whole steps: the phases of steps then go on after them.
        shift_s = np.ceil(paused_s / self.iteration_s) * self.iteration_s
        self.ticks = Ticks(
            np.interp(ticks.after_s, edge_s, done) * self.iteration_s + shift_s,
            np.interp(ticks.before_s, edge_s, done) * self.iteration_s + shift_s,
            ticks.energy_j,
            segment,
        )


def _waiting_w(gained_j: np.ndarray, steps: np.ndarray, time_s: np.ndarray) -> float:
    """By how much energy follows time at equal steps, tick by tick; from 0 to the mean power."""
    mean_w, mean_steps = float(np.sum(gained_j) / np.sum(time_s)), steps / np.sum(steps)
    off_j = gained_j - mean_steps * np.sum(gained_j)
    off_s = time_s - mean_steps * np.sum(time_s)
    power_w = float(off_j @ off_s / max(float(off_s @ off_s), 1e-18))
    return min(max(power_w, 0.0), max(mean_w, 0.0))


def _fitted(chosen: _Chosen, meter: Characteristics) -> tuple[float, float]:
    """Energy per step and the half width of its interval over it."""
    ticks, iteration_s = chosen.ticks, chosen.iteration_s
    if int(ticks.segment[-1]) + 1 > MAX_SPANS:
        return _of_spans(chosen, meter.rel_error)
    iterations = Iterations.regular(iteration_s, 0.0, float(ticks.before_s[-1]))
    estimate = estimate_ticks(ticks, meter=meter, iterations=iterations)
    return estimate.power_w * iteration_s, estimate.power_rel_error


def _of_spans(chosen: _Chosen, meter_rel_error: float) -> tuple[float, float]:
    """Ratio of the sums over spans; its error from how far each span is off, as those of laps are."""
    ticks = chosen.ticks
    first = np.flatnonzero(np.diff(ticks.segment, prepend=-1))
    last = np.append(first[1:], len(ticks)) - 1
    gained_j = ticks.energy_j[last] - ticks.energy_j[first]
    steps = (ticks.time_s[last] - ticks.time_s[first]) / chosen.iteration_s
    energy_j = float(np.sum(gained_j) / np.sum(steps))
    off_j = gained_j - energy_j * steps
    half_j = float(half_widths(off_j[None])[0]) / float(np.mean(steps))
    return energy_j, math.hypot(half_j / energy_j, meter_rel_error)
