"""The columns of a run: those of every record, and those that its workload adds."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cached_property
from typing import NamedTuple

from flopray.description import Column, Description
from flopray.errors import SpecError
from flopray.records import COLUMN_NAMES, DERIVED, FORMER, SCHEMA_VERSION, PhaseRecord, Row


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


#: The columns of every record in order, with their types, from PhaseRecord's annotations.
COLUMN_TYPES = _common_types()
_COMMON = [f for f in dataclasses.fields(PhaseRecord) if f.name in COLUMN_NAMES]
DOCS = {f.name: f.metadata["doc"] for f in _COMMON}
#: Places of a workload's columns: its fields after those of every point, the others after the closed form.
_FIELDS_AFTER, _COLUMNS_AFTER = "execution", "optimizer_flops"
#: First version in which every workload has its own columns.
OWN_SINCE = 4


class RecordSchema:
    """The columns of a run, in order.

    Attributes:
        workload: whose columns are added to those of every record; without a name none are.
        version: of the columns of a row that does not state it.
        fields: names of the workload's fields; with `former` and no workload, of the fields that any might fill.
        types: types by column, in order.
        defaults: values by column that are not written.
        docs: what a column is, by column.
        own: names of columns that not every record has.

    Raises:
        SpecError: the workload has a field or column that every record has with another meaning.
    """

    def __init__(
        self, workload: Description | None = None, *, version: int = SCHEMA_VERSION, former: bool = False
    ) -> None:
        """The columns of a workload's runs.

        Args:
            workload: None for the columns of every record alone.
            version: that the run began with.
            former: whether columns that every record had up to version 3 (`FORMER`) are columns of the run too.
        """
        self.workload, self.version = workload or Description(), version
        fields, columns = self.workload.fields, [c for c in self.workload.columns if not _is_common(c)]
        for f in fields:
            if f.name in COLUMN_TYPES:
                raise SpecError(f"{f.name} is a column of every record: give the workload's field another name")
        for part in (*fields, *columns):
            if part.name in DERIVED:
                raise SpecError(f"{part.name} is computed when any run is loaded: give the workload's another name")
        if former:
            stated = {part.name for part in (*fields, *columns)}
            columns += [part for part in (*FORMER.fields, *FORMER.columns) if part.name not in stated]
        self.fields = tuple(f.name for f in fields or (FORMER.fields if former else ()))
        self.own = tuple(part.name for part in (*fields, *columns))
        self.types: dict[str, ColumnType] = {}
        for name, column_type in COLUMN_TYPES.items():
            self.types[name] = column_type
            added = {_FIELDS_AFTER: fields, _COLUMNS_AFTER: columns}.get(name, ())
            self.types |= {part.name: ColumnType(part.type, nullable=True) for part in added}
        self.defaults: Row = dict.fromkeys(self.types) | _DEFAULTS | {"schema_version": version}
        self.docs = DOCS | {part.name: part.doc for part in (*fields, *columns)}

    @cached_property
    def names(self) -> list[str]:
        """Columns in order."""
        return list(self.types)

    def types_in(self, version: int) -> dict[str, ColumnType]:
        """Types by column of the run's table as a version of flopray's columns wrote it; of an older one in any order.

        Args:
            version: one of `flopray.records.READABLE_VERSIONS`.
        """
        later = {f.name for f in _COMMON if f.metadata["since"] > version}
        found = {name: column_type for name, column_type in self.types.items() if name not in later}
        if version >= OWN_SINCE:
            return found
        return {part.name: ColumnType(part.type, nullable=True) for part in (*FORMER.fields, *FORMER.columns)} | found


def _is_common(column: Column) -> bool:
    """Whether a workload's column is one that every record has, which its closed form may fill.

    Raises:
        SpecError: it is, with another type.
    """
    common = COLUMN_TYPES.get(column.name)
    if common is not None and common.base is not column.type:
        raise SpecError(f"{column.name} is a column of every record: give the workload's column another name")
    return common is not None


_DEFAULTS: Row = {f.name: f.default for f in _COMMON}
#: The columns of every record alone.
COMMON = RecordSchema()
