"""Draw a run: each metric over the last two dimensions of its workload, as surfaces and heat maps, linear and log.

    python analysis/surfaces.py RUN [--metrics ...] [--phases ...] [--d-min D] [--m-min M]

One figure holds one metric of one phase on one scale, with a column for each value of the dimension before: over width
d and tokens m of an MLP, for each number of layers n. `draw` does the same
from Python for a frame of records, and `draw_run` for a run's folder.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from flopray.cli.endings import carry_out
from flopray.cli.parser import SettingsParser
from flopray.cli.terminal import LineConsole
from flopray.description import Description
from flopray.errors import InputError
from flopray.report.page import page_setting, page_wanted
from flopray.report.plot.figures import IMAGE_FORMATS, formats_setting, paper_style, save_figure
from flopray.report.surface.axes import SurfaceAxes
from flopray.report.surface.data import SurfaceSet, surface_sets
from flopray.report.surface.files import figure_stem, page_path, where_lines, why_not_lines
from flopray.report.surface.html import write_page
from flopray.report.surface.lines import draw_lines
from flopray.report.surface.plots import MAX_PANELS, draw_surfaces, font_pt_for
from flopray.report.surface.rows import MLP_AXES, compared, repeated_lines
from flopray.report.surface.selection import Selection
from flopray.settings import check_settings, setting
from flopray.store.containment import check_own
from flopray.store.location import open_run
from flopray.store.manifests import of_reference
from flopray.units import counted
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import refuse_scores

if TYPE_CHECKING:
    from flopray.store.run import RunFolder

DEFAULT_FORMATS = ("png", "svg")
_EXAMPLES = """examples:
  flopray surfaces results/mlp-20250101-120000
      everything the run has, as PNG and SVG, into its folder plots/
  flopray surfaces RUN --metrics time flops_per_j --phases forward --n 2 8 32 --formats pdf
      three layer counts of two metrics, for a paper
  flopray surfaces RUN --d-min 512 --m-min 64 --out /tmp/large
      only the large shapes, with scales of their own, beside the full view (file names say the bounds)

One figure shows one metric of one phase on one scale; its columns are the layers n. A grid with one value of d or m
becomes a line plot with error bars. Points without a value are hatched holes, and the legend says why.
exit codes: 0 drawn, 2 bad input."""


def draw(
    run_frame: pd.DataFrame,
    out_dir: Path,
    *,
    selection: Selection | None = None,
    planned: Mapping[str, Sequence[int]] | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    html: bool | None = None,
    console: Console | None = None,
    workload: Description | None = None,
) -> list[Path]:
    """Draw the records of a run, and say where the figures are and what could not be drawn.

    Args:
        run_frame: a row per point and phase with the columns of `PhaseRecord`, as `flopray.load_run` gives it.
        out_dir: gets `surfaces/<device>_<precision>_<execution>/<phase>/<metric>_<scale>.<format>` and `surfaces.html`.
        selection: what to draw; default everything.
        planned: see `surface_sets`; points of it that are not in the frame are drawn as holes.
        formats: of images, among `IMAGE_FORMATS`.
        html: also the interactive page; default where plotly is installed.
        console: where progress and lines go; default standard error.
        workload: whose dimensions are the axes; default the MLP.

    Returns:
        The files that were written.

    Raises:
        InputError: nothing to draw, an unknown format, `html` without plotly, or a folder that cannot be written.
    """
    console = console or LineConsole(stderr=True)
    selection = selection or Selection()
    for name in formats:
        if name not in IMAGE_FORMATS:
            raise InputError(f"unknown format {name!r}: choose from {', '.join(IMAGE_FORMATS)}")
    html = page_wanted(html)
    axes = SurfaceAxes.of(workload) if workload else MLP_AXES
    run_frame = compared(run_frame)
    sets = list(surface_sets(run_frame, selection, planned, axes))
    drawn = [surfaces for surfaces in sets if surfaces.has_values() and surfaces.values().size > 1]
    suffix = selection.suffix()
    try:
        paths = _draw_all(drawn, out_dir, suffix, formats, console)
        if html and drawn:
            paths.append(write_page(sets, page_path(out_dir, suffix)))
    except OSError as error:
        raise InputError(f"cannot write {error.filename or out_dir}: {error.strerror or error}") from error
    for line in (*repeated_lines(selection.apply(run_frame, axes), axes), *why_not_lines(sets), *where_lines(paths)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return paths


def draw_run(run: Path, console: Console | None = None) -> list[Path]:
    """Draw everything of a run's folder into its plots, as the end of a sweep does.

    Raises:
        InputError: the folder is not a run, or there is nothing to draw.
    """
    console = console or LineConsole(stderr=True)
    frame, folder = _load(run, console)
    plots, workload = check_own(folder.plots_path), _workload(folder)
    return draw(frame, plots, planned=_planned(folder.manifest, workload), console=console, workload=workload)


def _draw_all(
    sets: Sequence[SurfaceSet], out_dir: Path, suffix: str, formats: Sequence[str], console: Console
) -> list[Path]:
    """All figures, with progress."""
    jobs = [job for surfaces in sets for job in _jobs(surfaces)]
    paths: list[Path] = []
    for surfaces, kind, part in _with_progress(jobs, console):
        with paper_style(font_pt_for(len(part.grids)) if kind != "lines" else font_pt_for(1)):
            if kind == "lines":
                figure = draw_lines(part)
            else:
                figure = draw_surfaces(part, log=kind == "log", scale_values=surfaces.values())
            stem = figure_stem(out_dir, part, kind, suffix, whole=part is surfaces)
            paths += save_figure(figure, stem, formats)
    return paths


_Job = tuple[SurfaceSet, str, SurfaceSet]


def _jobs(surfaces: SurfaceSet) -> Iterator[_Job]:
    """The figures of a set: the whole set, what kind of figure, and the part of the set that it shows."""
    if min(len(surfaces.xs), len(surfaces.ys)) == 1:
        yield surfaces, "lines", surfaces
        return
    parts = [surfaces]
    if len(surfaces.grids) > MAX_PANELS:
        count = -(-len(surfaces.grids) // MAX_PANELS)
        each = -(-len(surfaces.grids) // count)
        starts = range(0, len(surfaces.grids), each)
        parts = [replace(surfaces, grids=surfaces.grids[start : start + each]) for start in starts]
    for part in parts:
        for kind in ("linear", "log"):
            yield surfaces, kind, part


def _with_progress(jobs: Sequence[_Job], console: Console) -> Iterator[_Job]:
    """Yield the jobs; on a terminal with a bar, elsewhere with a plain line every few seconds."""
    if console.is_terminal:
        columns = (TextColumn("drawing surfaces"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=len(jobs))
            for job in jobs:
                progress.update(task, description=f"{job[2].phase} {job[2].metric.name} {job[1]}")
                yield job
                progress.advance(task)
        return
    said_s = time.monotonic()
    for index, job in enumerate(jobs):
        if time.monotonic() - said_s > 5:
            said_s = time.monotonic()
            console.print(
                f"drawing surfaces: {index} of {counted(len(jobs), 'figure')}", highlight=False, soft_wrap=True
            )
        yield job


def _workload(folder: RunFolder) -> Description:
    """The run's workload; without a sweep in its manifest, that of an MLP."""
    return folder.workload if folder.workload.name else MLP()


