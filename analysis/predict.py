"""Fit models of time and energy to runs, and state their errors on rows that they have not seen."""

import sys

from flopray.__main__ import main

if __name__ == "__main__":
    sys.exit(main("fit"))
