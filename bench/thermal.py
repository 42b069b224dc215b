"""Accuracy of energy at a reference temperature: windows of several works at many temperatures of a board.

    python bench/thermal.py docs/results/thermal/*.json                 # tables
    python bench/thermal.py docs/results/thermal/*.json --plot out.png  # and cost over temperature
    python bench/thermal.py docs/results/thermal/h200*.json --prior-of "NVIDIA H100 80GB HBM3"

The files come from `bench/thermal_record.py`. Each work is converted to the reference with a coefficient that was
learned from the type's prior and from the other works of the same board (leave one out). For each work the table has
the scatter (relative standard deviation of energy per iteration over the temperatures): as measured, at the reference,
and about its own line. It also has the share of windows whose stated interval contains the work's mean. The stated half
width has two parts: that of the window, and that of the conversion to the reference (slope, scatter of works, reading
of 1 K); the share that the second part alone would contain is in brackets. Works that a host launches one by one are
judged by their power, since their time scatters with the host. The figure shows, over the temperature in the window,
how far energy per iteration (power, for these works) is from the work's mean at the reference, in percent: as measured
on the left, converted to the reference on the right. Works at the power limit are left out, and so is what is more than
6 % away.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flopray.energy.thermal import BoardTemperature, Condition, is_limited

#: Works whose time per iteration depends on the host.
_LAUNCHED = ("small_launches", "llama_train_step", "awake_idle")
#: Samples of the temperature that belong to a window: those of its last part.
_WINDOW_S = 0.7
#: A chip's sensor may be late: the same samples, this much earlier, are tried too.
_LAG_S = 0.2


@dataclass(frozen=True)
class Window:
    """One window: its condition, its cost, and whether the board was at its limit."""

    condition: Condition
    cost: float
    rel_error: float
    end_c: float
    earlier_c: float
    memory_c: float
    limited: bool


def windows_of(data: dict[str, Any]) -> dict[str, list[Window]]:
    """Windows by work; those without an error are left out."""
    found: dict[str, list[Window]] = {}
    limit_w = data["device"].get("power_limit_w") or float("inf")
    for row in data["windows"]:
        error = row.get("energy_rel_error") or row.get("power_rel_error")
        if error is None:
            continue
        samples = np.array([[t, c, np.nan if m is None else m] for t, c, m in row["samples"]], dtype=float)
        inside = samples[samples[:, 0] > -_WINDOW_S]
        earlier = samples[(samples[:, 0] > -_WINDOW_S - _LAG_S) & (samples[:, 0] <= -_LAG_S)]
        cost = row["power_w"] if row["work"] in _LAUNCHED else row["energy_j"]
        limited = bool(is_limited(row.get("throttle"))) or row["power_w"] > 0.98 * limit_w
        condition = Condition(float(np.mean(inside[:, 1])), row["power_w"], error)
        last, before = samples[-1], float(np.mean(earlier[:, 1]))
        found.setdefault(row["work"], []).append(Window(condition, cost, error, last[1], before, last[2], limited))
    return found


def scatter_about_line(x: np.ndarray, cost: np.ndarray) -> float:
    """Relative scatter of the cost about a line in x, both of shape (n,)."""
    design = np.column_stack([np.ones_like(x), x - x.mean()])
    left = cost - design @ np.linalg.lstsq(design, cost, rcond=None)[0]
    return float(np.sqrt(np.sum(left**2) / (len(x) - 2)) / cost.mean())


def board_without(data: dict[str, Any], works: dict[str, list[Window]], name: str) -> BoardTemperature:
    """What the other works of a board say about it; those at the power limit are left out."""
    board = BoardTemperature(data["device"]["prior_of"], data["device"].get("power_limit_w"))
    for other, met in works.items():
        if other != name and not is_mostly_limited(met):
            for window in met:
                board.learn(other, window.condition)
    return board


def is_mostly_limited(met: list[Window]) -> bool:
    """Whether more than a tenth of a work's windows were at the power limit."""
    return float(np.mean([window.limited for window in met])) > 0.1


def judge(data: dict[str, Any], reference_c: float) -> list[dict[str, Any]]:
    """A row for each work of a board."""
    works = windows_of(data)
    return [
        _judge_work(name, met, board_without(data, works, name), reference_c) | {"limited": is_mostly_limited(met)}
        for name, met in works.items()
    ]


