"""One tree of errors. Each carries a one-line message that says what is wrong and how to mend it.

Two families matter to callers:

* `InputError` and its children end a command with exit code 2 before anything is measured or written.
* `MeasurementError` and its children never end a sweep: they become the `status` of one phase of one point.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

#: Exit codes of a sweep that started. One that could not start has the code of its error.
EXIT_SOME_FAILED = 3
EXIT_STOPPED = 4
EXIT_NOT_FINISHED = 5
EXIT_INTERRUPTED = 130
#: What ends a command in order: Ctrl-C, a scheduler, a terminal that is closed or a connection to it that is lost.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: No message is longer: what it quotes may come from a stranger's file.
_LONGEST_MESSAGE = 2000


def one_line(text: str) -> str:
    r"""The text as one line for a terminal: what cannot be printed becomes a visible escape, such as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(error: BaseException, longest: int = 300) -> str:
    """Type and message of an error of other code, in one line.

    A message of several lines is joined up to its first empty line; the rest belongs in a traceback.

    Example:
        >>> brief(ValueError("channels must be\\na multiple of 3"))
        'ValueError: channels must be a multiple of 3'
    """
    kind, first = type(error).__name__, re.split(r"\n\s*\n", str(error).strip())[0]
    said = one_line(" ".join(first.split()))
    said = said if len(said) <= longest else said[:longest] + "..."
    return f"{kind}: {said}" if said else kind


def resume_command(address: str) -> str:
    """The command that goes on with a run of any kind, as it can be typed here.

    Args:
        address: folder or URI of the run.
    """
    program = "flopray" if shutil.which("flopray") else "python -m flopray"
    return f"{program} resume {shlex.quote(address)}"


def spaced(flag: str, text: str) -> str:
    """How to write a list that was written with commas; empty for any other text."""
    words = [word.strip() for word in re.split(r"[,;]", text.strip().strip("[](){}")) if word.strip()]
    return f": write {flag} {' '.join(words)}" if re.search("[,;]", text) and 0 < len(text) < 80 else ""


class FloprayError(Exception):
    """Base of every error flopray raises on purpose; `str(error)` is one line for a person."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """The message, printable whatever file or path it quotes."""
        text = super().__str__()
        return one_line(text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "...")


class InputError(FloprayError):
    """The user asked for something impossible; nothing was started and nothing was written."""

    exit_code = 2


def several(name: str, given: Any, *, one_word: bool = False) -> tuple[Any, ...]:
    """The values of an argument that takes several, as plain Python: NumPy's numbers become whole ones.

    Args:
        name: of the argument, for the message.
        given: a list, a range, an array, ...
        one_word: whether a single text may stand for a list of one.

    Raises:
        InputError: it is a single value, or has no values.
    """
    if one_word and isinstance(given, str):
        return (given,)
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        listed = f"[{given!r:.40}]" if isinstance(given, str | int | float) else "[8, 16]"
        raise InputError(f"{name} must be a list of values, such as {listed}, got {given!r:.60}")
    return tuple(map(plain, given))


def plain(value: Any) -> Any:
    """A number of Python where a value is one of NumPy or of torch, alone in its array; other values as they are.

    >>> plain(0.5), plain("eager")
    (0.5, 'eager')
    """
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def check_path(name: str, given: Any) -> None:
    """Refuse what is no path: None would become a folder of that name.

    Args:
        name: of the argument, for the message.
        given: its value.

    Raises:
        InputError: it is neither a text nor a path.
    """
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"{name} must be a path, got {given!r:.60}")


def named(text: str, names: Mapping[str, str] | None = None) -> str:
    """A text about settings, with the names that its reader knows them by.

    Args:
        text: in which a setting stands in angle brackets, alone or with a value: `<seed>`, `<execution=compile>`.
        names: by setting, such as flags; those that are missing have their names of Python.

    Example:
        >>> named("a larger <max_seconds>, or <execution=compile>")
        "a larger max_seconds, or execution='compile'"
        >>> named("a larger <max_seconds>, or <execution=compile>", {"execution": "--execution"})
        'a larger max_seconds, or --execution compile'
    """

    flags = names or {}

    def called(match: re.Match[str]) -> str:
        name, value = match.groups()
        if value is None:
            return flags.get(name, name)
        shown = value if re.fullmatch(r"[\d.]+", value) else repr(value)
        return f"{flags[name]} {value}" if name in flags else f"{name}={shown}"

    return with_names(re.sub(r"<([a-z_]+)(?:=([^<>]+))?>", called, text), flags)


def with_names(text: str, names: Mapping[str, str]) -> str:
    """A text that names settings as Python does, with other names for them.

    Args:
        text: such as the reason of a row, written before its reader was known.
        names: by setting, such as flags; others stay as they are.

    Example:
        >>> with_names("use execution='eager' on a CPU", {"execution": "--execution"})
        'use --execution eager on a CPU'
    """

    def called(match: re.Match[str]) -> str:
        name, value = match.groups()
        return f"{names[name]} {shlex.quote(value)}" if name in names else match[0]

    return re.sub(r"\b([a-z_]+)='([^']+)'", called, text)


class SettingMessage(FloprayError):
    """What is said about settings. The message names settings; a command line names its flags instead.

    Args:
        text: one line, as `named` takes it: `<seed> must be 0 or more, got -1`.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        super().__init__(self.told({}))

    def told(self, names: Mapping[str, str]) -> str:
        """The message with other names of settings.

        Args:
            names: by setting; those that are missing stay as they are.
        """
        return named(self._text, names)


