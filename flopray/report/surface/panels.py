"""The two pictures of one grid: a heat map and a 3-D surface, both with holes and audit findings marked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from flopray.report.plot.figures import Style, set_measured_axis
from flopray.report.plot.scales import Array, DisplayUnit, ValueScale, axis_ticks, cell_edges, spacing_of
from flopray.report.surface.axes import letter_of
from flopray.report.surface.data import NOT_MEASURED, Grid, SurfaceSet
from flopray.report.surface.legend import Marks, hole_style, imprecise_points, imprecise_style

#: Height of a heat map / its width, in small multiples.
FLAT_SHARE = 0.86
#: Grids up to this size show each measured point as a dot, larger ones only points that no face of the surface touches.
_DOTTED_CELLS = 100
#: Where one n spans less than this share of what another one does, each gets heights of its own.
_LEAST_HEIGHT_SHARE = 0.6
#: Width of a digit and height of a line of an annotation.
_DIGIT_IN, _LINE_IN = 0.068, 0.13
#: The corner of the smallest width and fewest tokens is in front: costs and rates rise away from it and hide little.
_ELEVATION_DEG, _AZIMUTH_DEG = 24, -128


@dataclass(frozen=True)
class View:
    """What the panels of one figure share.

    Attributes:
        surfaces: what is drawn.
        scale: of colours and heights.
        unit: in which values are written.
        marks: of holes and findings.
        panel_in: width of a panel.
        font_pt: size of ordinary text.
    """

    surfaces: SurfaceSet
    scale: ValueScale
    unit: DisplayUnit
    marks: Marks
    panel_in: float
    font_pt: float

    @property
    def spacings(self) -> tuple[str, str]:
        """Of x and of y, `log` or `linear`."""
        return spacing_of(self.surfaces.xs), spacing_of(self.surfaces.ys)

    @property
    def edges(self) -> tuple[Array, Array]:
        """Borders of the cells, shapes (X + 1,) and (Y + 1,)."""
        across, up = self.spacings
        return cell_edges(self.surfaces.xs, across), cell_edges(self.surfaces.ys, up)


def draw_flat(axes: Axes, grid: Grid, view: View) -> None:
    """The heat map of one n: colours, hatched holes, numbers where they fit, marks of findings."""
    across, up = view.edges
    masked = np.ma.masked_invalid(grid.values)
    mesh = axes.pcolormesh(across, up, masked, norm=view.scale.norm(), cmap=view.scale.colour_map(), linewidth=0)
    mesh.set_edgecolor("face")  # no hairlines between cells in vector viewers
    x, y = across.tolist(), up.tolist()
    for reason, hatch in view.marks.hatches.items():
        cells = [
            Rectangle((x[j], y[i]), x[j + 1] - x[j], y[i + 1] - y[i])
            for i, j in np.argwhere(grid.reasons == reason).tolist()
        ]
        axes.add_collection(PatchCollection(cells, label=reason, **hole_style(hatch)))
    set_measured_axis(axes.xaxis, view.surfaces.xs, view.spacings[0], 0.30 / view.panel_in * 1.15)
    set_measured_axis(axes.yaxis, view.surfaces.ys, view.spacings[1], 0.09)
    axes.set_xlim(across[0], across[-1])
    axes.set_ylim(up[0], up[-1])
    axes.set_xlabel(view.surfaces.axes.x.title)
    _annotate(axes, grid, view)
    _mark_findings(axes, grid, view)


def _annotate(axes: Axes, grid: Grid, view: View) -> None:
    """Write each value into its cell when those of all panels fit, with as many digits in all of them."""
    digits = _digits(view)
    if digits is None:
        return
    values: Any = grid.values
    colours = ScalarMappable(view.scale.norm(), view.scale.colour_map())
    font_pt = view.font_pt - 1.5
    for i, j in np.argwhere(np.isfinite(values)).tolist():
        text = view.unit.text(values[i, j], digits)
        red, green, blue, _ = colours.to_rgba(values[i, j])
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        x, y = float(view.surfaces.xs[j]), float(view.surfaces.ys[i])
        axes.text(x, y, text, ha="center", va="center", fontsize=font_pt, color="white" if dark else "black")


def _digits(view: View) -> int | None:
    """Significant digits with which the values of all panels fit into their cells, a digit's width between them."""
    rows, columns = view.surfaces.grids[0].values.shape
    if FLAT_SHARE * view.panel_in / rows < _LINE_IN * 1.5:
        return None
    values = view.surfaces.values()
    seen = values[np.isfinite(values)].tolist()
    for digits in (3, 2):
        longest = max((len(view.unit.text(value, digits)) for value in seen), default=0)
        if view.panel_in / columns >= _DIGIT_IN * (longest + 1):
            return digits
    return None


