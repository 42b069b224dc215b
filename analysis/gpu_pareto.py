"""Time against energy of a token, and the points that no other beats in both."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import write_titles
from analysis.gpu_comparison import Comparison
from analysis.gpu_data import MEASURED, Frame, in_order, iter_rows
from analysis.gpu_look import Look, set_log_axis, with_bars
from analysis.scales import Array, display_unit

#: Phases that process tokens as a whole job; their parts would compete with what they are parts of.
PHASES_DRAWN = ("inference", "forward", "train_step", "prefill", "decode")
_WIDTH_IN, _LEFT_IN, _GAP_IN, _PANEL_IN, _COLUMNS = 7.2, 0.55, 0.58, 1.75, 3


def draw_pareto(comparison: Comparison) -> Figure | None:
    """A panel for each phase, None where no point has time and energy of a token.

    A front holds what no other point beats in both, among measured points (published ones where there are no others)
    that the audit calls neither impossible nor implausible: a number that cannot be true would beat everything.
    """
    rows = comparison.of(*PHASES_DRAWN)
    rows = rows[(rows["status"] == "ok") & rows["tokens_per_s"].gt(0) & rows["energy_per_token_j"].gt(0)]
    shown = in_order(rows["phase"].unique())
    if not shown:
        return None
    look = Look(comparison, size_pt=4.5)
    figure = Figure(figsize=(_WIDTH_IN, 1.0))
    panels = [figure.add_axes((0, 0, 1, 1), label=phase) for phase in shown]
    for axes, phase in zip(panels, shown, strict=True):
        _draw_panel(axes, look, rows[rows["phase"] == phase])
        axes.set_title(phase)
    _arrange(figure, look, panels)
    write_titles(
        figure, f"Time and energy of a token, {comparison.title}", "bars: 95 % intervals; lower left is better"
    )
    look.draw_legend(figure)
    return figure


def front_of(rows: Frame) -> Array:
    """Positions of the rows on the Pareto front, fastest first.

    Args:
        rows: with `tokens_per_s`, `energy_per_token_j`, `severity` and `source`, all numbers finite.
    """
    times, joules = 1 / rows["tokens_per_s"].to_numpy(float), rows["energy_per_token_j"].to_numpy(float)
    ours = (rows["source"] == MEASURED).to_numpy()
    good = np.flatnonzero((rows["severity"] == "").to_numpy() & (ours if ours.any() else True))
    front: list[int] = []
    for place in good[np.lexsort((joules[good], times[good]))]:
        if not front or joules[place] < joules[front[-1]]:
            front.append(int(place))
    return np.array(front, dtype=int)


def _draw_panel(axes: Axes, look: Look, rows: Frame) -> None:
    times, joules = 1 / rows["tokens_per_s"].to_numpy(float), rows["energy_per_token_j"].to_numpy(float)
    units = display_unit("s", float(times.max())), display_unit("J", float(joules.max()))
    set_log_axis(axes.xaxis, with_bars(times, rows["time_rel_error"]), units[0])
    set_log_axis(axes.yaxis, with_bars(joules, rows["energy_rel_error"]), units[1])
    for row, x, y in zip(iter_rows(rows), times, joules, strict=True):
        look.draw(axes, x, y, row, xerr=x * row["time_rel_error"], yerr=y * row["energy_rel_error"])
    front = front_of(rows)
    if len(front):
        # Up to the first point and from the last one on, the front is a wall: nothing is faster, nothing needs less.
        x = np.concatenate([[times[front[0]]], times[front], [axes.get_xlim()[1]]])
        y = np.concatenate([[axes.get_ylim()[1]], joules[front], [joules[front[-1]]]])
        style: Any = {"color": "0.25", "lw": 0.9, "drawstyle": "steps-post"}
        axes.plot(x, y, zorder=2, gid="front", **style)
        which = "measured" if (rows["source"] == MEASURED).any() else "published"
        look.note(f"Pareto front of {which} points without a mark", Line2D([], [], color="0.25", lw=0.9))
    axes.set_xlabel(f"time per token ({units[0].label})")
    axes.set_ylabel(f"energy per token ({units[1].label})")
    axes.grid(True)
    axes.set_axisbelow(True)


def _arrange(figure: Figure, look: Look, panels: list[Axes]) -> None:
    """As many panels a line as fit, with the height that they and the legend need."""
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    wide = (_WIDTH_IN - _LEFT_IN - 0.15 - _GAP_IN * (_COLUMNS - 1)) / _COLUMNS
    bottom = look.legend_height_in(_WIDTH_IN) + 0.42
    figure.set_figheight(bottom + lines * _PANEL_IN + (lines - 1) * 0.68 + 0.7)
    width_in, height_in = figure.get_size_inches()
    for place, axes in enumerate(panels):
        low = bottom + (lines - 1 - place // columns) * (_PANEL_IN + 0.68)
        left = _LEFT_IN + place % columns * (wide + _GAP_IN) + (_COLUMNS - columns) * (wide + _GAP_IN) / 2
        axes.set_position((left / width_in, low / height_in, wide / width_in, _PANEL_IN / height_in))
