"""Do energy windows on a real GPU hold the mean power of the seconds around them? Loads that are partly off.

    python bench/gpu_energy_windows.py --into traces.npz      # GPU 0, 26 s for each load, 4.5 minutes in all
    python bench/gpu_energy_windows.py --from traces.npz      # another look at what was recorded; needs no GPU
    python bench/gpu_energy_windows.py --from traces.npz --seen-share 0.26   # if it were not known to see all

Each load repeats an iteration of a fixed length: products of matrices for a part of it, nothing for the rest. Windows
begin at random moments of the record and end like real ones: at the first tick where the error is at the target, or
after 3 s. The truth is the mean power, by the same counter, of whole iterations from 3 s before to 3 s after a window.
"Sees" is the part of a tick, up to its end, in which the time under load explains the powers of ticks best: 100 % for
a counter that adds up all power, 25 % for a sensor that sees the last 25 of 100 ms. "Wanders" is the standard deviation
of the mean power of about 0.7 s, and how much of a deviation is left after 1.4 s (correlation).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flopray.energy.estimator import EnergyEstimate, estimate_energy
from flopray.energy.load import LoadSpan
from flopray.energy.meter import Reading
from flopray.energy.nvml_meter import NvmlCounterMeter
from flopray.energy.ticks import find_ticks
from flopray.errors import WindowTooShort

#: Length of an iteration in s and the part of it that is off; 0 is steady.
LOADS: dict[str, tuple[float, float]] = {
    "steady": (0.002, 0.0),
    "95 ms": (0.095, 0.3),
    "100 ms": (0.1, 0.3),
    "103 ms": (0.103, 0.3),
    "105 ms": (0.105, 0.3),
    "200 ms": (0.2, 0.3),
    "233 ms": (0.233, 0.3),
    "330 ms": (0.33, 0.3),
    "500 ms": (0.5, 0.3),
    "700 ms": (0.7, 0.3),
}
RECORD_S, SETTLE_S, CAP_S, AROUND_S = 24.0, 2.0, 3.0, 3.0
#: Iterations that are not longer than about two ticks do not tell which part of a tick is seen.
TELLING_S = 0.22


def record(load: str) -> np.ndarray:
    """What a poller reads while a load runs; shape (n, 3): before_s, after_s, energy_j, of SETTLE_S and RECORD_S."""
    import torch

    from flopray.energy.poller import Poller
    from flopray.energy.source import open_gpu_meter

    x = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    period_s, off = LOADS[load]
    meter = open_gpu_meter(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    begun_s = time.perf_counter()
    with Poller(meter) as poller:
        for number in range(round((SETTLE_S + RECORD_S) / period_s)):
            while time.perf_counter() < begun_s + (number + 1 - off) * period_s:
                torch.matmul(x, x)
                torch.cuda.synchronize()
            time.sleep(max(begun_s + (number + 1) * period_s - time.perf_counter(), 0.0))
        readings = poller.readings()
    meter.close()
    rows = np.array([(r.before_s - begun_s, r.after_s - begun_s, r.energy_j) for r in readings])
    return rows[rows[:, 0] > SETTLE_S]


def true_power_w(rows: np.ndarray, start_s: float, end_s: float, period_s: float) -> float:
    """Mean power of whole iterations around a window, by the counter's ticks."""
    ticks = find_ticks([Reading(*row) for row in rows])
    time_s, energy_j = ticks.time_s, ticks.energy_j
    first_s = max(start_s - AROUND_S, time_s[0])
    last_s = min(end_s + AROUND_S, time_s[-1])
    last_s = first_s + np.floor((last_s - first_s) / period_s) * period_s
    return float(np.diff(np.interp([first_s, last_s], time_s, energy_j))[0] / (last_s - first_s))


