"""One ncu process over a chunk of points: started early, given its turn on the device, and read at its end."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
    """ncu ended without its table, or in the middle of it; `finished` points were walked before the cause."""

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
        begun: the points that it began, in order.
        left: the others of those that it was to walk.
        operations: that it knew at its end, for the next process; empty where they could not be saved.
    """

    run: Run
    how: str | None
    whole: bool
    seconds: ProcessSeconds
    begun: tuple[int, ...]
    left: tuple[int, ...]
    operations: bytes = b""


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

    @property
    def turn_s(self) -> float:
        """How long it kept others from the device."""
        return self.walk_s + self.end_s


@dataclass(frozen=True)
class Known:
    """What processes have counted so far, for the next one.

    Attributes:
        operations: as a process saved them; empty where it knew none.
        run: their events and kernels; None where there are none.
    """

    operations: bytes = b""
    run: Run | None = None

    def with_(self, run: Run) -> Run:
        """A later run together with what was known when it began."""
        if self.run is None:
            return run
        return dataclasses.replace(
            run,
            launches={**self.run.launches, **run.launches},
            operations={**self.run.operations, **run.operations},
        )


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
        self._turn, self._known, self._operations = (folder / n for n in ("turn", "known", "operations"))
        told = folder / "chunk.json"
        content = {**chunk, "parent": os.getpid(), "turn": str(self._turn), "operations": str(self._operations)}
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
        self,
        places: Sequence[int],
        *,
        quiet_for_s: float,
        for_s: float | None = None,
        known: Known | None = None,
        watch: Callable[[int], object] | None = None,
    ) -> Ended:
        """Let the process use the device, and wait for its end.

        Args:
            places: of the points that it walks.
            quiet_for_s: it is ended when it reports nothing new for this long.
            for_s: it begins no point but the first later than this; None walks all of them.
            known: what processes before it have counted.
            watch: called several times a second with the number of points begun.

        Raises:
            MeasurementError: nothing can be counted here, for a reason that no repetition would mend.
        """
        known = known or Known()
        if known.operations:
            self._known.write_bytes(known.operations)
        turn = {"places": list(places), "for_s": for_s, "known": str(self._known) if known.operations else None}
        draft = self._turn.with_suffix(".draft")
        draft.write_text(json.dumps(turn))
        draft.rename(self._turn)  # in one piece: the worker looks for it all the time
        follower = _Follower(self._progress, places, watch)
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
        if how and _needs_no_table(events):
            how = None  # ncu read no kernel, because none was new
        whole = how is None or (bool(run.launches) and text.endswith("\n"))
        operations = self._operations.read_bytes() if how is None and self._operations.exists() else b""
        found = {event["point"] for event in events if "point" in event}
        begun, left = (tuple(i for i in places if (i in found) is there) for there in (True, False))
        return Ended(known.with_(run), how, whole, self._seconds(events, ended), begun, left, operations)

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
    """Reports how many points were begun; `ncu.Process.finish` watches its value."""

    def __init__(self, path: Path, places: Sequence[int], watch: Callable[[int], object] | None) -> None:
        self._path, self._watch = path, watch
        self._number = {place: number for number, place in enumerate(places, start=1)}
        self._begun = 0

    def __call__(self) -> int:
        """Bytes that the worker has written."""
        size = 0
        with suppress(OSError):
            size = self._path.stat().st_size
            with self._path.open("rb") as file:
                file.seek(max(0, size - 65536))
                begun = _POINT.findall(file.read())
            self._begun = self._number[int(begun[-1])] if begun else self._begun
        if self._watch:
            self._watch(self._begun)
        return size


def _needs_no_table(events: Sequence[Json]) -> bool:
    """Whether a worker came to its end and launched only what was counted before."""
    phases = [event for event in events if "phase" in event]
    new = any("operation" in event for event in events) or any(event.get("operations") == {} for event in phases)
    return any("walked" in event for event in events) and not new


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
