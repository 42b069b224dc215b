"""One measured window: warm up, repeat one phase without pause, stop when the answer is good enough.

Nothing inside the window waits for the device: both of its ends are synchronised, and in between the launching thread
stays ahead. Time comes from the laps, energy from the ticks that a poller saw meanwhile, so one pass gives both.

A lap is one batch of iterations, timed by device events on CUDA and by a monotonic clock on the CPU. On CUDA the
launching thread never waits for the newest lap, so the device stays busy from the first to the last; it only waits for
a lap further back, which bounds the queue of launches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from flopray.flops.step import check_returned
from flopray.workloads.execution import Work, iterations_of

#: A lap long enough that its own cost (about 1 us) does not show, short enough to stop in time.
_LAP_S = 0.01
#: At most laps, asking `enough` costs nothing; an answer that takes this long makes a lap of 10 ms 0.2 % longer.
_ASKING_SHOWS_S = 2e-5
WARM_UP_S = 0.03
#: A warm-up goes on for at most this much longer until the pace is stable, or for this share of a window's cap if that
#: is less: where short windows are asked for, waiting for an unsteady device must not take longer than measuring.
WARM_UP_CAP_S, WARM_UP_CAP_SHARE = 1.0, 1 / 3
#: A GPU that did nothing for this long may have lowered its clocks (an H100 keeps them up for six seconds).
COLD_AFTER_S = 5.0
#: It raises them again within this time of load, in steps that look stable for a moment.
WAKE_S = 1.0
_STABLE_SPREAD = 0.05
#: Laps that may be queued ahead of the device. Two keep it busy; the third covers a late launching thread.
_AHEAD = 3


@dataclass(frozen=True)
class Warmup:
    """Time and iterations until the time per iteration was stable, or the cap was reached."""

    seconds: float
    iterations: int
    iteration_s: float


@dataclass(frozen=True)
class Window:
    """Laps of equally many iterations, and when the device was busy with them (host clock, `time.perf_counter`).

    Laps need not add up to the whole: time in which the device waited for `enough` is left out.
    """

    lap_times_s: list[float]
    iterations_per_lap: int
    start_s: float
    end_s: float

    @property
    def iterations(self) -> int:
        """Iterations in the window."""
        return len(self.lap_times_s) * self.iterations_per_lap

    @property
    def iteration_times_s(self) -> list[float]:
        """Mean time of one iteration, for each lap."""
        return [lap / self.iterations_per_lap for lap in self.lap_times_s]


def warm_up(work: Work, laps: Laps, *, at_least_s: float = WARM_UP_S, cap_s: float = WARM_UP_CAP_S) -> Warmup:
    """Repeat until three laps in a row agree within 5 %, for a while at least and not much longer.

    The first call stands outside both limits: it may compile.

    Args:
        work: of a phase.
        laps: stopwatch of the device.
        at_least_s: however stable the pace; `WAKE_S` for a device that may be at idle clocks, which is also what a
            first iteration of more than `COLD_AFTER_S` (it compiled) leads to.
        cap_s: for so much longer at most.

    Raises:
        InputError: a call only makes a generator or a coroutine.
    """
    begin = time.perf_counter()
    laps.start()
    returned = work()
    laps.lap()
    check_returned(returned)
    call_s, calls = laps.finish()[0], 1
    stable_from = time.perf_counter()
    if stable_from - begin > COLD_AFTER_S:
        at_least_s = max(at_least_s, WAKE_S)
    recent: list[float] = []
    while (spent := time.perf_counter() - stable_from) < at_least_s + cap_s:
        if len(recent) == 3 and spent > at_least_s and max(recent) <= min(recent) * (1 + _STABLE_SPREAD):
            break
        batch = max(1, round(_LAP_S / call_s))
        laps.start()
        for _ in range(batch):
            work()
        laps.lap()
        call_s = max(laps.finish()[0] / batch, 1e-9)
        calls += batch
        recent = [*recent[-2:], call_s]
    each = iterations_of(work)
    return Warmup(time.perf_counter() - begin, calls * each, call_s / each)


def run_window(
    work: Work,
    laps: Laps,
    *,
    iteration_s: float,
    max_seconds: float,
    enough: Callable[[Window], bool],
    before_end: Callable[[], None],
) -> Window:
    """Repeat the work until `enough` says so or the cap is reached.

    Args:
        work: of a phase.
        laps: stopwatch of the device.
        iteration_s: expected time of an iteration, from the warm-up.
        max_seconds: cap on the window.
        enough: asked after every lap with the window so far; must be cheap, the device has about 20 ms of work queued.
        before_end: called once while the device still has work, to read clocks and temperature under load.

    Returns:
        The whole window.
    """
    each = iterations_of(work)
    calls = max(1, round(_LAP_S / (iteration_s * each)))
    batch = calls * each
    start = laps.start()
    while True:
        for _ in range(calls):
            work()
        laps.lap()
        now = time.perf_counter()
        if now - start >= max_seconds or enough(Window(laps.durations_s(), batch, start, now)):
            break
        if time.perf_counter() - now > _ASKING_SHOWS_S:
            laps.resume()  # the device ran out of work and waited for the answer: that is not the time of the work
    before_end()
    durations = laps.finish()
    # When the device fell idle; the host may have been busy reading state by then.
    return Window(durations, batch, start, start + laps.span_s())


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
        """Begin the next lap here instead: the time since the last one belongs to no lap."""
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