def powers(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean power between two ticks in W, and the times of both; shape (n,) each."""
    ticks = find_ticks([Reading(*row) for row in rows])
    return np.diff(ticks.energy_j) / np.diff(ticks.time_s), ticks.time_s[:-1], ticks.time_s[1:]


def time_on(time_s: np.ndarray, period_s: float, off: float) -> np.ndarray:
    """Seconds under load from the start to a time; same shape."""
    whole, phase = np.divmod(time_s / period_s, 1.0)
    return period_s * (whole * (1 - off) + np.minimum(phase, 1 - off))


def seen_share(rows: np.ndarray, period_s: float, off: float) -> tuple[float, np.ndarray]:
    """What part of each tick, up to its end, explains the ticks' powers best, and what the line leaves at each part.

    Returns:
        The part, and for 5, 10 ... 100 % the standard deviation of powers about a line in the time under load, in W.
    """
    power_w, start_s, end_s = powers(rows)
    shares = np.arange(1, 21) / 20
    left_w = []
    for share in shares:
        from_s = end_s - share * (end_s - start_s)
        on = (time_on(end_s, period_s, off) - time_on(from_s, period_s, off)) / (end_s - from_s)
        line = np.column_stack([on, np.ones_like(on)])
        left_w.append(float(np.std(power_w - line @ np.linalg.lstsq(line, power_w, rcond=None)[0])))
    return float(shares[np.argmin(left_w)]), np.array(left_w)


def wander(rows: np.ndarray, period_s: float) -> tuple[float, float]:
    """Of means of whole iterations, about 0.7 s each: standard deviation over the mean, and correlation after 1.4 s."""
    ticks = find_ticks([Reading(*row) for row in rows])
    length_s = max(1, round(0.7 / period_s)) * period_s
    energy_j = np.interp(np.arange(ticks.time_s[0], ticks.time_s[-1], length_s), ticks.time_s, ticks.energy_j)
    power_w = np.diff(energy_j)
    return float(np.std(power_w) / np.mean(power_w)), float(np.corrcoef(power_w[:-2], power_w[2:])[0, 1])


def estimated(readings: Sequence[Reading], period_s: float, known_share: float) -> EnergyEstimate:
    """The estimate of a window of these readings within a longer load."""
    return estimate_energy(
        readings,
        LoadSpan(readings[0].before_s - 1.0, readings[-1].after_s),
        meter=replace(NvmlCounterMeter.characteristics, seen_share=known_share),
        time_per_iteration_s=period_s,
        time_rel_error=0.0,
    )


def window(rows: np.ndarray, start: int, period_s: float, target: float, known_share: float) -> EnergyEstimate | None:
    """The estimate where the stopping rule ends a window that begins with a reading; None without an estimate."""
    readings = [Reading(*row) for row in rows[start:]]
    begun_s, estimate = readings[0].before_s, None
    for count in range(6, len(readings) + 1):
        end_s = readings[count - 1].after_s
        if end_s - begun_s > CAP_S:
            break
        try:
            estimate = estimated(readings[:count], period_s, known_share)
        except WindowTooShort:
            continue
        if estimate.energy_rel_error <= target:
            break
    return estimate


def row(load: str, rows: np.ndarray, target: float, windows: int, known_share: float) -> str:
    """One line of the Markdown table."""
    period_s, off = LOADS[load]
    random = np.random.default_rng(0)
    starts = random.integers(0, np.searchsorted(rows[:, 0], rows[-1, 0] - CAP_S), size=windows)
    errors, stated, reached = [], [], []
    for start in starts:
        estimate = window(rows, start, period_s, target, known_share)
        if estimate is None:
            continue
        truth_w = true_power_w(rows, rows[start, 0], rows[start, 0] + CAP_S, period_s)
        errors.append(abs(estimate.power_w / truth_w - 1))
        stated.append(estimate.energy_rel_error)
        reached.append(estimate.energy_rel_error <= target)
    wrong, half = np.array(errors), np.array(stated)
    mean_w = true_power_w(rows, 0.0, rows[-1, 1], period_s)
    sees = f"{seen_share(rows, period_s, off)[0]:.0%}" if period_s > TELLING_S else "-"
    held = wrong <= half
    of_these = f"{np.mean(held[np.array(reached)]):.2f}" if any(reached) else "-"
    wanders, lasting = wander(rows, period_s)
    return (
        f"| {load} | {mean_w:.0f} W | {wanders:.1%}, {lasting:.2f} | {sees} | {target:.0%} | {np.mean(held):.2f} "
        f"| {np.mean(reached):.2f} | {of_these} | {np.median(half):.2%} | {np.percentile(wrong, 95):.2%} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, metavar="FILE.npz", help="record on GPU 0 and keep what was read")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE.npz", help="records instead of a GPU")
    parser.add_argument("--loads", nargs="+", choices=list(LOADS), default=list(LOADS), metavar="LOAD")
    parser.add_argument("--windows", type=int, default=100, help="of each load")
    parser.add_argument("--targets", nargs="+", type=float, default=[0.02, 0.01])
    parser.add_argument("--seen-share", type=float, default=1.0, help="part of a tick that the counter sees at least")
    args = parser.parse_args(argv)
    if (args.into is None) == (args.source is None):
        parser.error("one of --into and --from is needed")
    if args.into is not None:
        kept: dict[str, Any] = {}  # arrays
        for load in args.loads:
            kept[load] = record(load)
            np.savez_compressed(args.into, **kept)  # what is there stays, if a later load fails
    records = np.load(str(args.source or args.into))
    cells = ("iteration", "mean power", "wanders", "sees", "target", "coverage", "converged", "of these", "half width")
    print("| " + " | ".join([*cells, "real error, p95"]) + " |")
    print("|" + "---|" * (len(cells) + 1))
    for load in (load for load in args.loads if load in records.files):
        for target in sorted(args.targets, reverse=True):
            print(row(load, records[load], target, args.windows, args.seen_share), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
