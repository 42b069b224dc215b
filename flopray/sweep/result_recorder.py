"""A recorder that also answers what the journal has of a point: trials of a user's own Tuner report that.

A plain class, which knows no Ray; `recorder_actor` makes an actor of it.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Sequence
from typing import Any

from flopray.errors import FloprayError
from flopray.records import PhaseRecord
from flopray.sweep.recorder import Recorder


class ResultRecorder(Recorder):
    """Keeps the records of all finished points, compressed to about a kilobyte each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._journaled: dict[str, bytes] = {}
        self._failure: str | None = None

    def keep(self, points: Sequence[Sequence[PhaseRecord]]) -> None:
        """Take the records of points that are in the journal."""
        for records in points:
            self._journaled[records[0].trial_id] = zlib.compress(pickle.dumps(list(records)), 1)

    def journaled(self, trial_id: str) -> bytes | None:
        """What the journal has of a point, for `records_in`; None while it has nothing.

        Raises:
            FloprayError: the journal takes no more points; the line says why.
        """
        found = self._journaled.get(trial_id)
        if found is None and self._failure is not None:
            raise FloprayError(self._failure)
        return found

    def fail(self, reason: str) -> None:
        """Tell why the journal takes no more points: trials that wait for it end with this line."""
        self._failure = reason


def records_in(answer: bytes) -> list[PhaseRecord]:
    """The records of `ResultRecorder.journaled`."""
    return pickle.loads(zlib.decompress(answer))
