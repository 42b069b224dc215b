"""One ncu process over a chunk of points: started early, given its turn on the device, and read at its end."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flopray.errors import MeasurementError
from flopray.flops.executed import ncu, report
from flopray.flops.executed.counts import Run, by_label
from flopray.flops.executed.metrics import SharedRun
from flopray.mappings import Json
from flopray.point import Point
from flopray.units import counted

_POINT = re.compile(rb'^\{"point": (\d+)\}$', re.MULTILINE)
_WORKER = (sys.executable, "-m", "flopray.measurement.counting.worker")


class TableLost(Exception):
    """ncu ended without its table, or in the middle of it; `finished` points had been walked."""

    def __init__(self, finished: int, how: str) -> None:
        super().__init__(how)
        self.finished = finished


@dataclass(frozen=True)
class Ended:
    """What a process left.

    Attributes:
        run: what was counted.
        how: how it ended, if not normally.
        whole: whether ncu's table is whole: it writes it at its end.
        seconds: what took how long.
    """

    run: Run
    how: str | None
    whole: bool
    seconds: ProcessSeconds


@dataclass(frozen=True)
class ProcessSeconds:
    """What a process took, in seconds.

    Attributes:
        unit: the cores that it counted, `cuda` or `tensor`.
        points: that it walked.
        launched: of them, points that were launched; the operations of the others were all known.
        start_s: from its start until it was ready; may overlap another process's turn.
        wait_s: from then until its turn came.
        walk_s: its turn until the last point was walked.
        end_s: from then until ncu had written its table.
    """

    unit: str
    points: int
    launched: int
    start_s: float
    wait_s: float
    walk_s: float
    end_s: float

    def __str__(self) -> str:
        """One line for the log."""
        spent = f"start {self.start_s:.1f} s, waiting {self.wait_s:.1f} s, walk {self.walk_s:.1f} s"
        points = f"{counted(self.points, 'point')} ({self.launched} launched)"
        return f"ncu counted {points} on {self.unit} cores: {spent}, end {self.end_s:.1f} s"


class CountingProcess:
    """ncu around a worker that walks points when its turn comes; it ends with the context.

    Args:
        path: of ncu.
        shared: what is counted.
        points: all points of the chunk.
        chunk: what the worker is told besides points: `workload`, `phases`, `seed`, `device`, `every_launch`.
    """

    def __init__(self, path: Path, shared: SharedRun, points: Sequence[Point], chunk: Mapping[str, object]) -> None:
        self._shared, self._points = shared, points
        self._temporary = tempfile.TemporaryDirectory(prefix="flopray-")
        folder = Path(self._temporary.name)
        self._progress, self._log, self._output = (folder / n for n in ("progress.jsonl", "ncu.csv", "output"))
        self._turn = folder / "turn"
        told = folder / "chunk.json"
        content = {**chunk, "parent": os.getpid(), "turn": str(self._turn)}
        told.write_text(json.dumps(content | {"points": [point.fields() for point in points]}))
        self._started = time.monotonic()
        self._process = ncu.Process(
            ncu.command(path, shared.counters, self._log, [*_WORKER, str(told), str(self._progress)]),
            output=self._output,
            environment=environment_of(folder),
        )

    def __enter__(self) -> CountingProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.__exit__(*exception)
        self._temporary.cleanup()

    def walk(
        self, places: Sequence[int], *, quiet_for_s: float, tell: Callable[[Point], object] | None = None
    ) -> Ended:
        """Let the process use the device, and wait for its end.

        Args:
            places: of the points that it walks.
            quiet_for_s: it is ended when it reports nothing new for this long.
            tell: called with each point that begins.

        Raises:
            MeasurementError: nothing can be counted here, for a reason that no repetition would mend.
        """
        draft = self._turn.with_suffix(".draft")
        draft.write_text(json.dumps(list(places)))
        draft.rename(self._turn)  # in one piece: the worker looks for it all the time
        follower = _Follower(self._progress, self._points, tell)
        how = self._process.finish(quiet_for_s=quiet_for_s, progress=follower)
        ended = time.monotonic()
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        problem = report.problem_of(text + self._output.read_text(errors="replace"))
        if problem:
            raise problem
        events = events_of(self._progress)
        last = last_line_of(self._output)
        if how and last:
            how = f"{how} ({last})"
        if not any("point" in event for event in events):
            raise MeasurementError(f"counting could not begin: {how or 'the worker told nothing'}")
        run = Run(
            counters=self._shared.counters,
            launches=by_label(report.launches(text.splitlines())),
            outcomes={(event["point"], event["phase"]): event for event in events if "phase" in event},
            operations={event["operation"]: event for event in events if "operation" in event},
        )
        whole = how is None or (bool(run.launches) and text.endswith("\n"))
        return Ended(run, how, whole, self._seconds(events, ended))

    def _seconds(self, events: list[Json], ended: float) -> ProcessSeconds:
        at = {name: event[name] for event in events for name in ("ready", "began", "walked") if name in event}
        ready = at.get("ready", ended)
        began = at.get("began", ended)
        walked = at.get("walked", ended)
        points = {event["point"] for event in events if "point" in event}
        known = {event["point"] for event in events if event.get("launched") is False}
        return ProcessSeconds(
            self._shared.unit,
            points=len(points),
            launched=len(points - known),
            start_s=ready - self._started,
            wait_s=began - ready,
            walk_s=walked - began,
            end_s=ended - walked,
        )


class _Follower:
    """Reports which point is being counted; `ncu.Process.finish` watches its value."""

    def __init__(self, path: Path, points: Sequence[Point], tell: Callable[[Point], object] | None) -> None:
        self._path, self._points, self._tell = path, points, tell
        self._last = -1

    def __call__(self) -> int:
        """Bytes that the worker has written."""
        try:
            size = self._path.stat().st_size
            with self._path.open("rb") as file:
                file.seek(max(0, size - 65536))
                begun = _POINT.findall(file.read())
        except OSError:
            return 0
        point = int(begun[-1]) if begun else -1
        if point not in (-1, self._last):
            self._last = point
            if self._tell:
                self._tell(self._points[point])
        return size


def events_of(path: Path) -> list[Json]:
    """The worker's events; a last line that its end cut off is left out."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def environment_of(folder: Path) -> dict[str, str]:
    """Of ncu and its worker: the worker imports what this process imports.

    The folder for temporary files is their own, because ncu keeps a lock there that one user's processes take from
    another's.
    """
    paths = [path for path in sys.path if path]
    # Compiled code is kept in its usual place, so that the second run finds what the first one compiled.
    compiled = {"TORCHINDUCTOR_CACHE_DIR": f"{tempfile.gettempdir()}/torchinductor_{getpass.getuser()}"}
    return {**compiled, **os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(folder)}


def last_line_of(path: Path) -> str:
    """The last line that a process printed, which usually says why it ended."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
