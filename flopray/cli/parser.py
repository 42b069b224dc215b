"""The parser of every command line of the project."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from flopray.cli.synonyms import meant
from flopray.errors import InputError


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the flags in one line, like all other bad input, and ends with exit code 2.

    A flag must be written in full: an abbreviation would mean another flag once there is one more that begins alike.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        #: What is written here, by what other tools call it.
        self.synonyms: dict[str, str] = {}

    def error(self, message: str) -> NoReturn:
        """Exit with the code of bad input."""
        near = self._near(message) if message.startswith("unrecognized arguments") else ""
        self.exit(InputError.exit_code, f"error: {message}{near} (--help lists the flags)\n")

    def _near(self, message: str) -> str:
        """Which flag may have been meant by the first one that is unknown."""
        unknown = re.search(r"(?<!\S)(--[\w-]+|-[A-Za-z]\b)", message)
        found = meant(unknown[0], self.synonyms, self._flags()) if unknown else None
        return f": did you mean {found}?" if found else ""

    def _flags(self) -> list[str]:
        """All flags that `--help` lists, also those of commands."""
        found = [flag for action in self._actions if action.help != argparse.SUPPRESS for flag in action.option_strings]
        commands = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        for parser in (parser for choices in commands for parser in choices.values()):
            found += parser._flags() if isinstance(parser, OneLineParser) else []
        return [flag for flag in found if flag.startswith("--")]
