"""The append-only journal of a run: a point counts as finished when its line is synced here, and never before.

On a local file system (ext4, XFS, btrfs, tmpfs), points are safe when `JournalWriter.append` has returned: they survive
the end of the process, and where the disk honours `fsync` a power cut too. A line that was being written may be torn;
it is the last one, and the next writer repairs it. A damaged line in the middle costs that one point. On NFS the same
holds with a server that exports `sync`, but a reader on another host may see a line some seconds late, and a client
that loses its server blocks instead of failing.

`flopray.store.entry` has the format of a line, `flopray.store.journal_index` reads.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flopray.errors import RunError, StorageError
from flopray.records import PhaseRecord
from flopray.store import atomic, entry
from flopray.store.journal_index import JournalIndex, RunWarning, scan, subject, warn_of_damage
from flopray.store.schema import COMMON, RecordSchema
from flopray.units import counted


class Appended(NamedTuple):
    """Trial ids of one `JournalWriter.append`: those that are durable now, and those that already were."""

    appended: list[str]
    skipped: list[str]


class JournalWriter:
    """Appends points to a journal; made by `RunFolder.writer`, which holds the lock of the run.

    Opening repairs what an interrupted writer left: a torn last line is copied to `journal.torn-<n>` beside the journal
    and cut off, with a `RunWarning`. Calls from several threads take turns.
    """

    def __init__(self, path: Path, schema: RecordSchema = COMMON, said: str | None = None) -> None:
        """Open, check and repair the journal; create it where it is missing.

        Raises:
            RunError: it cannot be written.
            SchemaMismatch: a line of it is intact, but not of this schema version.
        """
        self.path, self.schema = path, schema
        #: Name of the journal in messages, where that is not its path.
        self._said = said
        #: Address of the run in the command that resumes it.
        self.run = str(path.parent)
        self._thread_lock = threading.Lock()
        self._unsure = False
        index = scan(path, said)
        try:
            missing = not path.exists()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise RunError(f"{subject(path, said)} cannot be written: {atomic.reason(error)}") from error
        try:
            self._repair(index)
            if missing:
                atomic.fsync_folder(path.parent)
                warnings.warn(f"{said or path} was missing; a new one was begun", RunWarning, stacklevel=4)
        except OSError as error:
            os.close(self._descriptor)
            raise RunError(f"{subject(path, said)} cannot be repaired: {atomic.reason(error)}") from error
        self._size = index.size
        #: Trial id to status of every point of the run; what `append` skips.
        self.finished: dict[str, str] = index.statuses()
        warn_of_damage(index, said or str(path), stacklevel=5)

    def _repair(self, index: JournalIndex) -> None:
        if index.needs_line_feed:
            os.write(self._descriptor, b"\n")
            os.fsync(self._descriptor)
        if index.torn:
            side = _save_torn(self.path, index.torn)
            os.ftruncate(self._descriptor, index.size)
            os.fsync(self._descriptor)
            torn = f"{self._said or self.path} ended in a torn line of {counted(len(index.torn), 'byte')}"
            message = f"{torn}: cut off and kept as {side.name}"
            warnings.warn(message, RunWarning, stacklevel=5)
            index.torn = b""

    def append(self, points: Sequence[Sequence[PhaseRecord]], *, supersede: bool = False) -> Appended:
        """Write points durably, with one write and one sync for all; when this returns, they are on the disk.

        Args:
            points: all phase records of each point.
            supersede: a point that is in the run already is written again and replaces the earlier line (to try failed
                points again) instead of being skipped.

        Raises:
            ValueError: a record is wrong (see `entry.encode`); nothing was written.
            StorageError: nothing of this call counts; the journal is as before, or the next writer repairs it.
        """
        with self._thread_lock:
            lines: dict[str, tuple[str, bytes]] = {}
            skipped = []
            for phases in points:
                trial_id, status, line = entry.encode(phases, self.schema)
                if trial_id in lines or (trial_id in self.finished and not supersede):
                    skipped.append(trial_id)
                else:
                    lines[trial_id] = (status, line)
            if lines:
                self._write(b"".join(line for _, line in lines.values()), len(lines))
            self.finished.update({trial_id: status for trial_id, (status, _) in lines.items()})
            return Appended(list(lines), skipped)

    def _write(self, data: bytes, count: int) -> None:
        try:
            self._check_place()
            # Until the sync has returned, the end of the file is uncertain, whatever exception or signal comes.
            self._unsure = True
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fsync(self._descriptor)
            self._check_linked()
            self._size += len(data)
            self._unsure = False
        except OSError as error:
            self._roll_back()
            what = f"{count} point" + ("s" if count > 1 else "")
            where = self.path if self._said is None else subject(self.path, self._said)
            raise StorageError(f"{what} could not be saved to {where}: {atomic.reason(error)}") from error
        except BaseException:
            self._roll_back()
            raise

    def _check_place(self) -> None:
        """Raise `OSError` unless the file ends where this writer left it."""
        if self._unsure:
            os.ftruncate(self._descriptor, self._size)
            self._unsure = False
        self._check_linked()
        if os.fstat(self._descriptor).st_size != self._size:
            raise OSError(None, "something else changed the journal while the run was being written")

    def _check_linked(self) -> None:
        """Raise `OSError` when the path no longer leads to the open file: writes would be lost."""
        mine = os.fstat(self._descriptor)
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            raise OSError(None, "the run folder or its journal was removed while the run was being written") from None
        if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
            raise OSError(None, "the run folder or its journal was replaced while the run was being written")

    def _roll_back(self) -> None:
        """Cut off what may be half written; if that fails too, the next `append` or the next writer does it."""
        if self._unsure:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
                os.fsync(self._descriptor)
                self._unsure = False

    def close(self) -> None:
        """Close the file; nothing is pending, because `append` has synced everything. May be called twice."""
        with self._thread_lock:
            if self._descriptor >= 0:
                self._roll_back()
                os.close(self._descriptor)
                self._descriptor = -1


def _save_torn(path: Path, torn: bytes) -> Path:
    number = 1
    while True:
        side = path.with_name(f"journal.torn-{number}")
        try:
            with side.open("xb") as file:
                file.write(torn)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            number += 1
            continue
        return side
