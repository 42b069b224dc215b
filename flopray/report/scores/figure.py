"""The figure of evaluations: scores against the cost of a sample, a panel for each task, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flopray.report.front import Objective, draw_staircase, front_of, set_axis
from flopray.report.gpus.look import with_bars
from flopray.report.plot.figures import add_axes, write_titles
from flopray.report.scores.data import MEAN, Evaluations, Result
from flopray.workloads.evaluation.scores import SHARES

#: Colours of Okabe and Ito, which differ with any colour vision: https://jfly.uni-koeln.de/color/
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">", "p", "h")
_FRONT = "0.35"
#: More panels are not readable on a page; the table has all tasks.
_MOST_PANELS = 12
_COLUMNS = 3
_WIDE_IN, _HIGH_IN, _LEFT_IN, _GAP_IN, _TOP_IN, _FOOT_IN, _ROW_IN = 2.3, 1.9, 0.62, 0.72, 0.78, 0.55, 0.16


def has_values(found: Evaluations) -> bool:
    """Whether there is anything to draw."""
    return any(math.isfinite(result.score) for result in found.results)


def draw_scores(found: Evaluations, title: str) -> Figure:
    """A panel for each task, first the mean of all, where there is one.

    Args:
        found: the evaluations, one with a score at least.
        title: of the figure.
    """
    with_energy = any(math.isfinite(result.energy_per_sample_j) for result in found.results)
    panels = [(MEAN, list(found.means))] if found.means else []
    panels += [(task, [r for r in found.results if r.task == task]) for task in found.tasks]
    panels = [(task, results) for task, results in panels if any(map(_drawn(with_energy), results))]
    left_out, panels = len(panels) - _MOST_PANELS, panels[:_MOST_PANELS]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width_in = max(4.6, _LEFT_IN + columns * (_WIDE_IN + _GAP_IN) - _GAP_IN + 0.2)
    legend = _Legend(found, width_in)
    height_in = _TOP_IN + rows * (_HIGH_IN + _FOOT_IN) + (rows - 1) * 0.2 + legend.height_in
    figure = Figure(figsize=(width_in, height_in))
    wide = (width_in - _LEFT_IN - 0.2 - (columns - 1) * _GAP_IN) / columns
    for number, (task, results) in enumerate(panels):
        left = _LEFT_IN + number % columns * (wide + _GAP_IN)
        low = height_in - _TOP_IN - number // columns * (_HIGH_IN + _FOOT_IN + 0.2) - _HIGH_IN
        axes = add_axes(figure, (left, low, wide, _HIGH_IN))
        _draw_panel(axes, task, [r for r in results if _drawn(with_energy)(r)], legend, with_energy=with_energy)
    legend.draw(figure)
    write_titles(figure, title, _said(found, left_out, with_energy=with_energy))
    return figure


def _drawn(with_energy: bool) -> Any:
    """Whether a result can be drawn in a panel."""
    return lambda result: math.isfinite(result.score) and math.isfinite(_cost(result, with_energy))


def _cost(result: Result, with_energy: bool) -> float:
    return result.energy_per_sample_j if with_energy else result.time_per_sample_s


def _draw_panel(axes: Axes, task: str, results: Sequence[Result], legend: _Legend, *, with_energy: bool) -> None:
    first = results[0]
    share = all(result.metric in SHARES for result in results)
    costs = np.array([_cost(result, with_energy) for result in results])
    errors = np.array([result.energy_rel_error if with_energy else math.nan for result in results])
    scores = np.array([result.score for result in results])
    below = np.nan_to_num(scores - [result.score_low for result in results])
    above = np.nan_to_num([result.score_high for result in results] - scores)
    what, unit = ("energy", "J") if with_energy else ("time", "s")
    shown = set_axis(axes.xaxis, with_bars(costs, errors), Objective(f"{what} per sample", unit, True))
    axes.set_xlabel(f"{what} of a sample ({shown.label})")
    ends = np.stack([scores, scores - below, scores + above])
    shown = set_axis(axes.yaxis, ends, Objective("score", "" if share else "1", not first.higher_is_better), log=False)
    axes.set_ylabel(f"{first.metric} ({shown.label})" if share else first.metric)
    axes.set_title(task, loc="left", fontsize="medium", pad=3)
    for result, x, y, rel, low, high in zip(results, costs, scores, errors, below, above, strict=True):
        colour, marker = legend.look(result)
        bars: Any = {"xerr": None if math.isnan(rel) else rel * x, "yerr": [[max(low, 0.0)], [max(high, 0.0)]]}
        style: Any = {"color": colour, "marker": marker, "ms": 4.2, "elinewidth": 0.8, "zorder": 3}
        axes.errorbar(x, y, **bars, **style, gid="score")
    places = np.stack([costs, scores], axis=1)
    directions = (True, not first.higher_is_better)
    front = front_of(places * [1, 1 if directions[1] else -1])
    draw_staircase(axes, places[front], directions, color=_FRONT)
    axes.grid(True)
    axes.set_axisbelow(True)


def _said(found: Evaluations, left_out: int, *, with_energy: bool) -> str:
    parts = ["bars: 95 % intervals, of scores over their samples", "line: Pareto front"]
    if not with_energy:
        parts.insert(0, "no energy was measured, time instead")
    elif without := sum(r.status == "ok" and math.isnan(r.energy_per_sample_j) for r in found.results):
        parts.append(f"not drawn: {without} without energy")
    if failed := sum(r.status != "ok" for r in found.results):
        parts.append(f"{failed} of {len(found.results)} evaluations failed (see the table)")
    if left_out > 0:
        parts.append(f"{left_out} further tasks are in the table")
    return "; ".join(parts)


class _Legend:
    """A colour for each model and a marker for each way in which it was run."""

    def __init__(self, found: Evaluations, width_in: float) -> None:
        self._models = found.models
        self._ways = list(dict.fromkeys(r.series.removeprefix(r.model).strip() for r in found.results))
        entries: list[tuple[str, Any]] = [(name, {"color": self._colour(name), "marker": "o"}) for name in self._models]
        ways: list[tuple[str, Any]] = [(way, {"color": "0.4", "marker": self._marker(way)}) for way in self._ways]
        self._blocks: list[list[tuple[str, Any]]] = [entries] + ([ways] if len(ways) > 1 else [])
        self._width_in = width_in
        self.height_in = 0.1 + sum(_ROW_IN * self._lines(block) + 0.03 for block in self._blocks)

    def look(self, result: Result) -> tuple[str, str]:
        """Colour and marker of a result."""
        return self._colour(result.model), self._marker(result.series.removeprefix(result.model).strip())

    def draw(self, figure: Figure) -> None:
        """Along the bottom edge."""
        low_in, high_in = 0.05, figure.get_size_inches()[1]
        for block in reversed(self._blocks):
            handles = [Line2D([], [], ls="none", markersize=5, **style) for _, style in block]
            lines = self._lines(block)
            how: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, low_in / high_in), "borderaxespad": 0.0}
            figure.legend(handles, [name for name, _ in block], ncol=-(-len(block) // lines), borderpad=0.0, **how)
            low_in += _ROW_IN * lines + 0.03

    def _colour(self, model: str) -> str:
        return _COLOURS[self._models.index(model) % len(_COLOURS)]

    def _marker(self, way: str) -> str:
        return _MARKERS[self._ways.index(way) % len(_MARKERS)]

    def _lines(self, block: Sequence[tuple[str, Any]]) -> int:
        longest_in = 0.45 + 0.062 * max(len(name) for name, _ in block)
        columns = max(1, min(len(block), int((self._width_in - 0.1) / longest_in)))
        return -(-len(block) // columns)
