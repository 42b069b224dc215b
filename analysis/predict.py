"""Fit models of time and energy to runs, and say how wrong they are on what they have not seen."""

import sys

from flopray.cli.fit import main

if __name__ == "__main__":
    sys.exit(main())
