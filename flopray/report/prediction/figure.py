"""Predicted against measured for rows that the fit did not see: a panel for each model, time above energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from flopray.predict.fitting import MODELS
from flopray.predict.judging import ENERGY, TIME, SetErrors
from flopray.predict.predictor import Group
from flopray.report.plot.figures import add_axes, write_titles
from flopray.units import counted, prefixed

_TITLES = {
    "constant": "1 constant",
    "power_law": "2 power law",
    "roofline": "3 roofline with launch",
    "learned": "4 learned residual",
}
_QUANTITIES = {TIME: ("time", "s"), ENERGY: ("energy", "J")}
#: Colours and markers that differ without colour vision, too (Okabe and Ito).
_LOOKS = (("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"), ("#D55E00", "P"))
_PANEL_IN, _GAP_IN, _LEFT_IN, _TOP_IN, _BETWEEN_IN, _FOOT_IN = 1.5, 0.16, 0.62, 0.72, 0.5, 0.72


def draw_predicted(group: Group) -> Figure:
    """Ratio of predicted to measured over what was measured, of all held-out sets of a group.

    Args:
        group: with its errors, as `flopray.predict.fit` gives it; one that was read from a file has none.
    """
    width_in = _LEFT_IN + len(MODELS) * _PANEL_IN + (len(MODELS) - 1) * _GAP_IN + 0.15
    rows = [target for target in (TIME, ENERGY) if _has(group.errors, target)]
    height_in = _TOP_IN + len(rows) * _PANEL_IN + (len(rows) - 1) * _BETWEEN_IN + _FOOT_IN
    figure = Figure(figsize=(width_in, height_in))
    phases = sorted({str(phase) for one in group.errors for phase in one.phases})
    looks = dict(zip(phases, _LOOKS, strict=False))
    for line, target in enumerate(rows):
        low_in = height_in - _TOP_IN - (line + 1) * _PANEL_IN - line * _BETWEEN_IN
        for place, model in enumerate(MODELS):
            left_in = _LEFT_IN + place * (_PANEL_IN + _GAP_IN)
            axes = add_axes(figure, (left_in, low_in, _PANEL_IN, _PANEL_IN))
            _draw_panel(axes, group.errors, target, model, looks, first=place == 0)
            if line == 0:
                axes.set_title(_TITLES[model])
            axes.set_xlabel(f"measured {_QUANTITIES[target][0]}")
    handles = figure.axes[-1].get_legend_handles_labels()
    figure.legend(*handles, loc="lower center", ncol=len(phases), bbox_to_anchor=(0.5, 0.01))
    where = group.where
    title = f"{where.family}: predicted and measured on {where.device_type}, {where.precision} {where.execution}"
    hollow = "hollow: outside the region of the fit; at the rims: further off"
    write_titles(figure, title, f"{counted(where.points, 'point')}, each unseen by the fit that predicts it; {hollow}")
    return figure


def _has(errors: Sequence[SetErrors], target: str) -> bool:
    return any(np.isfinite(one.measured[target]).any() for one in errors)


def _draw_panel(
    axes: Axes, errors: Sequence[SetErrors], target: str, model: str, looks: dict[str, tuple[str, str]], *, first: bool
) -> None:
    measured = np.concatenate([one.measured[target] for one in errors])
    predicted = np.concatenate([one.predicted[target][model] for one in errors])
    phases = np.concatenate([one.phases for one in errors])
    inside = np.concatenate([one.inside for one in errors])
    ratio = predicted / measured
    there = np.isfinite(ratio)
    for phase, (colour, marker) in looks.items():
        for within, fill in ((True, colour), (False, "none")):
            chosen = there & (phases == phase) & (inside == within)
            label = phase.replace("_", " ") if within else None
            style: Any = {"ms": 2.2, "mfc": fill, "mec": colour, "mew": 0.5, "alpha": 0.75, "label": label}
            axes.plot(measured[chosen], np.clip(ratio[chosen], 0.4, 2.5), marker, **style)
    axes.axhspan(0.95, 1.05, color="0.9", zorder=0)
    axes.axhline(1.0, color="0.4", lw=0.6, zorder=1)
    axes.set(xscale="log", yscale="log", ylim=(0.38, 2.63))
    _set_ticks(axes, measured[there], _QUANTITIES[target][1], first=first)
    if first:
        axes.set_ylabel("predicted / measured")
    mape = float(np.abs(ratio[there] - 1).mean()) if there.any() else float("nan")
    text = axes.text(0.04, 0.06, f"MAPE {100 * mape:.3g} %", transform=axes.transAxes, fontsize="small")
    text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0})


def _set_ticks(axes: Axes, values: np.ndarray, unit: str, *, first: bool) -> None:
    ticks = [0.5, 0.8, 1.0, 1.25, 2.0]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if first else ""))
    low, high = np.log10(values.min()), np.log10(values.max())
    steps = [10.0**power for power in range(int(np.ceil(low)), int(np.floor(high)) + 1)]
    axes.xaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: prefixed(value, unit)))
