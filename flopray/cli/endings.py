"""How an analysis script ends: an error is one line and an exit code; a warning is one line, printed once."""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from flopray.cli.terminal import LineConsole
from flopray.errors import FloprayError, InputError, one_line
from flopray.report.plot.figures import IMAGE_FORMATS


def check_formats(parser: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    """End the program if an unknown image format is asked for."""
    if unknown := [name for name in formats if name not in IMAGE_FORMATS]:
        parser.error(f"unknown format {unknown[0]!r}: choose from {', '.join(IMAGE_FORMATS)}")


def carry_out(work: Callable[[Console], object]) -> int:
    """Do the work of a script; returns the exit code.

    Args:
        work: gets the console for its results, 80 columns wide where they go into a pipe or a file.
    """
    console, code = LineConsole(width=None if sys.stdout.isatty() else 80), 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            work(console)
        except FloprayError as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        except Exception as error:  # Python's own exit code would be that of a finding
            print(f"error: {fault(error)}", file=sys.stderr)
            code = InputError.exit_code
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"warning: {message}", file=sys.stderr)
    return code


def fault(error: Exception) -> str:
    """What to say of an exception that nobody expected: what it is and where, in a line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    words = one_line(f"{type(error).__name__}: {error}"[:300])
    return f"this failed ({words}; {Path(last.filename).name}, line {last.lineno}): this is a fault of flopray"
