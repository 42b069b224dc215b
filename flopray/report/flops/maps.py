"""Maps of the three overheads over width d and tokens m, a row for each device, one scale for each overhead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flopray.report.flops.data import Counted
from flopray.report.plot.figures import add_axes, add_colour_bar, is_one_value, write_titles
from flopray.report.plot.scales import Array, DisplayUnit, ValueScale, display_unit
from flopray.report.surface.data import NOT_MEASURED, Grid, SurfaceSet
from flopray.report.surface.legend import Marks
from flopray.report.surface.panels import FLAT_SHARE, View, draw_flat
from flopray.report.surface.plots import PHASE_TITLES
from flopray.report.surface.rows import MLP_AXES
from flopray.report.surface.selection import Metric

#: Columns of the records as they are drawn; the Greek names are those of flopmetrics.
OVERHEADS = (
    Metric("omega", "gemm_overhead", "GEMM overhead ω (%)", "ω", "%", None, (), signed=True),
    Metric("rho", "splitk_per_element", "reduction per element ρ", "ρ", "", None, (), signed=True),
    Metric("kappa", "activation_overhead", "activation overhead κ", "κ", "", None, (), signed=True),
)
_PANEL_IN, _LEFT_IN, _GAP_IN, _TOP_IN, _BOTTOM_IN, _ROW_GAP_IN = 1.60, 0.56, 0.62, 0.88, 0.46, 0.55
_FONT_PT = 8.0
#: Values that differ by less than this share get one colour: a scale never spreads less than a tenth over its colours.
_ONE_COLOUR = 0.01


@dataclass(frozen=True)
class _Row:
    """One device's maps: its rows at one number of layers, and the axes of its grid."""

    title: str
    rows: Any
    n_layers: int
    widths: Array
    tokens: Array


def layers_for(rows: pd.DataFrame, wanted: int | None) -> int:
    """The number of layers to show: the wanted one where it was counted, else the largest that was."""
    present = sorted(rows["n_layers"].astype(int).unique().tolist())
    return wanted if wanted is not None and wanted in present else present[-1]


def draw_maps(
    groups: Sequence[Counted], phase: str, *, log: bool, min_width: int, n_layers: int | None
) -> Figure | None:
    """ω, ρ and κ of a phase over d and m.

    Args:
        groups: a row of maps for each; those that were not counted at this phase or from `min_width` on are left out.
        phase: one of `flopray.records.PHASES`.
        log: logarithmic colours (linear below the smallest value where zero or negative ones occur).
        min_width: least width that is drawn, which also sets the scales.
        n_layers: of the maps, see `layers_for`.

    Returns:
        The figure; None where no group has at least two widths and two token counts to draw.
    """
    drawn = [row for group in groups if (row := _row(group, phase, min_width, n_layers)) is not None]
    shown = [metric for metric in OVERHEADS if any(row.rows[metric.column].notna().any() for row in drawn)]
    if not drawn or not shown:
        return None
    high = FLAT_SHARE * _PANEL_IN
    height_in = _TOP_IN + len(drawn) * high + (len(drawn) - 1) * _ROW_GAP_IN + _BOTTOM_IN
    figure = Figure(figsize=(_LEFT_IN + len(shown) * (_PANEL_IN + _GAP_IN), height_in))
    for column, metric in enumerate(shown):
        values = np.concatenate([row.rows[metric.column].to_numpy(float) for row in drawn])
        scale, unit = _scale(values, log), display_unit("%", 1.0) if metric.unit == "%" else DisplayUnit(1.0, "")
        left_in = _LEFT_IN + column * (_PANEL_IN + _GAP_IN)
        for index, row in enumerate(drawn):
            bottom_in = height_in - _TOP_IN - high - index * (high + _ROW_GAP_IN)
            axes = _draw_map(figure, (left_in, bottom_in, _PANEL_IN, high), row, metric, scale, unit, values)
            axes.set_title(metric.title if index == 0 else "", pad=4)
            axes.set_xlabel("width d" if index == len(drawn) - 1 else "")
            axes.set_ylabel("" if column else "tokens m")
            axes.tick_params(labelleft=column == 0)
            if column == 0:
                above_in = 0.24 if index == 0 else 0.06
                place = (_LEFT_IN / figure.get_figwidth(), (bottom_in + high + above_in) / height_in)
                figure.text(*place, row.title, va="bottom", color="0.25")
    parts = [f"{'log' if log else 'linear'} scale", *([f"d ≥ {min_width}"] if min_width else [])]
    write_titles(figure, f"Executed beyond the closed form, {PHASE_TITLES[phase]}", "  ·  ".join(parts + _holes(drawn)))
    return figure


