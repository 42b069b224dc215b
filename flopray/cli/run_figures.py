"""The figures at the end of a sweep: surfaces or a comparison of what was measured, and of what was counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from flopray import load_run
from flopray.cli.surfaces import DEFAULT_FORMATS, draw_run
from flopray.report.flops.adjusted import LEAST_POINTS, held_out
from flopray.report.flops.data import groups_of, load_runs
from flopray.report.flops.figures import draw_group, folder_of
from flopray.report.front import draw_front
from flopray.report.plot.figures import paper_style, save_figure
from flopray.store.containment import check_own
from flopray.sweep.winners import Winners
from flopray.units import counted
from flopray.workloads.base import Workload


def draw(workload: Workload, run: Path, console: Console) -> None:
    """Draw a finished run into its folder, as its workload wants it.

    Raises:
        InputError: the folder is not a run, or there is nothing to draw.
    """
    if workload.figures == "comparison":
        from flopray.cli.compare_gpus import draw_run as draw_comparison

        draw_comparison(run, console)
    elif workload.figures == "scores":
        from flopray.cli.scores import draw_run as draw_scores

        draw_scores(run, console)
    else:
        draw_surfaces(run, console)


def draw_winners(name: str, winners: Winners, run: Path, console: Console) -> None:
    """Draw the Pareto front of a search for several objectives as `plots/pareto.png` and `.svg`.

    Args:
        name: of the run.
        winners: of the search; with one objective, or without a point, nothing is drawn.
        run: its folder.
        console: where to say what was drawn.
    """
    if len(winners.objectives) < 2 or not winners.best:
        return
    with paper_style():
        figure = draw_front(winners.candidates(), f"Pareto front of {name}")
        stem = check_own(run / "plots") / "pareto"
        save_figure(figure, stem, DEFAULT_FORMATS)
    console.print(f"the Pareto front: {stem}.png", highlight=False, markup=False, soft_wrap=True)


def draw_surfaces(run: Path, console: Console) -> None:
    """Draw surfaces of all that a run has.

    Args:
        run: its folder.
        console: where to say what was drawn and what was not.

    Raises:
        InputError: the folder is not a run, or there is nothing to draw.
    """
    frame: Any = load_run(run)
    has_counts = frame["executed_flops"].notna().any()
    if frame["time_s"].notna().any() or not has_counts:
        draw_run(run, console)
    if has_counts and frame["gemm_overhead"].notna().any():
        draw_executed(run, console)


def draw_executed(run: Path, console: Console) -> None:
    """Draw executed FLOPs against the closed form, for each device type, precision and execution."""
    plots = check_own(run / "plots")
    for group in groups_of(load_runs([run])):
        phases = {phase: group.of(phase) for phase in group.phases}
        predictions = {phase: held_out(rows, 0) for phase, rows in phases.items() if len(rows) >= LEAST_POINTS}
        paths = draw_group(plots, group, None, predictions)
        where = folder_of(plots, group)
        console.print(
            f"{counted(len(paths), 'figure')} of executed FLOPs: {where}/",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
