"""How far executed FLOPs lie above the closed form, over width d and tokens m, and in which kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flopray.records import KERNEL_CLASSES
from flopray.report.flops.data import Counted, extra_flops
from flopray.report.flops.maps import layers_for
from flopray.report.plot.figures import Style, add_axes, set_measured_axis, set_value_axis, write_titles
from flopray.report.plot.scales import SEQUENTIAL_MAP, DisplayUnit, ValueScale, spacing_of
from flopray.report.surface.plots import PHASE_TITLES
from flopray.report.surface.rows import MLP_AXES

_PERCENT = DisplayUnit(0.01, "%")
_WIDTH_IN, _PANEL_IN = 7.2, (2.22, 1.75)
_LEFT_IN, _GAP_IN, _TOP_IN, _BOTTOM_IN, _ROW_GAP_IN = 0.62, 0.98, 0.68, 0.44, 0.62
_MOST_LINES = 6
_MARKERS = ("o", "s", "D", "^", "v", "P")
#: Colours that differ with any colour vision, https://jfly.uni-koeln.de/color/; grey for what has no class.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
_LABELS = {"gemm": "GEMM padding"}
_AXES = (("width", "width d", "tokens", "m"), ("tokens", "tokens m", "width", "d"))


def draw_excess(groups: Sequence[Counted], phase: str, *, n_layers: int | None) -> Figure | None:
    """executed / model - 1 on a log scale, over d with a line for some m (left) and over m with a line for some d.

    Args:
        groups: a row of panels for each, with one scale for all.
        phase: one of `flopray.records.PHASES`.
        n_layers: of the points that are drawn, see `layers_for`.

    Returns:
        None where no difference is known.
    """
    rows: list[tuple[Counted, Any]] = [(group, group.of(phase)) for group in groups]
    rows = [(group, part[part["n_layers"] == layers_for(part, n_layers)]) for group, part in rows if len(part)]
    values = np.concatenate([part["executed_rel_difference"].to_numpy(float) for _, part in rows])
    if not np.isfinite(values).any():
        return None
    scale = ValueScale.fitting(values, log=True, signed=bool((values <= 0).any()))
    figure = _figure(len(rows))
    for index, (group, part) in enumerate(rows):
        n = int(part["n_layers"].iloc[0])
        for column, (along, label, by, short) in enumerate(_AXES):
            axes = _panel(figure, len(rows), index, column, f"{group.title}, {MLP_AXES.panel_text(n)}")
            _draw_lines(axes, part, along, by, short)
            set_value_axis(axes, scale, _PERCENT)
            axes.set_ylabel("executed / model − 1 (%)" if column == 0 else "")
            axes.set_xlabel(label if index == len(rows) - 1 else "")
    write_titles(figure, f"Executed FLOPs against the closed form, {PHASE_TITLES[phase]}", "log scale")
    return figure


def _draw_lines(axes: Axes, part: Any, along: str, by: str, short: str) -> None:
    """One line for each of some values of the other axis, spread evenly."""
    present = np.sort(part[by].astype(int).unique())
    chosen = present[np.unique(np.linspace(0, len(present) - 1, min(_MOST_LINES, len(present))).round().astype(int))]
    colours = matplotlib.colormaps[SEQUENTIAL_MAP](np.linspace(0.0, 0.9, len(chosen)))
    for value, colour, marker in zip(chosen, colours, _MARKERS, strict=False):
        line = part[part[by] == value].sort_values(along)
        style: Style = {"marker": marker, "markersize": 2.8, "linewidth": 1.0, "label": f"{short} = {value}"}
        axes.plot(line[along].to_numpy(float), line["executed_rel_difference"].to_numpy(float), color=colour, **style)
    _finish(axes, part, along)


def draw_extra(groups: Sequence[Counted], phase: str, *, min_width: int) -> Figure | None:
    """Shares of the kernel classes in the FLOPs beyond the closed form, over d and over m.

    A point's shares add up to 1; a bar is the mean over all points at that width or token count, so that each point
    counts alike. A class that executed less than its closed form has no share.

    Args:
        groups: a row of panels for each.
        phase: one of `flopray.records.PHASES`.
        min_width: least width that takes part.

    Returns:
        The figure; None where nothing was executed beyond the closed form.
    """
    parts = [(group, part) for group in groups if len(part := _from(group.of(phase), min_width))]
    shares = [(group, part, _shares(part)) for group, part in parts]
    shown = [name for name in KERNEL_CLASSES if any(table[name].max() > 1e-4 for _, _, table in shares)]
    if not shown:
        return None
    figure = _figure(len(shares))
    for index, (group, part, table) in enumerate(shares):
        for column, (along, label, _, _) in enumerate(_AXES):
            axes = _panel(figure, len(shares), index, column, group.title)
            _draw_bars(axes, part, table, shown, along)
            axes.set_ylabel("share of extra FLOPs (%)" if column == 0 else "")
            axes.set_xlabel(label if index == len(shares) - 1 else "")
            if column and not index:  # one legend for the figure
                _legend(axes, reverse=True)
    bounds = f"d ≥ {min_width}  ·  " if min_width else ""
    title = f"Where the FLOPs beyond the closed form are, {PHASE_TITLES[phase]}"
    write_titles(figure, title, f"{bounds}mean over points")
    return figure


def _from(rows: Any, min_width: int) -> Any:
    return rows[rows["width"] >= min_width]


def _shares(rows: Any) -> pd.DataFrame:
    extra = extra_flops(rows).clip(lower=0)
    total = extra.sum(axis=1)
    return extra.div(total.where(total > 0), axis=0).fillna(0.0)


def _draw_bars(axes: Axes, part: Any, table: pd.DataFrame, shown: Sequence[str], along: str) -> None:
    means: Any = table.groupby(part[along].to_numpy(int)).mean()
    places = np.arange(len(means))
    floor = np.zeros(len(means))
    for name in shown:
        height = 100 * means[name].to_numpy(float)
        axes.bar(places, height, 0.86, floor, color=_COLOURS[KERNEL_CLASSES.index(name)], label=_LABELS.get(name, name))
        floor = floor + height
    step = max(1, -(-len(places) // 6))
    ticks = places[::-1][::step][::-1]
    axes.set_xticks(ticks, [str(value) for value in means.index.to_numpy()[ticks]])
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.6, len(places) - 0.4)


def _figure(rows: int) -> Figure:
    height_in = _TOP_IN + rows * _PANEL_IN[1] + (rows - 1) * _ROW_GAP_IN + _BOTTOM_IN
    return Figure(figsize=(_WIDTH_IN, height_in))


def _panel(figure: Figure, rows: int, index: int, column: int, title: str) -> Axes:
    """The panel of a row and column; the title of the row is above its left panel."""
    wide, high = _PANEL_IN
    bottom_in = _BOTTOM_IN + (rows - 1 - index) * (high + _ROW_GAP_IN)
    axes = add_axes(figure, (_LEFT_IN + column * (wide + _GAP_IN), bottom_in, wide, high))
    axes.tick_params(labelleft=column == 0)
    if column == 0:
        axes.set_title(title, loc="left", color="0.25")
    return axes


def _finish(axes: Axes, part: Any, along: str) -> None:
    values = np.sort(part[along].astype(int).unique())
    set_measured_axis(axes.xaxis, values, spacing_of(values), 0.16)
    axes.grid(True)
    axes.set_axisbelow(True)
    _legend(axes, reverse=False)


def _legend(axes: Axes, *, reverse: bool) -> None:
    corner = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0, "handlelength": 1.4}
    axes.legend(reverse=reverse, **corner)
