"""The table and the plot of `orchestration.py`, from its JSON alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from flopray.report.plot.figures import paper_style

NAMES = {
    "tune_function": "Tune, function, fresh actors",
    "tune_class": "Tune, class, reused actors",
    "actor_pool": "bare pool of actors",
    "flopray": "flopray",
}
_COLOURS = {"tune_function": "#D55E00", "tune_class": "#E69F00", "actor_pool": "#666666", "flopray": "#0072B2"}
_MARKERS = {"tune_function": "s", "tune_class": "D", "actor_pool": "^", "flopray": "o"}


def per_point_s(case: dict[str, Any], *, with_start: bool = False) -> float:
    """Seconds of a sweep per point, without the time until the first one if that was recorded."""
    return (case["sweep_s"] - (0.0 if with_start else case.get("start_s", 0.0))) / case["points"]


def print_table(found: list[dict[str, Any]]) -> None:
    """Costs and ratios."""
    swept = [case for case in found if case["case"] in NAMES]
    largest = max((c for c in swept if c["case"] == "flopray"), key=lambda case: case["points"])
    table = Table(
        "case", "points", "ms per point", "ratio", "with start", "start", "end", "driver peak", "load average"
    )
    for case in swept:
        cost_s = per_point_s(case)
        loads = " to ".join(f"{load:.1f}" for load in case["load_average"])
        seconds = [f"{case[name]:.1f} s" if name in case else "" for name in ("start_s", "finish_s")]
        ratio = f"{cost_s / per_point_s(largest):.2f}"
        costs = f"{cost_s * 1e3:.2f}", ratio, f"{per_point_s(case, with_start=True) * 1e3:.2f}"
        table.add_row(
            NAMES[case["case"]], str(case["points"]), *costs, *seconds, f"{case['peak_bytes'] / 1e9:.2f} GB", loads
        )
    console = Console(width=140, highlight=False)
    console.print(table)
    for case in found:
        if case["case"] == "resume":
            console.print(f"resume of {case['points']} finished points: {case['resume_s']:.2f} s before Ray starts")
        if case["case"] == "slow_starts":
            console.print(
                f"{case['slots']} slots, actors that start in {case['starts_s'][0]} to {case['starts_s'][-1]} s: busy "
                f"{case['busy_share_of_points']:.0%} from the first point to the last, "
                f"{case['busy_share_from_start']:.0%} from the sweep's start to its end ({case['actors']} actors)"
            )


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Cost of a point over the number of points, both logarithmic."""
    with paper_style(9):
        figure, axes = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
        for name, label in NAMES.items():
            cases = sorted((c for c in found if c["case"] == name), key=lambda case: case["points"])
            points: Any = [case["points"] for case in cases]
            style: dict[str, Any] = {"color": _COLOURS[name], "marker": _MARKERS[name], "label": label}
            style |= {} if len(points) > 1 else {"linestyle": "none"}
            axes.plot(points, [per_point_s(case) * 1e3 for case in cases], **style)
            if name == "flopray":
                with_start = [per_point_s(case, with_start=True) * 1e3 for case in cases]
                more: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"}
                dashed: dict[str, Any] = style | more | {"label": "flopray, start included"}
                axes.plot(points, with_start, **dashed)
        axes.set(xscale="log", yscale="log", xlabel="points of the sweep", ylabel="cost of a point (ms)")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, dpi=200)
        plt.close(figure)
