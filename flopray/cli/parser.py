"""The parser of every command line of the project."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from typing import Any, NoReturn

from flopray.errors import InputError


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the flags in one line, like all other bad input, and ends with exit code 2.

    A flag must be written in full: an abbreviation would mean another flag once there is one more that begins alike.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Exit with the code of bad input."""
        near = self._near(message) if message.startswith("unrecognized arguments") else ""
        self.exit(InputError.exit_code, f"error: {message}{near} (--help lists the flags)\n")

    def _near(self, message: str) -> str:
        """Which flag may have been meant by the first one that is unknown."""
        unknown = re.search(r"--[\w-]+", message)
        match = get_close_matches(unknown[0], self._flags(), n=1) if unknown else []
        return f": did you mean {match[0]}?" if match else ""

    def _flags(self) -> list[str]:
        """All flags that `--help` lists, also those of commands."""
        found = [flag for action in self._actions if action.help != argparse.SUPPRESS for flag in action.option_strings]
        commands = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        for parser in (parser for choices in commands for parser in choices.values()):
            found += parser._flags() if isinstance(parser, OneLineParser) else []
        return [flag for flag in found if flag.startswith("--")]