def _judge_work(name: str, met: list[Window], board: BoardTemperature, reference_c: float) -> dict[str, Any]:
    temperature = np.array([w.condition.temperature_c for w in met], dtype=float)
    cost = np.array([w.cost for w in met])
    ats = [board.at_reference(w.condition, reference_c) for w in met]
    near = np.array([at.factor is not None for at in ats])
    factors = np.array([at.factor or np.nan for at in ats])
    moved = np.array([at.rel_error or np.nan for at in ats])[near]
    window = np.array([w.rel_error for w in met])[near]
    stated = np.hypot(moved, window)
    told = (cost * factors)[near]
    off = np.abs(told / told.mean() - 1)
    return {
        "work": name,
        "windows": len(met),
        "temperature_c": (temperature.min(), temperature.max()),
        "power_w": float(np.mean([w.condition.power_w for w in met])),
        "raw": float(np.std(cost, ddof=1) / cost.mean()),
        "reference": float(np.std(told, ddof=1) / told.mean()),
        "line": scatter_about_line(temperature, cost),
        "line_end": scatter_about_line(np.array([w.end_c for w in met]), cost),
        "line_earlier": scatter_about_line(np.array([w.earlier_c for w in met]), cost),
        "line_memory": scatter_about_line(np.array([w.memory_c for w in met]), cost),
        "coverage": float(np.mean(off <= stated)),
        "coverage_moved": float(np.mean(off <= moved)),
        "stated": float(np.median(stated)),
        "stated_window": float(np.median(window)),
        "stated_moved": float(np.median(moved)),
        "slope": board.slope.at(float(np.mean([w.condition.power_w for w in met])))[0],
        "own_slope": float(np.polyfit(temperature, [w.condition.power_w for w in met], 1)[0]),
    }


def table(data: dict[str, Any], rows: list[dict[str, Any]], reference_c: float) -> str:
    """Markdown."""
    device = data["device"]
    board = f"{device['device_name']} {device['device_uuid'][:12]}, driver {device['driver_version']}"
    lines = [
        f"**{board}, converted to {reference_c:g} °C**",
        "",
        "| work | windows | °C | W | as measured | at reference | own line (mean T / end T / "
        f"mean T {_LAG_S:g} s earlier / memory T) "
        "| W/K rule, own | stated (window, to the reference) | inside (by the latter alone) |",
        "|---" * 10 + "|",
    ]
    for row in sorted(rows, key=lambda row: (row["limited"], row["power_w"])):
        low, high = row["temperature_c"]
        own = " / ".join(f"{row[name]:.2%}" for name in ("line", "line_end", "line_earlier", "line_memory"))
        lines.append(
            f"| {row['work']}{' (at the power limit)' if row['limited'] else ''} | {row['windows']} | "
            f"{low:.0f}-{high:.0f} | {row['power_w']:.0f} | {row['raw']:.2%} | {row['reference']:.2%} | {own} | "
            f"{row['slope']:.2f}, {row['own_slope']:.2f} | {row['stated']:.1%} ({row['stated_window']:.1%}, "
            f"{row['stated_moved']:.1%}) | {row['coverage']:.0%} ({row['coverage_moved']:.0%}) |"
        )
    return "\n".join(lines)


def plot(boards: list[dict[str, Any]], reference_c: float, path: Path) -> None:
    """Relative energy (launched works: power) over temperature: as measured, and at the reference."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(boards), 2, figsize=(10, 3.9 * len(boards) + 0.8), squeeze=False, sharey=True)
    names = sorted({name for data in boards for name, met in windows_of(data).items() if not is_mostly_limited(met)})
    for data, pair in zip(boards, axes, strict=True):
        works = windows_of(data)
        for number, name in enumerate(names):
            met, board = works.get(name, []), board_without(data, works, name)
            temperature = np.array([window.condition.temperature_c for window in met])
            cost = np.array([window.cost for window in met])
            told = cost * np.array([board.at_reference(w.condition, reference_c).factor or np.nan for w in met])
            style = {"color": f"C{number % 10}", "marker": "osD^vPX*<>"[number % 10], "linestyle": "", "markersize": 4}
            for axis, values in zip(pair, (cost, told), strict=True):
                axis.plot(temperature, 100 * (values / np.nanmean(told) - 1), **style, label=name)
        device = f"{data['device']['device_name']} {data['device']['device_uuid'][4:12]}"
        for axis, what in zip(pair, ("as measured", f"converted to {reference_c:g} °C"), strict=True):
            axis.set_title(f"{device}: {what}", fontsize=10)
            axis.set_xlabel("GPU temperature in the window (°C)")
            axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
            axis.set_ylim(-6, 6)
            axis.spines[["top", "right"]].set_visible(False)
        pair[0].set_ylabel(
            "energy of an iteration (launched works: power),\ndifference from its mean at the reference (%)"
        )
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, ncols=5, frameon=False, loc="lower center")
    figure.tight_layout(rect=(0, 0.8 / (3.9 * len(boards) + 0.8), 1, 1))
    figure.savefig(path, dpi=130)


def main() -> None:
    """Print the tables, and draw with --plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--reference-temperature", type=float, default=50.0, metavar="CELSIUS")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--prior-of", metavar="DEVICE", help="start from the prior of another device than the board's")
    args = parser.parse_args()
    boards = []
    for path in args.files:
        data = json.loads(path.read_text())
        data["device"]["prior_of"] = args.prior_of or data["device"]["device_name"]
        rows = judge(data, args.reference_temperature)
        print(table(data, rows, args.reference_temperature), end="\n\n")
        boards.append(data)
    if args.plot:
        plot(boards, args.reference_temperature, args.plot)


if __name__ == "__main__":
    main()
