"""Compares closed-form, dispatched and executed FLOPs: `python analysis/compare_flops.py RUN [RUN ...]`.

Prints what each phase executed and in which kernels, fits a formula for what this type of GPU executes, and draws how
far and where executed FLOPs lie above the closed form. `--published` sets flopmetrics' published points beside a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import Progress

from flopray.cli.endings import carry_out, results_console
from flopray.cli.parser import SettingsParser
from flopray.errors import SettingError
from flopray.report.flops.adjusted import LEAST_POINTS, fit, held_out
from flopray.report.flops.data import Counted, groups_of, holes, load_published_group, load_runs
from flopray.report.flops.figures import DEFAULT_MIN_WIDTH, draw_group, folder_of
from flopray.report.flops.held_out import summarised
from flopray.report.flops.table import difference_table, error_table, kernel_table, share_table, write_csv
from flopray.report.plot.figures import formats_setting
from flopray.settings import check_settings, setting
from flopray.store.containment import check_own
from flopray.store.location import local_folder, results_folder
from flopray.units import counted

_EXAMPLES = """examples:
  python sweeps/mlp_grid.py --instruments counters --phases forward backward
      counts what the GPU executes (Nsight Compute, and permission to read counters)
  flopray compare-flops results/RUN
      tables, the fitted formula, and figures in RUN/plots/flops/
  flopray compare-flops results/RUN --published metrics/20250922-120007_n2-32_d128-2048_m16-256.csv
      flopmetrics' 1,280 points of an Ampere GPU below ours, on the same scales
  flopray compare-flops --published FILE --out /tmp/theirs
      theirs alone

what the words mean:
  closed form   FLOPs that the mathematics needs (model_flops)
  dispatched    FLOPs that torch was asked for: matrix products only
  executed      FLOPs that the chip's counters saw
  ω             executed GEMM FLOPs / closed form - 1: padding to tiles, and the cost of writing a tile
  ρ             FLOPs of reductions (split-K) per element of an output
  κ             executed elementwise FLOPs / closed form - 1: one sigmoid is many instructions
  adds up       closed form and ω, ρ, κ give the executed count back, to the last FLOP

