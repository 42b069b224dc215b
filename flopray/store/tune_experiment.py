"""Reads what Ray Tune wrote of a sweep as a run: an experiment folder, or the `tune/` of a run with all its sessions.

Only `result.json` of each trial is read, one JSON object a line, never Tune's pickles; so a stranger's folder is safe
to open. Of several results of a point, that of the last session counts, and within a session the latest.
https://docs.ray.io/en/latest/tune/tutorials/tune-output.html
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flopray.description import Description
from flopray.errors import NotARun, RunError, SchemaMismatch, SpecError
from flopray.records import READABLE_VERSIONS, PhaseRecord, Row
from flopray.store import atomic, manifests
from flopray.store.entry import VERSIONS, worst_status
from flopray.store.journal import JournalWriter
from flopray.store.journal_index import RunWarning
from flopray.store.manifests import Manifest
from flopray.store.run import RunFolder
from flopray.store.tune_results import POINT, POINT_ID, WORKLOAD, Result, ids_of, rows_of
from flopray.units import counted
from flopray.workloads.registry import BUILT_IN

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS = "result.json"
#: A sweep's sessions are numbered, so that no session writes into the results of another one.
_SESSION = re.compile(r"session-(\d{1,6})")
#: A result has some hundred numbers and short texts.
_LONGEST_LINE = 4 * 2**20


def is_experiment(path: Path) -> bool:
    """Whether a folder holds results of Ray Tune, and no run of its own."""
    with suppress(OSError, ValueError):
        return path.is_dir() and not (path / manifests.FILE_NAME).exists() and bool(_sessions(path))
    return False


def sessions_in(tune: Path) -> list[Path]:
    """The experiment folders of a run's sessions, in order; none where the folder is not there."""
    numbered = [(int(m[1]), path) for path in _folders(tune) if (m := _SESSION.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def next_session(tune: Path) -> str:
    """The name of a session's experiment that no earlier one has."""
    taken = [int(m[1]) for path in _folders(tune) if (m := _SESSION.fullmatch(path.name))]
    return f"session-{max(taken, default=0) + 1}"


def results_in(experiment: Path) -> Iterator[Result]:
    """The results of all trials of an experiment; a line that is not a result is left out, with a `RunWarning`.

    Raises:
        NotARun: a file cannot be read.
    """
    damaged = 0
    for file in _result_files(experiment):
        for line in _lines(file):
            try:
                result = json.loads(line)
                if not isinstance(result, dict):
                    raise ValueError
            except (ValueError, RecursionError):
                damaged += 1
                continue
            yield result
    if damaged:
        what = f"{damaged} line{'s' if damaged > 1 else ''} of Tune's results in {experiment}"
        warnings.warn(f"{what} {'are' if damaged > 1 else 'is'} torn and left out", RunWarning, stacklevel=3)


def reported_ids(sessions: Sequence[Path]) -> set[str]:
    """The points that the results of some sessions stand for."""
    return {trial_id for session in sessions for result in results_in(session) for trial_id in ids_of(result)}


class TuneRun(RunFolder):
    """Results of Ray Tune as a run that is only read. Made by `open`."""

    def __init__(self, path: Path, manifest: Row, points: dict[str, list[Row]]) -> None:
        """For `open` only."""
        super().__init__(path, manifest)
        self._points = points

    @classmethod
    def open(cls, path: Any) -> TuneRun:
        """Read an experiment's folder, or a folder of numbered sessions.

        Raises:
            NotARun: it holds no results of flopray, or those of several workloads, or one that no record can hold.
            SchemaMismatch: the results have another version of the record's columns.
        """
        path = Path(path).absolute()
        results = [result for session in _sessions(path) for result in _by_time(session)]
        of_points = [result for result in results if result.get(POINT_ID)]
        if not of_points:
            why = "have no point_id" if results else "are not there yet"
            raise NotARun(f"{path} is an experiment of Ray Tune whose results {why}: flopray did not write it")
        manifest = _manifest(path, of_points, _workload_of(of_points, path))
        schema = manifests.schema_of(manifest)
        points: dict[str, list[Row]] = {}
        for result in of_points:
            points.pop(str(result[POINT_ID]), None)
            try:
                rows = rows_of(result, schema)
            except ValueError as error:
                raise NotARun(f"{path} has a result that is not a record: {error}") from error
            points[rows[0]["trial_id"]] = rows
        thinned = {trial_id for result in of_points for trial_id in ids_of(result)} - set(points)
        if thinned:
            of = counted(len(thinned) + len(points), "point")
            standing = f"{len(thinned)} of {of} have no result of their own in {path}"
            warnings.warn(f"{standing} (Tune's results were thinned): load the run itself", RunWarning, stacklevel=3)
        return cls(path, manifest, points)

    def writer(self) -> AbstractContextManager[JournalWriter]:
        """Refused: only Tune writes here."""
        self._refuse()

    def check_unlocked(self) -> None:
        """Refused, as `writer`."""
        self._refuse()

    def compact(self) -> Path:
        """Refused, as `writer`."""
        self._refuse()

    def finished(self) -> dict[str, str]:
        """Trial id to status of every point."""
        return {trial_id: worst_status([row["status"] for row in rows]) for trial_id, rows in self._points.items()}

    def points(self) -> Iterator[list[PhaseRecord]]:
        """The records of each point."""
        return ([PhaseRecord.of(**row) for row in rows] for rows in self._points.values())

    def _table(self, columns: Sequence[str] | None = None) -> pa.Table:
        from flopray.store import table

        content = table.from_batches(table.batches(self._points.values(), self.schema), None, self.schema)
        ordered = table.ordered(content, self.schema)
        if columns is None:
            return ordered
        wanted = {*columns, *table.order_columns(self.schema)}
        return ordered.select([name for name in self.schema.names if name in wanted])

    def _refuse(self) -> NoReturn:
        raise RunError(f"{self.path} holds results of Ray Tune, which are only read: name the run's own folder")


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.is_symlink()) if path.is_dir() else []


def _sessions(path: Path) -> list[Path]:
    """The experiments that a folder stands for: itself, or the numbered ones in it."""
    if next(_result_files(path), None) is not None:
        return [path]
    return [session for session in sessions_in(path) if next(_result_files(session), None) is not None]


def _result_files(experiment: Path) -> Iterator[Path]:
    return (path / RESULTS for path in _folders(experiment) if (path / RESULTS).is_file())


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with atomic.open_regular(file) as content:
            while line := content.readline(_LONGEST_LINE):
                yield line
    except OSError as error:
        raise NotARun(f"{file} cannot be read: {atomic.reason(error)}") from error


def _by_time(experiment: Path) -> list[Result]:
    """The results of an experiment, latest last."""

    def time_of(result: Result) -> float:
        found = result.get("timestamp")
        return found if isinstance(found, int | float) else 0.0

    return sorted(results_in(experiment), key=time_of)


def _workload_of(results: Sequence[Result], path: Path) -> Description:
    """The one workload of some results.

    Raises:
        NotARun: they have none, or several.
        SchemaMismatch: they have another version of the record's columns.
    """
    versions = {result.get(f"{POINT}/schema_version") for result in results}
    if others := versions - {*READABLE_VERSIONS}:
        raise SchemaMismatch(
            f"Tune's results in {path} have record schema version {next(iter(others))!r:.20}, this flopray reads "
            f"{VERSIONS}"
        )
    named = {(str(result.get(f"{POINT}/workload")), str(result.get(WORKLOAD) or "")) for result in results}
    if len(named) > 1:
        names = " and ".join(sorted({name[:60] for name, _ in named}))
        raise NotARun(f"{path} has results of several workloads ({names}): name the experiment of one")
    name, described = named.pop()
    if name in BUILT_IN:
        return BUILT_IN[name]()
    try:
        return Description.from_dict(json.loads(described))
    except (ValueError, RecursionError, SpecError) as error:
        raise NotARun(f"{path} does not describe its workload {name!r:.60}: {str(error)[:120]}") from error


def _manifest(path: Path, results: Sequence[Manifest], workload: Description) -> Manifest:
    """What a reader needs of a manifest, as far as results have it, with their oldest version of columns."""
    run = results[-1].get(f"{POINT}/run")
    manifest: Manifest = {
        "name": run if isinstance(run, str) and run else path.name,
        "schema_version": min(result[f"{POINT}/schema_version"] for result in results),
        "sweep": {"workload": workload.name},
        "tune_results": str(path),
    }
    return manifest if workload.name in BUILT_IN else manifest | {"workload": workload.to_dict()}
