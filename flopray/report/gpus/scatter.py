"""Efficiency of the forward pass against that of the backward pass, with the clusters that the points form."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, KDTree

from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import EFFICIENCY, PUBLISHED, REST, Frame
from flopray.report.gpus.look import Look, set_log_axis, with_bars
from flopray.report.gpus.types import bars_said
from flopray.report.plot.figures import write_titles
from flopray.report.plot.scales import Array, display_unit

#: Points belong to one cluster if a chain of points joins them in which each is within this factor of the next in
#: both efficiencies.
CLUSTER_FACTOR = 1.5
_WIDTH_IN, _PANEL_IN = 5.4, 4.0
#: With more shapes than this, as in an MLP's grid, lines through them overlap too much.
_MOST_JOINED = 8
#: Room around the points of a cluster, as a power of ten.
#: Nearer to the left edge than this share of the width, a label of a cluster goes to the right.
_LABEL_SHARE = 0.2
_PAD = 0.055
_POINT = ["source", "gpu", "precision", "shape"]


def draw_scatter(comparison: Comparison) -> Figure | None:
    """The figure, None where no point has both efficiencies.

    Clusters are single linkage on logarithms, over points that the audit calls neither impossible nor implausible. A
    point whose backward pass has no value is left out: the dot plots show it as a hole.
    """
    points = pairs(comparison)
    if points.empty:
        return None
    look = Look(comparison, size_pt=5.0)
    figure = Figure(figsize=(_WIDTH_IN, 1.0))
    axes = figure.add_axes((0, 0, 1, 1))
    unit = display_unit("FLOP/J", float(points["flops_per_j"].max()))
    for axis, side in ((axes.xaxis, ""), (axes.yaxis, "_backward")):
        ends = with_bars(points[f"flops_per_j{side}"], points[f"energy_rel_error{side}"])
        set_log_axis(axis, ends, unit)
    places = points[["flops_per_j", "flops_per_j_backward"]].to_numpy(float).T
    look.draw_all(
        axes, points, places, places * points[["energy_rel_error", "energy_rel_error_backward"]].to_numpy(float).T
    )
    if len(comparison.shapes) <= _MOST_JOINED:
        _draw_series(axes, points)
    _draw_clusters(axes, look, points)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="0.6", lw=0.7, ls=":", zorder=1, scaley=False, scalex=False)
    look.note("equal efficiency", Line2D([], [], color="0.6", lw=0.7, ls=":"))
    axes.set_xlabel(f"forward {EFFICIENCY.short} ({unit.label})")
    axes.set_ylabel(f"backward {EFFICIENCY.short} ({unit.label})")
    axes.grid(True)
    axes.set_axisbelow(True)
    _finish(figure, axes, look, comparison, points)
    return figure


def pairs(comparison: Comparison) -> Frame:
    """A row for each point with both efficiencies: the forward row, and `*_backward` of the other phase.

    The backward phase of published rows is `backward_and_optimizer`. `severity` is the worse of both rows.
    """
    forward, backward = comparison.of("forward"), comparison.of("backward", REST)
    other = backward[[*_POINT, "flops_per_j", "energy_rel_error", "status", "severity"]]
    both = forward.merge(other, on=_POINT, suffixes=("", "_backward"))
    good = (both["status"] == "ok") & (both["status_backward"] == "ok")
    both = both[good & both["flops_per_j"].gt(0) & both["flops_per_j_backward"].gt(0)]
    severities = list(zip(both["severity"], both["severity_backward"], strict=True))
    worst = [next((s for s in ("impossible", "implausible") if s in pair), "") for pair in severities]
    return both.assign(severity=worst).reset_index(drop=True)


def clusters_of(points: Frame) -> list[Array]:
    """Positions of the points of each cluster of at least two; points with a mark are in none."""
    places = np.flatnonzero((points["severity"] == "").to_numpy())
    if len(places) < 2:
        return []
    where = np.log10(points[["flops_per_j", "flops_per_j_backward"]].to_numpy(float)[places])
    labels = _chained(where, np.log10(CLUSTER_FACTOR))
    groups = [places[labels == label] for label in np.unique(labels)]
    return sorted((group for group in groups if len(group) > 1), key=min)


def _chained(where: Array, reach: float) -> Array:
    """Single linkage, cut at a distance: points that a chain joins in which no step is longer in any coordinate.

    Points of one square with sides of that length are always neighbours, so only touching squares are searched for a
        pair: all distances of tens of thousands of points would not fit into memory.

    Args:
        where: places, shape (k, 2).
        reach: the longest step.

    Returns:
        The number of the cluster of each point, shape (k,).
    """
    # slightly smaller squares, so that rounding joins nothing that is too far apart
    cells, label = np.unique(np.floor(where / (reach * (1 - 1e-9))).astype(int), axis=0, return_inverse=True)
    label = label.ravel()
    trees: list[Any] = [KDTree(where[label == cell]) for cell in range(len(cells))]
    near = KDTree(cells).query_pairs(1, p=np.inf)
    joined = [pair for pair in near if trees[pair[0]].count_neighbors(trees[pair[1]], reach, p=np.inf)]
    ones, others = np.array(joined, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(ones)), (ones, others)), shape=(len(cells), len(cells)))
    return connected_components(graph, directed=False)[1][label]


def _draw_series(axes: Axes, points: Frame) -> None:
    """A thin line through the shapes of one GPU at one precision, smallest first."""
    for _, part in points.groupby(["source", "gpu", "precision"]):
        path = part.sort_values("shape_rank")
        axes.plot(path["flops_per_j"], path["flops_per_j_backward"], color="0.75", lw=0.6, zorder=1.5)


def _draw_clusters(axes: Axes, look: Look, points: Frame) -> None:
    """Outline each cluster, and say at its upper left which precisions it holds."""
    circle = np.linspace(0, 2 * np.pi, 33)
    ring = _PAD * np.stack([np.cos(circle), np.sin(circle)], axis=1)
    for group in clusters_of(points):
        where = np.log10(points[["flops_per_j", "flops_per_j_backward"]].to_numpy(float)[group])
        cloud = (where[:, None, :] + ring).reshape(-1, 2)
        edge = 10 ** cloud[ConvexHull(cloud).vertices]
        axes.fill(*edge.T, facecolor="0.5", alpha=0.08, edgecolor="none", zorder=0.5)
        axes.fill(*edge.T, facecolor="none", edgecolor="0.5", lw=0.7, ls="--", zorder=0.6, gid="cluster")
        top = edge[np.argmax(edge[:, 1])]
        names = [name for name in look.comparison.precisions if name in set(points["precision"].iloc[group])]
        label = f"{', '.join(names)} ({len(group)})"
        low, high = np.log10(axes.get_xlim())
        side = "left" if np.log10(top[0]) - low < _LABEL_SHARE * (high - low) else "right"
        axes.annotate(label, top, (0, 2), textcoords="offset points", ha=side, va="bottom", color="0.35", size=6)
        look.note(f"cluster: neighbours within {CLUSTER_FACTOR:g} x", Line2D([], [], color="0.5", lw=0.7, ls="--"))


def _finish(figure: Figure, axes: Axes, look: Look, comparison: Comparison, points: Frame) -> None:
    """Height, place of the panel, titles and legend."""
    bottom = look.legend_height_in(_WIDTH_IN) + 0.42
    figure.set_figheight(bottom + _PANEL_IN + 0.55)
    width_in, height_in = figure.get_size_inches()
    wide = _WIDTH_IN - 0.75
    axes.set_position((0.6 / width_in, bottom / height_in, wide / width_in, _PANEL_IN / height_in))
    parts = [bars_said(points, "energy")]
    parts += ["lines join shapes"] if len(comparison.shapes) <= _MOST_JOINED else []
    parts += ["published backward includes the optimizer"] if (points["source"] == PUBLISHED).any() else []
    write_titles(figure, f"Forward against backward, {comparison.title}", "; ".join(filter(None, parts)))
    look.draw_legend(figure)
