"""Tables and the plot of `energy_windows.py`, from its JSON alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

METHODS = {
    "ticks": "tick-aligned (flopray)",
    "begin_end": "begin / end",
    "zeus": "ZeusMonitor",
    "power_instant": "instant power, 100 ms",
    "power_average": "average power, 100 ms",
}
#: A window further than this from the temperatures of the truth is left out.
MAX_DIFFERENCE_C = 3.0


def truth_at(run: dict[str, Any], time_s: float) -> float:
    """Energy per iteration at a host time: linear interpolation between the middles of the slices of the truth."""
    times = [(t["start_s"] + t["end_s"]) / 2 for t in run["truths"]]
    return float(np.interp(time_s, times, [t["energy_j"] for t in run["truths"]]))


def same_temperature(run: dict[str, Any], window: dict[str, Any]) -> bool:
    """The window was as warm as the truth, or its temperature is unknown."""
    known = [c for t in run["truths"] for c in t["temperature_c"] if c is not None]
    now = window["temperature_c"]
    if now is None or not known:
        return True
    return min(known) - MAX_DIFFERENCE_C <= now <= max(known) + MAX_DIFFERENCE_C


def errors(run: dict[str, Any]) -> dict[str, dict[float, np.ndarray]]:
    """Relative errors by method and window length; arrays of shape (windows,)."""
    found: dict[str, dict[float, list[float]]] = {}
    for window in run["windows"]:
        if not same_temperature(run, window):
            continue
        truth_j = truth_at(run, (window["start_s"] + window["end_s"]) / 2)
        for method, energy_j in window["energy_j"].items():
            found.setdefault(method, {}).setdefault(window["window_s"], []).append(energy_j / truth_j - 1)
    return {m: {w: np.array(e) for w, e in sorted(by.items())} for m, by in found.items() if m in METHODS}


def rms(values: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def gpu_seconds(run: dict[str, Any], method: str) -> dict[float, float]:
    """Load time per result of a method, by window length; windows with too few ticks add load and no result."""
    cost: dict[float, float] = {}
    for window_s in {w["window_s"] for w in run["windows"]}:
        mine = [w for w in run["windows"] if w["window_s"] == window_s]
        if method == "ticks":
            mine = [w for w in mine if "ticks" in w["energy_j"] or "too_short" in w]
        else:
            mine = [w for w in mine if method in w["energy_j"]]
        results = sum(method in w["energy_j"] for w in mine)
        if results:
            total_s = sum(w["end_s"] - w["start_s"] for w in mine)
            cost[window_s] = total_s / (results if method == "ticks" else len(mine))
    return dict(sorted(cost.items()))


def seconds_for_error(run: dict[str, Any], method: str, target: float) -> tuple[float, bool]:
    """GPU time from which a method's RMS error stays at or below `target`, and whether it does so at all.

    Between two window lengths the error is taken as a power of the time. A method that never reaches the target needs
    more than its longest window, whose length is returned.
    """
    cost = gpu_seconds(run, method)
    points = [(cost[w], rms(e)) for w, e in errors(run)[method].items()]
    if points[-1][1] > target:
        return points[-1][0], False
    best = len(points) - 1
    while best > 0 and points[best - 1][1] <= target:
        best -= 1
    if best == 0:
        return points[0][0], True
    (t0, e0), (t1, e1) = points[best - 1 : best + 1]
    share = math.log(e0 / target) / math.log(e0 / e1) if e1 < e0 else 1.0
    return t0 * (t1 / t0) ** share, True


def coverage(run: dict[str, Any]) -> tuple[int, int]:
    """How many of the stated 95 % intervals of the tick-aligned method contain the truth, and of how many."""
    hits = total = 0
    for window in run["windows"]:
        if "estimate" in window and same_temperature(run, window):
            truth_j = truth_at(run, (window["start_s"] + window["end_s"]) / 2)
            off = abs(window["estimate"]["energy_j"] / truth_j - 1)
            hits += off <= window["estimate"]["energy_rel_error"]
            total += 1
    return hits, total


def print_report(runs: list[dict[str, Any]]) -> None:
    """Prints, for each run, conditions, errors by window and method, and GPU time at equal error."""
    for run in runs:
        _print_conditions(run)
        _print_errors(run)
        _print_equal_error(run)


def _print_conditions(run: dict[str, Any]) -> None:
    shape, truths = run["workload"], run["truths"]
    energies_j = np.array([t["energy_j"] for t in truths])
    temperatures = [c for t in truths for c in t["temperature_c"] if c is not None]
    warm = f"{min(temperatures):g} to {max(temperatures):g} °C" if temperatures else "temperature unknown"
    print(
        f"\n== {shape['name']}: MLP n={shape['n_layers']} d={shape['width']} m={shape['tokens']} {shape['dtype']} "
        f"on {run['info'].get('device_name')}, driver {run['info'].get('driver_version')}"
    )
    print(
        f"truth {energies_j.mean() * 1e3:.4g} mJ, {truths[0]['time_s'] * 1e6:.4g} µs, {truths[0]['power_w']:.4g} W, "
        f"in {len(truths)} slices of {truths[0]['end_s'] - truths[0]['start_s']:.1f} s that span "
        f"{np.ptp(energies_j) / energies_j.mean():.2%} over {truths[-1]['end_s'] - truths[0]['start_s']:.0f} s; {warm}"
    )
    left_out = sum(not same_temperature(run, w) for w in run["windows"])
    too_short = sum("too_short" in w for w in run["windows"])
    tick = run["tick_period"]
    print(
        f"counter every {tick['period_s'] * 1e3:.1f} ms (p5 {tick['p5_s'] * 1e3:.1f}, p95 {tick['p95_s'] * 1e3:.1f}); "
        f"polling changes time per iteration by {run['overhead']['graph']:+.2%} (graph), "
        f"{run['overhead']['eager']:+.2%} (eager); {left_out} windows left out for their temperature, "
        f"{too_short} repeated for too few ticks"
    )
    hits, total = coverage(run)
    if total:
        print(f"stated 95 % intervals that contain the truth: {hits} of {total}")


def _print_errors(run: dict[str, Any]) -> None:
    table = errors(run)
    print(f"\nRMS error against the truth (mean error); load = window + {run['settle_s']:g} s")
    names = [m for m in METHODS if m in table]
    print(f"{'window':>8} {'n':>3} " + " ".join(f"{METHODS[m]:>24}" for m in names))
    for window_s in sorted({w for by in table.values() for w in by}):
        cells, count = [], 0
        for method in names:
            values = table[method].get(window_s)
            if values is None:
                cells.append(f"{'-':>24}")
                continue
            count = max(count, len(values))
            cells.append(f"{f'{rms(values):.2%} ({values.mean():+.2%})':>24}")
        print(f"{window_s:6.1f} s {count:3d} " + " ".join(cells))


def _print_equal_error(run: dict[str, Any]) -> None:
    table = errors(run)
    others = [m for m in METHODS if m in table and m != "ticks"]
    if "ticks" not in table:
        return
    print("\nGPU-seconds for the error of each tick-aligned window, and the ratio")
    print(f"{'error':>8} {'ticks':>8} " + " ".join(f"{METHODS[m]:>24}" for m in others))
    for values in table["ticks"].values():
        target = rms(values)
        own_s, _ = seconds_for_error(run, "ticks", target)
        cells = []
        for method in others:
            seconds, reached = seconds_for_error(run, method, target)
            mark = "" if reached else "> "
            cells.append(f"{f'{mark}{seconds:.2f} s, {mark}{seconds / own_s:.1f} x':>24}")
        print(f"{target:8.2%} {own_s:6.2f} s " + " ".join(cells))


def plot_errors(runs: list[dict[str, Any]], path: Path) -> Path:
    """Draws RMS error against GPU time per window, a panel for each run; returns the path of the PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    columns = len(runs) if len(runs) < 4 else 2
    rows = math.ceil(len(runs) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.6 * columns, 4.0 * rows), sharey=True, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(runs) :]:
        axis.set_axis_off()
    for axis, run in zip(axes.flat, runs, strict=False):
        table = errors(run)
        for number, (method, name) in enumerate(METHODS.items()):
            if method not in table:
                continue
            cost = gpu_seconds(run, method)
            times, values = [cost[w] for w in table[method]], [100 * rms(e) for e in table[method].values()]
            axis.plot(times, values, marker="osD^v"[number], color=f"C{number}", label=name)
        axis.set(xscale="log", yscale="log", xlabel="GPU time per window (s)")
        axis.set_xticks([w + run["settle_s"] for w in sorted({w["window_s"] for w in run["windows"]})])
        axis.xaxis.set_major_formatter("{x:.2g}")
        axis.minorticks_off()
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        energy_j = float(np.mean([truth["energy_j"] for truth in run["truths"]]))
        energy = f"{energy_j:.3g} J" if energy_j >= 1 else f"{energy_j * 1e3:.3g} mJ"
        axis.set_title(
            f"{run['workload']['name']}: {energy} an iteration\n{run['info'].get('device_name')}", fontsize=10
        )
        axis.grid(True, alpha=0.25)
    for row in axes:
        row[0].set_ylabel("RMS error against a long window (%)")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=160)
    plt.close(figure)
    return path
