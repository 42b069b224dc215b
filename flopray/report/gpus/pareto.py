"""Time against energy of the same work, and the points that no other beats in both.

Points are compared only where they did the same work: a token of a model at one shape. Layers of an MLP have as many
sizes as shapes, so a token through them is not a common measure; they are compared by FLOP/s and FLOP/J.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import MEASURED, Frame, compared_shapes, in_order, phase_name
from flopray.report.gpus.look import Look, set_log_axis, with_bars
from flopray.report.gpus.types import bars_said
from flopray.report.plot.figures import write_titles
from flopray.report.plot.scales import Array, DisplayUnit, middle_unit
from flopray.units import counted

#: Phases that process tokens as a whole job; their parts would be compared with their own whole.
PHASES_DRAWN = ("inference", "forward", "train_step", "prefill", "decode")
MAX_SHAPES = 4
_WIDTH_IN, _LEFT_IN, _GAP_IN, _PANEL_IN, _COLUMNS = 7.2, 0.55, 0.58, 1.75, 3
#: Panels of a grid of phases and shapes are lower, and close to one another.
_ROW_IN, _ROW_GAP_IN, _SHAPE_GAP_IN = 1.3, 0.32, 0.14


@dataclass(frozen=True)
class Work:
    """The quantities that points are compared by.

    Attributes:
        title: of the figure.
        better: where in a panel the better points are.
        time: column, unit and name of the horizontal axis.
        energy: the same of the vertical one.
        rates: larger is better, as of FLOP/s.
    """

    title: str
    better: str
    time: tuple[str, str, str]
    energy: tuple[str, str, str]
    rates: bool


_TOKENS = Work(
    "Time and energy of a token",
    "lower left is better",
    ("time_per_token_s", "s", "time per token"),
    ("energy_per_token_j", "J", "energy per token"),
    rates=False,
)
_FLOPS = Work(
    "Model FLOPs per second and per joule",
    "upper right is better",
    ("flops_per_s", "FLOP/s", "rate"),
    ("flops_per_j", "FLOP/J", "efficiency"),
    rates=True,
)


def draw_pareto(comparison: Comparison) -> Figure | None:
    """A row of panels for each phase with a column for each shape of a model; without tokens a panel for each phase.

    A front has the points of its panel that no other beats in both, among measured points (published ones where there
    are no others) that the audit calls neither impossible nor implausible: a number that cannot be true would beat
    everything. None where no point has both numbers.
    """
    rows = comparison.of(*PHASES_DRAWN)
    rows = rows.assign(
        time_per_token_s=1 / rows["tokens_per_s"],
        flops_per_s=rows["flops_per_s"].fillna(rows["model_flops"] / rows["time_s"]),
        flops_per_j=rows["flops_per_j"].fillna(rows["model_flops"] / rows["energy_j"]),
    )
    work = _TOKENS if rows["sequence_length"].notna().any() else _FLOPS
    rows = rows[(rows["status"] == "ok") & rows[work.time[0]].gt(0) & rows[work.energy[0]].gt(0)]
    if rows.empty:
        return None
    phases, shapes = in_order(rows["phase"].unique()), _shapes(comparison, rows, work)
    look = Look(comparison, size_pt=4.5)
    figure = Figure(figsize=(_WIDTH_IN, 1.0))
    # one unit for each axis of the whole figure
    units = middle_unit(work.time[1], rows[work.time[0]]), middle_unit(work.energy[1], rows[work.energy[0]])
    panels = []
    for phase in phases:
        part = rows[rows["phase"] == phase]
        for shape in shapes or [""]:
            axes = figure.add_axes((0, 0, 1, 1), label=f"{phase} {shape}")
            panels.append(axes)
            _draw_panel(axes, look, part[part["shape"] == shape] if shape else part, part, work, units)
            axes.set_title(phase_name(phase) if not shape else shape if phase == phases[0] else "")
            axes.set_ylabel(f"{phase_name(phase)}\n{work.energy[2]} ({units[1].label})" if shape in shapes[:1] else "")
            if not shape:
                axes.set_ylabel(f"{work.energy[2]} ({units[1].label})")
            last = not shape or phase == phases[-1]
            axes.set_xlabel(f"{work.time[2]} ({units[0].label})" if last else "")
            axes.tick_params(labelleft=shape in ("", *shapes[:1]))
    (_arrange_grid if shapes else _arrange)(figure, look, panels, len(shapes))
    left_out = len(comparison.shapes) - len(shapes) if shapes else 0
    parts = ["batch × tokens of a sequence"] if shapes else []
    parts += [bars_said(rows, "time", "energy"), work.better]
    parts += [f"{counted(left_out, 'shape is', 'shapes are')} not drawn"] if left_out else []
    write_titles(figure, f"{work.title}, {comparison.title}", "; ".join(filter(None, parts)))
    look.draw_legend(figure)
    return figure


def front_of(rows: Frame, work: Work = _TOKENS) -> Array:
    """Positions of the rows on the Pareto front, fastest first.

    Args:
        rows: with the two columns of `work`, `severity` and `source`, all numbers finite.
        work: the quantities that they are compared by.
    """
    sign = -1 if work.rates else 1
    times, joules = (sign * rows[axis[0]].to_numpy(float) for axis in (work.time, work.energy))
    ours = (rows["source"] == MEASURED).to_numpy()
    good = np.flatnonzero((rows["severity"] == "").to_numpy() & (ours if ours.any() else True))
    front: list[int] = []
    for place in good[np.lexsort((joules[good], times[good]))]:
        if not front or joules[place] < joules[front[-1]]:
            front.append(int(place))
    return np.array(front, dtype=int)


def _shapes(comparison: Comparison, rows: Frame, work: Work) -> list[str]:
    """The columns of panels; none where all points share one panel."""
    there = set(rows["shape"])
    present = [shape for shape in comparison.shapes if shape in there]
    return compared_shapes(rows, present, MAX_SHAPES) if work is _TOKENS and len(present) > 1 else []


def _draw_panel(
    axes: Axes, look: Look, rows: Frame, scaled: Frame, work: Work, units: tuple[DisplayUnit, DisplayUnit]
) -> None:
    """The points of a panel and their front, on axes that hold all `scaled` rows."""
    for axis, (column, *_), error, unit in zip(
        (axes.xaxis, axes.yaxis), (work.time, work.energy), ("time_rel_error", "energy_rel_error"), units, strict=True
    ):
        set_log_axis(axis, with_bars(scaled[column], scaled[error]), unit)
    places = rows[[work.time[0], work.energy[0]]].to_numpy(float).T
    look.draw_all(axes, rows, places, places * rows[["time_rel_error", "energy_rel_error"]].to_numpy(float).T)
    front = front_of(rows, work)
    if len(front):
        # Beyond its first and last point the front is vertical or horizontal: nothing is faster, nothing needs less.
        end = 0 if work.rates else 1
        points = rows.iloc[front]
        x = np.concatenate([points[work.time[0]].iloc[:1], points[work.time[0]], [axes.get_xlim()[end]]])
        y = np.concatenate([[axes.get_ylim()[end]], points[work.energy[0]], points[work.energy[0]].iloc[-1:]])
        style: Any = {"color": "0.25", "lw": 0.9, "drawstyle": "steps-post"}
        axes.plot(x, y, zorder=2, gid="front", **style)
        which = "measured" if (rows["source"] == MEASURED).any() else "published"
        look.note(f"Pareto front of {which} points without a mark", Line2D([], [], color="0.25", lw=0.9))
    if rows.empty:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color="0.5")
    axes.grid(True)
    axes.set_axisbelow(True)


def _arrange(figure: Figure, look: Look, panels: Sequence[Axes], _: int) -> None:
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


def _arrange_grid(figure: Figure, look: Look, panels: Sequence[Axes], columns: int) -> None:
    """A row for each phase, a column for each shape."""
    lines, left_in = len(panels) // columns, 0.72
    wide = (_WIDTH_IN - left_in - 0.1 - _SHAPE_GAP_IN * (columns - 1)) / columns
    bottom = look.legend_height_in(_WIDTH_IN) + 0.42
    figure.set_figheight(bottom + lines * (_ROW_IN + _ROW_GAP_IN) - _ROW_GAP_IN + 0.7)
    width_in, height_in = figure.get_size_inches()
    for place, axes in enumerate(panels):
        low = bottom + (lines - 1 - place // columns) * (_ROW_IN + _ROW_GAP_IN)
        left = left_in + place % columns * (wide + _SHAPE_GAP_IN)
        axes.set_position((left / width_in, low / height_in, wide / width_in, _ROW_IN / height_in))
