"""Which numbers of a run cannot be true: `python analysis/audit.py PATH`."""

import sys

from flopray.__main__ import main

if __name__ == "__main__":
    sys.exit(main("audit"))
