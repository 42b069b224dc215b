"""Where the time of a start goes, of a process that measures or of the command of a sweep. Knows no torch."""

from __future__ import annotations

import gc
import importlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Shorter parts are left out of the line, where they would read as 0.0.
_SHOWN_S = 0.05


@contextmanager
def importing() -> Iterator[None]:
    """Import without the garbage collector, which walks all modules again and again and finds nothing to free.

    It takes 7 to 12 % of the CPU time of importing torch or Tune.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def imported_meanwhile(module: str | None) -> Iterator[None]:
    """Import a module in a thread while the block waits for something else, such as other processes or a device.

    The block ends when the import is over. Where the module cannot be imported, whoever needs it meets the error.

    Args:
        module: its full name; None imports nothing.
    """

    def load() -> None:
        with suppress(Exception):
            importlib.import_module(module or "")

    thread = threading.Thread(target=load, name=f"import {module}")
    if module:
        thread.start()
    try:
        yield
    finally:
        if module:
            thread.join()


class StartUp:
    """The parts of a start, in order. They follow one another, so that together they are the whole.

    Attributes:
        parts_s: seconds by part.

    Example:
        >>> start = StartUp()
        >>> start.mark("imports")
        >>> start.line("ready").startswith("ready after 0.0 s")
        True
    """

    def __init__(self) -> None:
        self.parts_s: dict[str, float] = {}
        self._since = time.monotonic()

    def mark(self, part: str) -> None:
        """A part has ended: it gets the time since the last mark, besides what it has already."""
        now = time.monotonic()
        self.parts_s[part] = self.parts_s.get(part, 0.0) + now - self._since
        self._since = now

    def line(self, what: str) -> str:
        """What is ready and after how many seconds, up to the last mark, with those of each part."""
        shown = [f"{part} {seconds:.1f}" for part, seconds in self.parts_s.items() if seconds >= _SHOWN_S]
        return f"{what} after {sum(self.parts_s.values()):.1f} s" + (f" ({', '.join(shown)})" if shown else "")
