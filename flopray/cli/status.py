"""How far a run is: `flopray status`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flopray.cli.endings import carry_out
from flopray.cli.parser import SWEEP_FLAGS, SettingsParser
from flopray.cli.terminal import LineConsole
from flopray.settings import setting

_WHAT = """\
Say how far a run is, from its folder alone: how many points are finished, at
which rate, how long the rest takes, what failed and why, what the audit found,
whether it is being measured now, and the command that resumes it."""
_EXAMPLES = """\
examples:
  python -m flopray status results/RUN            also while it runs
  python -m flopray status results/RUN --json     for programs
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The run."""

    run: str = setting(doc="folder or URI of a run, running or not, or reference:NAME", positional=True)
    json: bool = setting(False, doc="print one JSON object")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the status; returns 0 whenever the folder could be read."""
    parser = SettingsParser(Options, prog="flopray status", description=_WHAT, epilog=_EXAMPLES)
    return carry_out(parser, argv, _status)


def _status(options: Options) -> None:
    from flopray.monitoring.status import as_json, print_status, status_of_run

    status = status_of_run(options.run)
    if options.json:
        print(as_json(status))
    else:
        print_status(LineConsole(markup=False), status, SWEEP_FLAGS)
