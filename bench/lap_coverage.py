"""Coverage and width of the 95 % interval of a mean of laps. Needs no GPU.

    python bench/lap_coverage.py                        # the tables of docs/method.md, about 3 minutes
    python bench/lap_coverage.py --series 300           # a quick look
    python bench/lap_coverage.py --real 40              # 40 s of real laps on this CPU, cut into windows

The first table is of fixed lengths: coverage, and in brackets the median half width over Student's (which assumes
independent laps). The second is of windows that the stopping rule ends: it is checked at 25 laps and then at every
fourth, and ends a window at the target or the cap. The table has the coverage of the windows that converged and of all
windows, in brackets the share that converged and the mean number of laps, and then the half width at the cap for a
known spectrum of the laps, over the target. Above 1, no window should converge; those that do look quiet by chance.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from lap_series import MEAN_S, SERIES

from flopray.measurement.statistics import FEWEST_LAPS, half_widths, student_half_widths

LENGTHS = (5, 12, 25, 50, 100, 300)
#: Standard deviation of the laps over their mean, and target error.
STOPPING = ((0.01, 0.01), (0.05, 0.01), (0.05, 0.02), (0.1, 0.05))
#: A check every 40 ms, laps of 10 ms, a cap of 3 s.
EVERY, CAP = 4, 300


def at_fixed_lengths(count: int, seed: int) -> None:
    """Coverage and width for each kind of laps and each length."""
    print("| laps | " + " | ".join(map(str, LENGTHS)) + " |\n|---|" + "---|" * len(LENGTHS))
    for name, generate in SERIES.items():
        cells = []
        for length in LENGTHS:
            laps = generate(np.random.default_rng([seed, length]), count, length)
            half = half_widths(laps)
            held = np.mean(np.abs(laps.mean(axis=1) - MEAN_S) <= half)
            cells.append(f"{held:.2f} ({np.median(half / student_half_widths(laps)):.2f})")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def stopped(laps: np.ndarray, target: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each window's interval contains the truth, whether it converged, and its laps at the end.

    Args:
        laps: shape (windows, laps at the cap).
        target: relative half width that ends a window.
    """
    held, converged = np.zeros((2, len(laps)), dtype=bool)
    lengths = np.zeros(len(laps), dtype=int)
    running = np.arange(len(laps))
    for length in [*range(FEWEST_LAPS, laps.shape[1], EVERY), laps.shape[1]]:
        seen = laps[running, :length]
        half, mean = half_widths(seen, stopping=True), seen.mean(axis=1)
        if length == laps.shape[1]:  # the cap ends the rest, which state the interval of a fixed length
            half = np.where(half <= target * mean, half, half_widths(seen))
        enough = half <= target * mean
        ends = enough | (length == laps.shape[1])
        held[running[ends]] = (np.abs(mean - MEAN_S) <= half)[ends]
        converged[running[ends]] = enough[ends]
        lengths[running[ends]] = length
        running = running[~ends]
        if not len(running):
            break
    return held, converged, lengths


def where_the_stopping_rule_stops(count: int, seed: int) -> None:
    """Coverage for each kind of laps, scatter and target."""
    titles = [f"{scatter:.0%}, target {target:.0%}" for scatter, target in STOPPING]
    print("| laps | " + " | ".join(titles) + " |\n|---|" + "---|" * len(titles))
    for name, generate in SERIES.items():
        cells = []
        for scatter, target in STOPPING:
            laps = generate(np.random.default_rng([seed, 0]), count, CAP)
            laps = MEAN_S * (1 + scatter * (laps - MEAN_S) / np.std(laps - MEAN_S))
            held, converged, lengths = stopped(laps, target)
            of_converged = f"{held[converged].mean():.2f}" if converged.mean() >= 0.02 else "-"
            oracle = 1.96 * np.sqrt(np.mean((laps.mean(axis=1) / MEAN_S - 1) ** 2)) / target
            cells.append(
                f"{of_converged} / {held.mean():.2f} ({converged.mean():.0%}, {lengths.mean():.0f}) {oracle:.2f}"
            )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def real_laps(seconds: float) -> np.ndarray:
    """Laps of about 10 ms of a small MLP on one thread, one after the other."""
    import torch

    torch.set_num_threads(1)
    layers = [layer for _ in range(2) for layer in (torch.nn.Linear(256, 256), torch.nn.Sigmoid())]
    model, x = torch.nn.Sequential(*layers), torch.randn(64, 256)

    def lap(iterations: int) -> float:
        begin_s = time.perf_counter()
        for _ in range(iterations):
            model(x).sum().backward()
        return time.perf_counter() - begin_s

    lap(20)
    iterations = max(1, round(0.01 / (lap(50) / 50)))
    end_s, laps = time.perf_counter() + seconds, []
    while time.perf_counter() < end_s:
        laps.append(lap(iterations))
    return np.array(laps)


def cut_into_windows(laps: np.ndarray) -> None:
    """Coverage of windows of one long series for its mean."""
    lag_1 = np.corrcoef(laps[1:], laps[:-1])[0, 1]
    print(
        f"{len(laps)} laps, mean {laps.mean() * 1e3:.2f} ms, scatter {laps.std() / laps.mean():.1%}, lag 1 {lag_1:.2f}"
    )
    print("| laps in a window | windows | coverage | Student's | median half width |\n|---|---|---|---|---|")
    for length in (25, 50, 100, 300):
        windows = laps[: len(laps) // length * length].reshape(-1, length)
        off = np.abs(windows.mean(axis=1) - laps.mean())
        half, student = half_widths(windows), student_half_widths(windows)
        print(
            f"| {length} | {len(windows)} | {np.mean(off <= half):.2f} | {np.mean(off <= student):.2f} "
            f"| {np.median(half) / laps.mean():.1%} |"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=2000, help="series of each kind at fixed lengths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=float, metavar="SECONDS", help="measure laps on this CPU instead")
    args = parser.parse_args()
    if args.real:
        cut_into_windows(real_laps(args.real))
        return
    at_fixed_lengths(args.series, args.seed)
    print()
    where_the_stopping_rule_stops(args.series // 2, args.seed)


if __name__ == "__main__":
    main()
