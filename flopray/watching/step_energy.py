"""Energy per step of a loop that does not hold still, by regressing counter ticks on step numbers.

Time per step scatters in a loop that is launched step by step (by 13 % in one measured on an H100). Energy per step
scatters less, because a device that waits takes less. So each tick is placed at the number of steps done by then, with
the fraction, and energy is regressed on that number with the errors of `flopray.energy.regression`. Each span of steps
has an intercept of its own: what was taken in the pauses between spans is not looked at. Pauses within a span are too
short for a counter to see. What was taken in them is something between nothing and the power of the steps: half of that
power is taken off, and half of it is in the interval.

The interval is one of the mean under continued repetition, as far as the ticks can know it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flopray.energy.estimator import MIN_TICKS, TICK_ERROR_SHARE, estimate_ticks
from flopray.energy.iterations import Iterations
from flopray.energy.ticks import Ticks
from flopray.errors import WindowTooShort
from flopray.measurement.statistics import half_widths
from flopray.watching.timeline import SPAN_PAUSE_S, Timeline

#: With more spans than this each of them is one value of a series: the regression's cost grows with their cube.
MAX_SPANS = 16


@dataclass(frozen=True)
class StepEnergy:
    """Energy of one step on one device.

    Attributes:
        energy_j: mean energy.
        rel_error: half width of its 95 % interval over `energy_j`.
        ticks: of the counter that were used.
        steps: between the first and the last of them, span by span.
        outside_share: share of the time that lies in short pauses between steps.
    """

    energy_j: float
    rel_error: float
    ticks: int
    steps: float
    outside_share: float


def energy_per_step(
    ticks: Ticks,
    timeline: Timeline,
    *,
    settle_s: float = 0.15,
    quantum_j: float = 0.001,
    power_noise_rel: float = 0.0,
    meter_rel_error: float = 0.0,
    tick_error_share: float = TICK_ERROR_SHARE,
) -> StepEnergy:
    """Energy per step over all steps of a timeline.

    Args:
        ticks: of one counter, on the host clock.
        timeline: the steps.
        settle_s: see `flopray.energy.estimator.estimate_power`, as are all that follow.
        quantum_j: see there.
        power_noise_rel: see there.
        meter_rel_error: see there.
        tick_error_share: see there.

    Raises:
        WindowTooShort: too few ticks lie in spans of steps.
    """
    if not timeline.steps:
        raise WindowTooShort("no step has ended yet", settle_s)
    chosen = None
    # Pauses that end a span leave too few ticks where each step is followed by one: then they are part of the loop.
    for pause_s in (SPAN_PAUSE_S, math.inf):
        chosen = _Chosen(ticks, timeline, pause_s, settle_s)
        if chosen.enough:
            break
    if chosen is None or not chosen.enough:
        seen = 0 if chosen is None else len(chosen.ticks)
        length_s = float(timeline.end_s[-1] - timeline.start_s[0])
        raise WindowTooShort(
            f"{seen} counter ticks in {length_s:.2g} s of steps are too few to tell their energy", 2 * length_s + 1.0
        )
    energy_j, rel_error = _fitted(chosen, quantum_j, power_noise_rel, meter_rel_error, tick_error_share)
    unknown_j = chosen.half_power_w * chosen.outside_s / chosen.steps
    return StepEnergy(
        energy_j=energy_j,
        rel_error=rel_error + unknown_j / energy_j,
        ticks=len(chosen.ticks),
        steps=chosen.steps,
        outside_share=chosen.outside_s / chosen.time_s,
    )


class _Chosen:
    """The ticks within spans, with step numbers in place of times.

    Attributes:
        ticks: times are steps done times the mean time of a step, energies without those of short pauses.
        iteration_s: mean time of a step.
        half_power_w: power that short pauses were taken to have.
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
            self._place(kept, timeline, segment, timeline.outside_s(starts_s)[at])

    def _place(self, ticks: Ticks, timeline: Timeline, segment: np.ndarray, paused_s: np.ndarray) -> None:
        same = np.diff(segment) == 0
        outside_s = timeline.outside_s(ticks.time_s) - paused_s
        self.time_s = float(np.sum(np.diff(ticks.time_s)[same]))
        self.outside_s = float(np.sum(np.diff(outside_s)[same]))
        self.half_power_w = float(np.sum(np.diff(ticks.energy_j)[same])) / self.time_s / 2
        self.steps = float(np.sum(np.diff(timeline.done(ticks.time_s))[same]))
        # Pauses between spans stay, as whole steps: the phases of steps then go on after them.
        shift_s = np.ceil(paused_s / self.iteration_s) * self.iteration_s
        self.ticks = Ticks(
            timeline.done(ticks.after_s) * self.iteration_s + shift_s,
            timeline.done(ticks.before_s) * self.iteration_s + shift_s,
            ticks.energy_j - self.half_power_w * outside_s,
            segment,
        )


def _fitted(
    chosen: _Chosen, quantum_j: float, power_noise_rel: float, meter_rel_error: float, tick_error_share: float
) -> tuple[float, float]:
    """Energy per step and the half width of its interval over it."""
    ticks, iteration_s = chosen.ticks, chosen.iteration_s
    if int(ticks.segment[-1]) + 1 > MAX_SPANS:
        return _of_spans(chosen, meter_rel_error)
    estimate = estimate_ticks(
        ticks,
        quantum_j=quantum_j,
        power_noise_rel=power_noise_rel,
        meter_rel_error=meter_rel_error,
        iterations=Iterations.regular(iteration_s, 0.0, float(ticks.before_s[-1])),
        tick_error_share=tick_error_share,
    )
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
