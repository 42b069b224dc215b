"""Where in its iteration a device was at a moment, and whether a counter's ticks beat with the iterations.

Power changes within an iteration. A counter that ticks every 100 ms sees a long iteration at phases that depend on the
ratio of both: iterations of 330 ms at all of them within a second, iterations of 95 ms at all of them within two
seconds, iterations of 100 ms always at the same phase. The last two are a beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

#: A sensor may see no more than the last part of each tick (https://arxiv.org/abs/2312.02741: 25 of 100 ms). Of a
#: shorter tick it sees less: `flopray.energy.meter.Characteristics.seen_share`.
SEEN_S = 0.025
#: Where no tick saw a larger part of the iteration than this, it is a beat, however many ticks there are. In an
#: iteration longer than two ticks, ticks lie a whole tick apart at best.
_UNSEEN_SHARE, _UNSEEN_SHARE_LONG = 0.05, 0.16
#: An iteration is long from so many ticks on.
LONG_TICKS = 2.2
#: How much the mean power of one long iteration differs from the next, relative (standard deviation), before a window
#: has shown it, and what this counts for, in iterations. On an H200, means of 0.7 s of iterations that are off for a
#: part differ by 1.1 to 1.7 % (docs/method.md, "What the counter of an H200 sees").
_SCATTER, _SCATTER_COUNTS = 0.012, 3.0
#: Ticks are locked to the iterations where their phases leave a gap of this many times the mean distance of two phases:
#: phases of a ratio that is not simple leave 1 to 2.6 of it.
_LOCKED = 3.0
#: And as large a part of the iteration: with finer phases, how often each was seen differs by chance, and little.
_WIDE_GAP = 0.25
#: Or about so few phases, with so much of the iteration between two of them that no tick sees: 133 ms have four.
_MOST_PHASES, _LEAST_GAP = 5, 0.02
#: Length of the mean of ticks' phases as directions (1: all at one phase) from which they lie about one.
_GATHERED = 0.65
#: Phases at which it is asked how often they were seen.
_GRID = 256
#: Part of what a sensor sees of a tick by which the times of ticks are blurred at most.
_BLUR_SHARE = 0.25
#: Laps that may be queued or running when their times are read, and one more.
_RUNNING_LAPS = 4


@dataclass(frozen=True)
class Iterations:
    """Iterations that followed each other without a pause.

    Attributes:
        edge_s: host clock at the start, and at the end of each lap; shape (laps + 1,).
        per_lap: iterations in a lap.
    """

    edge_s: np.ndarray
    per_lap: int

    @classmethod
    def of_laps(cls, lap_times_s: Sequence[float], per_lap: int, start_s: float, end_s: float) -> Iterations:
        """Laps between two host times.

        Laps that are still running are not among them, so the end may be a few laps late. A longer delay was spent on
        the stopping rule between laps, and is spread evenly.
        """
        ends_s = np.cumsum(np.asarray(lap_times_s, dtype=float))
        missing_s = end_s - start_s - ends_s[-1]
        stretch = 1.0 if missing_s < _RUNNING_LAPS * ends_s[-1] / len(ends_s) else (end_s - start_s) / ends_s[-1]
        return cls(start_s + np.concatenate([[0.0], ends_s * stretch]), per_lap)

    @classmethod
    def regular(cls, iteration_s: float, start_s: float, end_s: float) -> Iterations:
        """Equally long iterations from a host time to another one at least."""
        count = int(np.ceil((end_s - start_s) / iteration_s))
        return cls(np.array([start_s, start_s + max(count, 1) * iteration_s]), max(count, 1))

    @property
    def mean_s(self) -> float:
        """Mean length of one iteration."""
        return float((self.edge_s[-1] - self.edge_s[0]) / (self.per_lap * (len(self.edge_s) - 1)))

    def at(self, time_s: np.ndarray) -> np.ndarray:
        """Iterations since the start, with their fraction; before and after the laps at their mean pace.

        Args:
            time_s: host clock; any shape.
        """
        inside = np.interp(time_s, self.edge_s, self.per_lap * np.arange(len(self.edge_s)))
        before = np.minimum(time_s - self.edge_s[0], 0.0)
        after = np.maximum(time_s - self.edge_s[-1], 0.0)
        return inside + (before + after) / self.mean_s


def unseen_share(iterations: np.ndarray, iteration_s: float, tick_s: float, seen_s: float = SEEN_S) -> float:
    """How much of an iteration no tick saw, or most ticks did not, where ticks beat with the iterations; else 0.

    Args:
        iterations: at the ticks, from `Iterations.at`; shape (n,).
        iteration_s: length of one.
        tick_s: usual distance of two ticks.
        seen_s: how much of the end of each tick the sensor sees.
    """
    phases = np.sort(iterations % 1.0)
    gap = float(np.max(np.diff(np.append(phases, phases[0] + 1.0))))
    unseen, short = gap - seen_s / iteration_s, iteration_s < LONG_TICKS * tick_s
    # A few ticks miss this much even where the ratio of the periods is not simple.
    if unseen > max(_UNSEEN_SHARE if short else _UNSEEN_SHARE_LONG, 1.0 / len(iterations)):
        return unseen
    wide = gap > max(_WIDE_GAP, _LOCKED / len(phases))
    few = _few_phases(phases)
    gathered = few > 0 and 1 / few > max(_LOCKED / len(phases), seen_s / iteration_s + _LEAST_GAP)
    locked = short and tick_s > seen_s and (wide or gathered)
    return _uneven_share(phases, seen_s / iteration_s) if locked else 0.0


def scatter_of_few(count: float) -> float:
    """How much the mean over a few long iterations may differ from that over many, relative.

    What ticks show within an iteration is taken for its pattern, so that only its repetitions tell how much one differs
    from the next, and few of them tell little. It is the half width of a 95 % interval of the mean, by Student's t,
    where scatter has a scaled inverse chi-squared prior and the window adds iterations that show none
    (https://www.stat.columbia.edu/~gelman/book/, section 3.3).

    Args:
        count: iterations in the window, with their fraction.
    """
    count = max(count, 1.0)
    degrees = _SCATTER_COUNTS + count - 1
    return float(_SCATTER * np.sqrt(_SCATTER_COUNTS / degrees / count) * stdtrit(degrees, 0.975))


def missed_between(phases: np.ndarray, power: np.ndarray, seen: float) -> float:
    """What power may have done between the parts of an iteration that a sensor saw, as an error of the mean.

    Between two such parts with different powers it changed at a moment that nothing shows, at most half a gap from the
    middle. The gaps are added up, since the beginning and the end of one piece of work are missed together. Gaps
    between equal powers add nothing, so that what happened within one of them alone is not in it.

    Args:
        phases: in iterations, at the ticks; any order, shape (n,).
        power: of the ticks, the last part before their phases; shape (n,).
        seen: iterations, or what part of one, that a sensor sees before a phase.

    Returns:
        Half width of a 95 % interval, in units of `power`; 0 where there is no gap.
    """
    order = np.argsort(phases % 1.0)
    phases, power = phases[order] % 1.0, power[order]
    gaps = np.diff(np.append(phases, phases[0] + 1.0))
    ends = np.flatnonzero(gaps > seen)
    if not len(ends):
        return 0.0
    # What lies between two gaps was seen again and again, or is seen piece by piece: its edges are what counts.
    pieces = np.split(np.roll(np.arange(len(phases)), -(ends[0] + 1)), np.diff(ends).cumsum())
    first, last = (np.array([_edge(phases, power, piece, seen, k) for piece in pieces]) for k in (0, -1))
    after = np.roll(first, -1, axis=0)  # behind the gap at which a piece ends
    sizes = np.sqrt(np.maximum((after[:, 0] - last[:, 0]) ** 2 - after[:, 1] - last[:, 1], 0.0))
    widths = (after[:, 2] - last[:, 2]) % 1.0 - seen
    return float(0.95 * np.sum(sizes * widths) / 2)


def _edge(
    phases: np.ndarray, power: np.ndarray, piece: np.ndarray, seen: float, end: int
) -> tuple[float, float, float]:
    """Mean power at the first (0) or the last (-1) phases of a piece, its variance, and where they lie.

    The times of ticks are blurred, so that the outermost phase of several lies too far out.
    """
    off = (phases[piece] - phases[piece[end]] + 0.5) % 1.0 - 0.5
    there = power[piece[np.abs(off) <= seen]]
    near = off[np.abs(off) <= _BLUR_SHARE * seen]
    variance = np.var(there) / max(len(there) - 1, 1)
    return float(np.mean(there)), float(variance), float(phases[piece[end]] + np.mean(near))


def _few_phases(phases: np.ndarray) -> int:
    """About how many phases all ticks lie, where the ratio of the periods is simple; else 0.

    The blur of many ticks fills the gaps between the phases, and does not hide that they lie about a few of them.
    """
    gathered = (abs(np.mean(np.exp(2j * np.pi * few * phases))) > _GATHERED for few in range(1, _MOST_PHASES + 1))
    return next((few for few, are in enumerate(gathered, 1) if are), 0)


def _uneven_share(phases: np.ndarray, seen: float) -> float:
    """How much of an iteration was seen too seldom, in place of another part that was seen too often.

    66.7 ms are seen by ticks of 100 ms at two phases, half an iteration apart; a sensor that sees 25 ms of each tick
    then shows a quarter of the iteration hardly ever. Of 20 ms it shows a quarter twice as often as the rest.

    Args:
        phases: at the ticks, rising; shape (n,).
        seen: iterations that a tick sees before it, with their fraction.
    """
    whole, part = divmod(seen, 1.0)
    grid = np.arange(_GRID) / _GRID
    round_twice = np.concatenate([phases, phases + 1.0])
    often = np.searchsorted(round_twice, grid + part) - np.searchsorted(round_twice, grid)
    share = (whole + often / len(phases)) / seen
    return float(np.mean(np.abs(share - 1.0)) / 2)
