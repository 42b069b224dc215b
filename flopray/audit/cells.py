"""Whole columns of a table: what their cells identify, and their numbers.

The same as `identity` and `number` of each cell. Equal cells of one plain type mean the same, and most columns repeat a
few values, so each value is read once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from flopray.audit.findings import Row, identity, number, text

if TYPE_CHECKING:
    import pandas as pd

_Value = TypeVar("_Value")
#: Sets of types within which equal cells mean the same. A bool is in none of them: True equals 1.
_PLAIN = ({str, type(None)}, {int, float, type(None)})


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame as dictionaries of plain values: what `to_dict` gives, several times as fast.

    Columns of texts that pandas keeps in Arrow are slow to walk through cell by cell. A missing value of pandas' own
    types, which has no truth value, is None.
    """
    if frame.shape[1] == 0:
        return [{} for _ in range(len(frame))]
    names = list(map(str, frame.columns))
    cells = [
        column.array.to_numpy(dtype=object, na_value=None).tolist() if _is_of_pandas(column) else column.tolist()
        for _, column in frame.items()
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]


def is_absent(value: Any) -> bool:
    """Whether pandas takes a cell for a missing one; that of a plain type is told without asking it."""
    if value is None or type(value) is float:
        return value is None or value != value
    if type(value) in (str, int, bool):
        return False
    import pandas as pd  # imported here: the audit of single rows does not need it

    return pd.isna(value) is True


def _is_of_pandas(column: pd.Series) -> bool:
    """Whether pandas keeps a column in a type of its own, such as texts in Arrow."""
    return not hasattr(column.dtype, "char")


def names_of(rows: Sequence[Row]) -> dict[Any, None]:
    """The columns that any row has, in the order in which they come."""
    return dict.fromkeys(chain.from_iterable(rows))


def identities(rows: Sequence[Row], column: str) -> list[str | None]:
    """`flopray.audit.findings.identity` of each cell of a column."""
    return _of_cells([row.get(column) for row in rows], lambda cell: identity({column: cell}, column))


def numbers(rows: Sequence[Row], column: str) -> list[float | None]:
    """`flopray.audit.findings.number` of each cell of a column."""
    return _of_cells([row.get(column) for row in rows], lambda cell: number({column: cell}, column))


def texts(rows: Sequence[Row], column: str) -> list[str | None]:
    """`flopray.audit.findings.text` of each cell of a column."""
    return _of_cells([row.get(column) for row in rows], lambda cell: text({column: cell}, column))


def are_plain_numbers(cells: Sequence[Any]) -> bool:
    """Whether each cell is a number that a float can hold, NaN or nothing."""
    types = set(map(type, cells))
    if not types <= _PLAIN[1] or math.inf in cells or -math.inf in cells:
        return False
    return int not in types or not any(type(cell) is int and abs(cell) > sys.float_info.max for cell in cells)


def _of_cells(cells: list[Any], meaning: Callable[[Any], _Value]) -> list[_Value]:
    types = set(map(type, cells))
    if not any(types <= plain for plain in _PLAIN):
        return [meaning(cell) for cell in cells]
    known = {cell: meaning(cell) for cell in set(cells)}
    return [known[cell] for cell in cells]
