"""How a point ended, in a word and a line."""

from __future__ import annotations

from collections.abc import Sequence

from flopray.records import PhaseRecord
from flopray.store.entry import worst_status


def status_of(records: Sequence[PhaseRecord]) -> str:
    """The status of a point: the worst of its phases."""
    return worst_status([record.status for record in records])


def reason_of(records: Sequence[PhaseRecord]) -> str | None:
    """Why a point is not ok: the reason of its worst phase, in one line."""
    worst = status_of(records)
    reason = next((record.status_reason for record in records if record.status == worst), None)
    return reason.splitlines()[0] if reason else None
