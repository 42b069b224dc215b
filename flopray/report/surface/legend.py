"""How holes and audit findings are marked in a figure, and the legend that explains the marks."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path as MarkerPath

from flopray.report.plot.figures import Style
from flopray.report.surface.data import NOT_MEASURED, Grid, SurfaceSet

#: Hatches and greys of the reasons that have a name in the records; other reasons take the spare hatches in turn.
_HATCHES = {
    NOT_MEASURED: "",
    "out of memory": "////",
    "unsupported": "xxxx",
    "failed": "....",
    "no energy source": "\\\\\\\\",
    "no counter permission": "----",
    "not requested": "||||",
}
_SPARE_HATCHES = ("++++", "oo", "//..", "\\\\..", "**")
_HOLE_MARKERS = ("x", "+", "1", "2", "3", "4")
_MOST_MARKED = 5
_REASON_LENGTH = 60
#: Audit severities, worst first; the rims of marks keep them visible on dark and light cells.
_SEVERITIES = ("impossible", "implausible", "note", "")
_SEVERITY_COLOURS = ("#d62728", "#ff9f40", "#ffffff", "#bdbdbd")
_SEVERITY_RIMS = ("white", "0.1", "0.1", "0.1")
_SEVERITY_MARKERS = ("^v<>*", "Dsdh*", "oPX8p", "^v<>*")
_OTHER_FINDINGS = "other findings"
#: The lower right corner of a square: an error above the target, in the corner of a cell or at a point.
_CORNER = MarkerPath([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, -1.0)], closed=True)
_ROW_IN = 0.17


@dataclass(frozen=True)
class Marks:
    """The look of each reason and each finding in one figure, with counts of what is drawn there.

    Attributes:
        hatches: reason to hatch pattern, for cells.
        points: reason to marker, for line plots.
        markers: finding to marker, worst first; others look like `other findings`.
        everywhere: findings of all measured cells, which are stated but not marked on each cell.
        imprecise: what the corner mark of errors above the target means; empty where there is none.
        labels: legend entries with counts, in the order of reasons, imprecise, markers and everywhere.
    """

    hatches: dict[str, str]
    points: dict[str, str]
    markers: dict[str, str]
    everywhere: tuple[str, ...]
    imprecise: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, surfaces: SurfaceSet) -> Marks:
        """The marks that this set needs, the most frequent first."""
        holes = surfaces.hole_counts().most_common()
        spare = iter(_SPARE_HATCHES * (len(holes) // len(_SPARE_HATCHES) + 1))
        hatches = {reason: _HATCHES[reason] if reason in _HATCHES else next(spare) for reason, _ in holes}
        points = {reason: _HOLE_MARKERS[i % len(_HOLE_MARKERS)] for i, (reason, _) in enumerate(holes)}
        counts, total = surfaces.finding_counts(), surfaces.value_count()
        everywhere = tuple(sorted((f for f in counts if counts[f] == total > 1), key=_rank))
        # a cell gets the mark of its worst finding only, so the legend counts these
        drawn = Counter(
            worst
            for grid in surfaces.grids
            for cell in grid.findings[np.isfinite(grid.values)]
            if (worst := _worst(cell, everywhere))
        )
        single = sorted(drawn, key=lambda f: (_rank(f), -drawn[f]))
        named = single if len(single) <= _MOST_MARKED else single[: _MOST_MARKED - 1]
        shapes = [iter(markers) for markers in _SEVERITY_MARKERS]
        markers = {finding: next(shapes[_rank(finding)]) for finding in named}
        labels = [f"{textwrap.shorten(reason, _REASON_LENGTH, placeholder=' …')} ({count})" for reason, count in holes]
        imprecise = _imprecise_label(surfaces)
        labels += [imprecise] if imprecise else []
        labels += [_finding_label(finding, str(drawn[finding])) for finding in named]
        if len(named) < len(single):
            markers[_OTHER_FINDINGS] = "."
            labels.append(f"{_OTHER_FINDINGS} ({sum(drawn[f] for f in single if f not in named)})")
        labels += [_finding_label(finding, "all points") for finding in everywhere]
        return cls(hatches, points, markers, everywhere, imprecise, tuple(labels))

    def worst(self, findings: Sequence[str]) -> str | None:
        """The worst finding of a cell, without those of all cells; None where there is no other."""
        return _worst(findings, self.everywhere)

    def mark_of(self, findings: Sequence[str], size_pt: float) -> Style | None:
        """Keywords of `Axes.scatter` for the mark of a cell that has a value and these findings: that of the worst."""
        worst = self.worst(findings)
        if worst is None:
            return None
        marker = self.markers.get(worst) or self.markers[_OTHER_FINDINGS]
        return {"marker": marker, "s": size_pt**2, "c": _colour(worst), "edgecolors": _rim(worst), "linewidths": 0.5}


def imprecise_style(size_pt: float) -> Style:
    """Keywords of `Axes.scatter` for the mark of a value whose error is above the target."""
    return {"marker": _CORNER, "s": size_pt**2, "c": "0.1", "edgecolors": "white", "linewidths": 0.4}


def imprecise_points(grid: Grid) -> list[tuple[int, int]]:
    """Row and column of each cell whose error is above the target."""
    return [(int(i), int(j)) for i, j in np.argwhere(grid.above_target())]


def _imprecise_label(surfaces: SurfaceSet) -> str:
    """Such as `error above the target of 2 % or not known (14 of 20 points)`."""
    count, target = surfaces.above_target_count(), surfaces.target()
    of_target = f" of {100 * target:.3g} %" if target is not None else ""
    values = surfaces.value_count()
    shown = "all points" if count == values > 1 else f"{count} of {values} points" if values > 1 else str(count)
    unknown = " or not known" if surfaces.has_unknown_errors() else ""
    return f"error above the target{of_target}{unknown} ({shown})" if count else ""


def _worst(findings: Sequence[str], everywhere: Sequence[str]) -> str | None:
    return min((finding for finding in findings if finding not in everywhere), key=_rank, default=None)


def _rank(finding: str) -> int:
    severity = finding.partition(":")[0]
    return _SEVERITIES.index(severity) if severity in _SEVERITIES else len(_SEVERITIES) - 1


def _colour(finding: str) -> str:
    return _SEVERITY_COLOURS[_rank(finding)]


def _rim(finding: str) -> str:
    return _SEVERITY_RIMS[_rank(finding)]


def _finding_label(finding: str, count: str) -> str:
    """`impossible:rate_above_limit` as `audit: rate above limit (impossible, 3)`."""
    severity, _, rule = finding.rpartition(":")
    return f"audit: {rule.replace('_', ' ')} ({', '.join(part for part in (severity, count) if part)})"


def hole_style(hatch: str) -> Style:
    """Keywords of a patch or collection for a hole: light, with a hatch unless simply not measured."""
    return {"facecolor": "#f4f4f4", "edgecolor": "#8c8c8c", "linewidth": 0.0, "hatch": hatch}


def hole_marker_style(marker: str) -> Style:
    """Keywords of `Axes.scatter` for the mark of a hole in a line plot."""
    return {"marker": marker, "s": 16, "color": "0.35", "linewidths": 0.9}


def legend_height_in(marks: Marks, width_in: float) -> float:
    """Inches that the legend takes at the bottom of a figure of this width."""
    return _ROW_IN * _rows(marks, width_in) + 0.06 if marks.labels else 0.0


def draw_legend(figure: Figure, marks: Marks, *, as_points: bool = False) -> None:
    """Put the legend of holes and findings along the bottom of the figure; without marks there is no legend.

    Args:
        figure: gets the legend.
        marks: what it explains.
        as_points: holes are marked by points, as in line plots, and not by hatched cells.
    """
    if not marks.labels:
        return
    handles: list[Artist] = []
    for reason, hatch in marks.hatches.items():
        if as_points:
            handles.append(Line2D([], [], marker=marks.points[reason], color="0.35", linestyle="none"))
        else:
            handles.append(Patch(**{**hole_style(hatch), "linewidth": 0.5}))
    if marks.imprecise:
        handles.append(Line2D([], [], marker=_CORNER, color="0.1", markeredgecolor="white", linestyle="none"))
    handles.extend(
        Line2D(
            [], [], marker=marker, linestyle="none", color=_colour(finding), markeredgecolor=_rim(finding), markersize=5
        )
        for finding, marker in marks.markers.items()
    )
    handles.extend(Line2D([], [], linestyle="none") for _ in marks.everywhere)
    width_in, height_in = figure.get_size_inches()
    figure.legend(
        handles,
        marks.labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.04 / height_in),
        borderaxespad=0.0,
        borderpad=0.0,
        ncol=-(-len(marks.labels) // _rows(marks, width_in)),
        handlelength=1.6,
        columnspacing=1.4,
    )


def _rows(marks: Marks, width_in: float) -> int:
    """Rows of a legend whose columns are as wide as its longest entry."""
    longest_in = 0.45 + 0.062 * max(len(label) for label in marks.labels)
    columns = max(1, min(len(marks.labels), int((width_in - 0.3) / longest_in)))
    return -(-len(marks.labels) // columns)
