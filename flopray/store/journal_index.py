"""Reads a journal: which points it has, where they are, and what is damaged.

Checksums are verified for all lines; JSON is parsed only for the points that are loaded.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from flopray.errors import NotARun, one_line
from flopray.records import Row
from flopray.store import atomic, entry
from flopray.store.schema import COMMON, RecordSchema

_TAIL_BYTES = 4096


class RunWarning(UserWarning):
    """Something in a run's folder was damaged and repaired, or left out; the message is one line for a person."""

    def __str__(self) -> str:
        """The message, printable whatever path it quotes."""
        return one_line(super().__str__())


class Coverage(NamedTuple):
    """A position in the journal, to tell whether another file was made from exactly the lines before it."""

    journal_bytes: int
    #: CRC-32 of the last 4 KiB before that place, so that a journal cut and grown again to the same size is told apart.
    tail_crc32: int


class _Place(NamedTuple):
    status: str
    offset: int
    length: int


@dataclass
class JournalIndex:
    """Where the intact points of a journal are. A point written again replaces its earlier line."""

    places: dict[str, _Place] = field(default_factory=dict)
    #: Numbers of the lines (from 1) that have a wrong checksum.
    damaged: list[int] = field(default_factory=list)
    #: Bytes up to the end of the last line that was written completely.
    size: int = 0
    #: The bytes after that: the beginning of a line whose writing was interrupted.
    torn: bytes = b""
    #: The last line is kept and only its line feed is missing; `size` counts it as if it were there.
    needs_line_feed: bool = False

    def statuses(self) -> dict[str, str]:
        """Trial id to status of the point, in the order of the journal."""
        return {trial_id: place.status for trial_id, place in self.places.items()}


def scan(path: Path, said: str | None = None) -> JournalIndex:
    """Check every line of a journal and note where its points are; an absent journal is an empty one.

    Args:
        path: the journal.
        said: its name in messages, where that is not its path.

    Raises:
        NotARun: the journal cannot be read or is not a regular file.
        SchemaMismatch: a line is intact, but not an entry of this schema version.
    """
    index = JournalIndex()
    try:
        with atomic.open_regular(path) as file:
            for number, line in enumerate(file, start=1):
                _index_line(index, number, line)
                if not line.endswith(b"\n"):
                    break  # the end: a writer's next bytes would form a line of their own
    except FileNotFoundError:
        pass
    except OSError as error:
        raise NotARun(f"{subject(path, said)} cannot be read: {atomic.reason(error)}") from error
    return index


def _index_line(index: JournalIndex, number: int, line: bytes) -> None:
    start, complete = index.size, line.endswith(b"\n")
    text = line[:-1] if complete else line
    content = entry.intact_entry(text)
    if content is not None:
        _note(index, content, start + entry.entry_offset())
        index.needs_line_feed = not complete
    elif not complete and text.find(entry.LINE_START, 1) < 0:
        index.torn = line
        return
    else:
        index.damaged.append(number)
        _rescue(index, text, start)
        index.needs_line_feed = not complete
    index.size = start + len(text) + 1


def _note(index: JournalIndex, content: bytes, offset: int) -> None:
    trial_id, status = entry.head(content)
    index.places.pop(trial_id, None)
    index.places[trial_id] = _Place(status, offset, len(content))


def _rescue(index: JournalIndex, text: bytes, start: int) -> None:
    """Find the intact lines that a damaged line feed joined into this one, so that no whole point is lost."""
    begin = text.find(entry.LINE_START)
    while begin >= 0:
        end = text.find(entry.LINE_START, begin + 1)
        piece = text[begin:] if end < 0 else text[begin:end]
        for candidate in (piece, piece[:-1]):
            content = entry.intact_entry(candidate)
            if content is not None:
                _note(index, content, start + begin + entry.entry_offset())
                break
        begin = end


def subject(path: Path, said: str | None) -> str:
    """Name of a journal in messages about this machine's disk, where the path matters too."""
    return f"the journal {path}" if said is None else f"{said} (its copy is {path})"


def warn_of_damage(index: JournalIndex, said: str, stacklevel: int = 3) -> None:
    """Tell the user, as `RunWarning`, what was left out of the journal; `said` is its name in messages."""
    if index.damaged:
        count, first = len(index.damaged), index.damaged[0]
        lines = f"{count} damaged line" + ("s" if count > 1 else "")
        message = f"{lines} in {said} (first: line {first}) skipped; a resume measures those points again"
        warnings.warn(message, RunWarning, stacklevel=stacklevel)
    if index.torn:
        message = f"the last line of {said} is incomplete and left out (interrupted, or being written right now)"
        warnings.warn(message, RunWarning, stacklevel=stacklevel)


def read_rows(
    path: Path, index: JournalIndex, schema: RecordSchema = COMMON, said: str | None = None
) -> Iterator[list[Row]]:
    """The rows of each point of an index, a list a point, in the order of the journal.

    Raises:
        NotARun: the journal cannot be read any more.
        SchemaMismatch: an intact line is not an entry of this schema version.
    """
    if not index.places:
        return
    try:
        with atomic.open_regular(path) as file:
            for place in sorted(index.places.values(), key=lambda place: place.offset):
                file.seek(place.offset)
                yield entry.decode(file.read(place.length), schema)
    except OSError as error:
        raise NotARun(f"{subject(path, said)} cannot be read: {atomic.reason(error)}") from error


def coverage(path: Path, size: int | None = None) -> Coverage:
    """The place `size` bytes into the journal (default: its end); past the end, or without a journal, -1 bytes."""
    try:
        with atomic.open_regular(path) as file:
            end = os.fstat(file.fileno()).st_size
            size = end if size is None else size
            if size > end:
                return Coverage(-1, 0)
            file.seek(max(0, size - _TAIL_BYTES))
            return Coverage(size, zlib.crc32(file.read(min(size, _TAIL_BYTES))))
    except OSError:
        return Coverage(-1, 0)
