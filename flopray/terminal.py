"""How messages break into lines: a sentence between its words in a terminal, and not at all in a pipe or a file."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class LineConsole(Console):
    """A console whose lines, printed with `soft_wrap`, break between words where it is a terminal.

    Rich leaves such lines to the terminal, which breaks them at its edge and so inside words. A word that is longer
    than the terminal is wide, such as a path, stays whole: it can be copied.
    """

    def print(self, *objects: Any, soft_wrap: bool | None = None, **how: Any) -> None:
        """As `Console.print`."""
        if soft_wrap and self.is_terminal:
            super().print(*objects, **{"overflow": "ignore", "crop": False} | how)
        else:
            super().print(*objects, soft_wrap=soft_wrap, **how)
