"""A profiler that measures nothing, for tests and benchmarks of everything around a measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flopray.mappings import Values
from flopray.point import Point
from flopray.records import PhaseRecord, Row


class Replay:
    """Answers each point with measured rows under the point's own specification, after some time.

    It takes the place of `flopray.measurement.profiler.Profiler` in a trial. A subclass can misbehave in `act`.

    Args:
        rows: of one point that was measured once, one a phase.
        point_s: seconds that a point takes.
    """

    counters_reason = energy_reason = None

    def __init__(self, rows: Sequence[Row], point_s: float = 0.0) -> None:
        self._rows, self._point_s = rows, point_s

    def act(self, spec: Point) -> Values:  # noqa: ARG002  for subclasses
        """What happens at a point before its time has passed; returns columns that its rows get."""
        return {}

    def measure_point(self, spec: Point, *, order_index: int | None, attempt: int) -> list[PhaseRecord]:
        """As `Profiler.measure_point`."""
        begin_s = time.time()
        further = self.act(spec)
        if self._point_s:
            time.sleep(self._point_s)
        own = {"trial_id": spec.id, "attempt": attempt, "order_index": order_index, **spec.fields()}
        own |= {"started_unix_s": begin_s, "ended_unix_s": time.time(), **further}
        return [PhaseRecord.of(**(row | own)) for row in self._rows]

    def healthy(self) -> bool:
        """Always: nothing can break."""
        return True

    def close(self) -> None:
        """Nothing to release."""
