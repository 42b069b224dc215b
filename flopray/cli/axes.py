"""The axes of a sweep as flags: numbers, ranges and words on a command line become the values of a field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopray.errors import InputError, spaced
from flopray.sweep.space import parse_values


@dataclass(frozen=True)
class Axis:
    """One axis of a sweep's grid as a flag.

    Attributes:
        flag: such as `--n`.
        field: field of `Point`.
        cpu: default values without a GPU, as words on the command line.
        gpu: default values with one.
        help: what it is.
        words: words that stand for values; an axis of numbers takes them beside numbers, another one takes only them.
        old_flags: names that the flag had before; they still work and are not in the help.
        numbers: whether numbers and ranges are values.
        free: whether any word is a value.
    """

    flag: str
    field: str
    cpu: tuple[str, ...]
    gpu: tuple[str, ...]
    help: str
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    old_flags: tuple[str, ...] = ()
    numbers: bool = True
    free: bool = False

    def values(self, given: Sequence[str]) -> tuple[Any, ...]:
        """The values of words on the command line.

        Raises:
            InputError: none, an unknown one, or one twice.
        """
        if self.numbers:
            return parse_values(self.flag, [str(self.words.get(word, word)) for word in given])
        if not given:
            raise InputError(f"{self.flag} needs at least one value")
        for word in given:
            if not self.free and word not in self.words:
                raise InputError(
                    f"{self.flag}: unknown {word!r}, choose from {', '.join(self.words)}{spaced(self.flag, word)}"
                )
        values = tuple(self.words.get(word, word) for word in given)
        if len(set(values)) != len(values):
            raise InputError(f"{self.flag}: a value stands there twice")
        return values

    def describe(self) -> str:
        """For `--help`."""
        kinds = ["numbers or first:last:step"] if self.numbers else []
        kinds += [", ".join(f"{w} ({v})" if self.numbers else w for w, v in self.words.items())] if self.words else []
        default = " ".join(self.gpu)
        if self.cpu != self.gpu:
            default += f" with a GPU, {' '.join(self.cpu)} without"
        what = f": {', or '.join(kinds)}" if kinds else ""
        return f"{self.help}{what} (default {default})"