def _mark_findings(axes: Axes, grid: Grid, view: View) -> None:
    """A mark in the upper right corner of each cell with a finding, one in the lower right of an imprecise value."""
    across, up = view.edges
    rows, columns = grid.values.shape
    size_pt = float(np.clip(72 * view.panel_in / max(rows, columns) * 0.3, 2.0, 4.5))
    x_edges, y_edges = across.tolist(), up.tolist()
    for (i, j), findings in np.ndenumerate(grid.findings):
        if np.isfinite(grid.values[i, j]) and (mark := view.marks.mark_of(findings, size_pt)):
            x = _between(x_edges[j], x_edges[j + 1], 0.86 if columns <= 8 else 0.7, view.spacings[0])
            y = _between(y_edges[i], y_edges[i + 1], 0.86 if rows <= 8 else 0.7, view.spacings[1])
            axes.scatter(x, y, gid="finding", zorder=3, **mark)
    share = 0.1 if max(rows, columns) <= 8 else 0.2
    for i, j in imprecise_points(grid):
        x = _between(x_edges[j], x_edges[j + 1], 1 - share, view.spacings[0])
        y = _between(y_edges[i], y_edges[i + 1], share, view.spacings[1])
        axes.scatter(x, y, gid="imprecise", zorder=3, **imprecise_style(size_pt))


def _between(low: float, high: float, share: float, spacing: str) -> float:
    return low * (high / low) ** share if spacing == "log" else low + share * (high - low)


def draw_depth(axes: Any, grid: Grid, view: View) -> None:
    """The surface of one n; holes are hatched footprints on the floor."""
    scale, surfaces = view.scale, view.surfaces
    across, up = (
        np.log10(v) if s == "log" else v.astype(float)
        for v, s in zip((surfaces.xs, surfaces.ys), view.spacings, strict=True)
    )
    d, m = np.meshgrid(across, up)
    heights = scale.place(grid.values)
    colours = ScalarMappable(scale.norm(), scale.colour_map())
    faces = colours.to_rgba(_face_values(grid.values, scale))
    style: Style = {"rstride": 1, "cstride": 1, "shade": False, "antialiased": True}
    axes.plot_surface(d, m, heights, facecolors=faces, edgecolor=(0, 0, 0, 0.35), linewidth=0.25, zorder=2, **style)
    seen = np.isfinite(grid.values)
    dotted = seen if seen.size <= _DOTTED_CELLS else seen & ~_on_a_face(seen)
    if dotted.any():
        axes.scatter(d[dotted], m[dotted], heights[dotted], s=3, color="0.15", depthshade=False, zorder=3)
    lifted = heights_of(grid, scale) if has_own_heights(view) else scale
    floor, ceiling = lifted.place([lifted.low, lifted.high])
    axes.set_zlim(floor, ceiling)
    _draw_floor_holes(axes, grid, view, float(floor))
    for (i, j), findings in np.ndenumerate(grid.findings):
        if seen[i, j] and (mark := view.marks.mark_of(findings, 3.5)):
            axes.scatter(d[i, j], m[i, j], heights[i, j], depthshade=False, zorder=4, **mark)
    for i, j in imprecise_points(grid):
        axes.scatter(d[i, j], m[i, j], heights[i, j], depthshade=False, zorder=5, **imprecise_style(3.0))
    _set_depth_axes(axes, view, lifted, named=grid is surfaces.grids[0])


def has_own_heights(view: View) -> bool:
    """Whether each n has separate heights and ticks; colours stay shared.

    On a linear scale few layers would look flat beside many; on a logarithmic one they keep their form.
    """
    spans = [np.ptp(finite) for grid in view.surfaces.grids if len(finite := grid.values[np.isfinite(grid.values)])]
    return view.scale.kind == "linear" and min(spans, default=0) < _LEAST_HEIGHT_SHARE * max(spans, default=0)


