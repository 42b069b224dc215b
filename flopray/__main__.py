"""`python -m flopray`: the same as the command `flopray`."""

import sys

from flopray.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
