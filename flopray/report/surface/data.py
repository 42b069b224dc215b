"""What surfaces show: one metric of one phase over (width d, tokens m), a grid for each number of layers.

A `SurfaceSet` holds the grids that share a figure, and so a scale. Every cell has either a value or the reason why not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from flopray.records import PHASES
from flopray.report.plot.scales import Array
from flopray.report.surface.selection import METRICS, Metric, Selection

NOT_MEASURED = "not measured"
#: The audit says it of a row; here the error of each metric is held against the target, so that time is not marked for
#: the error of energy.
_TARGET_MISSED = "note:target_error_missed"
#: What makes a cell of a figure.
_CELL = ["device_type", "precision", "execution", "phase", "n_layers", "width", "tokens"]


@dataclass(frozen=True)
class Grid:
    """One metric at one number of layers; rows are tokens m, columns are widths d.

    Attributes:
        n_layers: number of layers n.
        values: in SI units, NaN where missing, shape (M, D).
        rel_errors: half widths of 95 % intervals / values, NaN where unknown, shape (M, D).
        reasons: why a value is missing, empty where there is one, shape (M, D) of str.
        findings: audit findings of the cell, shape (M, D) of tuples of str.
        targets: relative errors that were asked for, NaN where none was, shape (M, D).
    """

    n_layers: int
    values: Array
    rel_errors: Array
    reasons: Array
    findings: Array
    targets: Array

    def above_target(self) -> Array:
        """Which cells have a value whose error is above the one that was asked for, shape (M, D) of bool."""
        return np.isfinite(self.values) & (self.rel_errors > self.targets)


@dataclass(frozen=True)
class SurfaceSet:
    """The grids of one metric that are drawn with one scale, and what a title says about them.

    Attributes:
        widths: rising values of d, shape (D,).
        tokens: rising values of m, shape (M,).
        grids: one for each number of layers, rising.
        device: full name of the device, or its type and how many models of it were mixed.
        energy_source: how energy was measured, where known.
        filtered: the lower bounds that left something out, such as `d ≥ 512`, or empty.
    """

    metric: Metric
    device_type: str
    precision: str
    execution: str
    phase: str
    widths: Array
    tokens: Array
    grids: tuple[Grid, ...]
    device: str
    energy_source: str
    filtered: str

    def values(self) -> Array:
        """All values, shape (n, M, D)."""
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
        """How many cells have an error above the one that was asked for."""
        return sum(int(grid.above_target().sum()) for grid in self.grids)

    def target(self) -> float | None:
        """The relative error that was asked for; None where there was none, or several."""
        targets = np.unique(np.concatenate([grid.targets[np.isfinite(grid.targets)] for grid in self.grids]))
        return float(targets[0]) if len(targets) == 1 else None

    def value_count(self) -> int:
        """How many cells have a value."""
        return int(np.isfinite(self.values()).sum())


def surface_sets(
    frame: pd.DataFrame, selection: Selection, planned: Mapping[str, Sequence[int]] | None = None
) -> Iterator[SurfaceSet]:
    """The sets to draw, ordered by device type, precision, execution, phase and metric.

    Args:
        frame: records as `flopray.load_run` gives them, a row per point and phase.
        selection: what to keep.
        planned: values of `n_layers`, `width` and `tokens` that the run is to have once it is complete; what is not
            measured yet of these shows as holes.

    Raises:
        InputError: nothing is left to draw.
    """
    rows: Any = latest(selection.apply(frame))
    metrics = [METRICS[name] for name in selection.metrics or METRICS]
    for key, group in rows.groupby(["device_type", "precision", "execution"], sort=True):
        # axes are those of the whole group, so that figures of all phases look alike
        axes = _axes(group, selection, planned or {})
        filtered = _bounds_that_matter(frame, selection, axes)
        for phase in sorted(group["phase"].unique(), key=_phase_rank):
            part = group[group["phase"] == phase]
            for metric in metrics:
                yield _surface_set(metric, (*map(str, key), str(phase)), part, axes, filtered)


def _bounds_that_matter(frame: pd.DataFrame, selection: Selection, axes: tuple[Array, Array, Array]) -> str:
    """The lower bounds that leave something out and that the axes do not say themselves by a single value."""
    _, widths, tokens = axes
    said = []
    for name, column, least, kept in (
        ("d", "width", selection.d_min, widths),
        ("m", "tokens", selection.m_min, tokens),
    ):
        if least is not None and len(kept) > 1 and bool((frame[column] < least).any()):
            said.append(f"{name} ≥ {least}")
    return ", ".join(said)


def _axes(group: Any, selection: Selection, planned: Mapping[str, Sequence[int]]) -> tuple[Array, Array, Array]:
    """Layers, widths and tokens of the rows and of the plan."""
    layers, widths, tokens = (
        np.union1d(group[name].astype(int).unique(), np.array(selection.values(name, planned.get(name, ())), int))
        for name in ("n_layers", "width", "tokens")
    )
    return layers, widths, tokens


def latest(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell: where runs were merged or points repeated, the one that ended last."""
    return rows.sort_values("ended_unix_s", kind="stable", na_position="first").drop_duplicates(_CELL, keep="last")


