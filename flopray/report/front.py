"""The Pareto front of a search for several objectives: the points that no other beats in all, and their figure."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from flopray.report.gpus.look import set_log_axis, with_bars
from flopray.report.plot.figures import add_axes, write_titles
from flopray.report.plot.scales import Array, DisplayUnit, display_unit, middle_unit
from flopray.units import counted

_FRONT, _OTHERS = "#0072B2", "0.62"
_PANEL_IN, _HIGH_IN, _LEFT_IN, _GAP_IN, _TOP_IN, _FOOT_IN, _ROW_IN = 2.5, 2.2, 0.6, 0.75, 0.55, 0.5, 0.14
_COLUMNS = 3
#: Most points of a front that are named below the figure; the printed table names all.
_NAMED = 16
#: From this ratio of the largest to the smallest value on, an axis is logarithmic.
_SPREAD = 4.0


@dataclass(frozen=True)
class Objective:
    """An axis of the front.

    Attributes:
        title: on the axis, such as `time of train_step`.
        unit: SI unit; empty for a ratio.
        lower_is_better: the direction.
    """

    title: str
    unit: str
    lower_is_better: bool


@dataclass(frozen=True)
class Candidates:
    """The points from which a front is chosen.

    Attributes:
        labels: a short text for each of the k points.
        objectives: what they are judged by, q of them.
        values: in SI units, shape (k, q), all finite.
        rel_errors: half widths of 95 % intervals over the values, shape (k, q), NaN where not known.
    """

    labels: Sequence[str]
    objectives: Sequence[Objective]
    values: Array
    rel_errors: Array

    def costs(self) -> Array:
        """Values with the sign by which less is better, shape (k, q)."""
        return self.values * [1 if objective.lower_is_better else -1 for objective in self.objectives]


def front_of(costs: Array) -> Array:
    """Positions of the points that no other point beats, the best in the first objective first.

    A point is beaten by one that is nowhere worse and somewhere better; equal points all stay.

    Args:
        costs: less is better, shape (k, q), all finite.
    """
    order = np.lexsort(costs.T[::-1])
    chosen: list[int] = []
    for place in order:  # no point is beaten by a later one
        ahead = costs[chosen]
        beaten = (ahead <= costs[place]).all(axis=1) & (ahead < costs[place]).any(axis=1)
        if not beaten.any():
            chosen.append(int(place))
    return np.array(chosen, dtype=int)


def draw_front(found: Candidates, title: str) -> Figure:
    """A panel for each pair of objectives: all points in grey, those of the front in colour and numbered.

    Of two objectives the front is a line; of more, its points may lie behind others in any one panel.

    Args:
        found: the points; at least one.
        title: of the figure.
    """
    front = front_of(found.costs())
    pairs = list(itertools.combinations(range(len(found.objectives)), 2))
    columns, rows = min(_COLUMNS, len(pairs)), -(-len(pairs) // _COLUMNS)
    width_in = max(4.4, _LEFT_IN + columns * (_PANEL_IN + _GAP_IN) - _GAP_IN + 0.2)
    words, key_in = _key(found.labels, front, width_in)
    height_in = _TOP_IN + rows * (_HIGH_IN + _FOOT_IN) + key_in
    figure = Figure(figsize=(width_in, height_in))
    wide = (width_in - _LEFT_IN - 0.2 - (columns - 1) * _GAP_IN) / columns
    for number, (x, y) in enumerate(pairs):
        left = _LEFT_IN + number % columns * (wide + _GAP_IN)
        low = height_in - _TOP_IN - number // columns * (_HIGH_IN + _FOOT_IN) - _HIGH_IN
        axes = add_axes(figure, (left, low, wide, _HIGH_IN))
        _draw_pair(axes, found, front, x, y, line=len(pairs) == 1)
    for text, left_in, low_in in words:
        figure.text(left_in / width_in, low_in / height_in, text, va="bottom", fontsize="small", color="0.25")
    of = f"{len(front)} of {counted(len(found.labels), 'point')} on the front"
    write_titles(figure, title, f"{of}; bars: 95 % intervals; {_better(found, pairs)}")
    return figure


def _draw_pair(axes: Axes, found: Candidates, front: Array, x: int, y: int, *, line: bool) -> None:
    units = []
    for axis, place in ((axes.xaxis, x), (axes.yaxis, y)):
        objective = found.objectives[place]
        units.append(set_axis(axis, with_bars(found.values[:, place], found.rel_errors[:, place]), objective))
        label = f"{objective.title} ({units[-1].label})" if units[-1].label else objective.title
        (axes.set_xlabel if place == x else axes.set_ylabel)(label)
    others = np.setdiff1d(np.arange(len(found.values)), front)
    for places, colour, size, order in ((others, _OTHERS, 2.5, 2), (front, _FRONT, 4.0, 4)):
        values = found.values[places]
        bars = np.nan_to_num(found.rel_errors[places]) * np.abs(values)
        style: Any = {"ms": size, "elinewidth": 0.7, "zorder": order, "gid": "front" if order > 2 else "others"}
        axes.errorbar(values[:, x], values[:, y], yerr=bars[:, y], xerr=bars[:, x], fmt="o", color=colour, **style)
    if line:
        directions = (found.objectives[x].lower_is_better, found.objectives[y].lower_is_better)
        draw_staircase(axes, found.values[front][:, [x, y]], directions, color=_FRONT)
    left, below = (found.objectives[place].lower_is_better for place in (x, y))
    place: Any = {"xytext": (-3 if left else 3, -2.5 if below else 2.5), "textcoords": "offset points"}
    place |= {"ha": "right" if left else "left", "va": "top" if below else "bottom"}
    for number, at in enumerate(found.values[front[:_NAMED]][:, [x, y]], start=1):
        # on the better side, where no other point can be
        axes.annotate(str(number), tuple(at), fontsize="small", color=_FRONT, zorder=5, **place)
    axes.grid(True)
    axes.set_axisbelow(True)


def draw_staircase(axes: Axes, points: Array, lower_is_better: tuple[bool, bool], *, color: str) -> None:
    """A front as a staircase: between two of its points nothing better was found; its ends are straight.

    Args:
        axes: whose limits are set.
        points: of the front, the best in x first, shape (k, 2).
        lower_is_better: the directions of x and y.
        color: of the line.
    """
    end_x, end_y = (
        limits[1] if lower else limits[0]
        for limits, lower in zip((axes.get_xlim(), axes.get_ylim()), lower_is_better, strict=True)
    )
    at_x = np.concatenate([points[:1, 0], points[:, 0], [end_x]])
    at_y = np.concatenate([[end_y], points[:, 1], points[-1:, 1]])
    axes.plot(at_x, at_y, color=color, lw=0.9, drawstyle="steps-post", zorder=3, gid="front line")


def set_axis(axis: Any, values: Array, objective: Objective, *, log: bool | None = None) -> DisplayUnit:
    """A logarithmic scale where values differ by factors, else a linear one; returns the unit of its ticks.

    Args:
        axis: `Axes.xaxis` or `Axes.yaxis`.
        values: all that it must show, in SI units.
        objective: what it shows.
        log: the scale, whatever the values are.
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    unit = objective.unit or "%"
    if low > 0 and (high / low >= _SPREAD if log is None else log):
        shown = display_unit("%", high) if unit == "%" else middle_unit(unit, values)
        set_log_axis(axis, values, shown)
        return shown
    shown = display_unit(unit, high)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    axis.axes.set(**{f"{axis.axis_name}lim": (low - room, high + room)})
    ticks: Any = MaxNLocator(5).tick_values((low - room) / shown.factor, (high + room) / shown.factor)
    steps = np.asarray(ticks) * shown.factor
    axis.set_major_locator(FixedLocator(steps[(low - room <= steps) & (steps <= high + room)].tolist()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: shown.tick(value)))
    axis.set_minor_locator(NullLocator())
    return shown