class SettingError(SettingMessage, InputError):
    """A setting that cannot be.

    Example:
        >>> error = SettingError("<max_seconds> must be positive")
        >>> str(error), error.told({"max_seconds": "--max-seconds"})
        ('max_seconds must be positive', '--max-seconds must be positive')
    """


class SpecError(InputError):
    """A point is described by values that do not make a workload."""


class ClusterError(SettingError):
    """The Ray cluster cannot be reached, or lacks what the sweep needs."""


class RunError(InputError):
    """A run's folder cannot be used as asked."""


class RunExists(RunError):
    """A new run would overwrite an existing one."""


class RunFinished(RunError):
    """A resume was asked for a run that has nothing left to do."""


class RunLocked(RunError):
    """Another process is writing this run."""


class NotARun(RunError):
    """The path is not a run's folder, or its manifest cannot be read."""


class SchemaMismatch(RunError):
    """The run was written with a record schema that this version cannot read."""


class StorageError(FloprayError):
    """A record could not be made durable (disk full, folder gone, permission taken away)."""


class SweepStopped(SettingMessage):
    """Every device only fails: the sweep stopped itself, and can be resumed.

    Args:
        why: what failed, in a line.
        resume: the command that resumes the run.

    Example:
        >>> print(SweepStopped("no memory", "resume r").told({"retry_failed": "--retry-failed"}))
        the sweep was stopped: no memory; mend that, then resume r --retry-failed (stop_after=0 goes on all the same)
    """

    exit_code = EXIT_STOPPED

    def __init__(self, why: str, resume: str) -> None:
        # neither names settings, whatever brackets are in it
        self._before = f"the sweep was stopped: {why}; mend that, then {resume} "
        super().__init__("<retry_failed> (<stop_after=0> goes on all the same)")

    def told(self, names: Mapping[str, str]) -> str:
        """The message with other names of settings."""
        return self._before + super().told(names)


class MeasurementError(FloprayError):
    """One phase of one point has no number; `status` says why in the record's vocabulary."""

    status: ClassVar[str] = "failed"


class WorkloadError(MeasurementError):
    """The code of a workload failed at a point, or gave what it must not. The message names the method.

    Args:
        what: where the code is, such as `conv.py:ConvNet.build`.
        point: a short label of the point; empty where there is none.
        said: what went wrong, in one line.
    """

    def __init__(self, what: str, point: str, said: str) -> None:
        super().__init__(what, point, said)
        self.what, self.point, self.said = what, point, said

    def __str__(self) -> str:
        at = f" for {self.point}" if self.point else ""
        return one_line(f"{self.what} failed{at}: {self.said}")


class OutOfMemory(MeasurementError):
    """The device has too little memory for this point."""

    status = "out_of_memory"


class Unsupported(MeasurementError):
    """The device or the framework cannot run this precision, phase or execution."""

    status = "unsupported"


class NoEnergySource(MeasurementError):
    """The device has no energy counter or power sensor that this process may read."""

    status = "no_energy_source"


class NoCounterPermission(MeasurementError):
    """The driver does not let this process read the GPU's counters."""

    status = "no_counter_permission"


class MeterError(MeasurementError):
    """An energy meter that worked before stopped working (lost GPU, permission, driver mismatch)."""


class WindowTooShort(MeasurementError):
    """Too few counter ticks fell into the window to say anything; `needed_s` is the shortest window that would do."""

    def __init__(self, message: str, needed_s: float) -> None:
        super().__init__(message)
        self.needed_s = needed_s
