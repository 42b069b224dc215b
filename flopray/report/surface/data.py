"""The data of surfaces: one metric of one phase over the axes x and y, a grid for each value of a third dimension.

A `SurfaceSet` holds the grids that share a figure, and so a scale. Every cell has either a value or the reason why it
is missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from flopray.records import PHASES
from flopray.report.boards.means import values_on_boards
from flopray.report.plot.scales import Array
from flopray.report.surface.axes import SurfaceAxes, joined, letter_of
from flopray.report.surface.rows import GROUP, MLP_AXES, cell_of, of_types
from flopray.report.surface.selection import METRICS, Metric, Selection
from flopray.units import counted

NOT_MEASURED = "not measured"
#: The audit judges a row; here the error of each metric is compared with the target, so that time is not marked for the
#: error of energy.
_TARGET_MISSED = "note:target_error_missed"
#: No drawn quantity comes near it or its inverse.
_LEAST = 1e-150
#: Columns that what a row is on each of several boards is made from.
_COSTS = ("time_s", "energy_j")


@dataclass(frozen=True)
class Grid:
    """One metric at one value of the panel's dimension; rows are values of y, columns of x.

    Attributes:
        panel: value of the panel's dimension; 0 where there is none.
        values: in SI units, NaN where missing, shape (Y, X).
        rel_errors: half widths of 95 % intervals / values, NaN where unknown, shape (Y, X).
        reasons: why a value is missing, empty where there is one, shape (Y, X) of str.
        findings: audit findings of the cell, shape (Y, X) of tuples of str.
        targets: relative errors that were asked for, NaN where none was and of means over boards, shape (Y, X).
        window_rel_errors: those of the windows, which a target is for; `rel_errors` unless energy is at the reference
            temperature or a mean, shape (Y, X).
        on_boards: the value on each board, empty where one board has it, shape (Y, X) of tuples of float.
    """

    panel: int
    values: Array
    rel_errors: Array
    reasons: Array
    findings: Array
    targets: Array
    window_rel_errors: Array
    on_boards: Array

    def above_target(self) -> Array:
        """Which cells have a value whose error is not known to be within the one that was asked for, (Y, X) of bool."""
        return np.isfinite(self.values) & np.isfinite(self.targets) & ~(self.window_rel_errors <= self.targets)


@dataclass(frozen=True)
class SurfaceSet:
    """The grids of one metric that share a scale, and what a title says about them.

    Attributes:
        axes: what the axes are.
        xs: rising values of x, shape (X,).
        ys: rising values of y, shape (Y,).
        grids: one for each value of the panel's dimension, rising.
        variant: values of dimensions and choices that have figures of their own, such as `kernel=3x3`, or empty.
        dispatched: rates are of the dispatcher's count, since the workload states no closed form.
        boards: of how many boards of the type values are means, at most; 1 where each is of one board.
        energy_at: temperature of the energy in Celsius; NaN where it is as it was measured.
        intervals: how many values have an interval of which kind (`flopray.report.boards.means`).
        device: full name of the device, or its type and how many models of it were mixed.
        energy_source: how energy was measured, where known.
        filtered: the lower bounds that left something out, such as `d ≥ 512`, or empty.
    """

    metric: Metric
    device_type: str
    precision: str
    execution: str
    phase: str
    axes: SurfaceAxes
    xs: Array
    ys: Array
    grids: tuple[Grid, ...]
    device: str
    energy_source: str
    filtered: str
    variant: str = ""
    dispatched: bool = False
    boards: int = 1
    energy_at: float = math.nan
    intervals: Mapping[str, int] = field(default_factory=dict)

    @property
    def of_energy(self) -> bool:
        """Whether the metric is an energy, or follows from one."""
        return "energy" in (self.metric.error_column or "")

    def values(self) -> Array:
        """All values, shape (panels, Y, X)."""
        return np.stack([grid.values for grid in self.grids])

    def has_values(self) -> bool:
        """Whether there is anything to draw."""
        return self.value_count() > 0

    def hole_counts(self) -> Counter[str]:
        """How many cells are missing for each reason, the most frequent first when iterated by `most_common`."""
        return Counter(reason for grid in self.grids for reason in grid.reasons.flat if reason)

    def finding_counts(self) -> Counter[str]:
        """How many cells with a value have each audit finding."""
        return Counter(
            finding for grid in self.grids for cell in grid.findings[np.isfinite(grid.values)] for finding in cell
        )

    def above_target_count(self) -> int:
        """How many cells have an error that is not known to be within the one that was asked for."""
        return sum(int(grid.above_target().sum()) for grid in self.grids)

    def has_unknown_errors(self) -> bool:
        """Whether one of these has an error that nobody knows."""
        return any(bool(np.isnan(grid.window_rel_errors[grid.above_target()]).any()) for grid in self.grids)

    def target(self) -> float | None:
        """The relative error that was asked for; None where there was none, or several."""
        targets = np.unique(np.concatenate([grid.targets[np.isfinite(grid.targets)] for grid in self.grids]))
        return float(targets[0]) if len(targets) == 1 else None

    def value_count(self) -> int:
        """How many cells have a value."""
        return int(np.isfinite(self.values()).sum())


def surface_sets(
    frame: pd.DataFrame,
    selection: Selection,
    planned: Mapping[str, Sequence[int]] | None = None,
    axes: SurfaceAxes | None = None,
    further: Sequence[Metric] = (),
) -> Iterator[SurfaceSet]:
    """The sets to draw, ordered by device type, precision, execution, phase and metric.

    Args:
        frame: records as `flopray.load_run` gives them, a row per point and phase.
        selection: what to keep.
        planned: values of the axes' columns that the run is to have once it is complete; what is not measured yet of
            these shows as holes.
        axes: of the run's workload; None takes those of the MLP.
        further: metrics besides those of the selection.

    Raises:
        InputError: nothing is left to draw.
    """
    axes = axes or MLP_AXES
    rows: Any = of_types(selection.apply(frame, axes), axes)
    metrics = [*(METRICS[name] for name in selection.metrics or METRICS), *further]
    others = [axis for axis in axes.others if rows[axis.name].notna().any()]
    rows = _needed(rows, axes, metrics)
    for key, group in rows.groupby([*GROUP, *(axis.name for axis in others)], sort=True, dropna=False):
        # positions are those of the whole group, so that figures of all phases look alike
        places = _places(group, selection, planned or {}, axes)
        filtered = _bounds_that_matter(frame, selection, axes, places)
        # What all rows share is named by the run.
        told = zip(others, key[len(GROUP) :], strict=True)
        variant = joined(
            *(
                f"{axis.name}={'none' if pd.isna(value) else value}"
                for axis, value in told
                if rows[axis.name].nunique(dropna=False) > 1
            )
        )
        for phase in sorted(group["phase"].unique(), key=_phase_rank):
            part = _Rows(group[group["phase"] == phase], axes)
            for metric in metrics:
                names = (*map(str, key[: len(GROUP)]), str(phase))
                yield _surface_set(metric, names, part, axes, places, filtered, variant)


def _needed(rows: Any, axes: SurfaceAxes, metrics: Sequence[Metric]) -> Any:
    """The rows with the columns that sets are made of: each choice of rows copies all columns, and runs have 140."""
    columns = {*cell_of(axes), *("device_name", "energy_source", "model_flops", "status", "findings", "target_error")}
    columns |= {*("boards", "on_boards", "energy_at"), *_COSTS}
    columns |= {f"{what}_{name}" for what in ("time", "energy") for name in ("interval", "window_rel_error")}
    columns |= {axis.name for axis in (axes.panel, axes.x, axes.y, *axes.others)}
    for metric in metrics:
        columns |= {metric.column, metric.error_column, *metric.reason_columns}
    return rows[[name for name in rows.columns if name in columns]]


def _bounds_that_matter(
    frame: pd.DataFrame, selection: Selection, axes: SurfaceAxes, places: tuple[Array, Array, Array]
) -> str:
    """The lower bounds that leave something out, except those of axes with a single value."""
    said = []
    for axis, least, kept in ((axes.x, selection.x_min, places[1]), (axes.y, selection.y_min, places[2])):
        if least is not None and len(kept) > 1 and bool((frame[axis.name] < least).any()):
            said.append(f"{letter_of(axis)} ≥ {least}")
    return joined(*said)


def _places(
    group: Any, selection: Selection, planned: Mapping[str, Sequence[int]], axes: SurfaceAxes
) -> tuple[Array, Array, Array]:
    """Values of panel, x and y of the rows and of the plan."""
    panels, xs, ys = (
        np.union1d(group[name].astype(int).unique(), np.array(chosen(planned.get(name, ())), int))
        for name, chosen in zip(axes.columns, selection.choosers(), strict=True)
    )
    return panels, xs, ys


def _phase_rank(phase: str) -> tuple[int, str]:
    return (PHASES.index(phase) if phase in PHASES else len(PHASES), phase)


def _surface_set(
    metric: Metric,
    key: tuple[str, ...],
    rows: _Rows,
    axes: SurfaceAxes,
    places: tuple[Array, Array, Array],
    filtered: str,
    variant: str,
) -> SurfaceSet:
    device_type, precision, execution, phase = key
    panels, xs, ys = places
    grids = tuple(_grid(metric, int(n), rows, xs, ys) for n in panels)
    names, sources = rows.words("device_name"), rows.words("energy_source")
    device = names[0] if len(names) == 1 else device_type
    if len(names) > 1:
        device = f"{device_type} ({counted(len(names), 'model')})"
    what = (metric, device_type, precision, execution, phase, axes, xs, ys, grids)
    quantity = (metric.error_column or "").partition("_")[0]
    there = np.isfinite(rows.numbers(metric.column)) & ~rows.failed
    return SurfaceSet(
        *(*what, device, ", ".join(sources), filtered, variant, rows.dispatched),
        boards=int(rows.boards.max()),
        energy_at=rows.energy_at if quantity == "energy" else math.nan,
        intervals=rows.counts(f"{quantity}_interval", there) if quantity else {},
    )


class _Rows:
    """The rows of a phase; each column is made an array once, for all metrics and panels.

    Attributes:
        panel, x, y: the values of the axes.
        boards: of how many boards each row is a mean.
        failed: which rows say that the point failed.
        findings: of the audit.
        dispatched: no row has a closed form's FLOPs.
        energy_at: temperature of all energies in Celsius; NaN where they are as measured.
    """

    def __init__(self, frame: Any, axes: SurfaceAxes) -> None:
        self._frame = frame
        self._numbers: dict[str, Array] = {}
        self._reasons: dict[tuple[str, ...], Array] = {}
        self._words: dict[str, list[str]] = {}
        self.panel, self.x, self.y = (frame[axis.name].to_numpy(int) for axis in (axes.panel, axes.x, axes.y))
        self.boards = frame["boards"].to_numpy()
        self.failed = (frame["status"] != "ok").to_numpy(bool)
        self.findings = frame["findings"].to_list()
        at = frame["energy_at"].dropna()
        self.energy_at = float(at.iloc[0]) if len(at) else math.nan
        self.dispatched = "model_flops" in frame and bool(frame["model_flops"].isna().all())
        several = frame["on_boards"].map(bool).to_numpy(bool)
        #: By position: what a row on several boards says.
        self.shared = dict(zip(np.flatnonzero(several), frame[several].to_dict("records"), strict=True))

    def __contains__(self, name: str) -> bool:
        return name in self._frame

    def numbers(self, name: str) -> Array:
        """A column of numbers, NaN where a cell has none."""
        if name not in self._numbers:
            self._numbers[name] = _numbers(self._frame[name])
        return self._numbers[name]

    def reasons(self, columns: tuple[str, ...]) -> Array:
        """For each row the first of the columns that is not ok, in readable words."""
        if columns not in self._reasons:
            self._reasons[columns] = _first_reason(self._frame, columns)
        return self._reasons[columns]

    def counts(self, name: str, there: Array) -> Counter[str]:
        """How many of some rows have each text of a column."""
        return Counter(self._frame[name].to_numpy()[there].tolist())

    def words(self, name: str) -> list[str]:
        """The different texts of a column, sorted."""
        if name not in self._words:
            self._words[name] = sorted(str(word) for word in self._frame[name].dropna().unique())
        return self._words[name]


def _grid(metric: Metric, panel: int, rows: _Rows, xs: Array, ys: Array) -> Grid:
    shape = (len(ys), len(xs))
    here = np.flatnonzero(rows.panel == panel)
    at = (np.searchsorted(ys, rows.y[here]), np.searchsorted(xs, rows.x[here]))
    values, rel_errors, targets, windows = (np.full(shape, np.nan) for _ in range(4))
    reasons, findings = np.full(shape, NOT_MEASURED, dtype=object), np.full(shape, None, dtype=object)
    values[at] = rows.numbers(metric.column)[here]
    values[~np.isfinite(values)] = np.nan
    if metric.error_column:
        rel_errors[at] = rows.numbers(metric.error_column)[here]
        windows[at] = rows.numbers(metric.error_column.replace("_rel_error", "_window_rel_error"))[here]
        if "target_error" in rows:
            targets[at] = np.where(rows.boards[here] > 1, np.nan, rows.numbers("target_error")[here])
    reasons[at] = rows.reasons(metric.reason_columns)[here]
    failed = rows.failed[here]
    if failed.any():  # even where a FLOP count exists without a measurement: the point is a hole in every figure
        places = tuple(axis[failed] for axis in at)
        values[places], reasons[places] = np.nan, rows.reasons(("status",))[here][failed]
    if not metric.signed:
        impossible = values <= 0
        values[impossible], reasons[impossible] = np.nan, "value of zero or less"
    # Ticks of a scale up to the largest float are infinite.
    absurd = (values != 0) & ~((np.abs(values) >= _LEAST) & (np.abs(values) <= 1 / _LEAST)) & np.isfinite(values)
    values[absurd], reasons[absurd] = np.nan, "value beyond any scale"
    reasons[np.isfinite(values)] = ""
    cells = {place: rows.findings[row] for place, row in zip(zip(*at, strict=True), here, strict=True)}
    for index in np.ndindex(shape):
        said = _as_tuple(cells.get(index)) if metric.measured else ()
        findings[index] = tuple(finding for finding in said if finding != _TARGET_MISSED)
    on_boards = _on_boards(metric, rows, here, at, values)
    return Grid(panel, values, rel_errors, reasons, findings, targets, windows, on_boards)


def _on_boards(metric: Metric, rows: _Rows, here: Array, at: tuple[Array, Array], values: Array) -> Array:
    """The values of each board where a cell of `values` is a mean over several."""
    found: Any = np.frompyfunc(lambda _: (), 1, 1)(values)
    for row, *place in zip(here, *at, strict=True):
        if row in rows.shared and np.isfinite(values[*place]):
            found[*place] = tuple(values_on_boards(rows.shared[row], metric.column, metric.error_column))
    return found


def _numbers(column: Any) -> Array:
    numbers: Any = pd.to_numeric(column, errors="coerce")
    return numbers.to_numpy(dtype=float, na_value=np.nan)


def _first_reason(rows: Any, columns: Sequence[str]) -> Array:
    """For each row the first of the columns that is not ok, in readable words."""
    reasons = np.full(len(rows), "no value recorded", dtype=object)
    for column in reversed(columns):
        said = rows[column].fillna("").astype(str).to_numpy(dtype=object)
        use = (said != "") & (said != "ok")
        reasons[use] = said[use]
    return np.array([_readable(reason) for reason in reasons], dtype=object)


def _readable(reason: str) -> str:
    return " ".join(reason.replace("_", " ").split())


def _as_tuple(findings: Any) -> tuple[str, ...]:
    """Findings of a row as Parquet, JSON or a record give them."""
    if findings is None or isinstance(findings, float) or findings is pd.NA:
        return ()
    return (findings,) if isinstance(findings, str) else tuple(str(finding) for finding in findings)
