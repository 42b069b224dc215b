"""One metric over GPUs: a row of panels for each phase, a column for each shape, precisions side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flopray.audit.hardware import efficiency_limit_flops_per_j, peak_flops_per_s
from flopray.records import Row
from flopray.report.boards.means import values_on_boards
from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import (
    EFFICIENCY,
    MFU,
    PUBLISHED,
    REST,
    compared_shapes,
    in_order,
    iter_rows,
    phase_name,
    why_missing,
)
from flopray.report.gpus.look import COLOURS, FOOT, Look, with_bars
from flopray.report.gpus.types import bars_said
from flopray.report.plot.figures import set_value_axis, write_titles
from flopray.report.plot.scales import DisplayUnit, ValueScale, display_unit, middle_unit
from flopray.report.surface.selection import Metric
from flopray.units import counted

MAX_SHAPES = 4
_WIDTH_IN, _LEFT_IN, _GAP_IN, _PANEL_IN = 7.2, 0.7, 0.1, 1.2
#: Most width of one GPU, and of one of its points: few points would be lost in panels as wide as the page.
_GPU_IN, _POINT_IN = 1.2, 0.45
#: Room of one GPU on the horizontal axis that its points share.
_GPU_SHARE = 0.8
#: Values that spread further than this get a log scale.
_LOG_SPREAD = 8.0
#: HFU is drawn where it is more than this many times MFU.
_HFU_DIFFERS = 1.005
CEILINGS = {
    EFFICIENCY.name: "ceiling: datasheet peak / board power",
    MFU.name: "ceiling: datasheet peak",
}


@dataclass(frozen=True)
class _Columns:
    """The order of points in each panel: GPUs, and within one the precisions and sources."""

    gpus: list[str]
    slots: list[tuple[str, str]]


def draw_dots(comparison: Comparison, metric: Metric, phases: Sequence[str]) -> Figure | None:
    """The figure, None where there is no value.

    Args:
        comparison: what is drawn.
        metric: of which the value and its 95 % interval are drawn.
        phases: one row of panels each, those without a row of the comparison left out. A published
            `backward_and_optimizer` is in the row of `backward`.
    """
    rows = comparison.of(*phases, REST).replace({"phase": {REST: "backward"}})
    shown = [phase for phase in in_order(phases) if rows.loc[rows["phase"] == phase, metric.column].notna().any()]
    rows = rows[rows["phase"].isin(shown)]
    # only shapes and GPUs with rows of these phases: others would be empty columns
    there = set(rows["shape"])
    present = [shape for shape in comparison.shapes if shape in there]
    shapes = compared_shapes(rows, present, MAX_SHAPES)
    rows = rows[rows["shape"].isin(shapes)]
    shown = [phase for phase in shown if rows.loc[rows["phase"] == phase, metric.column].notna().any()]
    if not shown:
        return None
    rows = rows[rows["phase"].isin(shown)]
    columns = _Columns(sorted(rows["gpu"].unique()), _slots(comparison, rows))
    look = Look(comparison, size_pt=3.6, names_gpus=False)
    figure = Figure(figsize=(_WIDTH_IN, 1.0))
    wide = (_WIDTH_IN - _LEFT_IN - 0.1 - _GAP_IN * (len(shapes) - 1)) / len(shapes)
    wide = min(wide, len(columns.gpus) * max(_GPU_IN, _POINT_IN * len(columns.slots)))
    panels: list[tuple[Axes, int, int]] = []
    # one kind of scale for the whole figure: rows of panels are compared
    log = any(_spread(metric, rows[rows["phase"] == phase]) > _LOG_SPREAD for phase in shown)
    scales = {phase: _scale(metric, rows[rows["phase"] == phase], log) for phase in shown}
    ends = np.array([[scale.low, scale.high] for scale in scales.values()])
    # one unit for the whole figure, so that joules are not read as kilojoules
    unit = middle_unit(metric.unit, ends) if log else display_unit(metric.unit, float(ends.max()))
    for level, phase in enumerate(shown):
        part = rows[rows["phase"] == phase]
        scale = scales[phase]
        foot = FOOT if any(why_missing(row, metric) for row in iter_rows(part)) else 0.0
        for place, shape in enumerate(shapes):
            axes = figure.add_axes((0, 0, 1, 1))
            _draw_panel(axes, look, part[part["shape"] == shape], metric, columns, (scale, unit), foot)
            axes.set_ylabel(f"{phase_name(phase)}\n{metric.short} ({unit.label})" if place == 0 else "")
            axes.tick_params(labelleft=place == 0, labelbottom=level == len(shown) - 1)
            axes.set_title(_shape_title(part, shape) if level == 0 else "")
            panels.append((axes, level, place))
    _arrange(figure, look, panels, columns.gpus, wide, len(shown))
    left_out = len(present) - len(shapes)
    write_titles(figure, f"{metric.title}, {comparison.title}", _second_title(rows, metric, left_out))
    look.draw_legend(figure)
    return figure


def _arrange(
    figure: Figure,
    look: Look,
    panels: Sequence[tuple[Axes, int, int]],
    gpus: Sequence[str],
    wide: float,
    levels: int,
) -> None:
    """Give the figure its height, now that the legend is known, and each panel its place."""
    bottom = look.legend_height_in(_WIDTH_IN) + (0.1 + 0.06 * max(map(len, gpus)) if _rotation(gpus) else 0.28)
    figure.set_figheight(bottom + levels * (_PANEL_IN + _GAP_IN) + 0.62)
    across = 1 + max(place for _, _, place in panels)
    left = _LEFT_IN + (_WIDTH_IN - _LEFT_IN - 0.1 - across * wide - (across - 1) * _GAP_IN) / 2
    for axes, level, place in panels:
        low = bottom + (levels - 1 - level) * (_PANEL_IN + _GAP_IN)
        box = (left + place * (wide + _GAP_IN), low, wide, _PANEL_IN)
        width_in, height_in = figure.get_size_inches()
        axes.set_position((box[0] / width_in, box[1] / height_in, box[2] / width_in, box[3] / height_in))


def _draw_panel(
    axes: Axes,
    look: Look,
    rows: Any,
    metric: Metric,
    columns: _Columns,
    scale: tuple[ValueScale, DisplayUnit],
    foot: float,
) -> None:
    gpus, slots = columns.gpus, columns.slots
    set_value_axis(axes, *scale, foot)
    for row in iter_rows(rows):
        slot = slots.index((row["precision"], row["source"]))
        x = gpus.index(row["gpu"]) + _GPU_SHARE * ((slot + 0.5) / len(slots) - 0.5)
        if reason := why_missing(row, metric):
            look.hole(axes, x, reason)
            continue
        value = row[metric.column]
        _draw_ceiling(axes, look, row, metric, x, 0.42 * _GPU_SHARE / len(slots))
        look.draw(axes, x, value, row, yerr=value * row[metric.error_column or ""])
        look.draw_boards(axes, x + min(0.3 * _GPU_SHARE / len(slots), 0.08), of_boards(row, metric), row)
        if metric is MFU and row["hfu"] > value * _HFU_DIFFERS:
            axes.plot(x, row["hfu"], marker="_", color=COLOURS[row["precision"]], markersize=6, gid="hfu")
            look.note("dash: HFU, with what is recomputed", Line2D([], [], marker="_", color="0.3", ls="none"))
    axes.set_xlim(-0.5, len(gpus) - 0.5)
    axes.set_xticks(range(len(gpus)), gpus, rotation=_rotation(gpus))
    axes.tick_params(axis="x", length=0)
    for place in range(1, len(gpus)):
        axes.axvline(place - 0.5, color="0.85", lw=0.5)
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)


def of_boards(row: Row, metric: Metric) -> list[float]:
    """The metric of a row on each board that has it, where several have."""
    return values_on_boards(row, metric.column, metric.error_column)


def _rotation(gpus: Sequence[str]) -> int:
    """Degrees by which names of GPUs are turned: 0 while they fit side by side in four panels."""
    return 90 if sum(len(gpu) + 1 for gpu in gpus) > 26 else 0


def _draw_ceiling(axes: Axes, look: Look, row: Row, metric: Metric, x: float, half: float) -> None:
    """A short grey line at what the datasheet of this GPU allows at this precision."""
    ceiling = ceiling_of(row, metric)
    if ceiling is None:
        return
    low, high = axes.get_ylim()
    if low <= ceiling <= high:
        axes.plot([x - half, x + half], [ceiling, ceiling], color="0.45", lw=1.0, zorder=2, gid="ceiling")
        look.note(CEILINGS[metric.name], Line2D([], [], color="0.45", lw=1.0))


def ceiling_of(row: Row, metric: Metric) -> float | None:
    """Datasheet peak over board power in FLOP/J for efficiency, 1 for MFU; None for others and unknown GPUs."""
    device = row["device_name"] or row["device_type"]
    if metric is EFFICIENCY and row["phase"] != "optimizer_step":
        limit = efficiency_limit_flops_per_j(device, row["precision"])
        return limit.bound if limit else None
    known = peak_flops_per_s(device, row["precision"]) is not None
    return 1.0 if metric is MFU and known else None


def _slots(comparison: Comparison, rows: Any) -> list[tuple[str, str]]:
    """Precision and source of the points of a GPU, from left to right."""
    present = set(zip(rows["precision"], rows["source"], strict=True))
    sources = sorted({source for _, source in present})
    return [(kind, source) for kind in comparison.precisions for source in sources if (kind, source) in present]


def _spread(metric: Metric, rows: Any) -> float:
    """The largest of what is drawn over the smallest value, error bars and ceilings included."""
    good = rows[rows["status"] == "ok"]
    ends = with_bars(good[metric.column], good[metric.error_column])
    ends = np.concatenate([ends.ravel(), *(of_boards(row, metric) for row in iter_rows(good))])
    ceilings = [ceiling_of(row, metric) or 0.0 for row in iter_rows(good)]
    return max(float(np.nanmax(ends)), *ceilings) / float(np.nanmin(ends))


def _scale(metric: Metric, rows: Any, log: bool) -> ValueScale:
    """The scale of a row of panels, which holds values, error bars and ceilings; a linear one starts at zero."""
    good = rows[rows["status"] == "ok"]
    ceilings = [ceiling_of(row, metric) for row in iter_rows(good)]
    values = with_bars(good[metric.column], good[metric.error_column]).ravel()
    values = np.concatenate([values, [ceiling for ceiling in ceilings if ceiling]])
    values = np.concatenate([values, *(of_boards(row, metric) for row in iter_rows(good))])
    if metric is MFU:
        values = np.append(values, good["hfu"])
    return ValueScale.fitting(values if log else np.append(values, 0.0), log=log, signed=not log)


def _shape_title(rows: Any, shape: str) -> str:
    config = rows.loc[rows["shape"] == shape, "config"]
    name = config.iloc[0] if len(config) else ""
    return f"{name}: {shape}" if name else shape


def _second_title(rows: Any, metric: Metric, left_out: int) -> str:
    of_energy = "energy" in (metric.error_column or "")
    parts = ["batch × tokens of a sequence"] if rows["sequence_length"].notna().any() else []
    parts.append(bars_said(rows, "energy" if of_energy else "time"))
    parts += [f"{counted(left_out, 'other shape is', 'other shapes are')} not drawn"] if left_out else []
    if ((rows["source"] == PUBLISHED) & (rows["phase"] == "backward")).any():
        parts.append("published backward includes the optimizer step")
    return "; ".join(filter(None, parts))
