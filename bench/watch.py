"""Overhead of `flopray.watch` in a loop: time per step with it over time per step without it.

    python bench/watch.py                     # steps of about 10 ms, on the GPU if there is one
    python bench/watch.py --step-ms 3 --launches 200

Windows with and without the watch alternate, so that drift affects both equally; each pair gives a ratio. A step
launches a number of small products, as an eager training step does, so that the launching thread matters. Prints
the time of a step's calls by themselves, and the mean ratio with its 95 % interval, for `with w.step()`, for
`w.steps(...)` and for a watch that only samples.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch

import flopray
from flopray.measurement.statistics import half_widths
from flopray.watching.running import Watch


def make_step(launches: int, width: int, device: str) -> Callable[[], None]:
    """A step of many small products."""
    weight, x = (torch.randn(width, width, device=device) / width**0.5 for _ in range(2))

    def step() -> None:
        y = x
        for _ in range(launches):
            y = weight @ y

    return step


def blocks(step: Callable[[], None], steps: int, w: Watch) -> None:
    for _ in range(steps):
        with w.step():
            step()


def iteration(step: Callable[[], None], steps: int, w: Watch) -> None:
    for _ in w.steps(range(steps)):
        step()


def samples(step: Callable[[], None], steps: int, w: Watch | None = None) -> None:
    del w
    for _ in range(steps):
        step()


def seconds_a_step(run: Callable[[], None], steps: int) -> float:
    """Wall time, both ends synchronised."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start_s = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start_s) / steps


def ratios(how: Callable[..., None], step: Callable[[], None], steps: int, pairs: int, every: float) -> Iterable[float]:
    for pair in range(pairs):
        times_s = {}
        for watched in (False, True) if pair % 2 else (True, False):
            if watched:
                with flopray.watch(every=every) as w:
                    blocks(step, 3, w)
                    times_s[True] = seconds_a_step(lambda w=w: how(step, steps, w), steps)
            else:
                samples(step, 3)
                times_s[False] = seconds_a_step(lambda: samples(step, steps), steps)
        yield times_s[True] / times_s[False]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, default=10.0, help="length of a step, reached by its launches")
    parser.add_argument("--launches", type=int, help="products in a step (default: as many as the length allows)")
    parser.add_argument("--width", type=int, default=512, help="of the matrices")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a window")
    parser.add_argument("--pairs", type=int, default=20, help="windows with and without")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two samples")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    hundred_s = min(seconds_a_step(make_step(100, args.width, device), 1) for _ in range(5))
    launches = args.launches or max(1, round(100 * args.step_ms / 1e3 / hundred_s))
    step = make_step(launches, args.width, device)
    step_s = min(seconds_a_step(step, 1) for _ in range(5))
    steps = max(5, round(args.seconds / step_s))
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}: steps of {launches} launches, {step_s * 1e3:.2f} ms; {args.pairs} pairs of {steps} steps")
    with flopray.watch(every=args.every) as w:
        blocks(step, 3, w)
        calls_s = min(seconds_a_step(lambda: blocks(lambda: None, 2000, w), 2000) for _ in range(5))
    print(f"  the calls of a step by themselves: {calls_s * 1e6:.1f} µs, {calls_s / step_s:.2%} of it")
    for how in (blocks, iteration, samples):
        found = np.array([list(ratios(how, step, steps, args.pairs, args.every))])
        half = half_widths(found)[0]
        print(f"  {how.__name__:<10} with / without = {found.mean():.4f} ± {half:.4f} (median {np.median(found):.4f})")


if __name__ == "__main__":
    main()