exit codes: 0 compared, 2 bad input (also: no row has counters)."""

_WAYS = """formula, global: the coefficients above; formula: fitted anew around each shape;
interpolation: executed / closed form between counted (d, m) of the same n"""


_DRAW = "figures"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is compared, and where tables and figures go.

    Raises:
        SettingError: nothing to compare, or an unknown format.
    """

    runs: tuple[str, ...] = setting(
        (),
        doc="runs with hardware counters: folders, URIs or reference:NAME",
        positional=True,
        metavar="RUN",
        distinct=False,
    )
    published: Path | None = setting(None, doc="flopmetrics' table of counted points", kind=Path, metavar="CSV")
    csv: Path | None = setting(None, doc="also write the comparison, a line for each row", kind=Path, metavar="FILE")
    seed: int = setting(0, doc="of the points held out (default {default})", metavar="S")
    out: Path | None = setting(
        None, doc="default: plots/ in the folder of the first RUN", kind=Path, metavar="DIR", group=_DRAW
    )
    n: int | None = setting(
        None, doc="layers of maps and lines (default: the most that there are)", kind=int, metavar="N", group=_DRAW
    )
    min_width: int = setting(
        DEFAULT_MIN_WIDTH,
        doc="draw and judge a second time without smaller widths, where overheads are largest "
        "(default {default}; 0: not)",
        metavar="D",
        group=_DRAW,
    )
    formats: tuple[str, ...] = formats_setting("png", group=_DRAW)
    html: bool | None = setting(
        None, doc="as of other comparisons; here there is no page to leave out", kind=bool, group=_DRAW
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.html:
            raise SettingError("<html>: of FLOPs there are figures and no page; flopray report writes one of a run")
        if not self.runs and not self.published:
            raise SettingError("name at least one <runs>, or <published> CSV")


def report(console: Console, group: Counted, min_width: int, seed: int) -> dict[str, pd.DataFrame]:
    """Print the tables and the fitted formulas of a group; returns held-out predictions of each phase."""
    console.print(difference_table(group))
    console.print(share_table(group))
    kernels = kernel_table(group)
    console.print(kernels or "no kernel names recorded", highlight=False)
    predictions = {}
    for phase in group.phases:
        rows = group.of(phase)
        console.print(f"\n[bold]What {phase} executes[/bold], FLOPs of one iteration, the sum of", highlight=False)
        if len(rows) < LEAST_POINTS:
            console.print(f"no formula: {counted(len(rows), 'point')}, {LEAST_POINTS} are needed", highlight=False)
            continue
        console.print(fit(rows).describe(), highlight=False, markup=False)
        predictions[phase] = _held_out(console, rows, phase, seed)
        errors = {"": summarised(predictions[phase])}
        if (widths := rows["width"].to_numpy(int)).min() < min_width <= widths.max():
            errors[f"d ≥ {min_width}"] = summarised(predictions[phase], min_width)
        console.print(error_table(errors))
        console.print(_WAYS, highlight=False)
    return predictions


def _held_out(console: Console, rows: pd.DataFrame, phase: str, seed: int) -> pd.DataFrame:
    """Held-out predictions of a phase; shows progress, with a bar on a terminal."""
    console.print(f"predicting points of {phase} that the fit does not see ...", highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(phase)
        return held_out(rows, seed, lambda done, of: bar.update(task, completed=done, total=of))


def compare(console: Console, options: Options) -> None:
    """Do what the command line asks for.

    Raises:
        InputError: a path that cannot be read or written, or nothing that was counted.
    """
    runs = [local_folder(run) for run in options.runs]
    rows = load_runs(runs) if runs else None
    ours = groups_of(rows) if rows is not None else []
    theirs = load_published_group(options.published) if options.published else None
    groups = [*ours, *([theirs] if theirs else [])]
    for reason, count in (holes(rows) if rows is not None else {}).items():
        console.print(f"without counters: {counted(count, 'row')}, {reason}", highlight=False, markup=False)
    if options.csv:
        write_csv(options.csv, rows, groups)
    out_dir = options.out or (check_own(results_folder(options.runs[0]) / "plots") if runs else None)
    if out_dir is None:
        console.print("no figures: no run's folder could get them; name one with --out DIR")
    for group in groups:
        predictions = report(console, group, options.min_width, options.seed)
        # beside a run, the published points are drawn in the run's figures
        if out_dir is None or (group is theirs and ours):
            continue
        beside = theirs if group is not theirs and theirs and group.precision == theirs.precision else None
        paths = _drawn(console, out_dir, group, beside, predictions, options)
        where = folder_of(out_dir, group)
        console.print(f"{counted(len(paths), 'figure')}: {where}/", highlight=False, markup=False, soft_wrap=True)


def _drawn(
    console: Console,
    out_dir: Path,
    group: Counted,
    beside: Counted | None,
    predictions: dict[str, pd.DataFrame],
    options: Options,
) -> list[Path]:
    """Draw the figures of a group; shows progress, on a terminal the figure that was drawn last."""
    console.print("\ncompare-flops draws its figures, which takes some seconds ...", highlight=False)
    with Progress("{task.description}", console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        return draw_group(
            out_dir,
            group,
            beside,
            predictions,
            min_width=options.min_width,
            n_layers=options.n,
            formats=options.formats,
            tell=lambda name: bar.update(task, description=name),
        )


def build_parser() -> SettingsParser:
    """The command line of this script."""
    return SettingsParser(
        Options,
        prog="flopray compare-flops",
        description="Compare closed-form, dispatched and executed FLOPs, and fit what this type of GPU executes.",
        epilog=_EXAMPLES,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return carry_out(build_parser(), argv, lambda options: compare(results_console(), options))
