"""`flopray scores RUN [RUN ...]`: the table and the figure of evaluations, also of several runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flopray.cli.endings import carry_out, check_formats
from flopray.cli.parser import OneLineParser
from flopray.report.scores.data import Evaluations, load_evaluations
from flopray.report.scores.files import write_scores
from flopray.report.scores.table import table_of
from flopray.store.containment import check_own
from flopray.store.location import local_folder, open_run

_EXAMPLES = """examples:
  flopray scores results/RUN
      the table, and the figure RUN/plots/scores.png
  flopray scores results/H100_RUN results/A100_RUN --out figures
      evaluations of two clusters in one figure

how to read the figure:
  a colour is a model, a marker how it was run (precision, device, batch); a panel is a task
  further up a score is better, further left a sample takes less energy
  the line is the Pareto front: what lies on it is beaten by no other in both
  without an energy counter seconds stand in place of joules, and the title says so

exit codes: 0 shown, 2 bad input."""


def draw_run(run: Path, console: Console) -> None:
    """Draw and tabulate one run into its own folder, as an evaluation does at its end.

    Raises:
        InputError: the folder is no evaluation, or cannot be written.
    """
    found = load_evaluations([run])
    paths = write_scores(found, check_own(run / "tables"), check_own(run / "plots"), _title([run]), ("png", "svg"))
    _say(console, *(f"written: {path}" for path in paths))


def print_scores(console: Console, found: Evaluations) -> None:
    """Print the table with what it says."""
    table = table_of(found)
    console.print(table.to_rich())
    _say(console, *table.notes)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog="flopray scores",
        description="Tabulate and draw evaluations: scores against joules per sample, with the Pareto front.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders or URIs of runs of `flopray evaluate`")
    parser.add_argument("--tables", type=Path, metavar="DIR", help="default: tables/ in the folder of the first RUN")
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the figure; default: plots/ of the first RUN")
    parser.add_argument("--formats", nargs="+", default=["png", "svg"], metavar="FORMAT", help="png, svg, pdf")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(argv)
    check_formats(parser, options.formats)
    return carry_out(lambda console: _show(console, options))


def _show(console: Console, options: argparse.Namespace) -> None:
    runs = [local_folder(run) for run in options.runs]
    found = load_evaluations(runs)
    print_scores(console, found)
    tables = options.tables or check_own(runs[0] / "tables")
    plots = options.out or check_own(runs[0] / "plots")
    _say(console, *(f"written: {path}" for path in write_scores(found, tables, plots, _title(runs), options.formats)))


def _title(runs: Sequence[Path]) -> str:
    names = [open_run(run).name for run in runs]
    return f"Scores of {', '.join(names[:3])}" + (f" and {len(names) - 3} more runs" if len(names) > 3 else "")


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
