"""The ncu processes over some points: one for each kind of core walks a chunk, and the next ones start meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flopray.flops.executed.counts import Run
from flopray.flops.executed.metrics import SharedRun
from flopray.measurement.counting.process import CountingProcess, Ended, Known, ProcessSeconds, TableLost
from flopray.measurement.counting.progress import Steps, Tell
from flopray.point import Point

#: What an interrupt may cost: the processes of a chunk together take about this long, besides a point that has begun.
CHUNK_S = 30.0
#: How long the first process of the first chunk walks. All processes of that chunk then take about as long as those of
#: the next one take to start.
_FIRST_S = 5.0
#: A process of the next chunk starts once one of this chunk has walked for so long.
_START_NEXT_AFTER_S = 1.0


@dataclass(frozen=True)
class Walked:
    """A chunk that was walked.

    Attributes:
        runs: of its processes, each with what it counts.
        finished: how many points, the first ones, all runs have walked.
        culprit: whether the next point crashed a process; else there was no time for it.
        how: a process ended, where one did not end normally.
    """

    runs: list[tuple[SharedRun, Run]]
    finished: int
    culprit: bool = False
    how: str = ""


class Processes:
    """Processes that take turns on one device; those that wait end with the context.

    Args:
        shared: what is counted, a process each.
        start: starts one.
        points: all points; places are those in this sequence.
        phases: of each point.
        seconds: of each process that ends are added to it.
        tell: called with each point that begins.

    Attributes:
        steps: how far counting is.
    """

    def __init__(
        self,
        shared: Sequence[SharedRun],
        start: Callable[[SharedRun], CountingProcess],
        *,
        points: Sequence[Point],
        phases: Sequence[str],
        seconds: list[ProcessSeconds],
        tell: Tell | None = None,
    ) -> None:
        self._shared, self._start, self._points, self._phases = shared, start, points, phases
        self._seconds, self._tell = seconds, tell
        self.steps = Steps([sum(point.precision in one.passes for one in shared) for point in points])
        self._waiting: dict[int, CountingProcess] = {}
        self._known: dict[int, Known] = {}
        self._first_s = _FIRST_S

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._waiting.values():
            process.__exit__(*exception)

    def walk(self, places: Sequence[int], *, quiet_for_s: float, more: bool = False) -> Walked:
        """Walk a chunk: as many points as time allows, at least one.

        Args:
            places: of all points that could be walked.
            quiet_for_s: a process that reports nothing new for this long is ended.
            more: whether further points will be walked later.

        Raises:
            TableLost: a process ended without its table; `finished` is the place in `places` of the cause.
            MeasurementError: nothing can be counted here.
        """
        walked, begin = Walked([], len(places)), len(self._seconds)
        self._start_for(places)
        for number, one in enumerate(self._shared):
            mine = [place for place in places[: walked.finished] if self._points[place].precision in one.passes]
            if not mine:
                continue
            for_s = self._first_s if not walked.runs and len(mine) > 1 else None
            rest = more or walked.finished < len(places)
            ended = self._turn(number, mine, _Watch(self, places, mine, for_s, rest=rest), quiet_for_s)
            self.steps.run_ended(len(ended.begun))
            walked = self._after(walked, one, ended, list(places))
        if not walked.how and len(places) > 1:
            self._learn(self._seconds[begin:])
        return walked

    def _turn(self, number: int, mine: list[int], watch: _Watch, quiet_for_s: float) -> Ended:
        process = self._waiting.pop(number, None) or self._start(self._shared[number])
        with process:
            known = self._known.get(number)
            ended = process.walk(mine, quiet_for_s=quiet_for_s, for_s=watch.for_s, known=known, watch=watch)
        self._seconds.append(ended.seconds)
        if ended.how is None:
            self._known[number] = Known(ended.operations, ended.run) if ended.operations else Known()
        return ended

    def _after(self, walked: Walked, one: SharedRun, ended: Ended, places: list[int]) -> Walked:
        """The chunk after a further run."""
        lacking = [i for i in ended.begun if any((i, phase) not in ended.run.outcomes for phase in self._phases)]
        if not ended.whole:
            # All points are done: ncu failed at its end, so the last point is taken for the cause.
            raise TableLost(places.index(lacking[0] if lacking else ended.begun[-1]), ended.how or "")
        runs, how = [*walked.runs, (one, ended.run)], ended.how or walked.how
        if lacking:
            return Walked(runs, places.index(lacking[0]), culprit=True, how=how)
        if ended.left:
            return Walked(runs, places.index(ended.left[0]), how=how)
        return Walked(runs, walked.finished, walked.culprit, how)

    def _start_for(self, places: Sequence[int]) -> None:
        """Start the processes that points will need and that do not wait already."""
        precisions = {self._points[place].precision for place in places}
        for number, one in enumerate(self._shared):
            if number not in self._waiting and precisions.intersection(one.passes):
                self._waiting[number] = self._start(one)

    def _learn(self, seconds: Sequence[ProcessSeconds]) -> None:
        """From a chunk, for how long the first process may walk so that all of them take `CHUNK_S`."""
        whole_s = sum(one.turn_s for one in seconds)
        if whole_s > 0:
            self._first_s = max(1.0, CHUNK_S * seconds[0].walk_s / whole_s)

    def begun(self, place: int, number: int) -> None:
        """A process has begun its `number`-th point."""
        if self._tell:
            self._tell(self.steps.at(self._points[place], number))

    def start_next(self, places: Sequence[int]) -> None:
        """Start processes for a chunk after this one, which is still walked."""
        self._start_for(places)


class _Watch:
    """Looks at a process that walks: tells of its points, and starts processes for the next chunk in time.

    Args:
        processes: which it is one of.
        places: of the chunk.
        mine: of them, those that it walks.
        for_s: it begins no point later than this; None walks all.
        rest: whether points are left for a next chunk in any case.
    """

    def __init__(
        self, processes: Processes, places: Sequence[int], mine: Sequence[int], for_s: float | None, *, rest: bool
    ) -> None:
        self._processes, self._places, self._mine, self.for_s, self._rest = processes, places, mine, for_s, rest
        self._begun, self._since = 0, 0.0

    def __call__(self, begun: int) -> None:
        """Several times a second, with the number of points begun."""
        now = time.monotonic()
        if begun > self._begun:
            self._since = self._since or now
            self._begun = begun
            self._processes.begun(self._mine[begun - 1], begun)
        walked_s = now - self._since
        if begun and walked_s > _START_NEXT_AFTER_S and (self._rest or self._too_slow(walked_s)):
            self._processes.start_next(self._places)

    def _too_slow(self, walked_s: float) -> bool:
        """Whether points will be left when the time is over, at the rate so far."""
        return self.for_s is not None and walked_s * len(self._mine) > self.for_s * self._begun
