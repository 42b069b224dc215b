"""`python -m flopray`, the command `flopray`, and the scripts of `sweeps/` and `analysis/`."""

import sys

from flopray.errors import EXIT_INTERRUPTED


def main(*command: str) -> int:
    """Run the command line; Ctrl-C during imports, which take a second, ends it like any other.

    Args:
        *command: words that a script has before those of its command line.
    """
    try:
        from flopray.cli.main import as_process
        from flopray.cli.main import main as run

        return as_process(lambda: run([*command, *sys.argv[1:]]))
    except KeyboardInterrupt:
        return _interrupted()


def sweep_script(workload: str) -> None:
    """Run a script that sweeps a workload, and end the process.

    Args:
        workload: its name.
    """
    try:
        from flopray.cli.main import run_script
        from flopray.workloads.registry import find_workload

        run_script(find_workload(workload))
    except KeyboardInterrupt:
        sys.exit(_interrupted())


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
