"""The fields of a workload as flags: numbers, ranges and words on a command line become the values of an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flopray.description import Field
from flopray.errors import InputError, spaced
from flopray.sweep.space import parse_values


def flag_of(field: Field) -> str:
    """The flag of a field, such as `--image-size`."""
    return field.flag or "--" + field.name.replace("_", "-")


def dest_of(field: Field) -> str:
    """Where the parser keeps it: apart from all other flags, whatever the field is called."""
    return f"axis_{field.name}"


def default_of(field: Field, *, on_gpu: bool) -> tuple[str, ...]:
    """Values of the default grid, as words on the command line."""
    values = field.gpu_values if on_gpu and field.gpu_values is not None else field.values
    return tuple(str(value) for value in values)


def values_of(field: Field, given: Sequence[str]) -> tuple[Any, ...]:
    """The values of words on the command line.

    Raises:
        InputError: none, an unknown one, or one twice.
    """
    flag = flag_of(field)
    if field.is_dimension:
        return parse_values(flag, [str(field.words.get(word, word)) for word in given])
    if not given:
        raise InputError(f"{flag} needs at least one value")
    words = field.words or ({"off": False, "on": True} if field.type is bool else {})
    for word in given:
        if not field.free and word not in words:
            raise InputError(f"{flag}: unknown {word!r}, choose from {', '.join(words)}{spaced(flag, word)}")
    values = tuple(words.get(word, word) for word in given)
    if len(set(values)) != len(values):
        raise InputError(f"{flag}: a value stands there twice")
    return values


def described(field: Field) -> str:
    """For `--help`."""
    kinds = ["numbers or first:last:step"] if field.is_dimension else []
    if field.words:
        kinds.append(", ".join(f"{w} ({v})" if field.is_dimension else w for w, v in field.words.items()))
    with_gpu, without = (" ".join(default_of(field, on_gpu=on_gpu)) for on_gpu in (True, False))
    default = with_gpu if with_gpu == without else f"{with_gpu} with a GPU, {without} without"
    what = f": {', or '.join(kinds)}" if kinds else ""
    shown = f" (default {default})" if default else ""
    return f"{field.doc or field.label or field.name}{what}{shown}".replace("%", "%%")