def heights_of(grid: Grid, scale: ValueScale) -> ValueScale:
    """The linear scale of one n alone; the shared one where it has no two values."""
    finite = grid.values[np.isfinite(grid.values)]
    return scale if len(finite) < 2 or np.ptp(finite) == 0 else replace(scale, low=finite.min(), high=finite.max())


def _face_values(values: Array, scale: ValueScale) -> Array:
    """The value that colours each face, at the face's first corner as `plot_surface` reads it, shape (Y, X).

    It is the mean of the face's measured corners on the scale that is drawn, so that a hole does not affect the colours
    of neighbouring faces.
    """
    corners = np.stack([values[:-1, :-1], values[1:, :-1], values[:-1, 1:], values[1:, 1:]])
    masked = np.ma.masked_invalid(scale.place(corners)).mean(axis=0)
    faces = np.full(values.shape, scale.low)
    faces[:-1, :-1] = scale.value_at(masked.filled(float(scale.place(scale.low))))
    return faces


def _on_a_face(seen: Array) -> Array:
    """Which points touch a face that is drawn: one with at least three measured corners, shape (Y, X)."""
    whole = seen[:-1, :-1].astype(int) + seen[1:, :-1] + seen[:-1, 1:] + seen[1:, 1:] >= 3
    padded = np.pad(whole, 1)
    return padded[:-1, :-1] | padded[1:, :-1] | padded[:-1, 1:] | padded[1:, 1:]


def _draw_floor_holes(axes: Any, grid: Grid, view: View, floor: float) -> None:
    edges = [np.log10(e) if s == "log" else e for e, s in zip(view.edges, view.spacings, strict=True)]
    limits = [
        np.log10(v[[0, -1]]) if s == "log" else v[[0, -1]]
        for v, s in zip((view.surfaces.xs, view.surfaces.ys), view.spacings, strict=True)
    ]
    across, up = (np.clip(e, *limit) for e, limit in zip(edges, limits, strict=True))
    for reason, hatch in view.marks.hatches.items():
        if reason == NOT_MEASURED:  # simply not measured: the gap in the surface is enough
            continue
        cells = [
            [
                (across[j], up[i], floor),
                (across[j + 1], up[i], floor),
                (across[j + 1], up[i + 1], floor),
                (across[j], up[i + 1], floor),
            ]
            for i, j in np.argwhere(grid.reasons == reason).tolist()
        ]
        if cells:
            axes.add_collection3d(Poly3DCollection(cells, label=reason, zorder=1, **hole_style(hatch)))


def _set_depth_axes(axes: Any, view: View, heights: ValueScale, *, named: bool) -> None:
    """Ticks at measured values and round heights, thin panes, labels close to their axes.

    The unit of the heights is written once (`named`): in further panels it would touch their neighbours.
    """
    axes.view_init(elev=_ELEVATION_DEG, azim=_AZIMUTH_DEG)
    axes.set_box_aspect((1, 1, 0.75), zoom=1.0)
    for axis, values, spacing in (
        (axes.xaxis, view.surfaces.xs, view.spacings[0]),
        (axes.yaxis, view.surfaces.ys, view.spacings[1]),
    ):
        ticks = axis_ticks(values, spacing, 0.24 if len(view.surfaces.grids) == 1 else 0.33)
        axis.set_ticks(np.log10(ticks) if spacing == "log" else ticks, labels=[str(tick) for tick in ticks])
    ticks = heights.ticks(5)
    axes.zaxis.set_ticks(heights.place(ticks), labels=[view.unit.tick(tick) for tick in ticks])
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
        axis._axinfo["grid"].update(color="0.88", linewidth=0.4)
    longest = max((len(view.unit.tick(tick)) for tick in ticks), default=0)
    for axis, name, pad in (
        (axes.xaxis, letter_of(view.surfaces.axes.x), -3.5),
        (axes.yaxis, letter_of(view.surfaces.axes.y), -3.5),
        (axes.zaxis, view.unit.label * named, -0.5),
    ):
        axis.set_tick_params(pad=pad)
        axis.set_rotate_label(False)
        axis.labelpad = -6.0 if axis is not axes.zaxis else -9.5 + 1.8 * longest
        axis.set_label_text(name, rotation=90 if axis is axes.zaxis else 0)