def _planned(manifest: Mapping[str, Any], workload: Description) -> dict[str, list[int]]:
    """The grid of a run's manifest; nothing where points were drawn from a grid, or in a manifest of another kind."""
    if of_reference(manifest):  # its sources had grids of their own
        return {}
    try:
        sweep = manifest["sweep"]
        names = [f.name for f in workload.dimensions] if sweep["search"] == "grid" else []
        return {name: [int(value) for value in sweep["axes"][name]] for name in names}
    except (KeyError, TypeError, ValueError):
        return {}


def _load(run: str | Path, console: Console) -> tuple[pd.DataFrame, RunFolder]:
    """The records of a run and its folder; warnings of the store are printed once, in one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = open_run(run)
        refuse_scores(folder.workload, folder.path)
        frame = folder.load()
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        console.print(f"warning: {message}", highlight=False, markup=False, soft_wrap=True)
    return frame, folder


_HOW = "how and where"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The run that is drawn, how and where."""

    run: str = setting(doc="folder or URI of a run, such as results/NAME, or reference:NAME", positional=True)
    formats: tuple[str, ...] = formats_setting(*DEFAULT_FORMATS, group=_HOW)
    html: bool | None = page_setting(group=_HOW)
    out: Path | None = setting(None, doc="default: plots/ in the run's folder", kind=Path, metavar="DIR", group=_HOW)

    def __post_init__(self) -> None:
        check_settings(self)


def build_parser() -> SettingsParser:
    """The command line of this script."""
    return SettingsParser(
        Options,
        Selection,
        prog="flopray surfaces",
        description="Draw the metrics of a sweep over the last two dimensions of its workload.",
        epilog=_EXAMPLES,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return carry_out(build_parser(), argv, _drawn)


def _drawn(options: Options, selection: Selection) -> None:
    console = LineConsole(stderr=True)
    frame, folder = _load(options.run, console)
    draw(
        frame,
        options.out or check_own(folder.plots_path),
        selection=selection,
        planned=_planned(folder.manifest, _workload(folder)),
        formats=options.formats,
        html=options.html,
        console=console,
        workload=_workload(folder),
    )
