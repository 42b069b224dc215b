"""Stops a sweep that only fails: the same fault is on every device, and going on would waste time."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flopray.records import PhaseRecord, Status
from flopray.sweep.outcome import reason_of, status_of

_NUMBERS = re.compile(r"\d+(\.\d+)?")


class CircuitBreaker:
    """Follows how the last points of each device ended.

    Only `failed` counts: too little memory, a missing permission or a precision that a device lacks are results.

    Args:
        stop_after: points in a row that must have failed alike on every device; 0 never stops.
    """

    def __init__(self, stop_after: int) -> None:
        self._stop_after = stop_after
        #: By device: how its last points failed, without numbers, and how many of them in a row.
        self._rows: dict[str, tuple[str, int]] = {}

    def begin(self, device: str) -> None:
        """Note a device that measures: the sweep does not stop unless this one has failed, too."""
        self._rows.setdefault(device, ("", 0))

    def forget(self, device: str) -> None:
        """Leave out a device that is gone."""
        self._rows.pop(device, None)

    def take(self, device: str, records: Sequence[PhaseRecord]) -> str | None:
        """Note how a point of a device ended; returns why the sweep has to stop, in one line, or None."""
        reason = reason_of(records) if status_of(records) == Status.FAILED else None
        kind = _NUMBERS.sub("#", reason or "")
        before, count = self._rows.get(device, ("", 0))
        self._rows[device] = (kind, count + 1 if kind == before and kind else int(bool(kind)))
        if not kind or not self._stop_after:
            return None
        if any(other != kind or times < self._stop_after for other, times in self._rows.values()):
            return None
        return f"the last {self._stop_after} points on every device failed alike: {reason}"
