"""Draw the counter's ticks in one stretch of load, the line through them, and how far each tick is from it.

    python bench/energy_ticks.py results/bench/energy_windows_small_0_0.json --out docs/results

The JSON is what `energy_windows.py` writes; a slice of its truth is drawn, so no GPU is needed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from flopray.energy.estimator import estimate_power
from flopray.energy.load import LoadSpan
from flopray.energy.meter import Reading
from flopray.energy.nvml_meter import NvmlCounterMeter
from flopray.energy.ticks import find_ticks
from flopray.report.plot.figures import paper_style


def plot_ticks(run: dict[str, Any], path: Path, *, number: int = 0) -> Path:
    """Two panels over time: the counter with its line, and the ticks' distances from the line.

    Args:
        run: the JSON of `energy_windows.py`.
        path: path of the picture.
        number: which slice of the truth.

    Returns:
        The path.
    """
    stretch = run["truths"][number]
    readings = [Reading(*reading) for reading in stretch["readings"]]
    start_s, end_s, settle_s = stretch["start_s"], stretch["end_s"], run["settle_s"]
    meter = replace(NvmlCounterMeter.characteristics, settle_s=settle_s)
    power = estimate_power(readings, LoadSpan(start_s, end_s), meter=meter)
    ticks = find_ticks(readings)
    ticks = ticks.where((ticks.before_s >= start_s) & (ticks.after_s <= end_s))
    used = ticks.after_s >= start_s + settle_s
    centre_s, centre_j = ticks.time_s[used].mean(), ticks.energy_j[used].mean()
    line_j = centre_j + power.power_w * (ticks.time_s - centre_s)
    at_s, energy_j = ticks.time_s - start_s, ticks.energy_j - readings[0].energy_j
    offset_ms = 1e3 * (ticks.energy_j - line_j) / power.power_w

    with paper_style(8.0):
        figure = Figure(figsize=(5.2, 3.9), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
        steps_s, steps_j = np.append(0.0, at_s), np.append(0.0, energy_j)
        above.step(np.append(steps_s, end_s - start_s), np.append(steps_j, steps_j[-1]), where="post", color="0.6")
        label = f"{power.power_w:.1f} W ± {power.power_rel_error:.2%} from {power.ticks} ticks"
        above.plot(at_s, line_j - readings[0].energy_j, color="C0", label=label)
        for axis, values in ((above, energy_j), (below, offset_ms)):
            axis.plot(at_s[used], values[used], "o", ms=4, color="C0")
            axis.plot(
                at_s[~used],
                values[~used],
                "o",
                ms=4,
                mfc="white",
                mec="C3",
                label="dropped: includes energy from before",
            )
        below.errorbar(at_s, offset_ms, 500 * ticks.width_s, fmt="none", ecolor="0.5", elinewidth=0.8)
        below.axhline(0, color="C0", linewidth=0.8)
        above.set_ylabel("energy counter (J)")
        below.set_ylabel("off the line (ms)")
        below.set_xlabel("time since the load started (s)")
        above.legend(loc="upper left")
        shape = run["workload"]
        above.set_title(
            f"{run['info']['device_name']}: MLP n={shape['n_layers']} d={shape['width']} m={shape['tokens']}"
        )
        figure.savefig(path, dpi=200)
    return path


def main() -> None:
    """Read, draw, and print the path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="JSON", help="written by energy_windows.py")
    parser.add_argument("--slice", type=int, default=0, help="which slice of the truth (default the first)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of energy_ticks.png")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(plot_ticks(json.loads(args.run.read_text()), args.out / "energy_ticks.png", number=args.slice))


if __name__ == "__main__":
    main()
