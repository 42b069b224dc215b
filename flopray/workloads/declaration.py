"""What the class of a workload declares, checked when it is loaded: fields, their words and defaults, and phases.

A fault that is not found here would show later and elsewhere: in a flag, a label or a manifest.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from flopray.description import Description, Field
from flopray.errors import SpecError
from flopray.point import EXECUTIONS, PRECISIONS, Point
from flopray.records import TRAINING_PHASES
from flopray.settings import DEFAULT_PHASES

FIGURES = ("surfaces", "comparison", "scores")
_NUMBERS = re.compile(r"[1-9][0-9]{0,9}(:[1-9][0-9]{0,9}:[1-9][0-9]{0,9})?")
_FLAG = re.compile(r"--[a-zA-Z][a-zA-Z0-9-]*")
#: Attributes of points and records that a field must not hide.
_RESERVED = frozenset({name for name in dir(Point) if not name.startswith("_")} | {"workload", "values", "self"})
_OF_RECORDS = frozenset({"extra", "columns", "of"})


class Declaration(Description):
    """What a class of workloads says of its sweeps, beside its description.

    Attributes:
        phases: what can be measured: those of a training step, and the names of `Built.others`.
        default_phases: of a sweep.
        gpu_precisions: default precisions on a GPU; a CPU takes fp32.
        gpu_execution: default execution on a GPU, and why; a CPU takes eager.
        figures: what a finished sweep draws: `surfaces` over the last two dimensions, a `comparison` of GPUs, or the
            `scores` of an evaluation against their costs.
        run_name: stem of default run names; empty takes `name`.
        examples: last paragraph of `flopray sweep NAME --help`.
    """

    phases: tuple[str, ...] = TRAINING_PHASES
    default_phases: ClassVar[tuple[str, ...]] = DEFAULT_PHASES
    gpu_precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    gpu_execution: ClassVar[tuple[str, str]] = (
        "graph",
        "where small eager kernels would show the launching and not the GPU",
    )
    figures: ClassVar[str] = "surfaces"
    run_name: ClassVar[str] = ""
    examples: ClassVar[str] = ""


def check_declaration(workload: Declaration) -> None:
    """Refuse a class that cannot be swept as it is declared.

    Raises:
        SpecError: naming the first fault and how to mend it.
    """
    letters: dict[str, str] = {}
    for field in workload.fields:
        _check_field(field)
        if field.letter is not None and (other := letters.setdefault(field.letter, field.name)) != field.name:
            raise SpecError(f"the fields {other} and {field.name} have the same letter {field.letter!r}: change one")
    for column in workload.columns:
        _check_free_name("column", column.name, _OF_RECORDS)
    for name, given, known in (
        ("default_phases", workload.default_phases, workload.phases),
        ("gpu_precisions", workload.gpu_precisions, PRECISIONS),
        ("gpu_execution", workload.gpu_execution[:1], EXECUTIONS),
        ("figures", (workload.figures,), FIGURES),
    ):
        if isinstance(given, str) or not given:
            raise SpecError(f"{name} must be a tuple of at least one of {', '.join(known)}")
        for word in given:
            if word not in known:
                raise SpecError(f"{name}: unknown {word!r:.60}, choose from {', '.join(known)}")
    Description.from_dict(workload.to_dict())  # a declaration that a manifest cannot hold would make its run unreadable


def _check_field(field: Field) -> None:
    what = f"field {field.name}"
    _check_free_name("field", field.name, _RESERVED | _OF_RECORDS)
    for flag in (*([field.flag] if field.flag else []), *field.old_flags):
        if not isinstance(flag, str) or not _FLAG.fullmatch(flag):
            raise SpecError(f"{what}: a flag must be written as --name, got {flag!r:.60}")
    if not isinstance(field.words, Mapping):
        raise SpecError(f"{what}: words must map each word to its value, got {field.words!r:.60}")
    for word, value in field.words.items():
        if not isinstance(word, str) or not word or word.startswith("-") or not word.isprintable():
            raise SpecError(f"{what}: a word must be a text that does not begin with -, got {word!r:.60}")
        _check_value(field, word, value)
    if field.type is str and not (field.words or field.free or field.implied):
        raise SpecError(f"{what}: a choice needs words={{word: value, ...}}, or free=True for any word")
    for name in ("values", "gpu_values"):
        given = getattr(field, name)
        if given is None and name == "gpu_values":
            continue
        if not isinstance(given, tuple | list | range):
            raise SpecError(f"{what}: {name} must be a tuple such as (1, 2), got {given!r:.60}")
        for value in given:
            _check_default(field, name, value)


def _check_value(field: Field, word: str, value: Any) -> None:
    """A word must stand for a value that a point can have."""
    if value is None and field.optional:
        return
    wrong = type(value) is not field.type or value == ""
    if wrong or (isinstance(value, int) and field.type is int and not 1 <= value < 2**31):
        kind = {"int": "a whole number from 1", "str": "a text", "bool": "True or False"}[field.type.__name__]
        raise SpecError(f"field {field.name}: the word {word!r:.60} must stand for {kind}, got {value!r:.60}")


def _check_default(field: Field, name: str, value: Any) -> None:
    """A default must be writable on a command line."""
    words = ", ".join(field.choice_words)
    what = f"field {field.name}: {value!r:.60} in {name}"
    if field.is_dimension:
        number = type(value) is int or (isinstance(value, str) and _NUMBERS.fullmatch(value))
        if not number and value not in field.words:
            more = f", or one of {words}" if words else ""
            raise SpecError(f"{what} must be a whole number or first:last:step{more}")
        if type(value) is int and not 1 <= value < 2**31:
            raise SpecError(f"{what} must be at least 1 and below {2**31}")
    elif not isinstance(value, str):
        raise SpecError(f"{what} is no word: choose from {words}" if words else f"{what} is no word")
    elif not field.free and value not in field.choice_words:
        raise SpecError(f"{what} is not one of its words: choose from {words}")


def _check_free_name(what: str, name: str, reserved: frozenset[str]) -> None:
    if name in reserved or keyword.iskeyword(name):
        raise SpecError(f"the {what} {name!r} has a name that points, records or Python have: give it another one")
