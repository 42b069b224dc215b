"""Moments of a loop, in the order of the device's work and without waiting for it: CUDA events, or the host clock.

A mark costs the loop a recorded event, and a query whether old events have passed. Nothing waits for an event before
the watch ends. Times of events are differences; their place on the host clock follows from two bounds: an event passes
after it was recorded and after the last query that found it pending, and before the first query that found it passed.
Over many events the bounds come close to each other.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections import deque
from typing import Any, Protocol

import numpy as np

#: Old events that one mark queries at most: more than it adds, so that events do not pile up.
_ASKED_A_MARK = 4
#: The clocks of device and host drift apart: bounds are kept for blocks of this many seconds.
_DRIFT, _BLOCK_S = 2e-5, 30.0


class Marks(Protocol):
    """Marks in the order in which they were made.

    Attributes:
        clock: `cuda_events` or `perf_counter`.
    """

    clock: str

    def mark(self) -> None:
        """Makes a mark here."""
        ...

    def times_s(self) -> np.ndarray:
        """Host clock (`time.perf_counter`) of the marks that are known to have passed; shape (passed,)."""
        ...

    def finish(self) -> None:
        """Waits for the last mark."""
        ...


class HostMarks:
    """Marks of work that runs in the thread that makes them."""

    clock = "perf_counter"

    def __init__(self) -> None:
        self._times_s = array("d")

    def mark(self) -> None:
        """See `Marks`."""
        self._times_s.append(time.perf_counter())

    def times_s(self) -> np.ndarray:
        """See `Marks`."""
        return np.array(self._times_s)

    def finish(self) -> None:
        """Nothing to wait for."""


class EventMarks:
    """Marks by events of a stream.

    The thread that makes the marks also queries them: a query from another thread would break a CUDA graph that is
        captured meanwhile.

    Args:
        record: takes an old event or None, records it (or a new one) where the stream is now, and returns it.
        clock: see `Marks`.
    """

    def __init__(self, record: Any, clock: str = "cuda_events") -> None:
        self.clock = clock
        self._record = record
        self._pending: deque[tuple[Any, float]] = deque()
        self._free: list[Any] = []
        self._last: Any = None
        self._since_s = array("d")
        self._not_before_s = 0.0
        self._offsets = _Offsets()

    def mark(self) -> None:
        """See `Marks`."""
        event = self._record(self._free.pop() if self._free else None)
        self._pending.append((event, time.perf_counter()))
        for _ in range(_ASKED_A_MARK):
            if not self._pending:
                return
            if not self._pending[0][0].query():
                self._not_before_s = time.perf_counter()
                return
            self._pass()

    def _pass(self) -> None:
        """Notes the time of the oldest event, which has passed."""
        seen_s = time.perf_counter()
        event, recorded_s = self._pending.popleft()
        if self._last is None:
            at_s = 0.0
        else:
            # Neighbours only: a difference is a float of milliseconds, which is too coarse after an hour.
            at_s = self._since_s[-1] + self._last.elapsed_time(event) / 1e3
            self._free.append(self._last)
        self._last = event
        self._since_s.append(at_s)
        self._offsets.add(at_s, max(recorded_s, self._not_before_s), seen_s)
        self._not_before_s = 0.0

    def times_s(self) -> np.ndarray:
        """See `Marks`."""
        since_s = np.array(self._since_s)
        return since_s + self._offsets.at(since_s)

    def finish(self) -> None:
        """See `Marks`."""
        if self._pending:
            self._pending[-1][0].synchronize()
        while self._pending:
            self._pass()


class _Offsets:
    """Host clock minus device clock, by bounds in blocks of device time."""

    def __init__(self) -> None:
        self._low: list[float] = []
        self._high: list[float] = []

    def add(self, at_s: float, not_before_s: float, seen_s: float) -> None:
        block = int(at_s / _BLOCK_S)
        while len(self._low) <= block:
            self._low.append(-np.inf)
            self._high.append(np.inf)
        self._low[block] = max(self._low[block], not_before_s - at_s)
        self._high[block] = min(self._high[block], seen_s - at_s)

    def at(self, since_s: np.ndarray) -> np.ndarray:
        """The offset of each time, in the middle of what its block and the neighbouring ones allow."""
        if not len(since_s):
            return since_s
        slack_s = 2 * _DRIFT * _BLOCK_S
        low, high = np.array(self._low), np.array(self._high)
        low = np.max([low, _shifted(low, 1, -np.inf) - slack_s, _shifted(low, -1, -np.inf) - slack_s], axis=0)
        high = np.min([high, _shifted(high, 1, np.inf) + slack_s, _shifted(high, -1, np.inf) + slack_s], axis=0)
        blocks = np.flatnonzero(np.isfinite(low))
        middle = (low[blocks] + high[blocks]) / 2
        return middle[np.searchsorted(blocks, (since_s / _BLOCK_S).astype(int), side="right") - 1]


def _shifted(values: np.ndarray, by: int, fill: float) -> np.ndarray:
    moved = np.full_like(values, fill)
    if by > 0:
        moved[by:] = values[:-by]
    else:
        moved[:by] = values[-by:]
    return moved


def cuda_marks(index: int) -> EventMarks:
    """Marks on whichever stream is current on a CUDA device of torch when they are made."""
    torch = sys.modules["torch"]

    def record(event: Any) -> Any:
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("a step or region is inside the capture of a CUDA graph: put it around the replay")
        event = event or torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(index))
        return event

    return EventMarks(record)
