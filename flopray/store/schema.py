"""The columns of a run: those of every record, and those that its workload adds."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cached_property
from typing import Any, NamedTuple

from flopray.description import Description
from flopray.errors import SpecError
from flopray.records import COLUMN_NAMES, PhaseRecord

#: Columns of every record that a workload may fill as a field of its own.
SHARED = (
    *("n_layers", "width", "tokens", "batch_size", "sequence_length"),
    *("model", "model_config", "weights", "attention", "checkpointing"),
)


class ColumnType(NamedTuple):
    """What a column holds: `base` is str, int, float, bool or tuple (of strings)."""

    base: type
    nullable: bool


def _common_types() -> dict[str, ColumnType]:
    found = {}
    for name, hint in typing.get_type_hints(PhaseRecord).items():
        if name not in COLUMN_NAMES:
            continue
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        options = [option for option in typing.get_args(hint) if option is not type(None)] if union else [hint]
        found[name] = ColumnType(typing.get_origin(options[0]) or options[0], nullable=union)
    return found


#: The columns of every record in order, with their types: the one reading of PhaseRecord's annotations.
COLUMN_TYPES = _common_types()
DOCS = {f.name: f.metadata["doc"] for f in dataclasses.fields(PhaseRecord) if f.name in COLUMN_NAMES}
#: Where the columns of a workload stand: behind the last field that makes a point.
_AFTER = "sequence_length"


class RecordSchema:
    """The columns of a run, in order.

    Attributes:
        workload: whose columns stand beside those of every record; without a name for these alone.
        fields: names of the workload's fields; without a workload those that any may fill.
        types: types by column, in order.
        defaults: values by column that are not written.
        docs: what a column is, by column.

    Raises:
        SpecError: the workload has a field or column that every record has with another meaning.
    """

    def __init__(self, workload: Description | None = None) -> None:
        workload = workload or Description()
        self.workload = workload
        own: dict[str, ColumnType] = {}
        docs: dict[str, str] = {}
        self.fields = tuple(f.name for f in workload.fields) or SHARED
        for column in (*workload.fields, *workload.columns):
            common = COLUMN_TYPES.get(column.name)
            if common is None:
                own[column.name], docs[column.name] = ColumnType(column.type, nullable=True), column.doc
            elif common.base is not column.type or (column.name in self.fields and column.name not in SHARED):
                what = "field" if column.name in self.fields else "column"
                raise SpecError(f"{column.name} is a column of every record: give the workload's {what} another name")
        self.types: dict[str, ColumnType] = {}
        for name, column_type in COLUMN_TYPES.items():
            self.types[name] = column_type
            if name == _AFTER:
                self.types |= own
        self.defaults: dict[str, Any] = _DEFAULTS | dict.fromkeys(own)
        self.docs = DOCS | docs
        self.own = tuple(own)

    @cached_property
    def names(self) -> list[str]:
        """Columns in order."""
        return list(self.types)


_DEFAULTS: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(PhaseRecord) if f.name in COLUMN_NAMES}
#: The columns of every record alone.
COMMON = RecordSchema()
