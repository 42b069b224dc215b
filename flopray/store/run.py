"""A run's folder: its files, and how it is made, opened, written by one process and read by all.

    <storage>/<name>/
      manifest.json     what a resume needs; complete before the folder exists (`flopray.store.manifests`)
      journal.jsonl     the points, each synced before it counts as finished (`flopray.store.journal`)
      records.parquet   the same as columns, for reading fast; replaced as a whole (`flopray.store.table`)
      kernels.parquet   the kernels of counted points, a row each (`flopray.store.kernel_table`)
      operators.parquet the operators of profiled points, a row each (`flopray.store.operator_table`)
      series.parquet    the ticks of windows, where they were to be kept, a row each (`flopray.store.series_table`)
      summary.json, report.html, plots/, run.log, tune/
      writer.lock       held by the one process that writes (`flopray.store.lock`)

The points of a run are those of the journal and those of the Parquet file together; where both have a point, the
journal's is taken. So a Parquet file that is older than the journal hides nothing, and a journal that was damaged or
emptied after a compaction loses nothing. Folders are data only (JSON and Parquet, no pickles): opening a stranger's
runs nothing. Import of this module is cheap; Arrow and pandas are imported by the methods that need them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from flopray.errors import InputError, RunError, StorageError
from flopray.records import PhaseRecord, Row
from flopray.store import atomic, containment, journal_index, lock, manifests
from flopray.store.journal import JournalWriter
from flopray.store.journal_index import JournalIndex, RunWarning
from flopray.store.manifests import Manifest
from flopray.store.uri import Location

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from flopray.store.table import RecordsFile


#: Longest address of a run.
_MIRROR_BYTES = 10_000


class RunFolder:
    """An existing run. Made by `create` or `open`, which check it; all its paths are attributes."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """For `create` and `open` only."""
        self.path = path
        self.manifest = manifest
        self.name: str = manifest["name"]
        #: The columns of the run.
        self.schema = manifests.schema_of(manifest)
        #: The description of its workload; without fields where the manifest describes no sweep.
        self.workload = self.schema.workload
        self.manifest_path = path / manifests.FILE_NAME
        self.journal_path = path / manifests.JOURNAL_NAME
        self.records_path = path / "records.parquet"
        self.kernels_path = path / "kernels.parquet"
        self.operators_path = path / "operators.parquet"
        self.series_path = path / "series.parquet"
        self.summary_path = path / "summary.json"
        #: Where figures, tables and reports of the run go, unless another folder is named.
        self.results_path = path
        self.plots_path = path / "plots"
        self.report_path = path / "report.html"
        self.tune_path = path / "tune"
        self.log_path = path / "run.log"
        self._lock_path = path / manifests.LOCK_NAME
        #: Address of the run in commands and messages: its folder or its URI.
        self.address = str(path)
        #: Name in messages of the run in a store that this folder is a copy of.
        self._copy_of = _copied(path)

    @classmethod
    def create(cls, storage: str | PathLike[str], name: str, manifest: Manifest) -> RunFolder:
        """Make the folder of a new run, with its complete manifest, or nothing at all.

        Args:
            storage: folder of all runs; made, with its parents, where it is missing.
            name: name of the run and its folder.
            manifest: JSON content; `name` and `schema_version` are set here.

        Raises:
            RunExists: the name is taken.
            InputError: the name cannot be one, or the storage cannot be written.
            ValueError, TypeError: the manifest is not JSON (a mistake of the caller).
        """
        return cls(*manifests.publish(storage, name, manifest))

    @classmethod
    def open(cls, path: str | PathLike[str]) -> RunFolder:
        """Open the folder of a run, for reading or to resume it.

        Raises:
            NotARun: no such folder, or its manifest is missing, torn or not a manifest.
            SchemaMismatch: it was written with another version of the record's columns.
        """
        return cls(*manifests.read(path))

    def place(self, *parts: str) -> str:
        """Name of a file of the run in messages, by its path in the folder; without a path that of the folder.

        For a copy this is the place in the store: users need not know the local files.
        """
        if self._copy_of is not None:
            return str(self._copy_of.child("/".join(parts)) if parts else self._copy_of)
        return str(self.path.joinpath(*parts))

    def _on_disk(self, path: Path) -> str:
        """Name of a file in messages about this machine's disk, where the path matters too."""
        return str(path) if self._copy_of is None else f"{self.place(path.name)} (its copy is {path})"

    @property
    def _journal_said(self) -> str | None:
        """Name of the journal in messages, where that is not its path: in a store it is not one file."""
        return None if self._copy_of is None else f"the journal of {self.place()}"

    @contextlib.contextmanager
    def writer(self) -> Iterator[JournalWriter]:
        """Take the run's lock for the block and repair its journal, with a `RunWarning` for each repair.

        Raises:
            RunLocked: another process writes this run.
            RunError: it cannot be written; nothing was changed.
            NotARun, SchemaMismatch: the journal cannot be read.
        """
        with self._hold():
            atomic.remove_unfinished(self.path)
            with contextlib.closing(self._open_journal()) as writer:
                writer.finished = self._compacted_statuses() | writer.finished
                yield writer

    def check_unlocked(self) -> None:
        """Refuse early what `writer` would refuse; another process may still take the lock in between.

        Raises:
            RunLocked, RunError: as `writer`.
        """
        with self._hold():
            pass

    def has_results(self) -> bool:
        """Whether the tables were made after the last point: the driver may have been killed in between."""
        try:
            return self.summary_path.stat().st_mtime >= self.journal_path.stat().st_mtime
        except OSError:
            return self.summary_path.exists()

    def driver(self) -> tuple[bool, str | None]:
        """Whether a driver writes the run now, and who it is; or who it was, if it did not end by itself."""
        return lock.holder(self._lock_path)

    def publish(self, *, results: bool = True) -> None:
        """Copy a session's files beside the journal to where the run is kept; a local run has them already.

        Args:
            results: tables and figures too, not only the log.

        Raises:
            StorageError: it could not be written there.
        """

    def finished(self) -> dict[str, str]:
        """Trial id to status (the worst of its phases) of every point that needs no measuring any more.

        Damaged lines are left out, with a `RunWarning` that counts them.

        Raises:
            NotARun, SchemaMismatch: the journal cannot be read.
        """
        return self._compacted_statuses() | self._index().statuses()

    def points(self) -> Iterator[list[PhaseRecord]]:
        """The records of each point, a list a point, in the order of the journal. Needs little memory.

        Raises:
            NotARun, SchemaMismatch: the journal cannot be read.
        """
        from flopray.store import table

        tables = (table.from_batches([batch], schema=self.schema) for batch in self._batches(self._index()))
        rows = (record for part in tables for record in table.to_records(part))
        for _, records in itertools.groupby(rows, key=lambda record: record.trial_id):
            yield list(records)

    def records(self) -> list[PhaseRecord]:
        """All records, sorted by specification and phase. Raises as `load`."""
        from flopray.store import table

        return table.to_records(self._table())

    def load(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All records as a data frame, sorted by specification and phase; `flopray.store.table` says of which types.

        Args:
            columns: needed ones, besides those that rows are sorted by; None takes all, those of
                `flopray.store.derived` too. Half a million rows take 2 GB with all columns.

        Raises:
            NotARun: the journal cannot be read.
            SchemaMismatch: a line of the journal is intact, but not of this schema version (an unknown column, for
                one: columns change only together with the version, and none is dropped silently).
        """
        from flopray.store import derived, table

        needed = None if columns is None else derived.stored(columns)
        return derived.with_derived(table.to_frame(self._table(needed)), columns)

    def compact(self) -> Path:
        """Write all points to `records.parquet`, atomically, and return its path. Needs little memory.

        Raises:
            StorageError: it could not be written; the old file is in place.
            NotARun, SchemaMismatch: the journal cannot be read.
        """
        from flopray.store import table

        index = self._index()
        covered = journal_index.coverage(self.journal_path, index.size)
        try:
            table.write_parquet(self.records_path, self.name, covered, self._batches(index), self.schema)
        except OSError as error:
            raise StorageError(
                f"{self._on_disk(self.records_path)} could not be written: {atomic.reason(error)}"
            ) from error
        return self.records_path

    def write_kernels(self) -> Path | None:
        """Write the kernels of counted points to `kernels.parquet`, atomically; its path, None where there are none.

        Raises:
            StorageError: it could not be written; the old file is in place.
            NotARun, SchemaMismatch: the journal cannot be read.
        """
        from flopray.store import kernel_table

        rows = self._rows_with("kernels", [*kernel_table.KEYS, "kernels"])
        return self._write_beside(kernel_table.write, self.kernels_path, rows)

    def write_operators(self) -> Path | None:
        """Write the operators of profiled points to `operators.parquet`, as `write_kernels` does."""
        from flopray.store import operator_table

        rows = self._rows_with("operators", list(operator_table.COLUMNS))
        return self._write_beside(operator_table.write, self.operators_path, rows)

    def write_series(self) -> Path | None:
        """Write the ticks of windows to `series.parquet`, as `write_kernels` does."""
        from flopray.store import series_table

        rows = self._rows_with("series", list(series_table.COLUMNS))
        return self._write_beside(series_table.write, self.series_path, rows)

    def rows_of_point(self, trial_id: str, columns: Sequence[str]) -> list[Row]:
        """Some columns of one point, a row for each phase; a whole run would take much memory. Raises as `load`.

        Args:
            trial_id: of the point; an unknown one has no rows.
            columns: that are needed.
        """
        import pyarrow.compute as pc

        table = self._table([*columns, "trial_id"])
        rows = table.filter(pc.call_function("equal", [table["trial_id"], trial_id]))
        return rows.select(list(columns)).to_pylist()

    def _rows_with(self, column: str, columns: list[str]) -> list[Row]:
        """Rows whose list of texts is not empty."""
        import pyarrow.compute as pc

        table = self._table(columns).select(columns)
        having = pc.call_function("greater", [pc.call_function("list_value_length", [table[column]]), 0])
        return table.filter(having).to_pylist()

    def _write_beside(self, write: Callable[[Path, list[Row]], bool], path: Path, rows: list[Row]) -> Path | None:
        try:
            return path if write(path, rows) else None
        except OSError as error:
            raise StorageError(f"{self._on_disk(path)} could not be written: {atomic.reason(error)}") from error

    def write_summary(self, summary: Mapping[str, object]) -> None:
        """Write `summary.json`, atomically.

        Raises:
            StorageError: it could not be written.
            ValueError, TypeError: the summary is not JSON (a mistake of the caller).
        """
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        try:
            with atomic.replacing(self.summary_path) as file:
                file.write(text.encode())
        except OSError as error:
            raise StorageError(
                f"{self._on_disk(self.summary_path)} could not be written: {atomic.reason(error)}"
            ) from error

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        """Open the run for its one writer."""
        if (self.path / manifests.MIRROR_NAME).exists():
            raise RunError(
                f"{self.path} is only a copy of a run that is kept elsewhere: name that run by the URI in "
                f"{manifests.MIRROR_NAME}"
            )
        containment.check_contents(self.path)
        with lock.exclusive(self._lock_path, self.name):
            yield

    def _open_journal(self) -> JournalWriter:
        return JournalWriter(self.journal_path, self.schema, self._journal_said)

    def _index(self) -> JournalIndex:
        index = journal_index.scan(self.journal_path, self._journal_said)
        journal_index.warn_of_damage(index, self._journal_said or str(self.journal_path), stacklevel=4)
        return index

    def _compacted(self) -> RecordsFile | None:
        """The Parquet file if there is one that belongs to this run; a damaged or foreign one is reported only."""
        if not self.records_path.exists():
            return None
        from flopray.store import table

        try:
            file = table.RecordsFile(self.records_path, self.schema)
            if file.run != self.name:
                raise ValueError(f"it is of run {file.run[:80]!r}")
        except (OSError, ValueError) as error:
            self._warn_of_parquet(error)
            return None
        return file

    def _warn_of_parquet(self, error: Exception) -> None:
        message = (
            f"{self.place(self.records_path.name)} is not used: {atomic.reason(error)}; the journal is read instead"
        )
        warnings.warn(message, RunWarning, stacklevel=5)

    def _read_compacted(self, columns: list[str] | None = None) -> pa.Table | None:
        file = self._compacted()
        try:
            return None if file is None else file.read(columns)
        except ValueError as error:
            self._warn_of_parquet(error)
            return None

    def _compacted_statuses(self) -> dict[str, str]:
        rows = self._read_compacted(["trial_id", "status"])
        if rows is None:
            return {}
        from flopray.store.table import point_statuses

        return point_statuses(rows)

    def _table(self, columns: Sequence[str] | None = None) -> pa.Table:
        from flopray.store import table

        wanted = {*columns, *table.order_columns(self.schema)} if columns is not None else self.schema.names
        names = [name for name in self.schema.names if name in wanted]
        file = self._compacted()
        if file is not None and file.coverage == journal_index.coverage(self.journal_path):
            with contextlib.suppress(ValueError):
                return table.ordered(file.read(names), self.schema)
        content = table.from_batches(self._batches(self._index()), names, self.schema)
        return table.ordered(content, self.schema)

    def _batches(self, index: JournalIndex) -> Iterator[pa.RecordBatch]:
        """All points: those of the journal, then those that only the Parquet file has."""
        from flopray.store import table

        yield from table.batches(
            journal_index.read_rows(self.journal_path, index, self.schema, self._journal_said), self.schema
        )
        rows = self._read_compacted()
        if rows is not None:
            yield from table.without_points(rows, index.places).to_batches()


def _copied(path: Path) -> Location | None:
    """Name in messages of the run in a store that a folder is the copy of, without the store's options."""
    try:
        with atomic.open_regular(path / manifests.MIRROR_NAME) as file:
            content = json.loads(file.read(_MIRROR_BYTES))
        return dataclasses.replace(Location.parse(str(content["copy_of"])), options=())
    except (OSError, ValueError, KeyError, TypeError, RecursionError, InputError):
        return None
