"""Counts a chunk of points: one ncu process for each kind of core walks all of them that use it.

Starting ncu and torch takes as long as counting a hundred points, so the processes of a chunk start together, and each
waits until the one before has ended before it touches the device: counters are read by one process at a time.

A point that crashes its process costs only itself: points that were finished before it are kept, the point is tried
once more alone, and the points after it continue in a process of their own.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from flopray.errors import Unsupported
from flopray.flops.executed import ncu
from flopray.flops.executed.counts import NotCounted, PhaseCounts, Run, phase_counts
from flopray.flops.executed.metrics import SharedRun, chip_of, passes_for, shared_runs
from flopray.measurement.counting.process import CountingProcess, ProcessSeconds, TableLost
from flopray.point import Point
from flopray.workloads.base import workload_of
from flopray.workloads.registry import reference_of

Outcome = dict[str, PhaseCounts | NotCounted]
#: A process without progress for this long counts as hung. The longest normal pause is the compilation of a large
#: model.
_QUIET_FOR_S = 600.0


class Chunks:
    """Counts points on one GPU.

    Args:
        phases: of each point.
        compute_capability: of the GPU, such as `9.0`.
        seed: of weights and inputs.
        device: torch device of the worker.
        every_launch: count every kernel instead of one of equal ones; slow, to check the other way.
        tell: called with each point that begins.

    Attributes:
        version: of ncu.
        seconds: of each ncu process that has ended.

    Raises:
        MeasurementError: ncu is missing or cannot count on this chip; the message says what would help.
    """

    def __init__(
        self,
        phases: Sequence[str],
        *,
        compute_capability: str,
        seed: int = 0,
        device: str = "cuda:0",
        every_launch: bool = False,
        tell: Callable[[Point], object] | None = None,
    ) -> None:
        self._ncu = ncu.find_ncu()
        self.version = ncu.ncu_version(self._ncu)
        chip = chip_of(compute_capability)
        if chip is not None:
            ncu.check_chip(self._ncu, chip)
        self._phases, self._capability, self._tell = tuple(phases), compute_capability, tell
        self._chunk = {"phases": self._phases, "seed": seed, "device": device, "every_launch": every_launch}
        self.seconds: list[ProcessSeconds] = []

    def count(self, points: Sequence[Point]) -> Iterator[tuple[Point, Outcome]]:
        """Count points of one workload.

        Args:
            points: in the order they are walked.

        Yields:
            Each point with the counts of every phase, or why there are none. Points come when their process has ended.

        Raises:
            MeasurementError: nothing can be counted here, for a reason that a repetition would not cure.
        """
        refused = self._refused(points)
        for point in points:
            if point.precision in refused:
                error = refused[point.precision]
                yield point, dict.fromkeys(self._phases, NotCounted(error.status, str(error)))
        waiting = deque([[point for point in points if point.precision not in refused]])
        while waiting:
            chunk = waiting.popleft()
            if not chunk:
                continue
            try:
                runs, finished, how = self._walk(chunk)
            except TableLost as lost:
                if len(chunk) == 1:
                    yield chunk[0], self._died([], str(lost))
                else:  # finished points were lost with the table: count them again, apart from the one that ended ncu
                    waiting.extendleft((chunk[lost.finished + 1 :], chunk[: lost.finished], [chunk[lost.finished]]))
                continue
            for index in range(finished):
                of_point = _of_precision(runs, chunk[index].precision)
                yield chunk[index], {phase: phase_counts(of_point, index, phase) for phase in self._phases}
            if finished == len(chunk):
                continue
            if len(chunk) == 1:
                whole = len(runs) == len(shared_runs([chunk[0].precision], self._capability))
                yield chunk[0], self._died(_of_precision(runs, chunk[0].precision) if whole else [], how)
            else:
                waiting.extendleft((chunk[finished + 1 :], [chunk[finished]]))

    def _refused(self, points: Sequence[Point]) -> dict[str, Unsupported]:
        """Precisions that cannot be counted on this chip, beside others that can.

        Raises:
            Unsupported: none of them can.
        """
        refused = {}
        precisions = {point.precision for point in points}
        for precision in sorted(precisions):
            try:
                passes_for(precision, self._capability)
            except Unsupported as error:
                refused[precision] = error
                if len(refused) == len(precisions):
                    raise
        return refused

    def _walk(self, chunk: list[Point]) -> tuple[list[tuple[SharedRun, Run]], int, str]:
        """All runs over a chunk, the number of points that every one of them finished, and how the last one ended."""
        shared = shared_runs(dict.fromkeys(point.precision for point in chunk), self._capability)
        content = {**self._chunk, "workload": reference_of(workload_of(chunk[0]))}
        runs: list[tuple[SharedRun, Run]] = []
        finished, how = len(chunk), ""
        with ExitStack() as started:
            processes = [started.enter_context(CountingProcess(self._ncu, one, chunk, content)) for one in shared]
            for one, process in zip(shared, processes, strict=True):
                places = [i for i in range(finished) if chunk[i].precision in one.passes]
                if not places:
                    continue
                ended = process.walk(places, quiet_for_s=_QUIET_FOR_S, tell=self._tell)
                self.seconds.append(ended.seconds)
                runs.append((one, ended.run))
                missing = [i for i in places if any((i, phase) not in ended.run.outcomes for phase in self._phases)]
                if not ended.whole:
                    # All points are done: ncu failed at its end, so the last point is taken for the cause.
                    raise TableLost(missing[0] if missing else places[-1], ended.how or "")
                finished = missing[0] if missing else finished
                how = ended.how or how
        return runs, finished, how

    def _died(self, runs: Sequence[Run], how: str) -> Outcome:
        """The outcome of a point that crashed its process: what every run had finished before counts."""
        reason = "counting failed: its process ended early" + (f" ({how})" if how else "")
        return {
            phase: phase_counts(runs, 0, phase)
            if runs and all((0, phase) in run.outcomes for run in runs)
            else NotCounted("failed", reason)
            for phase in self._phases
        }


def _of_precision(runs: Sequence[tuple[SharedRun, Run]], precision: str) -> list[Run]:
    """Each run as one that counted for a precision alone."""
    return [
        dataclasses.replace(run, counters=shared.passes[precision])
        for shared, run in runs
        if precision in shared.passes
    ]
