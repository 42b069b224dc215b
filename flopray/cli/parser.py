"""The parser of every command line of the project."""

from __future__ import annotations

import argparse
from typing import NoReturn

from flopray.errors import InputError


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with the flags in one line, like all other bad input, and ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Exit with the code of bad input."""
        self.exit(InputError.exit_code, f"error: {message} (--help lists the flags)\n")
