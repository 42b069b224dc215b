"""`flopray scores RUN [RUN ...]`: the table and the figure of evaluations, also of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flopray.cli.endings import carry_out, results_console
from flopray.cli.parser import SettingsParser
from flopray.report.plot.figures import formats_setting
from flopray.report.scores.data import Evaluations, load_evaluations
from flopray.report.scores.files import write_scores
from flopray.report.scores.table import table_of
from flopray.settings import check_settings, setting
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
  the line is the Pareto front: no other point beats its points in both
  without an energy counter seconds stand in place of joules, and the title says so

exit codes: 0 shown, 2 bad input."""


def draw_run(run: Path, console: Console) -> None:
    """Draw and tabulate one run into its own folder, as an evaluation does at its end.

    Raises:
        InputError: the folder is not an evaluation, or cannot be written.
    """
    found = load_evaluations([run])
    paths = write_scores(found, check_own(run / "tables"), check_own(run / "plots"), _title([run]), ("png", "svg"))
    _say(console, *(f"written: {path}" for path in paths))


def print_scores(console: Console, found: Evaluations) -> None:
    """Print the table and its notes."""
    table = table_of(found)
    console.print(table.to_rich())
    _say(console, *table.notes)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which evaluations, and where tables and the figure go."""

    runs: tuple[str, ...] = setting(
        doc="folders or URIs of runs of `flopray evaluate`", many=True, positional=True, metavar="RUN", distinct=False
    )
    tables: Path | None = setting(None, doc="default: tables/ in the folder of the first RUN", kind=Path, metavar="DIR")
    out: Path | None = setting(None, doc="of the figure; default: plots/ of the first RUN", kind=Path, metavar="DIR")
    formats: tuple[str, ...] = formats_setting("png", "svg")

    def __post_init__(self) -> None:
        check_settings(self)


def build_parser() -> SettingsParser:
    """The command line of this script."""
    return SettingsParser(
        Options,
        prog="flopray scores",
        description="Tabulate and draw evaluations: scores against joules per sample, with the Pareto front.",
        epilog=_EXAMPLES,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return carry_out(build_parser(), argv, lambda options: _show(results_console(), options))


def _show(console: Console, options: Options) -> None:
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
