"""The boards of a type in a figure: the factor of each with its error, and its rows about it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from flopray.report.boards.data import BoardValues, DeviceBoards, short_names
from flopray.report.boards.effects import BoardFit
from flopray.report.boards.table import temperatures_of
from flopray.report.plot.figures import add_axes, write_titles
from flopray.units import counted

_WIDTH_IN, _PANEL_IN, _LEFT_IN = 7.2, 1.7, 0.75
_COLOUR, _ROWS = "#0072B2", "0.45"
#: Share of rows inside a panel; the others are counted at its edge.
_SHOWN = 0.96


def draw_boards(device: DeviceBoards) -> Figure | None:
    """A panel for each quantity; None where no two boards share a row."""
    fitted = {q: (part, fit) for q, part in device.parts.items() if (fit := device.fits[q]) and fit.boards > 1}
    if not fitted:
        return None
    height_in = 0.62 + len(fitted) * (_PANEL_IN + 0.55) + 0.3
    figure = Figure(figsize=(_WIDTH_IN, height_in))
    for level, (quantity, (part, fit)) in enumerate(fitted.items()):
        low = height_in - 0.62 - (level + 1) * (_PANEL_IN + 0.55) + 0.4
        axes = add_axes(figure, (_LEFT_IN, low, _WIDTH_IN - _LEFT_IN - 0.15, _PANEL_IN))
        _draw_panel(axes, device, part, fit)
        axes.set_ylabel(f"{device.label(quantity)}\nagainst the mean (%)")
    names = f"{device.device_name}: {counted(len(device.boards), 'board')}"
    write_titles(figure, f"Boards of {device.name}", f"{names}; bars: 95 % intervals of the boards' factors")
    handles = [
        Line2D([], [], marker="o", color=_COLOUR, ls="none", markersize=4),
        Line2D([], [], marker=".", color=_ROWS, ls="none", markersize=4),
        Patch(facecolor="0.5", alpha=0.15),
    ]
    labels = ["factor of the board", "rows", "one standard deviation between boards"]
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 0.05 / height_in), ncol=3, borderaxespad=0)
    return figure


def _draw_panel(axes: Axes, device: DeviceBoards, part: BoardValues, fit: BoardFit) -> None:
    names = short_names(device.boards)
    apart = 100 * np.log(part.values / fit.means[:, None])
    reach = _reach(apart, fit)
    axes.axhspan(-100 * fit.spread, 100 * fit.spread, color="0.5", alpha=0.15, lw=0)
    axes.axhline(0, color="0.5", lw=0.6)
    labels = []
    for place, board in enumerate(part.boards):
        rows = apart[:, place][np.isfinite(apart[:, place])]
        beside = place + 0.12 + 0.3 * np.linspace(0, 1, len(rows))
        inside = np.abs(rows) <= reach
        style: Any = {"color": _ROWS, "ls": "none", "marker": ".", "markersize": 2.5, "mew": 0, "gid": "rows"}
        axes.plot(beside[inside], rows[inside], **style)
        _count_beyond(axes, place + 0.27, rows, reach)
        if np.isfinite(fit.factors[place]):
            error = 100 * fit.factor_errors[place]
            axes.errorbar(
                place, 100 * fit.factors[place], yerr=error, fmt="o", color=_COLOUR, markersize=4, capsize=2.5, lw=0.9
            )
        labels.append(f"{names[board]}\n{temperatures_of(device, board)}, {counted(len(rows), 'row')}")
    axes.set_xlim(-0.4, len(part.boards) - 0.4)
    axes.set_ylim(-reach * 1.12, reach * 1.12)
    axes.set_xticks(range(len(part.boards)), labels)
    axes.tick_params(axis="x", length=0)
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)


def _reach(apart: Any, fit: BoardFit) -> float:
    """Half the height of a panel in percent: nearly all rows, and every factor with its error and the spread."""
    rows = np.abs(apart[np.isfinite(apart)])
    factors = np.abs(fit.factors) + fit.factor_errors
    return float(max(np.quantile(rows, _SHOWN), 100 * np.nanmax(factors), 100 * fit.spread, 1e-3)) * 1.1


def _count_beyond(axes: Axes, x: float, rows: Any, reach: float) -> None:
    """How many rows lie beyond the panel, at its upper and lower edge."""
    for count, y, side in (((rows > reach).sum(), reach, "top"), ((rows < -reach).sum(), -reach, "bottom")):
        if count:
            arrow = "↑" if side == "top" else "↓"
            axes.text(x, y, f"{count} {arrow}", ha="center", va=side, size=6, color=_ROWS)
