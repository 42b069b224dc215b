"""Loads for `energy_windows.py`: forward passes of an MLP as CUDA-graph replays, and one that only sleeps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Protocol

#: Work is launched in chunks of about this length, two ahead, so that a load ends on time.
CHUNK_S = 0.005
#: A replay is at least this long, as in `flopray.workloads.execution`: with shorter ones the device would sometimes
#: wait for the launching thread, and the load, not its measurement, would scatter.
REPLAY_S = 2e-4


@dataclass(frozen=True)
class Workload:
    """n layers sigmoid(W @ x) of width d on m tokens."""

    name: str
    n_layers: int
    width: int
    tokens: int
    dtype: str


#: From about 4 mJ to about 1 J per iteration on an H100. The last one would take more power than the board may, so its
#: limiter is always active: a short window then sees only a part of the load's cycle.
WORKLOADS = {
    "small": Workload("small", 2, 512, 64, "float32"),
    "medium": Workload("medium", 8, 1024, 128, "float32"),
    "large": Workload("large", 96, 1024, 256, "float32"),
    "capped": Workload("capped", 32, 4096, 1024, "bfloat16"),
}


@dataclass(frozen=True)
class Span:
    """One stretch of load: host clock at both synchronised ends, iterations, and seconds per iteration."""

    start_s: float
    end_s: float
    iterations: int
    time_s: float


class Load(Protocol):
    """Something that keeps a device busy with equal iterations."""

    def drive(self, seconds: float, eager: bool = False) -> Span:
        """Run for about `seconds`, idle and synchronised at both ends."""
        ...

    def temperature_c(self) -> float | None:
        """Present temperature of the device."""
        ...


class GraphLoad:
    """A `Workload` on a CUDA device."""

    def __init__(self, workload: Workload, device: int, gpu: Any) -> None:
        import torch

        self._torch, self._gpu = torch, gpu
        torch.cuda.set_device(device)
        dtype = getattr(torch, workload.dtype)
        generator = torch.Generator(device="cuda").manual_seed(0)

        def matrix(rows: int, columns: int, scale: float) -> Any:
            return (torch.randn(rows, columns, device="cuda", generator=generator) * scale).to(dtype)

        width = workload.width
        self._weights = [matrix(width, width, width**-0.5) for _ in range(workload.n_layers)]
        self._input = matrix(width, workload.tokens, 1.0)
        self._capture()
        first = self._chunks(5)
        self._replays_a_chunk = max(1, round(CHUNK_S / (first.time_s * self._iterations_a_replay)))
        self._eager_a_chunk = max(1, round(CHUNK_S / max(first.time_s, 1e-4)))

    def drive(self, seconds: float, eager: bool = False) -> Span:
        """See `Load`."""
        return self._chunks(None, seconds, eager)

    def temperature_c(self) -> float | None:
        """See `Load`."""
        return self._gpu.state().temperature_c

    def _forward(self) -> Any:
        x = self._input
        with self._torch.no_grad():
            for weight in self._weights:
                x = self._torch.sigmoid(weight @ x)
        return x

    def _capture(self) -> None:
        torch = self._torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(5):
                self._forward()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        single, _ = self._graph_of(1)
        for _ in range(10):
            single.replay()
        self._graph, self._iterations_a_replay = single, 1
        torch.cuda.synchronize()
        self._replays_a_chunk = 1
        repeats = min(64, math.ceil(REPLAY_S / self._chunks(50).time_s))
        if repeats > 1:
            self._graph, self._iterations_a_replay = self._graph_of(repeats)

    def _graph_of(self, repeats: int) -> tuple[Any, int]:
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph):
            for _ in range(repeats):
                self._output = self._forward()
        return graph, repeats

    def _chunks(self, count: int | None, seconds: float = 0.0, eager: bool = False) -> Span:
        """Runs `count` chunks, or chunks until `seconds` have passed."""
        torch = self._torch
        work = self._forward if eager else self._graph.replay
        size = self._eager_a_chunk if eager else self._replays_a_chunk
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        marks: list[Any] = []
        torch.cuda.synchronize()
        start_s = time.perf_counter()
        begin.record()
        while len(marks) < count if count is not None else time.perf_counter() - start_s < seconds:
            for _ in range(size):
                work()
            mark = torch.cuda.Event(blocking=True)
            mark.record()
            marks.append(mark)
            if len(marks) > 2:
                marks[-3].synchronize()
        end.record()
        torch.cuda.synchronize()
        end_s = time.perf_counter()
        iterations = size * len(marks) * (1 if eager else self._iterations_a_replay)
        return Span(start_s, end_s, iterations, begin.elapsed_time(end) / 1e3 / iterations)


class SleepingLoad:
    """Simulated iterations of one millisecond: to check the bench with a simulated meter."""

    def drive(self, seconds: float, eager: bool = False) -> Span:
        """See `Load`."""
        del eager
        start_s = time.perf_counter()
        time.sleep(seconds)
        end_s = time.perf_counter()
        iterations = max(1, round((end_s - start_s) / 1e-3))
        return Span(start_s, end_s, iterations, (end_s - start_s) / iterations)

    def temperature_c(self) -> float | None:
        """See `Load`."""
        return None
