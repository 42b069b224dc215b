"""Counts points before they are measured, since one start of Nsight Compute serves many points."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from flopray.errors import MeasurementError, Unsupported, WorkloadError
from flopray.flops.executed.counts import NotCounted
from flopray.measurement.columns import flop_columns
from flopray.measurement.counting.chunk import Chunks, Outcome
from flopray.measurement.counting.columns import counter_columns
from flopray.measurement.counting.process import ProcessSeconds
from flopray.measurement.counting.progress import Tell
from flopray.point import Point
from flopray.records import Row, Status
from flopray.workloads.base import workload_of


class CountedAhead:
    """Counts of points that are to be measured.

    Args:
        compute_capability: of the GPU; None on a CPU, where nothing can be counted.
        phases: of each point.
        seed: of weights and inputs.
        device: torch device of the process that is counted.

    Attributes:
        reason: why nothing could be counted so far; None once something was.
        seconds: what each ncu process of the last `rounds` took.
    """

    def __init__(
        self, compute_capability: str | None, phases: Sequence[str], seed: int, *, device: str = "cuda:0"
    ) -> None:
        self._capability, self._phases, self._seed, self._device = compute_capability, tuple(phases), seed, device
        self._outcomes: dict[str, tuple[Outcome, str | None]] = {}
        self._guessed: set[str] = set()
        self._version: str | None = None
        self.reason: str | None = None
        self.seconds: list[ProcessSeconds] = []

    def rounds(self, points: Sequence[Point], tell: Tell | None = None) -> Generator[list[Point], None, None]:
        """Count points chunk by chunk; failures become outcomes, never exceptions.

        Args:
            points: in any order.
            tell: called with each point that begins, and how far counting is.

        Yields:
            Points that are counted now. Between two rounds nothing uses the device.
        """
        left = {point.id: point for point in self.waiting(points)}
        failure = NotCounted(str(Status.FAILED), "the counting ended early")
        try:
            for counted in self._counted(list(left.values()), tell):
                for point, outcome in counted:
                    self._outcomes[point.id] = outcome, self._version
                    left.pop(point.id)
                yield [point for point, _ in counted]
        except MeasurementError as error:
            self.reason = str(error)
            failure = NotCounted(error.status, str(error))
        except Exception as error:
            failure = NotCounted(str(Status.FAILED), f"{type(error).__name__}: {error}".splitlines()[0])
        for point_id in left:
            self._outcomes[point_id] = dict.fromkeys(self._phases, failure), self._version
            self._guessed.add(point_id)
        if left:
            yield list(left.values())

    def take(self, point_id: str, outcome: Outcome, version: str | None) -> None:
        """Take counts that another process on such a device has read.

        Args:
            point_id: of the point.
            outcome: of each phase.
            version: of the ncu that counted.
        """
        self._outcomes[point_id] = outcome, version

    def give(self, point_id: str) -> tuple[Outcome, str | None] | None:
        """The counts of a point for another process, and ncu's version.

        Returns:
            None where it was not counted, also for a reason that is not the point's own and may not hold elsewhere.
        """
        return None if point_id in self._guessed else self._outcomes.get(point_id)

    def waiting(self, points: Sequence[Point]) -> list[Point]:
        """The points that were not counted yet."""
        return [point for point in points if point.id not in self._outcomes]

    def columns(self, point: Point, row: Row) -> Row:
        """The counters' columns of a row of a point that was counted."""
        phase = row["phase"]
        elements = _elements(point, phase)
        outcome, version = self._outcomes[point.id]
        return counter_columns(row, outcome[phase], version, elements)

    def forget(self, point: Point) -> None:
        """Drop the counts of a point, which its records have."""
        self._outcomes.pop(point.id, None)
        self._guessed.discard(point.id)

    def _counted(self, points: list[Point], tell: Tell | None) -> Iterator[list[tuple[Point, Outcome]]]:
        if self._capability is None:
            raise Unsupported("hardware counters need an NVIDIA GPU; a CPU's cores have no FLOP counters ncu can read")
        chunks = Chunks(
            self._phases, compute_capability=self._capability, seed=self._seed, device=self._device, tell=tell
        )
        self._version, self.seconds = chunks.version, chunks.seconds
        yield from chunks.rounds(sorted(points, key=_few_launches_first))


def _elements(point: Point, phase: str) -> int | None:
    try:
        return workload_of(point).reduction_elements(point, phase)
    except WorkloadError:  # its rows have what was counted anyway
        return None


def _few_launches_first(point: Point) -> tuple[Any, ...]:
    """A point whose operations all occurred in smaller points of its kind needs no launch."""
    choices = tuple(str(point.values[field.name]) for field in point.workload.choices)
    return point.precision, point.execution, choices, tuple(point.shape().values())


def rounds_beside_dispatcher(
    ahead: CountedAhead, points: Sequence[Point], phases: Sequence[str], tell: Tell | None = None
) -> Iterator[list[Point]]:
    """The rounds of `CountedAhead.rounds`; while ncu counts, this process counts at the dispatcher.

    Args:
        ahead: what counts.
        points: to be counted.
        phases: of each point.
        tell: as there.
    """
    with contextlib.closing(ahead.rounds(points, tell)) as rounds:
        while True:
            with counting_at_the_dispatcher(points, phases):
                counted = next(rounds, None)
            if counted is None:
                return
            yield counted


@contextlib.contextmanager
def counting_at_the_dispatcher(points: Sequence[Point], phases: Sequence[str]) -> Iterator[None]:
    """Count at the dispatcher, whose counts are kept, in a thread that runs while nothing is measured."""
    over = threading.Event()

    def count() -> None:
        for point in points:
            for phase in phases:
                if over.is_set():
                    return
                flop_columns(point, phase)

    thread = threading.Thread(target=count, name="flopray-dispatched", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
