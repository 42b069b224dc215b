"""A recorder that also returns the journal's records of a point, which trials of a user's own Tuner report.

A plain class, which knows no Ray; `recorder_actor` makes an actor of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from flopray.errors import FloprayError
from flopray.records import PhaseRecord
from flopray.store.entry import decode, encode, intact_entry
from flopray.store.schema import RecordSchema
from flopray.sweep.recorder import Recorder


class ResultRecorder(Recorder):
    """Keeps the lines of all points that the journal has, compressed to about a kilobyte each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._journaled: dict[str, bytes] = {}
        self._failure: str | None = None

    def keep(self, lines: Mapping[str, bytes]) -> None:
        """Take points that are in the journal, as `lines_of` makes them."""
        self._journaled.update(lines)

    def journaled(self, trial_id: str) -> bytes | None:
        """The journal's records of a point, for `records_in`; None while it has none.

        Raises:
            FloprayError: the journal takes no more points; the line says why.
        """
        found = self._journaled.get(trial_id)
        if found is None and self._failure is not None:
            raise FloprayError(self._failure)
        return found

    def fail(self, reason: str) -> None:
        """Set why the journal takes no more points: trials that wait for it end with this line."""
        self._failure = reason


def lines_of(points: Sequence[Sequence[PhaseRecord]], schema: RecordSchema) -> dict[str, bytes]:
    """Points as the journal has them, by trial id, compressed."""
    encoded = (encode(records, schema) for records in points)
    return {trial_id: zlib.compress(line.rstrip(b"\n"), 1) for trial_id, _, line in encoded}


def records_in(line: bytes, schema: RecordSchema) -> list[PhaseRecord]:
    """The inverse of `lines_of` for one point."""
    entry = intact_entry(zlib.decompress(line))
    return [PhaseRecord.of(**row) for row in decode(entry or b"", schema)]
