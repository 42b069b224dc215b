"""`flopray series RUN POINT`: power and temperature over time in each window of a point, drawn and as a table."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from flopray.cli.endings import carry_out, results_console
from flopray.cli.parser import SettingsParser
from flopray.errors import InputError, SettingError
from flopray.report.plot.figures import IMAGE_FORMATS
from flopray.report.series.figure import draw_series
from flopray.report.series.windows import samples_of, thinned_lines, window_table
from flopray.settings import check_settings, setting
from flopray.store.containment import check_own
from flopray.store.location import open_run
from flopray.store.run import RunFolder
from flopray.store.window_series import WindowSeries, series_in

_WHAT = """\
Draw power and temperature over time in each window of a point, and clock and
memory where they are known, with the ticks of the energy counter that were used.
The run needs --keep-series."""
_EXAMPLES = """\
examples:
  flopray series results/RUN 0                                  the first point
  flopray series results/RUN "n=8 d=1024 m=128 fp32 eager" --phase forward
  flopray series results/RUN 4f1c0a9be2d1 --out power.svg

exit codes: 0 drawn, 2 bad input, also a point without a series"""
#: Columns that identify a row's point, besides the fields of its workload.
_IDENTITY = ("trial_id", "order_index", "device_type", "precision", "execution")
#: Most other points that are named.
_NEAR = 3


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which windows are shown, and where their figure goes.

    Raises:
        SettingError: a figure of an unknown format.
    """

    run: str = setting(doc="folder or URI of a run, or reference:NAME", positional=True)
    point: str = setting(doc="trial id, label, or place in the order of the sweep, from 0", positional=True)
    phases: tuple[str, ...] = setting(
        (), doc="only these (default all)", flag="--phase", metavar="P", repeats=True, distinct=False, noun="name"
    )
    out: Path | None = setting(
        None, doc="a .png, .svg or .pdf (default plots/series/ID.png of the run)", kind=Path, metavar="FILE"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.out is not None and self.out.suffix.removeprefix(".") not in IMAGE_FORMATS:
            raise SettingError(f"<out> {self.out}: the name must end in .{', .'.join(IMAGE_FORMATS)}")


def find_point(frame: Any, folder: RunFolder, named: str) -> Mapping[str, Any]:
    """The named point, as the identity of its rows and its `label`.

    Args:
        frame: rows with `_IDENTITY` and the workload's fields.
        folder: of the run.
        named: trial id, label, or place in the order of the sweep.

    Raises:
        InputError: there is no such point, or several; the message names some.
    """
    points = frame.drop_duplicates("trial_id").to_dict("records")
    for point in points:
        values = {f.name: point[f.name] for f in folder.workload.fields if pd.notna(point.get(f.name))}
        words = (folder.workload.label(values), point["precision"], point["execution"])
        point["label"] = " ".join(filter(None, words))
    wanted = " ".join(named.split())
    ways = (
        lambda point: point["trial_id"] == wanted,
        lambda point: point["label"] == wanted,
        lambda point: f"{point['label']} {point['device_type']}" == wanted,
        lambda point: str(point["order_index"]) == wanted,
    )
    for way in ways:
        found = [point for point in points if way(point)]
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(f"{point['trial_id']} on {point['device_type']}" for point in found[:_NEAR])
            raise InputError(f"{named!r} is {len(found)} points of {folder.place()}: name one by its id, {several}")
    raise InputError(f"{folder.place()} has no point {named!r:.100}{_near(points, wanted)}")


def _near(points: Sequence[Mapping[str, Any]], wanted: str) -> str:
    """Which points may have been meant."""
    if not points:
        return ": nothing is measured yet"
    names = [str(point["trial_id"]) for point in points], [point["label"] for point in points]
    near = [name for kind in names for name in difflib.get_close_matches(wanted, kind, n=_NEAR, cutoff=0.5)]
    if near:
        return f": did you mean {' or '.join(map(repr, near[:_NEAR]))}?"
    first = points[0]
    place = f" or an index (such as {first['order_index']})"
    return f": name a trial id ({first['trial_id']}), a label ({first['label']!r}){place}"


def windows_of(
    folder: RunFolder, point: Mapping[str, Any], phases: Sequence[str]
) -> tuple[dict[str, WindowSeries], list[str]]:
    """The series of a point by phase, and a line for each phase that has none.

    Args:
        folder: of the run.
        point: as `find_point` gives it.
        phases: that are wanted; empty takes all.

    Raises:
        InputError: a phase that was not measured, or no series at all.
    """
    columns = ("phase", "series", "series_status", "series_reason")
    rows = {str(row["phase"]): row for row in folder.rows_of_point(point["trial_id"], columns)}
    for phase in phases:
        if phase not in rows:
            raise SettingError(f"<phases> {phase}: the point has {', '.join(rows)}")
    windows, reasons = {}, {}
    for phase in phases or rows:
        kept = series_in(rows[phase]["series"])
        if kept:
            windows[phase] = kept[0]
        else:
            reasons[phase] = _why_not(rows[phase])
    if not windows:
        same = len(set(reasons.values())) == 1
        said = next(iter(reasons.values())) if same else "; ".join(f"{name}: {why}" for name, why in reasons.items())
        raise InputError(f"no series of {point['label']}: {said}")
    return windows, [f"{phase}: no series, {reason}" for phase, reason in reasons.items()]


def _why_not(row: Mapping[str, Any]) -> str:
    if row["series_status"] == "not_requested":
        return "the run did not keep any; measure it with --keep-series"
    if row["series_status"] == "ok":
        return "the record has no readable one (results of Ray Tune never do)"
    return row["series_reason"] or str(row["series_status"])


def show(console: Console, options: Options) -> None:
    """Do what the command line asks for.

    Raises:
        FloprayError: no such run, point or phase, no series, or a file that cannot be written.
    """
    folder = open_run(options.run)
    frame = folder.load([*_IDENTITY, *(f.name for f in folder.workload.fields)])
    point = find_point(frame, folder, options.point)
    windows, without = windows_of(folder, point, options.phases)
    where = options.out or check_own(folder.plots_path) / "series" / f"{point['trial_id']}.png"
    title = f"{point['label']} on {point['device_type']}"
    how = {"formats": (where.suffix[1:],), "html": False, "title": title}
    axis = "time from the start of each window (s)"
    paths = draw_series(samples_of(windows), [], where.with_suffix(""), time_label=axis, **how)
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(window_table(windows))
    for line in (*thinned_lines(windows), *without, *(f"figure: {path}" for path in paths)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = SettingsParser(Options, prog="flopray series", description=_WHAT, epilog=_EXAMPLES)
    return carry_out(parser, argv, lambda options: show(results_console(), options))
