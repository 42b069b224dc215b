"""How far counting is, in points: each kind of core walks them once, so a point that one of two has walked is half."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flopray.point import Point


@dataclass(frozen=True)
class CountingProgress:
    """How far counting is.

    Attributes:
        point: that begins.
        counted: points, as the share of the work that is done.
        points: in all.
        left_s: seconds to go at the rate so far; None where there is none yet.
    """

    point: Point
    counted: int
    points: int
    left_s: float | None = None

    def __str__(self) -> str:
        """For the line of progress."""
        left = f", about {self.left_s:.0f} s left" if self.left_s is not None else ""
        return f"counting: {self.counted} of {self.points} points{left} ({self.point.label()})"


#: Who is told of it.
Tell = Callable[[CountingProgress], object]


class Steps:
    """The work of counting: a step for each point and each kind of core that is counted of it.

    Args:
        each: steps of each point.
    """

    def __init__(self, each: Sequence[int]) -> None:
        self._each = each
        self._whole = self._of_chunk = 0
        self._since: float | None = None

    def chunk_ended(self, places: Sequence[int]) -> None:
        """All steps of these points are done, and those of other points of the chunk will be done again."""
        self._whole += sum(self._each[place] for place in places)
        self._of_chunk = 0

    def run_ended(self, points: int) -> None:
        """A process has walked so many points of the chunk."""
        self._of_chunk += points

    def at(self, point: Point, begun: int) -> CountingProgress:
        """How far counting is when the running process begins its `begun`-th point, which is this one."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        done, total = self._whole + self._of_chunk + begun - 1, sum(self._each)
        left_s = (now - self._since) * (total - done) / done if done else None
        return CountingProgress(point, len(self._each) * done // total, len(self._each), left_s)
