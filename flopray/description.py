"""What a workload says of itself: its fields, further columns and phases. They become columns, flags and axes of plots.

Standard library only. A run keeps this description in its manifest, so that it can be read, merged and drawn where the
workload's code is not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from flopray.errors import SpecError
from flopray.mappings import Json, Values

#: What a field or a further column may hold, by the name that a manifest has for it.
TYPES: Mapping[str, type] = MappingProxyType({"int": int, "float": float, "str": str, "bool": bool})
#: What a workload, a field, a column and a phase may be called: a column of a table, and a flag.
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LARGEST = 2**31 - 1
#: What a manifest keeps of a field beside its type.
_KEPT = ("name", "letter", "label", "unit", "doc", "implied")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a workload's points: a dimension (a whole number, an axis of plots) or a choice (a word or a flag).

    Attributes:
        name: of the column, such as `width`.
        letter: short name on labels, such as `d`; without one, labels have a dimension's name, and leave a choice out.
        label: on axes of plots, such as `width`; empty takes the name.
        unit: of a dimension, such as `px`; empty where it is a count.
        type: `int` for a dimension, `str` or `bool` for a choice.
        doc: one line for `--help` and the table of columns.
        values: values of the default grid, as on a command line: numbers, `first:last:step` or words.
        gpu_values: the same on a GPU; None takes `values`.
        words: words that stand for values; a dimension takes them beside numbers, a choice takes only them. A bool
            without words takes `off` and `on`.
        free: whether any word is a value of the choice.
        flag: of the command line; empty makes it from the name.
        old_flags: names that the flag had before; they still work and are not in the help.
        implied: the value follows from another field's, so that there is no flag; it may be missing.
        optional: the value may be missing, and a word of `words` may stand for that: then a point has the same id as
            one of a workload without the field.
    """

    name: str
    letter: str | None = None
    label: str = ""
    unit: str = ""
    type: type = int
    doc: str = ""
    values: Sequence[Any] = ()
    gpu_values: Sequence[Any] | None = None
    words: Mapping[str, Any] = field(default_factory=dict)
    free: bool = False
    flag: str = ""
    old_flags: tuple[str, ...] = ()
    implied: bool = False
    optional: bool = False

    def __post_init__(self) -> None:
        _check_name("field", self.name)
        if self.type not in (int, str, bool):
            raise SpecError(f"field {self.name}: its type must be int, str or bool, got {self.type!r:.60}")
        if self.letter is not None and not (isinstance(self.letter, str) and NAME.fullmatch(self.letter.lower())):
            raise SpecError(f"field {self.name}: its letter must be a short name, got {self.letter!r:.60}")

    @property
    def is_dimension(self) -> bool:
        """Whether it is a number, and so an axis."""
        return self.type is int

    @property
    def choice_words(self) -> Mapping[str, Any]:
        """Words of a command line, with the values that they stand for; of a bool without words `off` and `on`."""
        return self.words or ({"off": False, "on": True} if self.type is bool else {})

    @property
    def title(self) -> str:
        """What an axis says: label, letter and unit, such as `width d` or `image size s (px)`."""
        words = [self.label or self.name.replace("_", " ")]
        words += [self.letter] if self.letter and self.letter != self.name else []
        words += [f"({self.unit})"] if self.unit else []
        return " ".join(words)

    def check(self, value: Any) -> None:
        """Refuse what no value of the field can be.

        Raises:
            SpecError: naming the field.
        """
        if value is None and (self.implied or self.optional):
            return
        if self.is_dimension:
            if type(value) is not int or value < 1 or value > _LARGEST:
                wrong = "is missing: it must be" if value is None else "must be"
                got = "" if value is None else f", got {value!r:.60}"
                raise SpecError(f"{self.name} {wrong} a whole number of at least 1{got}")
        elif type(value) is not self.type or value == "":
            raise SpecError(f"{self.name} {self._wrong(value)}")
        elif self.words and not self.free and value not in self.words.values():
            known = ", ".join(dict.fromkeys(map(str, self.words.values())))
            raise SpecError(f"unknown {self.name} {value!r:.60}: choose from {known}")

    def _wrong(self, value: Any) -> str:
        """Why a choice does not take a value; a word is told what it stands for."""
        kind = "True or False" if self.type is bool else "a text"
        if value is None or value == "":
            return f"is missing: it must be {kind}"
        word = self.choice_words.get(value) if isinstance(value, str) else None
        meant = f": the word {value!r:.60} stands for {word!r}" if word is not None else ""
        return f"must be {kind}, got {value!r:.60}{meant}"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column that a workload adds to the record, beside its fields.

    Attributes:
        name: of the column, with its SI unit as suffix.
        type: `int`, `float`, `str` or `bool`; a missing value is None.
        doc: one line for the table of columns.
    """

    name: str
    type: type
    doc: str = ""

    def __post_init__(self) -> None:
        _check_name("column", self.name)
        if self.type not in TYPES.values():
            raise SpecError(f"column {self.name}: its type must be one of {', '.join(TYPES)}, got {self.type!r:.60}")


class Description:
    """The part of a workload that needs neither torch nor its code.

    Attributes:
        name: of the workload, as the column `workload` has it.
        fields: what makes a point besides device type, precision and execution; dimensions in the order of plots: the
            last two are the axes of surfaces.
        columns: further columns of the record.
        phases: what can be measured.
    """

    name: str = ""
    fields: tuple[Field, ...] = ()
    columns: tuple[Column, ...] = ()
    phases: tuple[str, ...] = ()

    @property
    def dimensions(self) -> tuple[Field, ...]:
        """Fields that are numbers, in order."""
        return tuple(f for f in self.fields if f.is_dimension)

    @property
    def choices(self) -> tuple[Field, ...]:
        """Fields that are words or flags, in order."""
        return tuple(f for f in self.fields if not f.is_dimension)

    def checked(self, values: Mapping[str, Any]) -> Values:
        """The values of all fields, in order.

        Raises:
            SpecError: a field that is unknown, missing or has a value that cannot be.
        """
        known = {f.name for f in self.fields}
        for name in values:
            if name not in known:
                near = f": did you mean {meant}?" if (meant := self.field_meant(name)) else ""
                there = ", ".join(sorted(known))
                raise SpecError(f"a point of {self.name} has no field {name!r:.60}: it has {there}{near}")
        for f in self.fields:
            f.check(values.get(f.name))
        return {f.name: values.get(f.name) for f in self.fields}

    def field_meant(self, guess: str) -> str | None:
        """The name of the field that a wrong name means: that of its letter or flag, or a similar one."""
        named = {
            other: f.name
            for f in self.fields
            for other in (f.letter, f.flag.lstrip("-"), *(flag.lstrip("-") for flag in f.old_flags))
            if other
        }
        near = get_close_matches(guess, [f.name for f in self.fields], n=1, cutoff=0.7)
        return named.get(guess) or (near[0] if near else None)

    def label(self, values: Mapping[str, Any]) -> str:
        """A short line that names the fields, such as `n=8 d=1024 m=128`.

        Args:
            values: by field; those that are missing are left out.
        """
        shown = []
        for f in self.fields:
            value = values.get(f.name)
            is_dimension = f.type is int and not f.implied
            letter = f.letter or (f.name if is_dimension else None)
            if letter is None or _is_missing(value):
                continue
            shown.append(str(value) if letter == f.name and not is_dimension else f"{letter}={value}")
        return " ".join(shown)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Description) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.name)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, as a manifest keeps it."""
        names = {value: key for key, value in TYPES.items()}
        return {
            "name": self.name,
            "fields": [_kept(f) | {"type": names[f.type]} for f in self.fields],
            "columns": [{"name": c.name, "type": names[c.type], "doc": c.doc} for c in self.columns],
            "phases": list(self.phases),
        }

    @classmethod
    def from_dict(cls, content: Any) -> Description:
        """The inverse of `to_dict`, of a file that a stranger may have written.

        Raises:
            SpecError: it is not a description; the message says why.
        """
        try:
            found = Description()
            found.name = _text(content["name"])
            _check_name("workload", found.name)
            found.fields = tuple(Field(**_with_type(part)) for part in _list(content["fields"]))
            found.columns = tuple(Column(**_with_type(part)) for part in _list(content["columns"]))
            found.phases = tuple(_text(phase) for phase in _list(content["phases"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise SpecError(f"the description of a workload is incomplete: {error!r:.120}") from error
        found.check_names()
        return found

    def check_names(self) -> None:
        """Refuse names that appear twice, or that no column or phase can have.

        Raises:
            SpecError: naming the first.
        """
        _check_name("workload", self.name)
        for what, parts, kind in (("fields", self.fields, Field), ("columns", self.columns, Column)):
            if not isinstance(parts, tuple | list) or not all(isinstance(part, kind) for part in parts):
                raise SpecError(f"the {what} of the workload {self.name} must be a tuple of {kind.__name__}(...)")
        if not isinstance(self.phases, tuple | list):
            raise SpecError(f"the phases of the workload {self.name} must be a tuple of names, got {self.phases!r:.60}")
        names = [*(f.name for f in self.fields), *(c.name for c in self.columns)]
        for name in names:
            if names.count(name) > 1:
                raise SpecError(f"the workload {self.name} has the column {name} twice")
        for phase in self.phases:
            _check_name("phase", phase)
        if not self.phases:
            raise SpecError(f"the workload {self.name} has no phases")


def _is_missing(value: Any) -> bool:
    """None, NaN, or what pandas has for a missing text, which is not even unequal to itself."""
    return value is None or type(value).__name__ == "NAType" or value != value


def _kept(field: Field) -> Json:
    return {name: getattr(field, name) for name in _KEPT} | ({"optional": True} if field.optional else {})


def _with_type(part: Any) -> Json:
    if not isinstance(part, dict):
        raise TypeError(f"{part!r:.60} does not describe a field or column")
    values = {key: value for key, value in part.items() if key in (*_KEPT, "optional", "type")}
    for key, value in values.items():
        if (key in ("implied", "optional") and type(value) is bool) or (key == "letter" and value is None):
            continue
        _text(value)
    return values | {"type": TYPES[values["type"]]}


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 500 or not value.isprintable():
        raise TypeError(f"{value!r:.60} is not a short text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > 200:
        raise TypeError(f"{value!r:.60} is not a short list")
    return value


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise SpecError(f"the {what} {name!r:.60} must be named in lower-case letters, digits and _")