def _row(group: Counted, phase: str, min_width: int, n_layers: int | None) -> _Row | None:
    rows: Any = group.of(phase)
    rows = rows[rows["width"] >= min_width]
    if rows.empty:
        return None
    n = layers_for(rows, n_layers)
    widths, tokens = (np.sort(rows[name].astype(int).unique()) for name in ("width", "tokens"))
    if min(len(widths), len(tokens)) < 2:
        return None
    return _Row(f"{group.title}, {MLP_AXES.panel_text(n)}", rows[rows["n_layers"] == n], n, widths, tokens)


def _holes(rows: Sequence[_Row]) -> list[str]:
    incomplete = any(len(row.rows) < len(row.widths) * len(row.tokens) for row in rows)
    return ["pale cells were not counted"] if incomplete else []


def _draw_map(
    figure: Figure,
    box: tuple[float, float, float, float],
    row: _Row,
    metric: Metric,
    scale: ValueScale,
    unit: DisplayUnit,
    values: Array,
) -> Axes:
    """One map and its colour bar, which ends at the values of the column; a single value needs no bar."""
    surfaces = _surface_set(row, metric)
    view = View(surfaces, scale, unit, Marks.of(surfaces), _PANEL_IN, _FONT_PT)
    axes = add_axes(figure, box)
    draw_flat(axes, surfaces.grids[0], view)
    if said := _single_value_text(surfaces.grids[0].values, unit):
        # one colour means nothing by itself
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 2.0}
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", va="center", bbox=ground)
    if not _nearly_one(values[np.isfinite(values)]):
        add_colour_bar(figure, (box[0] + box[2] + 0.07, box[1], 0.09, box[3]), scale, unit, values)
    return axes


def _nearly_one(finite: Array) -> bool:
    """Whether values differ by so little that no colour would show it."""
    return len(finite) > 0 and bool(np.ptp(finite) <= _ONE_COLOUR * np.abs(finite).max())


def _single_value_text(values: Array, unit: DisplayUnit) -> str:
    """The value of a map of one colour, such as `15.0 everywhere` or `14.985 to 15`; empty for any other map."""
    finite = values[np.isfinite(values)]
    if not _nearly_one(finite):
        return ""
    if is_one_value(finite):
        return f"{unit.text(float(finite[0]))} everywhere"
    return f"{unit.tick(float(finite.min()))} to {unit.tick(float(finite.max()))}"


def _surface_set(row: _Row, metric: Metric) -> SurfaceSet:
    """The map as the surfaces draw one: cells without a value are holes."""
    values = (
        row.rows.pivot_table(metric.column, index="tokens", columns="width", aggfunc="last")
        .reindex(index=row.tokens, columns=row.widths)
        .to_numpy(float)
    )
    reasons = np.where(np.isfinite(values), "", NOT_MEASURED).astype(object)
    none: Any = np.frompyfunc(lambda _: (), 1, 1)(values)
    unknown = np.full(values.shape, np.nan)
    grid = Grid(row.n_layers, values, unknown, reasons, none, unknown, unknown, none)
    return SurfaceSet(metric, "", "", "", "", MLP_AXES, row.widths, row.tokens, (grid,), "", "", "")


def _scale(values: Array, log: bool) -> ValueScale:
    """A scale that does not spread differences of less than a tenth over all colours."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    if log and low > 0:
        return ValueScale.fitting(np.array([low, max(high, 1.1 * low)]), log=True, signed=False)
    if log:
        # a few values near zero would take most of the colours
        finite = finite[(finite == 0) | (np.abs(finite) >= 1e-4 * np.abs(finite).max())]
    return ValueScale.fitting(finite, log=log, signed=True)
