"""Counts a chunk of points: one ncu process for each kind of core walks all of them.

A point that takes its process down costs only itself: what was finished before it is kept, the point is tried once more
alone, and the points behind it go on in a process of their own.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flopray.errors import MeasurementError
from flopray.flops.executed import ncu, report
from flopray.flops.executed.counts import NotCounted, PhaseCounts, Run, by_label, phase_counts
from flopray.flops.executed.metrics import CounterPass, chip_of, passes_for
from flopray.point import Point
from flopray.workloads.base import workload_of
from flopray.workloads.registry import reference_of

Outcome = dict[str, PhaseCounts | NotCounted]
#: A process that tells nothing new for so long hangs. Compiling a large model is the longest that is none.
_QUIET_FOR_S = 600.0
_POINT = re.compile(rb'^\{"point": (\d+)\}$', re.MULTILINE)
_WORKER = (sys.executable, "-m", "flopray.measurement.counting.worker")


class Chunks:
    """Counts points on one GPU.

    Args:
        phases: of each point.
        compute_capability: of the GPU, such as `9.0`.
        seed: of weights and inputs.
        device: torch device of the worker.
        every_launch: count every kernel instead of one of equal ones; slow, to check the other way.
        tell: called with each point that begins.

    Raises:
        MeasurementError: ncu is missing or cannot count on this chip; the message says what would help.
    """

    def __init__(
        self,
        phases: Sequence[str],
        *,
        compute_capability: str,
        seed: int = 0,
        device: str = "cuda:0",
        every_launch: bool = False,
        tell: Callable[[Point], object] | None = None,
    ) -> None:
        self._ncu = ncu.find_ncu()
        self.version = ncu.ncu_version(self._ncu)
        chip = chip_of(compute_capability)
        if chip is not None:
            ncu.check_chip(self._ncu, chip)
        self._phases, self._capability, self._tell = tuple(phases), compute_capability, tell
        self._chunk = {"phases": self._phases, "seed": seed, "device": device, "every_launch": every_launch}

    def count(self, points: Sequence[Point]) -> Iterator[tuple[Point, Outcome]]:
        """Count points of one precision.

        Args:
            points: in the order they are walked.

        Yields:
            Each point with the counts of every phase, or why there are none. Points come when their process has ended.

        Raises:
            MeasurementError: nothing can be counted here, for a reason that no repetition would mend.
        """
        passes = passes_for(points[0].precision, self._capability) if points else ()
        waiting = deque([list(points)])
        while waiting:
            chunk = waiting.popleft()
            try:
                runs, finished, how = self._walk(chunk, passes)
            except _TableLost as lost:
                if len(chunk) == 1:
                    yield chunk[0], self._died([], str(lost))
                else:  # what was finished went down with the table: it is counted again, away from what took it down
                    parts = (chunk[lost.finished + 1 :], chunk[: lost.finished], [chunk[lost.finished]])
                    waiting.extendleft(part for part in parts if part)
                continue
            for index in range(finished):
                yield chunk[index], {phase: phase_counts(runs, index, phase) for phase in self._phases}
            if finished == len(chunk):
                continue
            if len(chunk) == 1:
                yield chunk[0], self._died(runs if len(runs) == len(passes) else [], how)
            else:
                waiting.extendleft(part for part in (chunk[finished + 1 :], [chunk[finished]]) if part)

    def _walk(self, chunk: list[Point], passes: Sequence[CounterPass]) -> tuple[list[Run], int, str]:
        """All runs over a chunk, the number of points that every one of them finished, and how the last one ended."""
        runs: list[Run] = []
        finished, how = len(chunk), ""
        for counters in passes:
            if finished:
                run, ended, whole = self._run(chunk[:finished] if runs else chunk, counters)
                runs.append(run)
                done = [all((i, phase) in run.outcomes for phase in self._phases) for i in range(finished)]
                if not whole:
                    # The last one, where all had told that they are done: something took ncu down at its end.
                    raise _TableLost(done.index(False) if False in done else len(done) - 1, ended or "")
                finished = done.index(False) if False in done else finished
                how = ended or how
        return runs, finished, how

    def _died(self, runs: Sequence[Run], how: str) -> Outcome:
        """The outcome of a point that took its own process down: what every run had finished before counts."""
        reason = f"the process that counts died: {how or 'it ended early'}"
        return {
            phase: phase_counts(runs, 0, phase)
            if runs and all((0, phase) in run.outcomes for run in runs)
            else NotCounted("failed", reason)
            for phase in self._phases
        }

    def _run(self, points: Sequence[Point], counters: CounterPass) -> tuple[Run, str | None, bool]:
        """One run, how it ended if not well, and whether ncu's table is whole: it writes it at its end."""
        with tempfile.TemporaryDirectory(prefix="flopray-") as name:
            folder = Path(name)
            chunk, progress, log, output = (folder / n for n in ("chunk.json", "progress.jsonl", "ncu.csv", "output"))
            content = {**self._chunk, "parent": os.getpid(), "points": [point.fields() for point in points]}
            content["workload"] = reference_of(workload_of(points[0]))
            chunk.write_text(json.dumps(content))
            how = ncu.run(
                ncu.command(self._ncu, counters, log, [*_WORKER, str(chunk), str(progress)]),
                output=output,
                environment=_environment(folder),
                quiet_for_s=_QUIET_FOR_S,
                progress=_Follower(progress, points, self._tell),
            )
            text = log.read_text(errors="replace") if log.exists() else ""
            problem = report.problem_of(text + output.read_text(errors="replace"))
            if problem:
                raise problem
            events = _events(progress)
            last = _last_line(output)
            if how and last:
                how = f"{how} ({last})"
            if not events:
                raise MeasurementError(f"counting could not begin: {how or 'the worker told nothing'}")
        run = _read(counters, text, events)
        return run, how, how is None or (bool(run.launches) and text.endswith("\n"))


