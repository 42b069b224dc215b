"""Steps and named regions of a loop as times: which pieces of time belong to which step, and which to none.

A step may be interrupted (a region in the middle of an iteration of `Watch.steps`): it then has several pieces. Steps
that follow each other closely make a **span**; a longer pause ends it. A pause that each step has, such as waiting for
data, belongs to the step before it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: A pause between two pieces that is longer ends a span. Counters tick every 0.1 s: a shorter one cannot be seen.
SPAN_PAUSE_S = 0.3
#: A pause between two steps that is longer than so many usual ones has more in it than what each step waits for.
MOST_USUAL = 3.0

#: What a mark means: a step begins, is interrupted, goes on, ends, is dropped; or only a region begins or ends.
BEGIN, INTERRUPT, RESUME, END, GIVE_UP, EDGE = range(6)


@dataclass(frozen=True)
class Region:
    """One passage through a named part of a program.

    Attributes:
        name: as it was given.
        start_s, end_s: host clock.
    """

    name: str
    start_s: float
    end_s: float

    @property
    def time_s(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Timeline:
    """Steps as pieces of time; arrays have shape (pieces,), pieces are in the order of time and do not overlap.

    Attributes:
        start_s, end_s: host clock of each piece.
        step: number of the step that the piece belongs to, from 0.
    """

    start_s: np.ndarray
    end_s: np.ndarray
    step: np.ndarray

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return int(self.step[-1]) + 1 if len(self.step) else 0

    @property
    def step_times_s(self) -> np.ndarray:
        """Time of each step, without interruptions; shape (steps,)."""
        return np.bincount(self.step, self.end_s - self.start_s, self.steps)

    @property
    def step_starts_s(self) -> np.ndarray:
        """Host clock at the start of each step; shape (steps,)."""
        first = np.flatnonzero(np.diff(self.step, prepend=-1))
        return self.start_s[first]

    def since(self, step: int) -> Timeline:
        """The timeline from a step on, which then has number 0."""
        kept = self.step >= step
        return Timeline(self.start_s[kept], self.end_s[kept], self.step[kept] - step)

    def with_pauses(self, regions: Sequence[Region] = ()) -> Timeline:
        """The timeline with the usual pause as part of each step: a step then goes on to the next one's start.

        The usual pause is the median of those between two steps. Of a pause that is much longer only as much as is
        usual belongs to the step. A region in it ends it. Where most pauses end a span, none belongs to a step.

        Args:
            regions: that lie between steps, in any order.

        Example:
            >>> t = Timeline(np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.8, 1.8, 2.8, 4.8]), np.arange(4))
            >>> [round(float(s), 3) for s in t.with_pauses().step_times_s]
            [1.0, 1.0, 1.0, 0.8]
        """
        between = np.diff(self.step) != 0
        if not between.any():
            return self
        end_s = self.end_s[:-1]
        opens_s = np.append(np.sort([region.start_s for region in regions]), np.inf)
        until_s = np.minimum(self.start_s[1:], opens_s[np.searchsorted(opens_s, end_s)])
        pause_s = until_s - end_s
        usual_s = float(np.median(pause_s[between]))
        if usual_s > SPAN_PAUSE_S:
            return self
        own_s = np.where(pause_s <= MOST_USUAL * usual_s, pause_s, usual_s)
        return Timeline(self.start_s, np.append(end_s + np.where(between, own_s, 0.0), self.end_s[-1]), self.step)

    def spans(self, pause_s: float = SPAN_PAUSE_S) -> np.ndarray:
        """Number of the span of each piece, from 0; shape (pieces,)."""
        return np.cumsum(np.append(0.0, self.start_s[1:] - self.end_s[:-1]) > pause_s)

    def done(self, time_s: np.ndarray) -> np.ndarray:
        """Steps that are done at each time, with their fraction; any shape."""
        if not len(self.step):
            return np.zeros_like(time_s)
        length_s = self.end_s - self.start_s
        whole_s = np.maximum(self.step_times_s[self.step], 1e-12)
        after = np.cumsum(length_s / whole_s)
        edges_s = np.column_stack([self.start_s, self.end_s]).ravel()
        return np.interp(time_s, edges_s, np.column_stack([after - length_s / whole_s, after]).ravel())

    def outside_s(self, time_s: np.ndarray) -> np.ndarray:
        """Seconds between pieces, from the first piece up to each time; any shape."""
        if not len(self.step):
            return np.zeros_like(time_s)
        pause_s = np.cumsum(np.append(0.0, self.start_s[1:] - self.end_s[:-1]))
        edges_s = np.column_stack([self.start_s, self.end_s]).ravel()
        return np.interp(time_s, edges_s, np.repeat(pause_s, 2))


class TimelineBuilder:
    """Notes what each mark of a loop means; the times come later."""

    def __init__(self) -> None:
        self._codes = array("b")
        self._regions: list[tuple[str, int, int | None]] = []

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, code: int) -> None:
        """The next mark and its meaning."""
        self._codes.append(code)

    def begin_region(self, name: str) -> int:
        """The next mark begins a region, whatever else it means; returns what `end_region` wants."""
        self._regions.append((name, len(self._codes), None))
        return len(self._regions) - 1

    def end_region(self, number: int) -> None:
        """The next mark ends a region."""
        name, first, _ = self._regions[number]
        self._regions[number] = (name, first, len(self._codes))

    def timeline(self, times_s: np.ndarray) -> Timeline:
        """The steps that have ended.

        Args:
            times_s: host clock of the first marks; shape (known,).
        """
        count = min(len(times_s), len(self._codes))
        codes = np.frombuffer(self._codes, dtype=np.int8)[:count].copy()
        stepping = codes != EDGE
        codes, times_s = codes[stepping], times_s[:count][stepping]
        # Starts and stops of pieces alternate; the last piece may have no stop yet.
        pairs = len(codes) // 2
        first, last = codes[: 2 * pairs : 2], codes[1 : 2 * pairs : 2]
        step = np.cumsum(first == BEGIN) - 1
        ended = np.zeros(pairs + 1, dtype=bool)
        ended[step[last == END]] = True
        kept = ended[step]
        number = np.cumsum(ended) - 1
        start_s = times_s[: 2 * pairs : 2][kept]
        return Timeline(start_s, np.maximum(times_s[1 : 2 * pairs : 2][kept], start_s), number[step[kept]])

    def regions(self, times_s: np.ndarray) -> list[Region]:
        """The regions that have ended, in the order of their starts."""
        return [
            Region(name, float(times_s[first]), float(times_s[last]))
            for name, first, last in self._regions
            if last is not None and last < len(times_s)
        ]


def total_by_name(regions: Sequence[Region]) -> dict[str, list[Region]]:
    """The passages of each region."""
    found: dict[str, list[Region]] = {}
    for region in regions:
        found.setdefault(region.name, []).append(region)
    return found
