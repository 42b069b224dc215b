"""The fields of a workload as flags: numbers, ranges and words on a command line become the values of an axis."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flopray.description import Field
from flopray.errors import InputError, spaced

#: No dimension is larger: libraries index matrices with 32 bits.
_LARGEST = 2**31 - 1


def flag_of(field: Field) -> str:
    """The flag of a field, such as `--image-size`."""
    return field.flag or "--" + field.name.replace("_", "-")


def dest_of(field: Field) -> str:
    """Its name in the parsed arguments, which no other flag can have."""
    return f"axis_{field.name}"


def default_of(field: Field, *, on_gpu: bool) -> tuple[str, ...]:
    """Values of the default grid, as words on the command line."""
    values = field.gpu_values if on_gpu and field.gpu_values is not None else field.values
    return tuple(str(value) for value in values)


def values_of(field: Field, given: Sequence[str] | tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of words on the command line, which come as a list; a tuple holds values themselves.

    Raises:
        InputError: there is no value, an unknown one, or one that is given twice.
    """
    if isinstance(given, tuple):
        return _checked(field, given)
    flag = flag_of(field)
    if field.is_dimension:
        return parse_values(flag, [str(field.words.get(word, word)) for word in given])
    if not given:
        raise InputError(f"{flag} needs at least one value")
    words = field.choice_words
    for word in given:
        if not field.free and word not in words:
            raise InputError(f"{flag}: unknown {word!r}, choose from {', '.join(words)}{spaced(flag, word)}")
    values = tuple(words.get(word, word) for word in given)
    if len(set(values)) != len(values):
        raise InputError(f"{flag}: a value is named twice")
    return values


def _checked(field: Field, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise InputError(f"{field.name} needs at least one value")
    for value in values:
        if not field.free:
            field.check(value)
        if values.count(value) > 1:
            raise InputError(f"{field.name}: {value!r:.60} is named twice")
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


def parse_values(flag: str, texts: Sequence[str]) -> tuple[int, ...]:
    """Grid values from the command line: whole numbers, and ranges `first:last:step` that include their last value.

    Args:
        flag: the flag's name, for the message.
        texts: words as given, such as `["2", "4", "128:2048:128"]`.

    Returns:
        The values in the order given.

    Raises:
        InputError: not a whole number, below 1, a range that is empty, or a value that is named twice.
    """
    values: list[int] = []
    for text in texts:
        parts = text.split(":")
        if len(parts) == 1:
            values.append(_whole(flag, text))
        elif len(parts) == 3:
            first, last, step = (_whole(flag, part) for part in parts)
            if last < first:
                raise InputError(f"{flag} {text}: the range is empty, its last value is below its first")
            whole = range(first, last + 1, step)
            _check_count(flag, len(values) + len(whole))
            values.extend(whole)
        else:
            raise InputError(f"{flag} {text}: write a whole number or a range first:last:step, such as 128:2048:128")
    _check_count(flag, len(values))
    if not values:
        raise InputError(f"{flag} needs at least one value")
    seen: set[int] = set()
    for value in values:
        if value in seen:
            raise InputError(f"{flag}: {value} is named twice")
        seen.add(value)
    return tuple(values)


def _check_count(flag: str, count: int) -> None:
    if count > 1_000_000:
        raise InputError(f"{flag}: more than a million values")


def _whole(flag: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise InputError(f"{flag}: {text!r:.60} is not a whole number{_hint(flag, text)}") from None
    if value < 1:
        raise InputError(f"{flag}: {value} is below 1")
    if value > _LARGEST:
        raise InputError(f"{flag}: {value} is above {_LARGEST}")
    return value


def _hint(flag: str, text: str) -> str:
    """How to write a list that was given with commas, a range with hyphens or dots, or a number with an exponent."""
    if re.fullmatch(r"\d{1,6}(\.\d*)?[eE]\+?\d{1,2}", text) and float(text).is_integer() and float(text) <= _LARGEST:
        return f": write it as {int(float(text))}"
    if span := re.fullmatch(r"(\d+)(?:-|\.\.+)(\d+)", text):
        return f": write a range as first:last:step, such as {flag} {span[1]}:{span[2]}:1"
    if span := re.fullmatch(r"range\((\d+), *(\d+)(?:, *(\d+))?\)", text):  # Python's leaves out its end
        first, last, step = int(span[1]), int(span[2]), int(span[3] or 1)
        return f": write a range as first:last:step, such as {flag} {first}:{max(first, last - 1)}:{step}"
    return spaced(flag, text)
