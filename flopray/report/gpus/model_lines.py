"""The figure of models: what a token costs over parameters and over model FLOPs, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flopray.report.gpus.data import iter_rows, phase_name, why_missing
from flopray.report.gpus.look import COLOURS, Look, set_log_axis, with_bars
from flopray.report.gpus.models import SIZES, Models
from flopray.report.gpus.types import bars_said
from flopray.report.plot.figures import Style, write_titles
from flopray.report.plot.scales import DisplayUnit, middle_unit

_WIDTH_IN, _LEFT_IN, _GAP_IN, _HIGH_IN, _NAMES_IN = 7.2, 0.72, 0.55, 1.6, 0.8
#: Names of models above a panel stand this far apart at least, as a share of its width.
_LEAST_GAP = 0.062
#: Height of the names over that of a panel.
_NAMES_AT = 1.05


def draw_models(models: Models) -> Figure | None:
    """A row of panels for each phase, over parameters on the left; None where no row has a value."""
    metric, rows = models.metric, models.rows
    good = rows[(rows["status"] == "ok") & rows[metric.column].gt(0)]
    columns = [size for size in SIZES if good[size[0]].notna().any()]
    phases = [phase for phase in models.phases if (good["phase"] == phase).any()]
    if not columns or not phases:
        return None
    look = Look(models.look_of, size_pt=4.0)
    figure = Figure(figsize=(_WIDTH_IN, 1.0))
    panels: list[list[Axes]] = []
    # one unit for the whole figure, so that joules are not read as kilojoules
    unit = middle_unit(metric.unit, good.loc[good["phase"].isin(phases), metric.column])
    for phase in phases:
        part, line = rows[rows["phase"] == phase], []
        for size, title, of in columns:
            axes = figure.add_axes((0, 0, 1, 1), label=f"{phase} {size}")
            known = rows[size].dropna()
            across = middle_unit(of or "", known)
            set_log_axis(axes.xaxis, known, across)
            _draw_panel(axes, look, models, part, size, unit, counted=size == columns[0][0])
            if size == columns[0][0]:
                axes.set_ylabel(f"{phase_name(phase)}\n{metric.short} ({unit.label})")
            axes.set_xlabel(f"{title} ({across.label})" if phase == phases[-1] and across.label else "")
            if phase == phases[-1] and not across.label:
                axes.set_xlabel(title)
            axes.tick_params(labelbottom=phase == phases[-1], labelleft=size == columns[0][0])
            line.append(axes)
            if phase == phases[0]:
                # parameters are the same in all phases, so that every model has its place there
                _name_models(axes, rows if size == "parameters" else part, size)
        panels.append(line)
    _arrange(figure, look, panels)
    what = "energy" if models.has_energy else "time"
    without = "" if models.has_energy else "no energy was measured (the table says why), time instead"
    second = "; ".join(part for part in (bars_said(good, what), without) if part)
    write_titles(figure, f"{metric.title} over the size of models, {models.title}", second)
    look.draw_legend(figure)
    return figure


def _draw_panel(
    axes: Axes, look: Look, models: Models, rows: Any, size: str, unit: DisplayUnit, *, counted: bool
) -> None:
    metric = models.metric
    good = rows[(rows["status"] == "ok") & rows[metric.column].gt(0)]
    set_log_axis(axes.yaxis, with_bars(good[metric.column], good[str(metric.error_column)]), unit)
    # a value of another execution is no point of the line
    alike = good[good["instead_of"] == ""]
    for (_, precision), line in alike.dropna(subset=[size]).groupby(["gpu", "precision"]):
        path = line.sort_values(size)
        axes.plot(path[size], path[metric.column], color=COLOURS[precision], lw=0.9, zorder=2, gid="line")
    for row in iter_rows(rows):
        x, reason = row[size], why_missing(row, metric)
        if reason and np.isfinite(x):
            look.hole(axes, x, f"{row['model']} {row['precision']} on {row['gpu']}: {reason}", counted=counted)
        elif not reason and np.isfinite(x):
            value = row[metric.column]
            look.draw(axes, x, value, row, yerr=value * row[str(metric.error_column)])
            if row["instead_of"]:
                _draw_frame(axes, look, x, value, row)
    axes.grid(True)
    axes.set_axisbelow(True)


def _draw_frame(axes: Axes, look: Look, x: float, y: float, row: Any) -> None:
    """A square around a value that was measured in another execution than the others."""
    style: Style = {"marker": "s", "ls": "none", "color": "0.25", "markerfacecolor": "none", "mew": 0.7}
    axes.plot(x, y, gid="other execution", zorder=3.3, markersize=look.size_pt + 4, **style)
    said = f"square: {row['model']} as {row['execution']}, {row['instead_of']} has no value"
    look.note(said, Line2D([], [], markersize=7, **style))


def _name_models(axes: Axes, rows: Any, size: str) -> None:
    """The names of models above a panel; those that would overlap are moved aside, with a line to their place."""
    sizes = rows.groupby("model")[size].max().dropna().sort_values()
    low, high = np.log(axes.get_xlim())
    places = ((np.log(sizes.to_numpy(float)) - low) / (high - low)).tolist()
    for model, place, beside in zip(sizes.index, places, apart(places, _LEAST_GAP), strict=True):
        axes.plot(
            [place, beside], [1.0, _NAMES_AT], transform=axes.transAxes, clip_on=False, color="0.4", lw=0.5, gid="name"
        )
        style: Any = {"rotation": 35, "rotation_mode": "anchor", "ha": "left", "va": "bottom", "fontsize": 6}
        axes.text(beside, _NAMES_AT + 0.02, str(model).split("/")[-1], transform=axes.transAxes, **style)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Rising places, moved as little as needed to be a gap apart: groups that are too close spread around their middle.

    >>> [round(place, 3) for place in apart([0.1, 0.5, 0.52], 0.1)]
    [0.1, 0.46, 0.56]
    """
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _ends(groups[-1], gap)[0] < _ends(groups[-2], gap)[1] + gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_ends(group, gap)[0] + gap * at for group in groups for at in range(len(group))]


def _ends(group: Sequence[float], gap: float) -> tuple[float, float]:
    half = gap * (len(group) - 1) / 2
    return float(np.mean(group)) - half, float(np.mean(group)) + half


def _arrange(figure: Figure, look: Look, panels: list[list[Axes]]) -> None:
    columns = len(panels[0])
    wide = (_WIDTH_IN - _LEFT_IN - 0.45 - _GAP_IN * (columns - 1)) / columns
    bottom = look.legend_height_in(_WIDTH_IN) + 0.45
    figure.set_figheight(bottom + len(panels) * (_HIGH_IN + 0.18) + 0.55 + _NAMES_IN)
    width_in, height_in = figure.get_size_inches()
    for level, line in enumerate(panels):
        low = bottom + (len(panels) - 1 - level) * (_HIGH_IN + 0.18)
        for side, axes in enumerate(line):
            left = _LEFT_IN + side * (wide + _GAP_IN)
            axes.set_position((left / width_in, low / height_in, wide / width_in, _HIGH_IN / height_in))
