"""Figures of a `SurfaceSet`: the 3-D surface and the heat map of each panel, with one scale for all.

Sizes are fixed in inches rather than found by a layout engine: figures of one run then have equal panels, and drawing
needs a single pass.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from flopray.report.boards.means import OF_BOARD, OF_TYPE, OF_WINDOW
from flopray.report.plot.figures import add_axes, add_colour_bar, write_titles
from flopray.report.plot.scales import Array, ValueScale, cell_unit
from flopray.report.surface.axes import letter_of
from flopray.report.surface.data import SurfaceSet
from flopray.report.surface.legend import Marks, draw_legend, legend_height_in
from flopray.report.surface.panels import FLAT_SHARE, View, draw_depth, draw_flat, has_own_heights
from flopray.units import counted

#: More layers than this are in a further figure.
MAX_PANELS = 5
#: Margins around the panels, in inches.
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN, _GAP_IN = 0.60, 0.95, 0.60, 0.46, 0.22
PHASE_TITLES = {
    "forward": "forward pass",
    "backward": "backward pass",
    "forward_backward": "forward and backward pass",
    "optimizer_step": "optimizer step",
    "train_step": "training step",
}


def font_pt_for(panels: int) -> float:
    """Text size of a figure with this many panels: wide figures are printed smaller, so their text is larger."""
    return 8.0 if panels <= 3 else 10.0


def titles(surfaces: SurfaceSet, *extra: str) -> tuple[str, str]:
    """The two lines above a figure: what is shown, and what it was measured on."""
    metric, phase = surfaces.metric, PHASE_TITLES.get(surfaces.phase, surfaces.phase)
    first = f"{metric.title}, {phase}"
    parts = [surfaces.device, surfaces.precision, surfaces.execution, surfaces.variant, *extra, surfaces.filtered]
    if surfaces.of_energy:
        parts.append(_energy_said(surfaces))
    if metric.column in ("flops_per_s", "flops_per_j", "mfu") and surfaces.dispatched:
        parts.append("FLOPs as dispatched")
    return first, "  ·  ".join(part for part in parts if part)


def _energy_said(surfaces: SurfaceSet) -> str:
    """By what energy was measured, and at which temperature it is: `energy by nvml_counter, at 50 °C`."""
    at = f"at {surfaces.energy_at:g} °C" if np.isfinite(surfaces.energy_at) else "as measured"
    return f"energy by {surfaces.energy_source}, {at}" if surfaces.energy_source else f"energy {at}"


def interval_of(surfaces: SurfaceSet) -> str:
    """What the errors of a set are 95 % intervals of; where they are of several kinds, with the points of each."""
    words = {OF_TYPE: f"of the type ({surfaces.boards} boards)", OF_BOARD: f"of the board at {surfaces.energy_at:g} °C"}
    said = {words.get(kind, f"of the {kind}"): count for kind, count in surfaces.intervals.items()}
    if len(said) > 1:
        return ", ".join(f"{kind} in {counted(count, 'point')}" for kind, count in said.items())
    return next(iter(said), f"of the {OF_WINDOW}")


def _means_said(surfaces: SurfaceSet) -> str:
    """Of how many boards values are means, and which; empty where none is."""
    means, values = surfaces.intervals.get(OF_TYPE, 0), sum(surfaces.intervals.values())
    if not means:
        return ""
    where = f" in {means} of {counted(values, 'point')}" if means < values else ""
    return f"mean of {surfaces.boards} boards{where}"


def draw_surfaces(surfaces: SurfaceSet, *, log: bool, scale_values: Array | None = None) -> Figure:
    """The 3-D surface above the heat map for each panel (side by side for a single one), with a shared scale.

    Args:
        surfaces: at least two values of x and of y, at least one value, at most `MAX_PANELS` grids.
        log: logarithmic colours and heights.
        scale_values: the values that the scale must hold, where a set was split over figures; default: its own.
    """
    count = len(surfaces.grids)
    scale_values = surfaces.values() if scale_values is None else scale_values
    scale = ValueScale.fitting(scale_values, log=log, signed=surfaces.metric.signed)
    unit = cell_unit(surfaces.metric.unit, scale_values)
    view = View(
        surfaces, scale, unit, Marks.of(surfaces), {1: 2.5, 2: 2.68, 3: 1.76}.get(count, 2.15), font_pt_for(count)
    )
    figure = _single(view, scale_values) if count == 1 else _multiples(view, scale_values)
    layers = surfaces.axes.panel_text(surfaces.grids[0].panel) if count == 1 else ""
    own = f", own heights for each {letter_of(surfaces.axes.panel)}" if has_own_heights(view) else ""
    scale_text = f"{'log' if log else 'linear'} scale{own}"
    first, second = titles(surfaces, layers, scale_text, _means_said(surfaces))
    write_titles(figure, first, second)
    draw_legend(figure, view.marks)
    return figure


def _single(view: View, scale_values: Array) -> Figure:
    """One n: surface left, heat map right, at the width of a page."""
    size, legend_in = view.panel_in, legend_height_in(view.marks, 7.2)
    height_in = _TOP_IN + size + _BOTTOM_IN + legend_in
    figure = Figure(figsize=(7.2, height_in))
    bottom_in = _BOTTOM_IN + legend_in
    depth = _add_depth_axes(figure, (0.27, bottom_in - 0.33, 3.15, size + 0.46))
    flat = add_axes(figure, (3.85, bottom_in, size - 0.12, size))
    draw_depth(depth, view.surfaces.grids[0], view)
    draw_flat(flat, view.surfaces.grids[0], view)
    flat.set_ylabel(view.surfaces.axes.y.title)
    _add_colour_bar(figure, (3.85 + size, bottom_in, 0.11, size), view, scale_values)
    return figure


def _multiples(view: View, scale_values: Array) -> Figure:
    """Several n: a column each, surface above heat map."""
    size, grids = view.panel_in, view.surfaces.grids
    width_in = _LEFT_IN + len(grids) * size + (len(grids) - 1) * _GAP_IN + _RIGHT_IN
    bottom_in = _BOTTOM_IN + legend_height_in(view.marks, width_in)
    flat_in, depth_in = FLAT_SHARE * size, 1.0 * size
    depth_bottom_in = bottom_in + flat_in + 0.12
    figure = Figure(figsize=(width_in, depth_bottom_in + depth_in + _TOP_IN))
    for index, grid in enumerate(grids):
        left_in = _LEFT_IN + index * (size + _GAP_IN)
        depth = _add_depth_axes(figure, (left_in - 0.12, depth_bottom_in, size + 0.24, depth_in))
        depth.set_title(view.surfaces.axes.panel_text(grid.panel), y=1.0, pad=0)
        draw_depth(depth, grid, view)
        flat = add_axes(figure, (left_in, bottom_in, size, flat_in))
        draw_flat(flat, grid, view)
        if index == 0:
            flat.set_ylabel(view.surfaces.axes.y.title)
        else:
            flat.tick_params(labelleft=False)
    _add_colour_bar(figure, (width_in - _RIGHT_IN + 0.1, bottom_in, 0.11, flat_in), view, scale_values)
    return figure


def _add_depth_axes(figure: Figure, box_in: tuple[float, float, float, float]) -> Axes3D:
    axes = add_axes(figure, box_in, projection="3d", computed_zorder=False)
    assert isinstance(axes, Axes3D)
    axes.patch.set_visible(False)
    return axes


def _add_colour_bar(figure: Figure, box_in: tuple[float, float, float, float], view: View, scale_values: Array) -> None:
    label = f"{view.surfaces.metric.short} ({view.unit.label})"
    add_colour_bar(figure, box_in, view.scale, view.unit, scale_values, label)
