"""The parsers of all command lines: flags are made from settings, and errors are one line."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from flopray.cli.synonyms import in_other_number, meant
from flopray.cli.terminal import in_lines
from flopray.errors import FloprayError, InputError, SettingError, SettingMessage, with_names
from flopray.mappings import Arguments, Values
from flopray.settings import MeasureSettings, Setting, settings_of

#: Flags of a sweep that advice may name in any command, such as what to measure.
SWEEP_FLAGS = {known.name: known.option for known in settings_of(MeasureSettings).values()} | {
    "precision": "--precision",
    "execution": "--execution",
}


class LineFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions and examples, and breaks those that are wider than the terminal between words."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        del width
        columns = self._width + 2  # argparse leaves two free, which written lines may use
        return "".join(f"{indent}{line}\n" for line in in_lines(text, columns).splitlines())


class OneLineParser(argparse.ArgumentParser):
    """Reports wrong flags in one line, like all other bad input, and ends with exit code 2.

    A flag must be written in full: the meaning of an abbreviation would change with new flags.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        defaults = {"allow_abbrev": False, "formatter_class": LineFormatter}
        super().__init__(*args, **{**defaults, **kwargs})
        #: Flags here, by their names in other tools.
        self.synonyms: dict[str, str] = {}
        self._words: list[str] = []

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse does; the words are kept, so that an error can say which of them was meant otherwise."""
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._words, namespace)

    def error(self, message: str) -> NoReturn:
        """Exit with the code of bad input."""
        self.exit(InputError.exit_code, f"error: {message}{self._hint(message)} (--help lists the flags)\n")

    def _hint(self, message: str) -> str:
        """What may have been meant, to put behind an error of argparse; empty where nothing is similar."""
        if message.startswith("unrecognized arguments"):
            unknown = re.search(r"(?<!\S)(--[\w-]+|-[A-Za-z]\b)", message)
            found = meant(unknown[0], self.synonyms, self._flags()) if unknown else None
            return f": did you mean {found}?" if found else ""
        if message.startswith("the following arguments are required"):
            return self._instead_of_required(message.partition(": ")[2].split(", "))
        refused = re.match(r"argument (--[\w-]+)", message)
        return self._sibling_that_takes(refused[1]) if refused else ""

    def _instead_of_required(self, missing: Sequence[str]) -> str:
        """Why a required word seems to be missing: its flag is misspelt, or a flag of several values took it."""
        known = self._option_string_actions
        flags = [word.partition("=")[0] for word in self._until_command() if re.match(r"--?[A-Za-z]", word)]
        for flag in flags:
            found = None if flag in known else meant(flag, self.synonyms, self._flags())
            if found:
                return f"; {flag} is unknown: did you mean {found}?"
        greedy = [flag for flag in flags if flag in known and known[flag].nargs in ("*", "+") and self._behind(flag)]
        if greedy and not missing[0].startswith("-"):
            return f": write {missing[0]} first, since {greedy[-1]} takes all words behind it"
        return ""

    def _sibling_that_takes(self, flag: str) -> str:
        """The flag in the other number, singular or plural, where it takes what this one refuses."""
        for other in self._flags():
            words = self._behind(flag)
            if words and in_other_number(flag, other) and _takes(self._option_string_actions[other].type, words):
                return f": did you mean {' '.join([other, *words])}?"
        return ""

    def _behind(self, flag: str) -> list[str]:
        """The words behind a flag, up to the next one."""
        words = self._until_command()
        place = next((place for place, word in enumerate(words) if word.partition("=")[0] == flag), len(words))
        if "=" in "".join(words[place : place + 1]):
            return [words[place].partition("=")[2]]
        after = words[place + 1 :]
        end = next((at for at, word in enumerate(after) if re.match(r"--?[A-Za-z]", word)), len(after))
        return after[:end]

    def _until_command(self) -> list[str]:
        """The words of this command line, without those of a command behind `--`."""
        return self._words[: self._words.index("--")] if "--" in self._words else self._words

    def _flags(self) -> list[str]:
        """All flags that `--help` lists."""
        found = [flag for action in self._actions if action.help != argparse.SUPPRESS for flag in action.option_strings]
        return [flag for flag in found if flag.startswith("--")]


def _takes(kind: Any, words: Sequence[str]) -> bool:
    """Whether a flag of this kind was meant by words; a number is meant by none that takes any text."""
    try:
        read = list(map(kind or str, words))
    except (argparse.ArgumentTypeError, TypeError, ValueError):
        return False
    return not any(isinstance(value, str) and re.match(r"[-+.\d]", value) for value in read)


class SettingsParser(OneLineParser):
    """A command line whose flags are the settings of dataclasses, in their order.

    Args:
        *classes: dataclasses with fields made by `flopray.settings.setting`; no name may be in two of them.
        **texts: of `argparse.ArgumentParser`.
    """

    def __init__(self, *classes: type, **texts: Any) -> None:
        super().__init__(**texts)
        self._classes = classes
        #: Further names and their flags, for the messages of errors: of the fields of a workload, once it is known.
        self.names: dict[str, str] = {}
        self._headings: dict[str, argparse._ActionsContainer] = {"": self}
        for known in (known for cls in classes for known in settings_of(cls).values()):
            add_setting(self.heading(known.group), known)

    def heading(self, title: str) -> argparse._ActionsContainer:
        """The group of flags below a heading of `--help`, which is made if it is not there; without a title, all."""
        if title not in self._headings:
            self._headings[title] = self.add_argument_group(title)
        return self._headings[title]

    def read(self, words: Sequence[str] | None = None) -> tuple[Any, ...]:
        """An instance of each class with what the words ask for; by default with those of this process.

        Raises:
            SettingError: a value that cannot be.
            SystemExit: after `--help`, and after words that are no flags.
        """
        return self.read_known(self.parse_args(words))

    def read_known(self, given: argparse.Namespace) -> tuple[Any, ...]:
        """An instance of each class with what was parsed.

        Raises:
            SettingError: a value that cannot be.
        """
        return tuple(cls(**_values_of(cls, given)) for cls in self._classes)

    @property
    def flags(self) -> dict[str, str]:
        """Flags by the settings and fields that they set."""
        return _flags(self._classes, self.names)

    def told(self, error: FloprayError) -> str:
        """The message of an error: settings are called by their flags."""
        return told(error, *self._classes, **self.names)


def _values_of(cls: type, given: argparse.Namespace) -> Values:
    """Values of the fields that were given; the others have the defaults of the class."""
    values: Values = {}
    for field, known in settings_of(cls).items():
        value = getattr(given, known.name)
        if value is None or (known.positional and value == []):
            continue
        if known.many and not value:
            raise SettingError(f"<{known.name}> needs at least one {known.noun}")
        values[field] = tuple(value) if known.many else value
    return values


def add_setting(group: Any, known: Setting, text: str | None = None) -> None:
    """Add the flag of a setting. What is not given is None, so that the class has its default.

    Args:
        group: a parser, or a group of one.
        known: the setting.
        text: for `--help`, instead of its own.
    """
    words: Arguments = {"help": (known.described() if text is None else text).replace("%", "%%")}
    if known.kind is bool and known.default is None:
        group.add_argument(known.option, dest=known.name, action=argparse.BooleanOptionalAction, **words)
    elif known.kind is bool:
        words |= {"action": "store_const", "const": not known.default, "default": None}
        group.add_argument(known.option, dest=known.name, **words)
    elif known.positional:
        nargs = {(True, True): "+", (True, False): "*", (False, True): None, (False, False): "?"}
        words |= {"nargs": nargs[known.many, known.required], "metavar": known.option, "type": _reader(known.kind)}
        group.add_argument(known.name, **words)
    else:
        if known.many:
            words |= {"nargs": "*", "action": "extend" if known.repeats else "store"}
        words |= {"type": _reader(known.kind), "metavar": known.metavar, "required": known.required}
        group.add_argument(known.option, dest=known.name, **words)
        for flag in known.also:
            group.add_argument(flag, dest=known.name, **words | {"help": argparse.SUPPRESS})


def _reader(kind: Callable[..., Any]) -> Callable[[str], Any]:
    """Makes a value of a word; what it refuses is an error of the parser, which names the flag."""
    if isinstance(kind, type) and kind not in (int, float):
        return kind

    def read(word: str) -> Any:
        try:
            return kind(word)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        except ValueError as error:  # of int and float
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{word!r:.60} is not {what}{_as_number(word, kind)}") from error

    return read


def _as_number(word: str, kind: Callable[..., Any]) -> str:
    """How to write what can only mean one number: a per cent, a decimal comma, or a whole number as a float."""
    try:
        value = float(word[:-1]) / 100 if word.endswith("%") else float(re.sub(r"(?<=\d),(?=\d{1,2}$)", ".", word))
    except ValueError:
        return ""
    if not math.isfinite(value) or (kind is int and not value.is_integer()):
        return ""
    return f": write {value:.0f}" if kind is int else f": write {value:g}"


def told(error: FloprayError, *classes: type, **names: str) -> str:
    """The message of an error for a command line: settings are called by their flags.

    Args:
        error: a `SettingMessage` names settings; others may name them with values, as `with_names` takes them.
        *classes: dataclasses of the settings.
        **names: further names and their flags.
    """
    flags = _flags(classes, names)
    return error.told(flags) if isinstance(error, SettingMessage) else with_names(str(error), flags)


def _flags(classes: Sequence[type], names: Mapping[str, str]) -> dict[str, str]:
    return (
        SWEEP_FLAGS | {known.name: known.option for cls in classes for known in settings_of(cls).values()} | dict(names)
    )