class _TableLost(Exception):
    """ncu went down without its table, or in the middle of it; `finished` points had been walked."""

    def __init__(self, finished: int, how: str) -> None:
        super().__init__(how)
        self.finished = finished


class _Follower:
    """Tells which point is being counted; its value is what `ncu.run` watches."""

    def __init__(self, path: Path, points: Sequence[Point], tell: Callable[[Point], object] | None) -> None:
        self._path, self._points, self._tell = path, points, tell
        self._last = -1

    def __call__(self) -> int:
        """Bytes that the worker has told."""
        try:
            size = self._path.stat().st_size
            with self._path.open("rb") as file:
                file.seek(max(0, size - 65536))
                begun = _POINT.findall(file.read())
        except OSError:
            return 0
        point = int(begun[-1]) if begun else -1
        if point > self._last:
            self._last = point
            if self._tell:
                self._tell(self._points[point])
        return size


def _read(counters: CounterPass, text: str, events: list[dict[str, Any]]) -> Run:
    return Run(
        counters=counters,
        launches=by_label(report.launches(text.splitlines())),
        outcomes={(event["point"], event["phase"]): event for event in events if "phase" in event},
        operations={event["operation"]: event for event in events if "operation" in event},
    )


def _events(path: Path) -> list[dict[str, Any]]:
    """What the worker told; a last line that its end cut off is left out."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def _environment(folder: Path) -> dict[str, str]:
    """Of ncu and its worker: the worker imports what this process imports.

    The folder for temporary files is their own, because ncu keeps a lock there that one user's processes take from
    another's.
    """
    paths = [path for path in sys.path if path]
    # Compiled code is kept where it would be without this, so that the second run finds what the first one compiled.
    compiled = {"TORCHINDUCTOR_CACHE_DIR": f"{tempfile.gettempdir()}/torchinductor_{getpass.getuser()}"}
    return {**compiled, **os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(folder)}


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
