"""Tables and figures of a complete run. A failure here loses no point."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from flopray.cli.flags import flags_of
from flopray.cli.request import Options
from flopray.cli.terminal import LineConsole, renamed
from flopray.errors import EXIT_NOT_FINISHED, EXIT_SOME_FAILED, FloprayError, resume_command
from flopray.monitoring.progress import Progress
from flopray.report.operators import print_operators
from flopray.store import atomic
from flopray.store.run import RunFolder
from flopray.sweep.objectives import Objective
from flopray.sweep.summary import COPY, FIGURES, RECORDS, REPORT, TOTALS, print_summary, summarise, summary_columns
from flopray.sweep.winners import Winners, columns_of, print_winners, winners_of
from flopray.workloads.base import Workload

if TYPE_CHECKING:
    import pandas as pd

#: The command that draws a run, by the figures of its workload.
_DRAWS = {"comparison": "flopray compare-gpus", "scores": "flopray scores", "surfaces": "flopray surfaces"}


def finish(
    workload: Workload,
    options: Options,
    console: Console,
    folder: RunFolder,
    progress: Progress,
    objectives: Sequence[Objective] = (),
) -> int:
    """Make the tables and figures of a run; returns the exit code.

    After a failure the rest is still made, and the exit code says so.

    Args:
        workload: of the run.
        options: whether to draw, and to print a summary.
        console: for messages.
        folder: of the run.
        progress: told the totals.
        objectives: of a search, whose winners are printed and drawn.
    """
    totals: list[tuple[pd.DataFrame, dict[str, object]]] = []
    winners: list[Winners] = []

    def total() -> None:
        frame = folder.load(summary_columns(folder))
        totals.append((frame, summarise(frame, progress.measured_fraction)))
        if objectives:
            columns = columns_of(objectives, folder.workload)
            winners.append(winners_of(folder.load(columns), objectives, folder.workload))
            totals[0][1]["winners"] = winners[0].to_dict()

    steps: list[tuple[str, Callable[[], object]]] = [
        (TOTALS, total),
        (RECORDS, folder.compact),
        ("table of kernels", folder.write_kernels),
        ("table of operators", folder.write_operators),
        ("table of series", folder.write_series),
        ("summary", lambda: folder.write_summary(totals[0][1])),
    ]
    if options.plots:
        steps.append((FIGURES, lambda: _draw(workload, console, folder, winners)))
        if workload.figures != "scores":  # its table and figure say everything
            steps.append((REPORT, lambda: _report(folder)))
    steps.append((COPY, folder.publish))
    failed: list[str] = []
    for what, step in steps:
        if what == "summary" and failed:
            continue  # this marks the tables as made: without it a resume makes them again
        if not _made(what, step, workload, folder):
            failed.append(what)
    for frame, summary in totals:
        progress.event("summary", run=folder.address, **summary)
        if options.summary and not console.quiet:
            if workload.figures == "scores":
                _print_scores(folder)
            print_summary(LineConsole(markup=False), folder, frame, summary, failed, flags_of(workload))
            for found in winners:
                print_winners(LineConsole(markup=False), found)
            print_operators(LineConsole(markup=False), folder.operators_path)
        if not failed:
            return 0 if summary["points_not_ok"] == 0 else EXIT_SOME_FAILED
    return EXIT_NOT_FINISHED


def _draw(workload: Workload, console: Console, folder: RunFolder, winners: Sequence[Winners]) -> None:
    with renamed(console, str(folder.path), folder.place()):
        from flopray.cli.run_figures import draw, draw_winners  # matplotlib is slow to import

        for found in winners:
            draw_winners(folder.name, found, folder.path, console)
        draw(workload, folder.path, console)


def _report(folder: RunFolder) -> None:
    from flopray.cli import report  # slow to import, too

    report.write([folder.path], None, ("html",), LineConsole(quiet=True))


def _print_scores(folder: RunFolder) -> None:
    """Results of an evaluation, above the totals."""
    from flopray.cli.scores import print_scores
    from flopray.report.scores.data import evaluations_of

    print_scores(LineConsole(highlight=False), evaluations_of(folder.load()))


def _made(what: str, step: Callable[[], object], workload: Workload, folder: RunFolder) -> bool:
    """Carry out a step after the measuring; if it fails, print one line with the command that repeats it."""
    try:
        step()
    except Exception as error:
        said = atomic.reason(error) if isinstance(error, OSError) else str(error)
        first = (said.splitlines() or [type(error).__name__])[0]
        if not isinstance(error, FloprayError | OSError):
            first = f"{type(error).__name__}: {first}"
        again = {FIGURES: _DRAWS[workload.figures], REPORT: "flopray report"}
        command = f"{again[what]} {shlex.quote(folder.address)}" if what in again else resume_command(folder.address)
        line = f"error: no {what} ({first}); every point is safe in the journal, {command} makes it again"
        LineConsole(stderr=True, markup=False).print(line, highlight=False, soft_wrap=True)
        return False
    return True
