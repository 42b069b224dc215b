"""Energy of a token and of an iteration over the length of a sequence: a line for each GPU, precision and batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import (
    ENERGY,
    ENERGY_PER_TOKEN,
    PUBLISHED,
    Frame,
    in_order,
    iter_rows,
    phase_name,
    why_missing,
)
from flopray.report.gpus.dots import of_boards
from flopray.report.gpus.look import COLOURS, Look, set_log_axis, with_bars
from flopray.report.gpus.types import bars_said
from flopray.report.plot.figures import set_measured_axis, write_titles
from flopray.report.plot.scales import DisplayUnit, middle_unit, spacing_of
from flopray.report.surface.selection import Metric

PHASES_DRAWN = ("inference", "train_step", "prefill", "decode")
_COLUMNS = (ENERGY_PER_TOKEN, ENERGY)
_WIDTH_IN, _LEFT_IN, _GAP_IN, _PANEL_IN = 7.2, 0.72, 0.65, 1.35
_LINE = ["source", "gpu", "precision", "batch_size"]
#: The strip of boards stands this much further along the log axis than the mean.
_STRIP_BESIDE = 1.03


def draw_lines(comparison: Comparison) -> Figure | None:
    """A row of panels for each phase, energy per token on the left; None where no length or no energy differs."""
    rows = comparison.of(*PHASES_DRAWN)
    lengths = np.sort(rows["sequence_length"].dropna().unique())
    shown = [p for p in in_order(rows["phase"].unique()) if rows.loc[rows["phase"] == p, "energy_j"].notna().any()]
    if len(lengths) < 2 or not shown:
        return None
    look = Look(comparison, size_pt=4.0)
    figure = Figure(figsize=(_WIDTH_IN, 1.0))
    panels: list[list[Axes]] = []
    # one unit for each column of panels, so that joules are not read as kilojoules
    units = {m.name: middle_unit("J", with_bars(rows[m.column], rows["energy_rel_error"])) for m in _COLUMNS}
    for phase in shown:
        part = rows[rows["phase"] == phase]
        name = phase_name(phase)
        pair = [figure.add_axes((0, 0, 1, 1), label=f"{phase} {side}") for side in ("token", "iteration")]
        for axes, metric in zip(pair, _COLUMNS, strict=True):
            unit = units[metric.name]
            _draw_panel(axes, look, part, metric, unit)
            axes.set_ylabel(
                f"{name}\nenergy ({unit.label})" if metric is ENERGY_PER_TOKEN else f"energy ({unit.label})"
            )
            axes.set_title(("energy per token", "energy per iteration")[metric is ENERGY] if phase == shown[0] else "")
            set_measured_axis(axes.xaxis, lengths, spacing_of(lengths), 0.1)
            axes.tick_params(labelbottom=phase == shown[-1])
        panels.append(pair)
    for axes in panels[-1]:
        axes.set_xlabel("tokens of a sequence" + (" (cache of decode)" if "decode" in shown else ""))
    _arrange(figure, look, panels)
    write_titles(figure, f"Energy over sequence length, {comparison.title}", _second_title(rows))
    look.draw_legend(figure)
    return figure


def _draw_panel(axes: Axes, look: Look, rows: Frame, metric: Metric, unit: DisplayUnit) -> None:
    good = rows[(rows["status"] == "ok") & rows[metric.column].gt(0)]
    set_log_axis(axes.yaxis, with_bars(good[metric.column], good["energy_rel_error"]), unit)
    for (source, _, precision, _), line in good.groupby(_LINE):
        path = line.sort_values("sequence_length")
        style: Any = {"color": COLOURS[precision], "lw": 0.9, "ls": "--" if source == PUBLISHED else "-"}
        axes.plot(path["sequence_length"], path[metric.column], zorder=2, **style)
    for row in iter_rows(rows):
        if reason := why_missing(row, metric):
            look.hole(axes, row["sequence_length"], reason, counted=metric is ENERGY_PER_TOKEN)
        else:
            value = row[metric.column]
            look.draw(axes, row["sequence_length"], value, row, yerr=value * row["energy_rel_error"])
            look.draw_boards(axes, row["sequence_length"] * _STRIP_BESIDE, of_boards(row, metric), row)
    axes.grid(True)
    axes.set_axisbelow(True)


def _arrange(figure: Figure, look: Look, panels: list[list[Axes]]) -> None:
    wide = (_WIDTH_IN - _LEFT_IN - 0.15 - _GAP_IN) / 2
    bottom = look.legend_height_in(_WIDTH_IN) + 0.42
    figure.set_figheight(bottom + len(panels) * (_PANEL_IN + 0.15) + 0.6)
    width_in, height_in = figure.get_size_inches()
    for level, pair in enumerate(panels):
        low = bottom + (len(panels) - 1 - level) * (_PANEL_IN + 0.15)
        for side, axes in enumerate(pair):
            left = _LEFT_IN + side * (wide + _GAP_IN)
            axes.set_position((left / width_in, low / height_in, wide / width_in, _PANEL_IN / height_in))


def _second_title(rows: Frame) -> str:
    batches = sorted(rows["batch_size"].dropna().unique())
    parts = [f"batch {', '.join(f'{batch:.0f}' for batch in batches)}", bars_said(rows, "energy")]
    if (rows["source"] == PUBLISHED).any():
        parts.append("published steps (dashed): both published phases added")
    return "; ".join(filter(None, parts))
