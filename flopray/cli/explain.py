"""What findings of the audit mean: `flopray explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flopray.audit import RULES
from flopray.audit.explanations import COMMAND, explain
from flopray.cli.endings import carry_out
from flopray.cli.parser import SWEEP_FLAGS, SettingsParser
from flopray.cli.terminal import LineConsole
from flopray.settings import setting

_WHAT = """\
Say what a finding of the audit means: what the rule compares, how much it
allows, and what to do. Without a RULE, list all of them."""
_EXAMPLES = """\
examples:
  python -m flopray explain                       every rule in a line
  python -m flopray explain launch_window         one in full
  python -m flopray explain note:additivity       as a summary writes it
"""


#: Flags of the settings that advice names.
_FLAGS = SWEEP_FLAGS | {"rename": "flopray audit --rename"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which rules."""

    rules: tuple[str, ...] = setting(
        (), doc="such as launch_window (default: list all)", positional=True, metavar="RULE", distinct=False
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Explain rules, or list them all; returns the exit code."""
    parser = SettingsParser(Options, prog="flopray explain", description=_WHAT, epilog=_EXAMPLES)
    return carry_out(parser, argv, _explain)


def _explain(options: Options) -> None:
    console = LineConsole(markup=False, highlight=False)
    if options.rules:
        console.print("\n\n".join([explain(rule, _FLAGS) for rule in options.rules]), soft_wrap=True)
        return
    for name, line in RULES.items():
        console.print(f"{name}: {line}", soft_wrap=True)
    console.print(f"\nmore about one: {COMMAND}", soft_wrap=True)
