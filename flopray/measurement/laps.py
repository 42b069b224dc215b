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
        """End a lap here in the order of the work, and begin the next one."""
        ...

    def resume(self) -> None:
        """Begin the next lap here instead: what happened since the last one belongs to no lap."""
        ...

    def durations_s(self) -> list[float]:
        """Seconds of each lap that has finished."""
        ...

    def finish(self) -> list[float]:
        """Wait for all laps and return their seconds."""
        ...

    def span_s(self) -> float:
        """Seconds from the start to the end of the last lap, gaps included; after `finish`."""
        ...


class CpuLaps:
    """Laps of work that runs in this thread."""

    clock = "perf_counter"

    def start(self) -> float:
        """Begin the first lap."""
        self._start = self._begin = self._end = time.perf_counter()
        self._durations: list[float] = []
        return self._start

    def lap(self) -> None:
        """End a lap."""
        self._end = time.perf_counter()
        self._durations.append(self._end - self._begin)
        self._begin = self._end

    def resume(self) -> None:
        """Begin the next lap now."""
        self._begin = time.perf_counter()

    def durations_s(self) -> list[float]:
        """Seconds of each lap."""
        return self._durations

    def finish(self) -> list[float]:
        """Seconds of each lap; there is nothing to wait for."""
        return self._durations

    def span_s(self) -> float:
        """Seconds from the start to the end of the last lap."""
        return self._end - self._start


class CudaLaps:
    """Laps by CUDA events on the current stream (resolution about 0.5 us,
    https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__EVENT.html).
    """

    clock = "cuda_events"

    def start(self) -> float:
        """Synchronise, then begin the first lap."""
        torch.cuda.synchronize()
        self._begins = [self._record()]
        self._ends: list[torch.cuda.Event] = []
        self._durations: list[float] = []
        return time.perf_counter()

    def lap(self) -> None:
        """End a lap; waits while more than a few laps are queued."""
        end = self._record()
        self._ends.append(end)
        self._begins.append(end)
        if len(self._ends) >= _AHEAD:
            self._ends[-_AHEAD].synchronize()

    def resume(self) -> None:
        """Begin the next lap where the stream is now; without effect on the times while work is still queued."""
        self._begins[-1] = self._record()

    def durations_s(self) -> list[float]:
        """Seconds of each lap that has ended on the device."""
        for begin, end in zip(self._begins[len(self._durations) :], self._ends[len(self._durations) :], strict=False):
            if not end.query():
                break
            self._durations.append(begin.elapsed_time(end) / 1e3)
        return self._durations

    def finish(self) -> list[float]:
        """Wait for the last lap."""
        self._ends[-1].synchronize()
        return self.durations_s()

    def span_s(self) -> float:
        """Seconds from the start to the end of the last lap, by events."""
        return self._begins[0].elapsed_time(self._ends[-1]) / 1e3

    @staticmethod
    def _record() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def laps_for(torch_name: str) -> Laps:
    """The stopwatch of a torch device."""
    return CudaLaps() if torch_name.startswith("cuda") else CpuLaps()
