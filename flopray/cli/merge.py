"""Unite runs in a new one: `flopray merge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flopray.cli.endings import carry_out
from flopray.cli.parser import SettingsParser
from flopray.cli.terminal import LineConsole
from flopray.settings import setting
from flopray.units import counted

_WHAT = """\
Unite runs of several clusters, or the shards of one sweep, in a new run. A
point that was measured more than once with other values is kept as often, apart
by device and time, and never averaged; equal measurements are one. How far
boards of one type are apart is printed. The sources are only read, and nothing
is overwritten."""
_EXAMPLES = """\
examples:
  python -m flopray merge results/part-1 results/part-2 --into results/whole
  python -m flopray merge h100/mlp a100/mlp --into results/both
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which runs are united, and where."""

    runs: tuple[str, ...] = setting(
        doc="folders or URIs, which are only read, or reference:NAME", many=True, positional=True, metavar="RUN"
    )
    into: Path = setting(doc="folder of the new run", kind=Path, metavar="RUN")


def main(argv: Sequence[str] | None = None) -> int:
    """Unite runs and print the outcome; returns the exit code."""
    parser = SettingsParser(Options, prog="flopray merge", description=_WHAT, epilog=_EXAMPLES)
    return carry_out(parser, argv, _merge)


def _merge(options: Options) -> None:
    from flopray.sweep.merge import merge

    merged = merge(options.runs, options.into)
    line = f"{merged.path}: {counted(merged.points, 'point')} of {counted(len(options.runs), 'run')}"
    if merged.identical:
        line += (
            f"; {counted(merged.identical, 'measurement was', 'measurements were')} in several of them and kept once"
        )
    lines = [line]
    more = merged.measurements - merged.points
    if more:
        lines.append(
            f"{more} further measurements of these points are kept beside the first ones: trial_id ends in -2, -3, ..."
        )
    lines += [f"{address}: has no point" for address in merged.empty]
    lines += merged.boards
    if merged.not_resumable:
        lines.append(f"the new run cannot be resumed: {merged.not_resumable}")
    console = LineConsole(markup=False, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)
