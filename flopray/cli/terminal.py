"""How messages break into lines: a sentence between its words in a terminal, and not at all in a pipe or a file."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console

_COMMAND = re.compile(r"\s*(?:python3?|flopray|pip|usage:)\s")
#: A word or two, a gap, and what they mean.
_ENTRY = re.compile(r"\s*\S+(?: \S+)*\s{2,}(?=\S)")


class LineConsole(Console):
    """A console whose lines, printed with `soft_wrap`, break between words where it is a terminal.

    Rich leaves such lines to the terminal, which breaks them at its edge and so inside words. A word that is longer
    than the terminal is wide, such as a path, stays whole: it can be copied.
    """

    def __init__(self, **how: Any) -> None:
        # A path such as runs:x: is text: Rich would show an emoji.
        super().__init__(**{"emoji": False, **how})
        self.names: dict[str, str] = {}

    def print(self, *objects: Any, soft_wrap: bool | None = None, **how: Any) -> None:
        """Print as `Console.print` does."""
        objects = tuple(self._renamed(item) if isinstance(item, str) else item for item in objects)
        if soft_wrap and self.is_terminal:
            objects = tuple(in_lines(item, self.width) if isinstance(item, str) else item for item in objects)
        super().print(*objects, soft_wrap=soft_wrap, **how)

    def _renamed(self, text: str) -> str:
        for path, name in self.names.items():
            text = text.replace(path, name)
        return text


def in_lines(text: str, columns: int) -> str:
    """A text with its lines broken between words where they are wider.

    Of a word and its meaning, the meaning keeps its column. A line that begins with a command stays whole, so that it
    can be copied.

    Args:
        text: of several lines, or one.
        columns: of the terminal.

    Example:
        >>> print(in_lines("failed   8 unsupported: no such device", 24))
        failed   8 unsupported:
                 no such device
    """
    return "\n".join(row for line in text.split("\n") for row in _rows(line, columns))


def _rows(line: str, columns: int) -> Iterator[str]:
    if cell_len(line) <= columns or _COMMAND.match(line):
        yield line
        return
    entry = _ENTRY.match(line)
    deep = entry.end() if entry and entry.end() < columns // 2 else len(line) - len(line.lstrip())
    row, begun = line[:deep], False
    for word in re.findall(r"\S+\s*", line[deep:]):
        if begun and cell_len(row + word.rstrip()) > columns:
            yield row.rstrip()
            row = " " * deep
        row, begun = row + word, True
    yield row.rstrip()


@contextmanager
def renamed(console: Console, path: str, name: str) -> Iterator[None]:
    """Inside the block, the console prints `name` in place of `path`: a run with an address has a local copy."""
    if not isinstance(console, LineConsole) or path == name:
        yield
        return
    console.names[path] = name
    try:
        yield
    finally:
        del console.names[path]


@contextmanager
def said_if_slow(console: Console, text: str, after_s: float = 3.0) -> Iterator[None]:
    """Print a line if the block takes longer than some seconds: a quick block says nothing."""
    timer = threading.Timer(after_s, console.print, [text], {"highlight": False, "soft_wrap": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
