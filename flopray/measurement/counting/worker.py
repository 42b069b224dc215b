"""The process that ncu runs: walks a chunk of points and launches every phase once, its new operations inside ranges.

    python -m flopray.measurement.counting.worker CHUNK.json PROGRESS.jsonl

Progress is one JSON line for whatever happened: `{"point": 3}` a point began, with `phase` that the phase is over, with
`operations` (times by number) or the columns of a failure; `{"operation": 17, "name": ..., "pointwise": ...}` a new
operation. A range is called `operation17`, or `point3-forward` where all launches are counted.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import nvtx
import torch

from flopray.flops.executed.report import DOMAIN
from flopray.measurement.columns import failure_of
from flopray.measurement.counting.walk import Operations, Walk
from flopray.point import Point
from flopray.workloads.phases import BuiltPoint
from flopray.workloads.registry import load, point_from

#: Exit code of a process whose CUDA context is broken.
POISONED = 70
#: Phases whose first iteration in a process does what every later one does. Others first make an optimizer's state or
#: fill a cache.
_STATELESS = ("inference", "forward", "backward", "forward_backward")


class Worker:
    """Counts points one after the other.

    Args:
        chunk: `workload` (its `reference_of`), `points` (their fields), `phases`, `seed`, `device`, `every_launch`.
        progress: open for writing.
    """

    def __init__(self, chunk: dict[str, Any], progress: TextIO) -> None:
        self._chunk, self._progress = chunk, progress
        self._operations = Operations()
        self._told = 0
        self._cuda = chunk["device"].startswith("cuda")
        self._workload = load(chunk["workload"])

    def run(self) -> None:
        """Walk the whole chunk."""
        for index, fields in enumerate(self._chunk["points"]):
            self._tell(point=index)
            self._count_point(index, point_from(fields, self._workload))
            gc.collect()
            if index == 0:
                gc.freeze()  # modules that torch imported late stay; later collections need not look at them
            self._synchronize()

    def _count_point(self, index: int, point: Point) -> None:
        try:
            memory_bytes = torch.cuda.get_device_properties(0).total_memory if self._cuda else None
            built = BuiltPoint(point, device=self._chunk["device"], seed=self._chunk["seed"], memory_bytes=memory_bytes)
        except Exception as error:
            for phase in self._chunk["phases"]:
                self._tell(point=index, phase=phase, **_failed(error))
            return
        for phase in self._chunk["phases"]:
            try:
                operations = self._count_phase(built, index, phase)
            except Exception as error:
                self._tell(point=index, phase=phase, **_failed(error))
            else:
                self._tell(point=index, phase=phase, operations=operations)

    def _count_phase(self, built: BuiltPoint, index: int, phase: str) -> dict[int, int]:
        """Times of each operation in one iteration; empty where all launches of the phase are counted together."""
        work = built.launched(phase)
        if index == 0 or phase not in _STATELESS or built.point.execution == "compile":
            # Allocates what later iterations find: state, cuBLAS workspaces, compiled code. Elsewhere it would only
            # cost time, since Nsight Compute slows the launch of kernels that it does not count too.
            work()
            self._synchronize()
        if self._chunk["every_launch"] or built.point.execution == "compile":
            with self._range(f"point{index}-{phase}"):
                work()
                self._synchronize()
            return {}
        # In autograd's own thread, where a backward pass runs on a GPU, operations would be launched outside of ranges.
        with (
            torch.autograd.set_multithreading_enabled(False),
            Walk(self._operations, built.point.precision, lambda n: self._range(f"operation{n}")) as walk,
        ):
            work()
        self._synchronize()
        self._tell_operations()
        return dict(walk.counts)

    @contextlib.contextmanager
    def _range(self, label: str) -> Iterator[None]:
        # Start/end and not push/pop: autograd launches from a thread of its own, whose kernels the latter would miss.
        handle = nvtx.start_range(message=label, domain=DOMAIN)
        try:
            yield
        finally:
            nvtx.end_range(handle)

    def _tell_operations(self) -> None:
        for number in range(self._told, len(self._operations.names)):
            names, pointwise = self._operations.names, self._operations.pointwise
            self._tell(operation=number, name=names[number], pointwise=pointwise[number])
        self._told = len(self._operations.names)

    def _tell(self, **event: Any) -> None:
        self._progress.write(json.dumps(event) + "\n")
        self._progress.flush()

    def _synchronize(self) -> None:
        if self._cuda:
            try:
                torch.cuda.synchronize()
            except RuntimeError as error:
                print(f"the CUDA context is broken: {error}", file=sys.stderr, flush=True)
                os._exit(POISONED)


def _failed(error: Exception) -> dict[str, Any]:
    failure = failure_of(error)
    return {"status": failure.status, "reason": failure.reason}


def _end_with(parent: int) -> None:
    """End when the process that asked for the counts is gone: nobody would read them, and the GPU is wanted."""
    while True:
        time.sleep(1.0)
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(1)


def main(arguments: list[str]) -> int:
    """Entry point."""
    chunk = json.loads(Path(arguments[0]).read_text())
    threading.Thread(target=_end_with, args=(chunk["parent"],), daemon=True).start()
    with Path(arguments[1]).open("w") as progress:
        Worker(chunk, progress).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
