"""Stopwatches with one interface: device events on CUDA, a monotonic clock on the CPU.

A lap is one batch of iterations. On CUDA the launching thread never waits for the newest lap, so the device stays busy
from the first to the last; it only waits for a lap further back, which bounds the queue of launches.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch

#: Laps that may be queued ahead of the device. Two keep it busy; the third covers a late launching thread.
_AHEAD = 3


class Laps(Protocol):
    """A stopwatch; `clock` goes into the record as `time_clock`."""

    clock: str

    def start(self) -> float:
        """Wait for the device, begin the first lap; returns host seconds (`time.perf_counter`)."""
        ...

    def lap(self) -> None:
        """End a lap here in the order of the work."""
        ...

    def durations_s(self) -> list[float]:
        """Seconds of each lap that has finished."""
        ...

    def finish(self) -> list[float]:
        """Wait for all laps and return their seconds."""
        ...


class CpuLaps:
    """Laps of work that runs in this thread."""

    clock = "perf_counter"

    def start(self) -> float:
        """Begin the first lap."""
        self._marks = [time.perf_counter()]
        return self._marks[0]

    def lap(self) -> None:
        """End a lap."""
        self._marks.append(time.perf_counter())

    def durations_s(self) -> list[float]:
        """Seconds of each lap."""
        return [b - a for a, b in zip(self._marks, self._marks[1:], strict=False)]

    def finish(self) -> list[float]:
        """Seconds of each lap; there is nothing to wait for."""
        return self.durations_s()


class CudaLaps:
    """Laps by CUDA events on the current stream (resolution about 0.5 us,
    https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__EVENT.html).
    """

    clock = "cuda_events"

    def start(self) -> float:
        """Synchronise, then begin the first lap."""
        torch.cuda.synchronize()
        self._events = [self._record()]
        self._durations: list[float] = []
        return time.perf_counter()

    def lap(self) -> None:
        """End a lap; waits while more than a few laps are queued."""
        self._events.append(self._record())
        if len(self._events) > _AHEAD:
            self._events[-_AHEAD].synchronize()

    def durations_s(self) -> list[float]:
        """Seconds of each lap that has ended on the device."""
        while len(self._durations) < len(self._events) - 1:
            begin, end = self._events[len(self._durations)], self._events[len(self._durations) + 1]
            if not end.query():
                break
            self._durations.append(begin.elapsed_time(end) / 1e3)
        return self._durations

    def finish(self) -> list[float]:
        """Wait for the last lap."""
        self._events[-1].synchronize()
        return self.durations_s()

    @staticmethod
    def _record() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def laps_for(torch_name: str) -> Laps:
    """The stopwatch of a torch device."""
    return CudaLaps() if torch_name.startswith("cuda") else CpuLaps()
