"""Predicted against executed FLOPs of points that a fit did not see."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from flopray.report.flops.held_out import METHODS, SPLITS
from flopray.report.plot.figures import add_axes, write_titles
from flopray.report.surface.plots import PHASE_TITLES

#: What is drawn, from the back to the front, with its colour.
_DRAWN = (("closed_form", "0.72"), ("interpolation", "#E69F00"), ("formula", "#0072B2"))
_RATIOS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_WIDTH_IN, _PANEL_IN, _LEFT_IN, _GAP_IN = 7.2, 1.46, 0.66, 0.16


def draw_held_out(predictions: pd.DataFrame, phase: str, title: str) -> Figure:
    """For each way of holding out: predicted over executed (above), and their ratio (below), on log scales.

    Args:
        predictions: as `flopray.report.flops.adjusted.held_out` returns them, at least one row.
        phase: of the points.
        title: the device and how it computed.
    """
    held_out = dict(list(predictions.groupby("split")))
    names = [name for name in SPLITS if name in held_out]
    figure = Figure(figsize=(_WIDTH_IN, 3.95))
    numbers = predictions[["executed_flops", *(name for name, _ in _DRAWN)]].to_numpy(float)
    limits = numbers.min() / 1.5, numbers.max() * 1.5
    for column, name in enumerate(names):
        left_in = _LEFT_IN + column * (_PANEL_IN + _GAP_IN)
        above = add_axes(figure, (left_in, 1.88, _PANEL_IN, _PANEL_IN))
        below = add_axes(figure, (left_in, 0.66, _PANEL_IN, 1.06))
        _draw_pair(above, below, held_out[name], limits)
        above.set_title(SPLITS[name])
        if column:
            above.tick_params(labelleft=False)
            below.tick_params(labelleft=False)
        else:
            above.set_ylabel("predicted FLOPs")
            below.set_ylabel("predicted / executed")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), markerscale=2.5, borderaxespad=0.3)
    write_titles(figure, f"Points that were held out, {PHASE_TITLES[phase]}", title)
    return figure


def _draw_pair(above: Axes, below: Axes, part: pd.DataFrame, limits: tuple[float, float]) -> None:
    executed = part["executed_flops"].to_numpy(float)
    ratios = []
    for method, colour in _DRAWN:
        predicted = part[method].to_numpy(float)
        ratios.append(predicted / executed)
        for axes, values in ((above, predicted), (below, ratios[-1])):
            axes.scatter(executed, values, 2.5, color=colour, linewidths=0, label=METHODS[method], rasterized=True)
    above.plot(limits, limits, color="0.1", linewidth=0.6)
    below.axhline(1, color="0.1", linewidth=0.6)
    above.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    below.set(xscale="log", yscale="log", xlim=limits, ylim=(_RATIOS[0] / 2, _RATIOS[-1] * 1.2))
    below.yaxis.set_major_locator(FixedLocator(_RATIOS))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    below.yaxis.set_minor_locator(NullLocator())
    for axis in (above.xaxis, above.yaxis, below.xaxis):
        axis.set_major_locator(LogLocator(10, numticks=5))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"1e{np.log10(value):.0f}"))
    above.tick_params(labelbottom=False)
    below.set_xlabel("executed FLOPs")
    for axes in (above, below):
        axes.grid(True)
        axes.set_axisbelow(True)
