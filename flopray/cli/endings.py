"""How a command begins and ends: words become settings, an error one line and an exit code, a warning one line."""

from __future__ import annotations

import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from flopray.cli.parser import SettingsParser
from flopray.cli.streams import lasting_streams
from flopray.cli.terminal import LineConsole
from flopray.errors import ENDING_SIGNALS, EXIT_INTERRUPTED, FloprayError, InputError, one_line


def carry_out(parser: SettingsParser, words: Sequence[str] | None, work: Callable[..., int | None]) -> int:
    """Do the work of a command with its settings; returns the exit code, as `ended`.

    Args:
        parser: of the command line.
        words: of it; by default those of this process.
        work: gets the settings that `parser` reads.

    Raises:
        SystemExit: after `--help`, and after words that are no flags.
    """
    return ended(lambda: work(*parser.read(words)), parser.told)


def ended(work: Callable[[], int | None], told: Callable[[FloprayError], str] = str) -> int:
    """Do some work; returns the exit code: 0, that of the work, that of its error, or 130 if interrupted.

    Args:
        work: what is done.
        told: makes the message of an error.
    """
    with lasting_streams() as streams:
        return streams.code(_ended(work, told), InputError.exit_code)


def _ended(work: Callable[[], int | None], told: Callable[[FloprayError], str]) -> int:
    # Without markup: a path or a message with [brackets] is text.
    messages = LineConsole(stderr=True, markup=False, highlight=False)
    with warnings.catch_warnings(), _terminated_as_interrupted():
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", module="ray")  # our errors say in a line what Ray warns of in paragraphs
        warnings.showwarning = once_a_line(messages)
        try:
            return work() or 0
        except FloprayError as error:
            messages.print(f"error: {told(error)}", soft_wrap=True)
            return error.exit_code
        except KeyboardInterrupt:
            messages.print("interrupted")
            return EXIT_INTERRUPTED
        except Exception as error:  # Python's own exit code would mean a finding
            messages.print(f"error: {fault(error)}", soft_wrap=True)
            return InputError.exit_code


def fault(error: Exception) -> str:
    """The message for an unexpected exception: what it is and where, in a line; of a file, what is wrong with it."""
    if isinstance(error, OSError) and error.filename and error.strerror:  # such as a name that is too long
        return one_line(f"{str(error.filename)[:200]}: {error.strerror}")
    last = traceback.extract_tb(error.__traceback__)[-1]
    words = one_line(f"{type(error).__name__}: {error}"[:300])
    return f"this failed ({words}; {Path(last.filename).name}, line {last.lineno}): this is a fault of flopray"


def results_console(**how: Any) -> Console:
    """A console for results, 80 columns wide where they go into a pipe or a file."""
    return LineConsole(**{"width": None if sys.stdout.isatty() else 80} | how)


def once_a_line(console: Console) -> Callable[..., None]:
    """Shows each warning in one line, and only once: a command may read a run's folder several times."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            console.print(f"warning: {message}", highlight=False, markup=False, soft_wrap=True)

    return show


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Inside the block, each signal that ends a command does so as cleanly as Ctrl-C."""
    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    interrupt_on_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt_on_signals() -> None:
    """Have a scheduler's SIGTERM, and the SIGHUP of a terminal that is closed, end the work as cleanly as Ctrl-C.

    What is ignored stays so: SIGHUP behind `nohup`, and SIGINT behind a shell's `&`.
    """
    _interrupts.clear()
    for number in ENDING_SIGNALS:
        if number == signal.SIGTERM or signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)


#: Signals that ended the work, also if a library swallowed the exception.
_interrupts: list[int] = []


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


def raise_swallowed() -> None:
    """Interrupt the work, if a library swallowed an interrupt since `interrupt_on_signals`, as a callback of C may.

    Raises:
        KeyboardInterrupt: there was one.
    """
    if _interrupts:
        _interrupts.clear()
        raise KeyboardInterrupt
