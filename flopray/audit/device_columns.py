"""Columns of one device each: `gpu0_energy` and `gpu1_energy`, `gpu_energy.0`, `system.gpu.1.powerWatts`.

A table that has them covers several devices in a row, and does not say whether its other columns are sums: Zeus, W&B
and pyJoules write such tables, and `--rename gpu0_energy=energy_j` leaves the others behind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flopray.audit.cells import names_of
from flopray.audit.findings import KNOWN, Row, number

#: How a column is called once it is settled what rows cover.
OF_THE_ROW = " of the row"
_NOUN = "gpu|device|accelerator|card|rank|tpu"
_PLACES = (
    re.compile(
        rf"(?P<before>(?:.*[^a-z])?(?:{_NOUN}))[\s_.:#/-]*(?P<place>\d{{1,3}})(?P<after>(?!\d).*)", re.IGNORECASE
    ),
    re.compile(rf"(?P<before>(?:.*[^a-z])?(?:{_NOUN})[a-z_]*)[.](?P<place>\d{{1,3}})(?P<after>)", re.IGNORECASE),
)
_SHARED = re.compile(r"energy|joule|power|watt|time|duration|flop", re.IGNORECASE)


def column_of_a_further_device(rows: Sequence[Row]) -> str | None:
    """A column with numbers other than 0 of a second device, or a later one; None where there is none.

    Places are counted from 0 or 1 without a gap; one column alone must sound like a quantity that devices share.

    Args:
        rows: of the table.
    """
    series: dict[tuple[str, str], dict[int, str]] = {}
    for column in map(str, names_of(rows)):
        found = None if column in KNOWN or column.endswith(OF_THE_ROW) else _place(column)
        if found and any(number(row, column) for row in rows):
            before, place, after = found
            series.setdefault((before, after), {})[place] = column
    for columns in series.values():
        last = max(columns)
        whole = sorted(columns) in (list(range(last + 1)), list(range(1, last + 1)))
        if last > 0 and ((len(columns) > 1 and whole) or _SHARED.search(columns[last])):
            return columns[last]
    return None


def has_a_further_device(row: Row, column: str | None) -> bool:
    """Whether a column is that of a second or later device, and the row has a number in it other than 0."""
    found = None if column is None or column.endswith(OF_THE_ROW) else _place(column)
    return found is not None and found[1] > 0 and bool(number(row, str(column)))


def _place(column: str) -> tuple[str, int, str] | None:
    found = next((match for pattern in _PLACES if (match := pattern.fullmatch(column))), None)
    return (found["before"].lower(), int(found["place"]), found["after"].lower()) if found else None
