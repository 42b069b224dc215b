"""The command line of a sweep: signals, warnings and errors become one line each and an exit code.

Exit codes: 0 every point is ok, 2 bad input (nothing was started), 3 the sweep finished and some points failed,
4 the sweep stopped because every device only failed, 5 every point is safe and a table or figure could not be
made, 130 interrupted (the run can be resumed).
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence

from flopray.cli.endings import once_a_line
from flopray.cli.flags import parse, told
from flopray.cli.request import Request
from flopray.cli.terminal import LineConsole
from flopray.errors import EXIT_INTERRUPTED, FloprayError
from flopray.store.journal_index import RunWarning
from flopray.workloads.base import Workload


def main(
    workload: Workload,
    argv: Sequence[str] | None = None,
    read: Callable[[Workload, Sequence[str] | None], Request] = parse,
) -> int:
    """Run a sweep's command line; returns the exit code.

    Args:
        workload: what is measured.
        argv: the words; by default those of this process.
        read: makes a request of them.
    """
    # Without markup: a path or a message with [brackets] is text.
    console = LineConsole(stderr=True, markup=False)
    try:
        request = read(workload, argv)
    except FloprayError as error:
        console.print(f"error: {told(error)}", highlight=False, markup=False, soft_wrap=True)
        return error.exit_code
    warnings.filterwarnings("ignore", module="ray")  # what Ray warns of in paragraphs, our errors say in a line
    warnings.simplefilter("always", RunWarning)
    warnings.showwarning = once_a_line(console)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        from flopray.cli.session import run

        return run(workload, request, console)
    except FloprayError as error:
        console.print(f"error: {told(error)}", highlight=False, markup=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("interrupted", highlight=False)
        return EXIT_INTERRUPTED


def _interrupt(*_: object) -> None:
    """A scheduler's SIGTERM ends a sweep as cleanly as Ctrl-C."""
    raise KeyboardInterrupt


def run_script(workload: Workload) -> None:
    """Entry point of a script in `sweeps/`: run and exit."""
    # Runs after all others, Ray's clearing up included; then Python itself would let a signal end it without a word.
    for number in (signal.SIGINT, signal.SIGTERM):
        atexit.register(signal.signal, number, signal.SIG_IGN)
    code = main(workload)
    # What is left is Ray's own clearing up: another Ctrl-C ends it at once, and not in a traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(code))
    sys.exit(code)
