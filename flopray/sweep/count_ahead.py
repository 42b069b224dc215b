"""Counts for a trial before it measures: what the recorder says, its own points and later ones, chunk by chunk.

Where nothing but counters was asked for, points are handed out as soon as their chunk is counted, so that an interrupt
costs one chunk at most. Where time is measured too, all are counted first: no process of ncu waits while something is
timed. The recorder has the counts of each chunk at once, so a process that ends loses one chunk here as well.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import ray

from flopray.point import Point
from flopray.sweep.counting_plan import Claim, Counts
from flopray.workloads.base import workload_of
from flopray.workloads.registry import point_from

if TYPE_CHECKING:  # imports torch
    from flopray.measurement.counting.progress import CountingProgress
    from flopray.measurement.profiler import Profiler

#: A point with its place in the sweep's order.
Numbered = tuple[int | None, Point]


class CountAhead:
    """The points of a trial, handed out once they are counted.

    Args:
        profiler: of the trial's device.
        recorder: the actor.
        trial: Tune's id of the trial.
        actor: name of the trial's process.
        points: of the trial that are left.
    """

    def __init__(self, profiler: Profiler, recorder: Any, trial: str, actor: str, points: Sequence[Numbered]) -> None:
        self._profiler, self._recorder, self._trial, self._actor = profiler, recorder, trial, actor
        self._points = {point.id: (index, point) for index, point in points}
        self._told = 0
        self._batches = self._rounds()

    @property
    def left(self) -> int:
        """Points that were not handed out yet."""
        return len(self._points)

    def take(self) -> list[Numbered]:
        """Points that can be measured now; waits until there are some, and gives none only at the end."""
        return next(self._batches, [])

    def close(self) -> None:
        """End what counts."""
        self._batches.close()

    def _rounds(self) -> Generator[list[Numbered], None, None]:
        counting = self._profiler.counting
        assert counting is not None
        ids = list(self._points)
        claim: Claim = ray.get(self._recorder.claim_counting.remote(self._trial, self._profiler.environment, ids))
        for point_id, counts in claim.counted.items():
            counting.take(point_id, dict(counts.phases), counts.ncu_version)
        own = [point for _, point in self._points.values() if point.id in claim.own]
        timed = "time" in self._profiler.settings.instruments
        # Slabs that are only counted are as long as a start of ncu is worth: they leave other slabs alone.
        fields = claim.others if timed and own else ()
        others = [point_from(dict(of_point), workload_of(own[0])) for of_point in fields]
        for counted in self._counted(own, others):
            if not timed and (ready := [self._points.pop(point.id) for point in counted]):
                yield ready
        self._hand_over([], over=True)
        if rest := list(self._points.values()):
            self._points = {}
            yield rest

    def _counted(self, own: Sequence[Point], others: Sequence[Point]) -> Iterator[list[Point]]:
        counting = self._profiler.counting
        assert counting is not None
        later = {point.id for point in others}
        self._told = 0
        for counted in self._profiler.counted_rounds([*own, *others], self._tell) if own else ():
            self._hand_over(counted)
            for point in counted:
                if point.id in later:
                    counting.forget(point)
            yield counted

    def _tell(self, now: CountingProgress) -> None:
        self._recorder.working.remote(str(now), self._actor)

    def _hand_over(self, counted: Sequence[Point], *, over: bool = False) -> None:
        """Give the recorder what was counted, and the time that it took."""
        counting = self._profiler.counting
        assert counting is not None
        given = {point.id: found for point in counted if (found := counting.give(point.id))}
        counts = {point_id: Counts(phases, version) for point_id, (phases, version) in given.items()}
        ray.get(self._recorder.counted.remote(self._trial, self._profiler.environment, counts, over))
        lines, self._told = [str(one) for one in counting.seconds[self._told :]], len(counting.seconds)
        if lines and counted:
            self._recorder.spent.remote(self._actor, lines)
