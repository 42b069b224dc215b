"""Counts points chunk by chunk: one ncu process for each kind of core walks a chunk, and its report is read at its end.

ncu writes its report when it ends, so whoever ends it before loses what it has counted. A chunk takes half a minute:
the first process walks until its share of that time is over, and the others walk the same points. The first chunk is
smaller, so that results come early, and shows what share of a chunk the first process has.

Starting ncu and torch takes as long as counting a hundred points, so processes start early, and each waits until the
one before has ended before it touches the device: counters are read by one process at a time. What the processes of
earlier chunks have counted is told to later ones, which count new operations only.

A point that crashes its process costs only itself: points that were finished before it are kept, the point is tried
once more alone, and the points after it continue in a process of their own.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence

from flopray.errors import Unsupported
from flopray.flops.executed import ncu
from flopray.flops.executed.counts import NotCounted, PhaseCounts, Run, phase_counts
from flopray.flops.executed.metrics import SharedRun, chip_of, passes_for, shared_runs
from flopray.measurement.counting.process import CountingProcess, ProcessSeconds, TableLost
from flopray.measurement.counting.processes import Processes, Walked
from flopray.measurement.counting.progress import Tell
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
        tell: called with each point that begins, and how far counting is.

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
        tell: Tell | None = None,
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
        """The points of `rounds`, one by one."""
        for counted in self.rounds(points):
            yield from counted

    def rounds(self, points: Sequence[Point]) -> Iterator[list[tuple[Point, Outcome]]]:
        """Count points of one workload, chunk by chunk.

        Args:
            points: in the order they are walked.

        Yields:
            Points with the counts of every phase, or why there are none. Between two rounds no process uses the device.

        Raises:
            MeasurementError: nothing can be counted here, for a reason that a repetition would not cure.
        """
        refused = self._refused(points)
        if refused:
            reasons = {precision: NotCounted(error.status, str(error)) for precision, error in refused.items()}
            unable = [point for point in points if point.precision in refused]
            yield [(point, dict.fromkeys(self._phases, reasons[point.precision])) for point in unable]
        left = [point for point in points if point.precision not in refused]
        if left:
            yield from self._chunks(left)

    def _chunks(self, points: Sequence[Point]) -> Iterator[list[tuple[Point, Outcome]]]:
        """Chunk by chunk; a queue has the places of points that are left, in groups."""
        waiting = deque([list(range(len(points)))])
        with self._processes(points) as processes:
            while waiting:
                places = waiting.popleft()
                if not places:
                    continue
                try:
                    walked = processes.walk(places, quiet_for_s=_QUIET_FOR_S, more=any(waiting))
                except TableLost as lost:
                    if len(places) == 1:
                        yield [(points[places[0]], self._died([], str(lost)))]
                    else:  # finished points were lost with the table: count them again, apart from the cause
                        at = lost.finished
                        waiting.extendleft((places[at + 1 :], places[:at], [places[at]]))
                    continue
                finished, left = places[: walked.finished], places[walked.finished :]
                if walked.culprit and len(places) == 1:
                    finished, left = places, []
                processes.steps.chunk_ended(finished)
                if finished:
                    yield [(points[place], self._outcome(walked, points[place], place)) for place in finished]
                waiting.extendleft((left[1:], left[:1]) if walked.culprit else (left,))

    def _processes(self, points: Sequence[Point]) -> Processes:
        shared = shared_runs(dict.fromkeys(point.precision for point in points), self._capability)
        content = {**self._chunk, "workload": reference_of(workload_of(points[0]))}
        return Processes(
            shared,
            lambda one: CountingProcess(self._ncu, one, points, content),
            points=points,
            phases=self._phases,
            seconds=self.seconds,
            tell=self._tell,
        )

    def _outcome(self, walked: Walked, point: Point, place: int) -> Outcome:
        runs = _of_precision(walked.runs, point.precision)
        if not walked.finished:  # it crashed its process, though it was alone
            whole = len(runs) == len(shared_runs([point.precision], self._capability))
            return self._died(runs if whole else [], walked.how, place)
        return {phase: phase_counts(runs, place, phase) for phase in self._phases}

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

    def _died(self, runs: Sequence[Run], how: str, place: int = 0) -> Outcome:
        """The outcome of a point that crashed its process: what every run had finished before counts."""
        reason = "counting failed: its process ended early" + (f" ({how})" if how else "")
        return {
            phase: phase_counts(runs, place, phase)
            if runs and all((place, phase) in run.outcomes for run in runs)
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
