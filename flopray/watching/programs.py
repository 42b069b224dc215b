"""A program as a child process: started with its usual signals, which are passed on to it, and waited for.

While it runs, this process only passes signals on. Ctrl-C at a terminal reaches both by itself; a
signal that was sent to this process alone is sent on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flopray.errors import InputError

#: Signals that are passed on.
_PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
#: Set by the kernel in a signal that comes from a terminal: https://man7.org/linux/man-pages/man2/sigaction.2.html
_FROM_KERNEL = 0x80


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        exit_code: its own; 128 + the number of the signal that ended it, as in a shell.
        signal: name of that signal, or None.
        time_s: from its start to its end.
        start_s: host clock (`time.perf_counter`) at its start.
    """

    exit_code: int
    signal: str | None
    time_s: float
    start_s: float


def block_signals() -> set[int]:
    """Blocks signals that are meant for a program in this process; returns the former mask.

    Called in the main thread before other threads start, which inherit the mask: a signal goes to any thread that lets
        it through, and numpy starts threads when it is imported.
    """
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON | {signal.SIGCHLD})}


class Program:
    """A command that runs, started in the main thread.

    Signals stay blocked until `release`, so that a second Ctrl-C does not interrupt saving.

    Args:
        command: its words.
        mask: of signals for the program, from `block_signals`; by default they are blocked here.

    Raises:
        InputError: there is no such program, or it cannot be run.
    """

    def __init__(self, command: Sequence[str], mask: set[int] | None = None) -> None:
        self._before = block_signals() if mask is None else mask
        self.start_s = time.perf_counter()
        try:
            self.pid = os.posix_spawnp(
                command[0],
                list(command),
                os.environ,
                setsigmask=self._before,
                # Python ignores these two, and a child would go on ignoring them.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
            why = "there is no such program" if isinstance(error, FileNotFoundError) else error.strerror
            raise InputError(f"{command[0]} cannot be run: {why}") from error

    def wait(self) -> Outcome:
        """Waits for its end, and passes signals on meanwhile."""
        while (status := self._ended()) is None:
            told = signal.sigtimedwait(_PASSED_ON | {signal.SIGCHLD}, 1.0)
            if told is not None and told.si_signo in _PASSED_ON and told.si_code != _FROM_KERNEL:
                os.kill(self.pid, told.si_signo)
        time_s = time.perf_counter() - self.start_s
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return Outcome(128 + number, signal.Signals(number).name, time_s, self.start_s)
        return Outcome(os.WEXITSTATUS(status), None, time_s, self.start_s)

    def release(self) -> None:
        """Lets signals through again, and drops those that came meanwhile."""
        while signal.sigtimedwait(_PASSED_ON | {signal.SIGCHLD}, 0.0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def _ended(self) -> int | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return status if pid else None


def family(pid: int) -> set[int]:
    """A process and its descendants that run now, as far as `/proc` shows them."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name in brackets may itself have brackets and spaces in it.
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    found, todo = {pid}, [pid]
    while todo:
        parent = todo.pop()
        children = [child for child, its in parents.items() if its == parent and child not in found]
        found.update(children)
        todo += children
    return found


def process_name(pid: int) -> str:
    """What a process is called; its number where that cannot be seen."""
    try:
        return (Path("/proc") / str(pid) / "comm").read_text().strip() or str(pid)
    except OSError:
        return str(pid)
