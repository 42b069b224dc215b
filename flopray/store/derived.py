"""Columns that are not stored: made of stored ones when a run is loaded as a data frame.

`energy_typical_board_j` is what a row would cost on a typical board of its type: its energy at the reference
temperature over the factor of its board. The relative errors of both add in quadrature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flopray.records import DERIVED

if TYPE_CHECKING:
    import pandas as pd

#: Stored columns that they are made of.
FROM = (
    *("energy_j", "energy_at_reference_j", "energy_at_reference_rel_error", "energy_at_reference_reason"),
    *("board_factor", "board_factor_rel_error"),
)
NO_FACTOR = "the board's factor is not known: `flopray calibrate` measures it where its type has a reference"
NO_REFERENCE = "the row has no energy_at_reference_j"


def stored(columns: Sequence[str]) -> Sequence[str]:
    """The stored columns that are needed for some columns, derived ones among them."""
    return (*columns, *FROM) if set(columns) & set(DERIVED) else columns


def with_derived(frame: Any, columns: Sequence[str] | None = None) -> Any:
    """The frame with derived columns.

    Args:
        frame: of records; without `board_factor`, which older runs and other tables lack, it stays as it is.
        columns: that were asked for; None for all.
    """
    names = [name for name in DERIVED if columns is None or name in columns]
    if not names or not set(FROM) <= set(frame.columns):
        return frame
    factors = frame["board_factor"].where(frame["board_factor"] > 0)
    made = {
        "energy_typical_board_j": frame["energy_at_reference_j"] / factors,
        "energy_typical_board_rel_error": _quadrature(frame),
        "energy_typical_board_reason": _reasons(frame),
    }
    return frame.assign(**{name: made[name] for name in names})


def _quadrature(frame: Any) -> Any:
    return (frame["energy_at_reference_rel_error"] ** 2 + frame["board_factor_rel_error"] ** 2) ** 0.5


def _reasons(frame: Any) -> pd.Series:
    import pandas as pd

    energy, there = frame["energy_j"].notna(), frame["energy_at_reference_j"].notna()
    reasons = pd.Series(None, index=frame.index, dtype=pd.StringDtype("pyarrow"))
    known = frame["energy_at_reference_reason"].astype(object)
    reasons = reasons.mask(energy & ~there, known.where(known.notna(), NO_REFERENCE))
    return reasons.mask(energy & there & ~(frame["board_factor"] > 0), NO_FACTOR)