def repeated_lines(rows: pd.DataFrame) -> list[str]:
    """A line where cells were measured more than once, so that nobody takes the one that is shown for all there is."""
    repeated = rows.loc[rows.duplicated(_CELL), _CELL].drop_duplicates()
    if repeated.empty:
        return []
    return [f"{len(repeated)} cells were measured more than once: the measurement that ended last is shown"]


def _phase_rank(phase: str) -> tuple[int, str]:
    return (PHASES.index(phase) if phase in PHASES else len(PHASES), phase)


def _surface_set(
    metric: Metric, key: tuple[str, ...], rows: Any, axes: tuple[Array, Array, Array], filtered: str
) -> SurfaceSet:
    device_type, precision, execution, phase = key
    layers, widths, tokens = axes
    grids = tuple(_grid(metric, int(n), rows[rows["n_layers"] == n], widths, tokens) for n in layers)
    names = sorted(str(name) for name in rows["device_name"].dropna().unique())
    device = names[0] if len(names) == 1 else device_type
    if len(names) > 1:
        device = f"{device_type} ({len(names)} models)"
    sources = sorted(str(source) for source in rows["energy_source"].dropna().unique())
    return SurfaceSet(
        metric, device_type, precision, execution, phase, widths, tokens, grids, device, ", ".join(sources), filtered
    )


def _grid(metric: Metric, n_layers: int, rows: Any, widths: Array, tokens: Array) -> Grid:
    shape = (len(tokens), len(widths))
    at = (np.searchsorted(tokens, rows["tokens"].to_numpy(int)), np.searchsorted(widths, rows["width"].to_numpy(int)))
    values, rel_errors, targets = (np.full(shape, np.nan) for _ in range(3))
    reasons, findings = np.full(shape, NOT_MEASURED, dtype=object), np.full(shape, None, dtype=object)
    values[at] = _numbers(rows[metric.column])
    values[~np.isfinite(values)] = np.nan
    if metric.error_column:
        rel_errors[at] = _numbers(rows[metric.error_column])
        if "target_error" in rows:
            targets[at] = _numbers(rows["target_error"])
    reasons[at] = _first_reason(rows, metric.reason_columns)
    failed = (rows["status"] != "ok").to_numpy(bool)
    if failed.any():  # also where a FLOP count exists without a measurement: the point is a hole on every figure
        places = tuple(axis[failed] for axis in at)
        values[places], reasons[places] = np.nan, _first_reason(rows[failed], ("status",))
    if not metric.signed:
        impossible = values <= 0
        values[impossible], reasons[impossible] = np.nan, "value of zero or less"
    reasons[np.isfinite(values)] = ""
    cells = dict(zip(zip(*at, strict=True), rows["findings"], strict=True))
    for index in np.ndindex(shape):
        said = _as_tuple(cells.get(index)) if metric.measured else ()
        findings[index] = tuple(finding for finding in said if finding != _TARGET_MISSED)
    return Grid(n_layers, values, rel_errors, reasons, findings, targets)


def _numbers(column: Any) -> Array:
    numbers: Any = pd.to_numeric(column, errors="coerce")
    return numbers.to_numpy(dtype=float, na_value=np.nan)


def _first_reason(rows: Any, columns: Sequence[str]) -> Array:
    """For each row the first of the columns that says something other than ok, as a person writes it."""
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
