"""The table and the figure of `active_search.py`, from its JSON alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from flopray.report.plot.figures import paper_style

STATISTICS = ("median", "rms", "p95")
SHARES = ("5 %", "10 %", "20 %", "40 %")
NAMES = {"active": "most informative", "random": "at random", "grid": "order of the grid"}
_COLOURS = {"active": "#0072B2", "random": "#E69F00", "grid": "#666666"}
_MARKERS = {"active": "o", "random": "s", "grid": "^"}
_SOUGHT = 0.05


def _over_seeds(method: dict[str, Any], name: str) -> NDArray[np.float64]:
    """Shape (seeds, shares)."""
    return np.array([[step[name] for step in seed] for seed in method["seeds"]], float)


def _title(grid: dict[str, Any]) -> str:
    phases = grid["phases"]
    lines = [", ".join(phases[at : at + 2]) for at in range(0, len(phases), 2)]
    return "\n".join([f"{grid['points']} MLPs, {grid['device']} {grid['precision']}", *lines])


def table_of(grids: Sequence[dict[str, Any]]) -> str:
    """Markdown: the middle of the seeds, as median / root mean square / 95th percentile in %."""
    shares = (*(f"{share}, models" for share in SHARES), *(f"{share}, none" for share in SHARES[1:3]))
    lines = ["| grid | order | " + " | ".join(shares) + " |", "|" + "---|" * (2 + len(shares))]
    for grid in grids:
        found = {(method["order"], method["models"]): _cells(method) for method in grid["methods"]}
        for order, name in NAMES.items():
            cells = found.get((order, True), ["not fitted"] * len(SHARES)) + found[order, False][1:3]
            lines.append(f"| {_name(grid)} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(method: dict[str, Any]) -> list[str]:
    cells = np.array([np.median(_over_seeds(method, name), axis=0) for name in STATISTICS]).T
    return [" / ".join(f"{100 * e:.1f}" if e < 0.1 else f"{100 * e:.0f}" for e in cell) for cell in cells]


def _name(grid: dict[str, Any]) -> str:
    phases = grid["phases"]
    named = ", ".join(phases) if len(phases) < 3 else f"{len(phases)} phases"
    return f"{grid['device']} {grid['precision']}, {grid['points']} points, {named}"


def draw(made: dict[str, Any], path: Path) -> None:
    """Median and root mean square of the errors over the number of points, a column for each grid."""
    grids = made["grids"]
    with paper_style(8):
        figure, axes = plt.subplots(
            2, len(grids), figsize=(2.3 * len(grids), 5), sharex="col", sharey=True, layout="constrained", squeeze=False
        )
        rows: Any = zip(axes, (("median", "median error"), ("rms", "root mean square error")), strict=True)
        for row, (name, label) in rows:
            for own, grid in zip(row, grids, strict=True):
                _panel(own, grid, name)
            row[0].set_ylabel(label)
        for own, grid in zip(axes[0], grids, strict=True):
            own.set_title(_title(grid))
        for own in axes[1]:
            own.set_xlabel("points measured")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.savefig(path, dpi=200)
        plt.close(figure)


def _panel(axes: Any, grid: dict[str, Any], name: str) -> None:
    for method in grid["methods"]:
        order, models = method["order"], method["models"]
        points = [step["points"] for step in method["seeds"][0]]
        errors = _over_seeds(method, name)
        label = f"{NAMES[order]}, {'with' if models else 'without'} models"
        style: dict[str, Any] = {"color": _COLOURS[order], "marker": _MARKERS[order], "markersize": 3.5}
        style |= {} if models else {"linestyle": "--", "markerfacecolor": "white"}
        axes.fill_between(
            points, errors.min(axis=0), errors.max(axis=0), color=_COLOURS[order], alpha=0.12, linewidth=0
        )
        axes.plot(points, np.median(errors, axis=0), label=label, **style)
    axes.axhline(_SOUGHT, color="#D55E00", linestyle=":", label="5 %")
    axes.set(xscale="log", yscale="log", ylim=(0.008, 2))
    axes.set_xticks(points, [f"{count}" for count in points], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_yticks([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1], ["1 %", "2 %", "5 %", "10 %", "20 %", "50 %", "100 %"])
    axes.grid(visible=True, which="major")
