"""Rows that a fit does not see when it is judged: chosen by a rule from the rows' keys alone, with their hashes.

A set is made without looking at a time or an energy. Of each group (workload, device type, precision and execution)
whole values of a dimension are held out in turn, the smallest and the largest, too; whole models; whole boards. Of a
dimension with many values, neighbouring ones are held out together: single values between others would be too easy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from flopray.description import Description
from flopray.errors import SettingError
from flopray.point import point_of

#: What makes a group: a fit knows one at a time.
GROUP = ("workload", "device_type", "precision", "execution")
#: A dimension with more values is held out in this many blocks of neighbours.
_MOST_VALUES, _BLOCKS = 8, 5
BOARD, MODEL = "board", "model"


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that a fit does not see.

    Attributes:
        workload, device_type, precision, execution: the group.
        kind: the letter of a dimension, `board` or `model`.
        values: of the rows that are held out, as texts.
        edge: the values are the smallest or the largest of a dimension, so that the fit has to go beyond its rows.
        rows: how many there are.
        sha256: of their keys: `POINT PHASE BOARD`, sorted, one a line.
    """

    workload: str
    device_type: str
    precision: str
    execution: str
    kind: str
    values: tuple[str, ...]
    edge: bool
    rows: int
    sha256: str

    @property
    def label(self) -> str:
        """Such as `n=2` or `n=2..4`."""
        shown = self.values[0] if len(self.values) == 1 else f"{self.values[0]}..{self.values[-1]}"
        return f"{self.kind}={shown}"


def keys_of(rows: pd.DataFrame) -> list[str]:
    """What names each row: its point, its phase, its board."""
    columns = zip(rows["trial_id"], rows["phase"], rows["device_uuid"], strict=True)
    return [f"{point_of(str(point))} {phase} {board}" for point, phase, board in columns]


def hash_of(keys: Iterable[str]) -> str:
    """SHA-256 of keys, whatever their order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()


def held_out_sets(
    rows: pd.DataFrame, description: Description, kinds: Sequence[str] | None = None
) -> Iterator[tuple[HeldOut, np.ndarray]]:
    """The sets of one workload's rows, each with the rows that it takes.

    Args:
        rows: of `description`, with the columns of a record.
        description: whose dimensions are held out.
        kinds: letters of dimensions, `board`, `model`; None for all that there are.

    Yields:
        A set, and a mask over `rows`, shape (rows,).

    Raises:
        InputError: a kind that the workload does not have.
    """
    columns = kinds_of(description)
    for kind in kinds or ():
        if kind not in columns:
            known = ", ".join(columns)
            raise SettingError(f"<held_out> {kind}: rows of {description.name} are held out by {known}")
    keys = np.array(keys_of(rows), dtype=object)
    for group, places in sorted(rows.groupby(list(GROUP), dropna=False).indices.items()):
        for kind in columns if kinds is None else kinds:
            if columns[kind] in rows:
                numeric = kind not in (BOARD, MODEL)
                yield from _sets_of(rows, keys, group, places, kind, columns[kind], numeric=numeric)


def kinds_of(description: Description) -> dict[str, str]:
    """The kinds by which rows of a workload can be held out, with their columns."""
    letters = {f.letter or f.name: f.name for f in description.dimensions}
    return {**letters, BOARD: "device_uuid", MODEL: "model"}


def _sets_of(
    rows: pd.DataFrame, keys: np.ndarray, group: Any, places: np.ndarray, kind: str, column: str, *, numeric: bool
) -> Iterator[tuple[HeldOut, np.ndarray]]:
    values = rows[column].iloc[places]
    known = sorted(values.dropna().unique())
    if len(known) < 2:
        return
    blocks = [[value] for value in known]
    if numeric and len(known) > _MOST_VALUES:
        blocks = [list(block) for block in np.array_split(np.array(known, dtype=object), _BLOCKS)]
    for number, block in enumerate(blocks):
        mask = np.zeros(len(rows), dtype=bool)
        mask[places[values.isin(block).to_numpy(bool)]] = True
        made = HeldOut(
            **dict(zip(GROUP, map(str, group), strict=True)),
            kind=kind,
            values=tuple(map(str, block)),
            edge=numeric and number in (0, len(blocks) - 1),
            rows=int(mask.sum()),
            sha256=hash_of(keys[mask]),
        )
        yield made, mask
