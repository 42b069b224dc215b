"""How messages break into lines: a sentence between its words in a terminal, and not at all in a pipe or a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console


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
            super().print(*objects, **{"overflow": "ignore", "crop": False} | how)
        else:
            super().print(*objects, soft_wrap=soft_wrap, **how)

    def _renamed(self, text: str) -> str:
        for path, name in self.names.items():
            text = text.replace(path, name)
        return text


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
