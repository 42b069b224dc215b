"""The figure of models: what a token costs over parameters and over model FLOPs, both axes logarithmic."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from flopray.report.gpus.data import iter_rows, why_missing
from flopray.report.gpus.look import COLOURS, Look, set_log_axis, with_bars
from flopray.report.gpus.models import SIZES, Models
from flopray.report.gpus.types import bars_said
from flopray.report.plot.figures import write_titles
from flopray.report.plot.scales import DisplayUnit, middle_unit

_WIDTH_IN, _LEFT_IN, _GAP_IN, _HIGH_IN, _NAMES_IN = 7.2, 0.72, 0.55, 1.6, 0.8
_NAMES = {"train_step": "training step"}
#: Names of models above a panel stand this far apart at least, as a share of its width.
_LEAST_GAP = 0.045


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
    for phase in phases:
        part, line = rows[rows["phase"] == phase], []
        unit = middle_unit(metric.unit, good.loc[good["phase"] == phase, metric.column])
        for size, title, of in columns:
            axes = figure.add_axes((0, 0, 1, 1), label=f"{phase} {size}")
            known = rows[size].dropna()
            across = middle_unit(of or "", known)
            set_log_axis(axes.xaxis, known, across)
            _draw_panel(axes, look, models, part, size, unit, counted=size == columns[0][0])
            if size == columns[0][0]:
                axes.set_ylabel(f"{_NAMES.get(phase, phase)}\n{metric.short} ({unit.label})")
            axes.set_xlabel(f"{title} ({across.label})" if phase == phases[-1] and across.label else "")
            if phase == phases[-1] and not across.label:
                axes.set_xlabel(title)
            axes.tick_params(labelbottom=phase == phases[-1], labelleft=size == columns[0][0])
            line.append(axes)
            if phase == phases[0]:
                _name_models(axes, part, size)
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
    for (_, precision), line in good.dropna(subset=[size]).groupby(["gpu", "precision"]):
        path = line.sort_values(size)
        axes.plot(path[size], path[metric.column], color=COLOURS[precision], lw=0.9, zorder=2, gid="line")
    for row in iter_rows(rows):
        x, reason = row[size], why_missing(row, metric)
        if reason and np.isfinite(x):
            look.hole(axes, x, f"{row['model']} {row['precision']} on {row['gpu']}: {reason}", counted=counted)
        elif not reason and np.isfinite(x):
            value = row[metric.column]
            look.draw(axes, x, value, row, yerr=value * row[str(metric.error_column)])
    axes.grid(True)
    axes.set_axisbelow(True)


def _name_models(axes: Axes, rows: Any, size: str) -> None:
    """The names of models above a panel, at their places; names that would overlap share a line."""
    sizes = rows.groupby("model")[size].max()
    low, high = np.log(axes.get_xlim())
    named: list[tuple[float, str]] = []
    for model, x in sizes.dropna().sort_values().items():
        name = str(model).split("/")[-1]
        if named and np.log(x / named[-1][0]) / (high - low) < _LEAST_GAP:
            named[-1] = (named[-1][0], f"{named[-1][1]}, {name}")
        else:
            named.append((float(x), name))
    above = axes.secondary_xaxis("top")
    above.xaxis.set_major_locator(FixedLocator(np.array([x for x, _ in named]).tolist()))
    above.xaxis.set_minor_locator(NullLocator())
    above.set_xticklabels([name for _, name in named], rotation=35, ha="left", rotation_mode="anchor", fontsize=6)
    above.tick_params(length=2, pad=1)
    above.spines["top"].set_visible(False)


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
