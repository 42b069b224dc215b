"""Fit models of time and energy to runs, and state their errors on rows that they have not seen."""

import sys

from flopray.cli.fit import main

if __name__ == "__main__":
    sys.exit(main())
