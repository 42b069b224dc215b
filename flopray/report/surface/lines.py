"""Line plots of a `SurfaceSet` whose grid has one value on an axis: one line for each panel, with error bars."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flopray.report.plot.figures import Style, add_axes, set_measured_axis, set_value_axis, write_titles
from flopray.report.plot.scales import SEQUENTIAL_MAP, Array, DisplayUnit, ValueScale, display_unit, spacing_of
from flopray.report.surface.axes import equation, joined
from flopray.report.surface.data import Grid, SurfaceSet
from flopray.report.surface.legend import Marks, draw_legend, hole_marker_style, imprecise_style, legend_height_in
from flopray.report.surface.plots import interval_of, titles

_WIDTH_IN, _PANEL_IN = 7.2, (2.55, 2.1)
#: Share of a panel below all values where holes are marked.
_FOOT = 0.12
#: A strip of points beside a mean: the value on each board.
_STRIP: Style = {"marker": ".", "ls": "none", "markersize": 3.4, "mew": 0, "alpha": 0.75, "gid": "boards"}
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


def draw_lines(surfaces: SurfaceSet) -> Figure:
    """The metric over the axis that has several values, on a linear scale (left) and a log scale (right).

    Where both axes have one value, the metric over the panels. Error bars are the 95 % intervals of the records; a
    missing point breaks its line and is marked at the foot of the panel.

    Args:
        surfaces: at least one value; at most one axis with several values, or several panels.
    """
    marks = Marks.of(surfaces)
    legend_in = legend_height_in(marks, _WIDTH_IN)
    wide, high = _PANEL_IN
    figure = Figure(figsize=(_WIDTH_IN, 0.5 + legend_in + high + 0.72))
    name, places, lines, fixed = _lines(surfaces)
    unit = display_unit(surfaces.metric.unit, float(np.nanmax(np.abs(surfaces.values()))))
    for index, log in enumerate((False, True)):
        axes = add_axes(figure, (0.62 + index * (wide + 0.62), 0.5 + legend_in, wide, high))
        _draw_panel(axes, surfaces, places, lines, unit, log)
        axes.set_xlabel(name)
        axes.set_title(f"{'log' if log else 'linear'} scale")
        axes.set_ylabel(f"{surfaces.metric.short} ({unit.label})" if index == 0 else "")
    if len(lines) > 1:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        corner = ((0.62 + 2 * wide + 0.62 + 0.08) / _WIDTH_IN, (0.5 + legend_in + high) / figure.get_figheight())
        figure.legend(handles, labels, loc="upper left", bbox_to_anchor=corner, borderaxespad=0.0, handlelength=1.4)
    interval = ""
    if any(np.isfinite(grid.rel_errors).any() for grid in lines.values()):
        interval = f"bars: 95 % intervals {interval_of(surfaces)}"
    write_titles(figure, *titles(surfaces, fixed, interval))
    draw_legend(figure, marks, as_points=True)
    return figure


def _lines(surfaces: SurfaceSet) -> tuple[str, Array, dict[str, Grid], str]:
    """The horizontal axis, its values, a grid of one row for each line, and what is fixed."""
    axes, xs, ys = surfaces.axes, surfaces.xs, surfaces.ys
    by_panel = {equation(axes.panel, grid.panel): grid for grid in surfaces.grids}
    only = equation(axes.panel, surfaces.grids[0].panel) if len(surfaces.grids) == 1 else ""
    if len(xs) > 1:
        return axes.x.title, xs, by_panel, joined(only, equation(axes.y, ys[0]))
    if len(ys) > 1:
        return axes.y.title, ys, by_panel, joined(only, equation(axes.x, xs[0]))
    panels = np.array([grid.panel for grid in surfaces.grids])
    parts = {
        name: np.concatenate([getattr(grid, name) for grid in surfaces.grids], axis=1)
        for name in ("values", "rel_errors", "reasons", "findings", "targets", "window_rel_errors", "on_boards")
    }
    return (
        axes.panel.title,
        panels,
        {"": Grid(panel=0, **parts)},
        joined(equation(axes.x, xs[0]), equation(axes.y, ys[0])),
    )


def _draw_panel(
    axes: Axes, surfaces: SurfaceSet, places: Array, lines: dict[str, Grid], unit: DisplayUnit, log: bool
) -> None:
    marks = Marks.of(surfaces)
    colours = matplotlib.colormaps[SEQUENTIAL_MAP](np.linspace(0.0, 0.85, len(lines)))
    spread = [_with_bars(grid) for grid in lines.values()]
    scale = ValueScale.fitting(np.concatenate(spread), log=log, signed=surfaces.metric.signed)
    for index, (label, grid) in enumerate(lines.items()):
        values, errors = grid.values.ravel(), (np.abs(grid.values) * grid.rel_errors).ravel()
        style: Style = {"marker": _MARKERS[index % len(_MARKERS)], "markersize": 3.5, "capsize": 2}
        bars = np.nan_to_num(errors) if np.isfinite(errors).any() else None
        axes.errorbar(places, values, yerr=bars, color=colours[index], label=label, elinewidth=0.8, **style)
        for spot, strip in zip(_beside(places), grid.on_boards.ravel(), strict=True):
            axes.plot([spot] * len(strip), strip, color=colours[index], **_STRIP)
        _mark(axes, grid, places, marks, index / max(len(lines), 1))
    set_value_axis(axes, scale, unit, _FOOT if marks.hatches else 0.0)
    set_measured_axis(axes.xaxis, places, spacing_of(places), 0.12)
    axes.grid(True)
    axes.set_axisbelow(True)


def _beside(places: Array) -> Array:
    """Places of the strips of boards: a little to the right of their means, shape (k,)."""
    if spacing_of(places) == "log":
        return places * (places[-1] / places[0]) ** 0.012
    return places + 0.012 * (np.ptp(places) or 1.0)


def _with_bars(grid: Grid) -> Array:
    """Values and both ends of their error bars, so that the scale holds them; ends at or below zero are left out."""
    errors = np.nan_to_num(np.abs(grid.values) * grid.rel_errors)
    ends = np.concatenate([(grid.values - errors).ravel(), grid.values.ravel(), (grid.values + errors).ravel()])
    held = np.where(np.sign(ends) == np.sign(np.tile(grid.values.ravel(), 3)), ends, np.nan)
    return np.concatenate([held, *(np.array(strip, float) for strip in grid.on_boards.ravel())])


def _mark(axes: Axes, grid: Grid, places: Array, marks: Marks, share: float) -> None:
    """Marks of holes along the foot of the panel, one level for each line, and marks of findings at their points."""
    for place, value, reason, findings in zip(
        places, grid.values.ravel(), grid.reasons.ravel(), grid.findings.ravel(), strict=True
    ):
        if reason:
            spot = axes.get_xaxis_transform()
            axes.scatter(
                place,
                0.03 + _FOOT * share,
                transform=spot,
                gid="hole",
                **hole_marker_style(marks.points[reason]),
            )
        if np.isfinite(value) and (mark := marks.mark_of(findings, 4.0)):
            axes.scatter(place, value, gid="finding", zorder=4, **mark)
    for spot, value in zip(places[grid.above_target().ravel()], grid.values[grid.above_target()], strict=True):
        axes.scatter(spot, value, gid="imprecise", zorder=5, **imprecise_style(3.5))