def _better(found: Candidates, pairs: Sequence[tuple[int, int]]) -> str:
    if len(pairs) > 1:
        lower = [objective.title for objective in found.objectives if objective.lower_is_better]
        return "lower is better" if len(lower) == len(found.objectives) else "see the axes for what is better"
    x, y = (objective.lower_is_better for objective in found.objectives)
    return f"{'lower' if y else 'upper'} {'left' if x else 'right'} is better"


def _key(labels: Sequence[str], front: Array, width_in: float) -> tuple[list[tuple[str, float, float]], float]:
    """The numbers in the panels explained: texts with their places in inches, and the total height."""
    named = [f"{number}  {labels[place]}" for number, place in enumerate(front[:_NAMED], start=1)]
    if len(front) > _NAMED:
        named.append(f"... and {len(front) - _NAMED} more")
    longest = max(map(len, named))
    columns = max(1, min(len(named), int((width_in - 0.3) / (0.058 * longest + 0.2))))
    named = [textwrap.shorten(name, int((width_in - 0.3) / columns / 0.058), placeholder=" ...") for name in named]
    lines = -(-len(named) // columns)
    wide = (width_in - 0.3) / columns
    texts = [
        (name, 0.2 + place // lines * wide, 0.08 + (lines - 1 - place % lines) * _ROW_IN)
        for place, name in enumerate(named)
    ]
    return texts, 0.12 + lines * _ROW_IN
