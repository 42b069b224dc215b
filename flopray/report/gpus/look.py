"""The look of GPUs, precisions, sources, audit findings and holes in a figure, and the legend.

A GPU is a marker, a precision a colour. Measured points are filled, published ones hollow. A red cross marks an
impossible point, an orange ring an implausible one; a point without a number is a grey mark at the foot.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import PUBLISHED, Frame
from flopray.report.plot.figures import Style
from flopray.report.plot.scales import Array, DisplayUnit, ValueScale
from flopray.report.surface.legend import hole_marker_style

#: Colours of Okabe and Ito, which differ with any colour vision: https://jfly.uni-koeln.de/color/
COLOURS = {
    "fp32": "#0072B2",
    "tf32": "#009E73",
    "bf16": "#E69F00",
    "fp16": "#AA4499",
    "fp8": "#D55E00",
    "fp8_rowwise": "#56B4E9",
}
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">", "p", "h")
_HOLE_MARKERS = ("x", "+", "1", "2", "3", "4")
_IMPOSSIBLE, _IMPLAUSIBLE = "#d62728", "#ff7f0e"
_LABEL_LENGTH = 70
_ROW_IN = 0.15
#: Share of a panel below all values that holes take.
FOOT = 0.1


@dataclass
class Look:
    """The look of one figure; it notes what was drawn, so that the legend explains only that.

    Attributes:
        comparison: whose GPUs and precisions are drawn.
        size_pt: side of a marker.
        names_gpus: the legend explains the markers of GPUs; not needed where an axis names them.
    """

    comparison: Comparison
    size_pt: float = 4.0
    names_gpus: bool = True
    _drawn: dict[str, Artist] = field(default_factory=dict)
    _holes: dict[str, int] = field(default_factory=dict)

    def marker(self, gpu: str) -> str:
        """The marker of a GPU, the same in every figure of a comparison."""
        return MARKERS[self.comparison.gpus.index(gpu) % len(MARKERS)]

    def draw(self, axes: Axes, x: float, y: float, row: Any, *, yerr: float = np.nan) -> None:
        """A point with its error bars and the mark of its worst finding.

        Args:
            axes: gets the point.
            x: place in SI units or as a category.
            y: the same.
            row: as `gpu_data.tidy` gives it.
            yerr: half width of the 95 % interval; NaN draws none.
        """
        place, bars = np.array([[x], [y]]), np.array([[np.nan], [yerr]])
        self._draw_alike(axes, place, bars, row["precision"], row["gpu"], row["source"])
        self._mark(axes, place, row["severity"])

    def draw_boards(self, axes: Axes, x: float, values: Sequence[float], row: Any) -> None:
        """A strip of small points beside a mean: what the row cost on each board.

        Args:
            axes: gets the points.
            x: place of the strip.
            values: of the boards, in SI units.
            row: whose mean is drawn.
        """
        if len(values) > 1:
            style: Style = {"marker": ".", "ls": "none", "markersize": 3.4, "mew": 0, "zorder": 3.2}
            axes.plot([x] * len(values), values, color=COLOURS[row["precision"]], alpha=0.75, gid="boards", **style)
            self._note("small: each board", Line2D([], [], color="0.3", **style))

    def draw_all(self, axes: Axes, rows: Frame, places: Array, bars: Array) -> None:
        """Draws many points as `draw` does one, equal-looking ones in one call: a grid has tens of thousands.

        Args:
            axes: gets the points.
            rows: as `gpu_data.tidy` gives them, k of them.
            places: x and y in SI units, shape (2, k).
            bars: half widths of the 95 % intervals, shape (2, k); NaN draws none.
        """
        for (precision, gpu, source), where in rows.groupby(["precision", "gpu", "source"], sort=False).indices.items():
            self._draw_alike(axes, places[:, where], bars[:, where], precision, gpu, source)
        for severity, where in rows.groupby("severity", sort=False).indices.items():
            self._mark(axes, places[:, where], str(severity))

    def _draw_alike(self, axes: Axes, places: Array, bars: Array, precision: str, gpu: str, source: str) -> None:
        """Points of one precision, GPU and source."""
        colour, marker = COLOURS[precision], self.marker(gpu)
        face = "white" if source == PUBLISHED else colour
        style: Style = {"markersize": self.size_pt, "markeredgecolor": colour, "markerfacecolor": face}
        _draw_bars(axes, places, bars, colour)
        axes.plot(*places, marker=marker, color=colour, ls="none", mew=0.8, zorder=3.1, **style)
        self._note(precision, Line2D([], [], color=colour, lw=4))
        if self.names_gpus:
            self._note(gpu, Line2D([], [], marker=marker, color="0.3", ls="none", markersize=5))
        if source == PUBLISHED:
            hollow = {"marker": "o", "markerfacecolor": "white", "color": "0.3", "ls": "none", "markersize": 5}
            self._note("hollow: published by flopmetrics", Line2D([], [], **hollow))

    def hole(self, axes: Axes, x: float, reason: str, *, counted: bool = True) -> None:
        """A grey mark at the foot of a panel for a point without a number.

        Args:
            axes: gets the mark.
            x: in data units.
            reason: for the legend.
            counted: false where the point has a mark in another panel already.
        """
        self._holes[reason] = self._holes.get(reason, 0) + counted
        place = list(self._holes).index(reason) % len(_HOLE_MARKERS)
        style = hole_marker_style(_HOLE_MARKERS[place])
        axes.scatter(x, 0.045, transform=axes.get_xaxis_transform(), gid="hole", zorder=3, **style)

    def note(self, label: str, handle: Artist) -> None:
        """An entry of the legend for something that the figure drew itself."""
        self._note(label, handle)

    def draw_legend(self, figure: Figure) -> None:
        """Put the legend along the bottom edge; `legend_height_in` says how much room it takes."""
        width_in, height_in = figure.get_size_inches()
        low_in = 0.05
        for entries in reversed(self._blocks()):
            lines = _lines(entries, width_in)
            figure.legend(
                [handle for _, handle in entries],
                [label for label, _ in entries],
                loc="lower center",
                bbox_to_anchor=(0.5, low_in / height_in),
                borderaxespad=0.0,
                borderpad=0.0,
                ncol=-(-len(entries) // lines),
                handlelength=1.4,
                columnspacing=1.4,
            )
            low_in += _ROW_IN * lines + 0.03

    def legend_height_in(self, width_in: float) -> float:
        """Inches that the legend takes at the bottom of a figure of this width."""
        return 0.08 + sum(_ROW_IN * _lines(entries, width_in) + 0.03 for entries in self._blocks())

    def _mark(self, axes: Axes, places: Array, severity: str) -> None:
        if severity == "impossible":
            style: Style = {"marker": "x", "color": _IMPOSSIBLE, "markersize": self.size_pt + 2, "mew": 1.1}
            axes.plot(*places, ls="none", zorder=4, gid="impossible", **style)
            self._note("audit: impossible", Line2D([], [], ls="none", **style))
        elif severity == "implausible":
            style = {"marker": "o", "color": _IMPLAUSIBLE, "markersize": self.size_pt + 4, "mew": 0.9}
            axes.plot(*places, ls="none", markerfacecolor="none", zorder=4, gid="implausible", **style)
            self._note("audit: implausible", Line2D([], [], ls="none", markerfacecolor="none", **style))

    def _note(self, label: str, handle: Artist) -> None:
        self._drawn.setdefault(label, handle)

    def _blocks(self) -> list[list[tuple[str, Artist]]]:
        """GPUs and precisions; marks and holes with how many there are."""
        short = [*self.comparison.gpus, *self.comparison.precisions]
        names = [(name, self._drawn[name]) for name in short if name in self._drawn]
        marks = [(name, handle) for name, handle in self._drawn.items() if name not in short]
        for place, (reason, count) in enumerate(self._holes.items()):
            style: Any = {"marker": _HOLE_MARKERS[place % len(_HOLE_MARKERS)], "color": "0.35", "ls": "none"}
            text = textwrap.shorten(reason, _LABEL_LENGTH, placeholder=" …")
            marks.append((f"no value: {text} ({count})", Line2D([], [], markersize=4, **style)))
        return [block for block in (names, marks) if block]


def _draw_bars(axes: Axes, places: Array, bars: Array, colour: str) -> None:
    """Error bars with caps as one line for each direction, broken between points.

    `Axes.errorbar` makes a path for each point, which takes seconds for the points of a grid.
    """
    for side, cap in enumerate("|_"):
        known = np.isfinite(bars[side])
        if not known.any():
            continue
        ends = np.stack([places[:, known]] * 2, axis=2)  # shape (2, k, 2)
        ends[side] += bars[side, known, None] * [-1, 1]
        broken = np.pad(ends, ((0, 0), (0, 0), (0, 1)), constant_values=np.nan)
        axes.plot(*broken.reshape(2, -1), color=colour, lw=0.8, zorder=3, gid="bars", solid_capstyle="butt")
        axes.plot(*ends.reshape(2, -1), color=colour, ls="none", marker=cap, markersize=3, mew=0.8, zorder=3)


def _lines(entries: Sequence[tuple[str, Artist]], width_in: float) -> int:
    """Lines of a legend whose columns are as wide as its longest entry."""
    longest_in = 0.45 + 0.052 * max(len(label) for label, _ in entries)
    columns = max(1, min(len(entries), int((width_in - 0.1) / longest_in)))
    return -(-len(entries) // columns)


def with_bars(values: Any, rel_errors: Any) -> Array:
    """Values and both ends of their error bars, NaN where missing, shape (3, k), for the limits of a scale."""
    values, errors = np.asarray(values, dtype=float), np.nan_to_num(np.asarray(rel_errors, dtype=float))
    ends = np.stack([values, values * (1 - errors), values * (1 + errors)])
    return np.where(ends > 0, ends, np.nan)


def set_log_axis(axis: Any, values: Array, unit: DisplayUnit) -> None:
    """A log scale that holds some positive values with a little room, with round ticks in the display unit.

    Args:
        axis: `Axes.xaxis` or `Axes.yaxis`.
        values: in SI units, any shape, NaN where missing.
        unit: in which ticks are written.
    """
    scale = ValueScale.fitting(values, log=True, signed=False)
    factor = (scale.high / scale.low) ** 0.07 * 1.03
    name = axis.axis_name
    axis.axes.set(**{f"{name}scale": "log", f"{name}lim": (scale.low / factor, scale.high * factor)})
    wider = ValueScale("log", scale.low / factor, scale.high * factor)
    axis.set_major_locator(FixedLocator(wider.ticks(5).tolist()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: unit.tick(value)))
    axis.set_minor_locator(NullLocator())
