"""The process that ncu runs: walks a chunk of points and launches every phase once, its new operations inside ranges.

    python -m flopray.measurement.counting.worker CHUNK.json PROGRESS.jsonl

Progress is one JSON line for each event: `{"point": 3}` a point began, with `phase` that the phase is over, with
`operations` (times by number) or the columns of a failure; `{"operation": 17, "name": ..., "pointwise": ...}` a new
operation; `{"ready": ...}`, `{"began": ...}` and `{"walked": ...}` the monotonic clock at that time. A range is called
`operation17`, or `point3-forward` where all launches are counted.

The process gets ready, which takes seconds, and touches no device until the chunk's file `turn` is there. It lists the
points to walk, says after how many seconds no further one is begun, and where the operations are that earlier processes
counted; those that are known at the end are written to the chunk's file `operations`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import nvtx
import torch
import torch._dynamo  # which optimizers import at their first use, for seconds: before this process has its turn
from torch.multiprocessing.reductions import StorageWeakRef

from flopray.flops.executed.report import DOMAIN
from flopray.mappings import Json
from flopray.measurement.columns import failure_of
from flopray.measurement.counting.walk import Operations, Unlaunched, Walk, Within
from flopray.point import Point, is_compiled
from flopray.workloads.phases import BuiltPoint
from flopray.workloads.registry import load, point_from

_LOOK_S = 0.02
#: Exit code of a process whose CUDA context is broken.
POISONED = 70
#: Phases whose first iteration in a process does the same as later ones. Others first make an optimizer's state or fill
#: a cache.
_STATELESS = ("inference", "forward", "backward", "forward_backward")


class Worker:
    """Counts points one after the other.

    Args:
        chunk: `workload` (its `reference_of`), `points` (their fields), `phases`, `seed`, `device`, `every_launch`,
            and the paths and numbers that `main` reads.
        progress: open for writing.

    Attributes:
        operations: that are known.
    """

    def __init__(self, chunk: Json, progress: TextIO) -> None:
        self._chunk, self._progress = chunk, progress
        self.operations = Operations()
        self._told = 0
        self._memory: list[StorageWeakRef] = []
        self._launches_all = chunk["every_launch"]
        self._device_type = torch.device(chunk["device"]).type
        self._cuda = self._device_type == "cuda"
        self._workload = load(chunk["workload"])

    def run(self, walked: Sequence[int], *, known: Operations | None = None, for_s: float = math.inf) -> None:
        """Walk points of the chunk.

        Args:
            walked: their places in the chunk, in the order they are walked.
            known: operations that were counted before.
            for_s: no point but the first is begun later than this.
        """
        until = time.monotonic() + for_s
        if known is not None:
            self.operations, self._told = known, len(known.names)
        for count, index in enumerate(walked):
            if count and time.monotonic() >= until:
                break
            self._tell(point=index)
            point = point_from(self._chunk["points"][index], self._workload)
            if count == 0 or not self._know(index, point):
                self._count_point(index, point, first=count == 0)
            gc.collect()
            self._clear_memory()
            if count == 0:
                gc.freeze()  # modules that torch imported late stay alive: later collections skip them
            self._synchronize()
        self._tell_operations()  # also those of phases that failed: later processes know them too

    def _know(self, index: int, point: Point) -> bool:
        """Walk a point whose operations were all counted before, without a launch; False where it must be launched."""
        if self._launches_all or self.operations.need_launches or is_compiled(point.execution):
            return False
        try:
            found = self._counts_of_known(point)
        except Exception:  # also for lack of memory: the launch will show what is wrong
            found = None
        if found is None:
            gc.collect()
            self._clear_memory()
            return False
        for phase, operations in found.items():
            self._tell(point=index, phase=phase, operations=operations, launched=False)
        return True

    def _counts_of_known(self, point: Point) -> dict[str, dict[int, int]]:
        """Times of each operation by phase, without a launch.

        Raises:
            MustLaunch: an operation has to be launched.
        """
        found = {}
        with self._unlaunched(point, counted=False):
            built = self._build(point)
        for phase in self._chunk["phases"]:
            with self._unlaunched(point, counted=False):
                work = built.launched(phase)
                if phase not in _STATELESS:
                    work()
            with self._unlaunched(point, counted=True) as walk:
                work()
            found[phase] = dict(walk.counts)
        return found

    @contextlib.contextmanager
    def _unlaunched(self, point: Point, *, counted: bool) -> Iterator[Unlaunched]:
        walk = Unlaunched(self.operations, point.precision, counted=counted)
        try:
            with torch.autograd.set_multithreading_enabled(False), walk:
                yield walk
        finally:
            self._memory += walk.memory
        walk.check()

    def _clear_memory(self) -> None:
        """Clear memory without numbers that is still alive: a workload may keep tensors from point to point.

        It becomes zeros, and every later point is launched.
        """
        kept = [one for ref in self._memory if (one := torch.UntypedStorage._new_with_weak_ptr(ref.cdata)) is not None]
        self._memory.clear()
        for storage in kept:
            torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).zero_()
        self._launches_all |= bool(kept)

    def _build(self, point: Point) -> BuiltPoint:
        memory_bytes = torch.cuda.get_device_properties(0).total_memory if self._cuda else None
        return BuiltPoint(point, device=self._chunk["device"], seed=self._chunk["seed"], memory_bytes=memory_bytes)

    def _count_point(self, index: int, point: Point, *, first: bool) -> None:
        try:
            with self._walk(point, None):
                built = self._build(point)
        except Exception as error:
            for phase in self._chunk["phases"]:
                self._tell(point=index, phase=phase, **_failed(error))
            return
        for phase in self._chunk["phases"]:
            try:
                operations = self._count_phase(built, index, phase, first=first)
            except Exception as error:
                self._tell(point=index, phase=phase, **_failed(error))
            else:
                self._tell(point=index, phase=phase, operations=operations)

    def _count_phase(self, built: BuiltPoint, index: int, phase: str, *, first: bool) -> dict[int, int]:
        """Times of each operation in one iteration; empty where all launches of the phase are counted together."""
        with self._walk(built.point, None):
            work = built.launched(phase)
            if first or phase not in _STATELESS or is_compiled(built.point.execution):
                # Allocates what later iterations need: state, cuBLAS workspaces, compiled code. Elsewhere it would only
                # cost time, since Nsight Compute slows the launch of kernels that it does not count too.
                work()
                self._synchronize()
        if self._chunk["every_launch"] or is_compiled(built.point.execution):
            with self._range(f"point{index}-{phase}"):
                work()
                self._synchronize()
            return {}
        with self._walk(built.point, lambda n: self._range(f"operation{n}")) as counts:
            work()
        self._synchronize()
        self._tell_operations()
        return dict(counts)

    @contextlib.contextmanager
    def _walk(self, point: Point, within: Within | None) -> Iterator[Counter[int]]:
        """Count operations, except where all launches are counted together."""
        if self._chunk["every_launch"] or is_compiled(point.execution):
            yield Counter()
            return
        walk = Walk(self.operations, point.precision, within, device=self._device_type)
        # In autograd's own thread, where a backward pass runs on a GPU, operations would be launched outside of ranges.
        with torch.autograd.set_multithreading_enabled(False), walk:
            yield walk.counts

    @contextlib.contextmanager
    def _range(self, label: str) -> Iterator[None]:
        # Start/end and not push/pop: autograd launches from a thread of its own, whose kernels the latter would miss.
        handle = nvtx.start_range(message=label, domain=DOMAIN)
        try:
            yield
        finally:
            nvtx.end_range(handle)

    def tell_time(self, what: str) -> None:
        """Report that the process has come this far."""
        self._tell(**{what: time.monotonic()})

    def _tell_operations(self) -> None:
        for number in range(self._told, len(self.operations.names)):
            names, pointwise = self.operations.names, self.operations.pointwise
            self._tell(operation=number, name=names[number], pointwise=pointwise[number])
        self._told = len(self.operations.names)

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


def _failed(error: Exception) -> dict[str, object]:
    failure = failure_of(error)
    return {"status": failure.status, "reason": failure.reason}


def end_with(parent: int) -> None:
    """End when the process that asked for the counts is gone: nobody would read them, and others need the GPU."""
    while True:
        time.sleep(1.0)
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(1)


def _wait_for_turn(turn: Path) -> Json:
    """What to walk, once it is this process's turn: nothing else uses the device then."""
    while not turn.exists():
        time.sleep(_LOOK_S)
    return json.loads(turn.read_text())


def main(arguments: list[str]) -> int:
    """Entry point."""
    chunk = json.loads(Path(arguments[0]).read_text())
    threading.Thread(target=end_with, args=(chunk["parent"],), daemon=True).start()
    with Path(arguments[1]).open("w") as progress:
        worker = Worker(chunk, progress)
        worker.tell_time("ready")
        turn = _wait_for_turn(Path(chunk["turn"]))
        worker.tell_time("began")
        known = Operations.loaded(Path(turn["known"]).read_bytes()) if turn["known"] else None
        worker.run(turn["places"], known=known, for_s=math.inf if turn["for_s"] is None else turn["for_s"])
        worker.tell_time("walked")
        Path(chunk["operations"]).write_bytes(worker.operations.saved())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
