"""`python -m flopray`, and the command `flopray`."""

import sys

from flopray.errors import EXIT_INTERRUPTED


def main() -> int:
    """Run the command line; Ctrl-C during imports, which take a second, ends it like any other."""
    try:
        from flopray.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
