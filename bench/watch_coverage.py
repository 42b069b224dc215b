"""Do the intervals of energy per step contain the truth? Simulated counters around loops whose steps and power vary.

    python bench/watch_coverage.py                              # 200 windows of 1, 2 and 5 s each
    python bench/watch_coverage.py --windows 100 --seconds 5    # the table of docs/method.md

A loop of a minute is watched for some seconds at a random moment. The truth is the mean energy of its steps over the
40 s around that moment. Counters tick every 0.1 s: `ideal` adds up all power, `partial` sees the last 25 ms of a tick.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from flopray.energy.ticks import find_ticks
from flopray.errors import WindowTooShort
from flopray.testing.loops import simulated_loop
from flopray.testing.simulated_meter import SimulatedMeter, VirtualClock, poll_simulated
from flopray.watching.step_energy import energy_per_step
from flopray.watching.timeline import Timeline

LENGTH_S, AROUND_S = 60.0, 40.0
COUNTERS = {"ideal": None, "partial": 0.025}
#: Loops: the arguments of `simulated_loop`.
LOOPS: dict[str, dict[str, Any]] = {
    "even steps of 10 ms": {"work_s": 0.010},
    "eager: 13 % in time, 2 % in power": {
        **{"work_s": 0.0107, "wait_s": 0.003, "wait_rel": 0.6, "correlation_steps": 3.0},
        **{"power_rel": 0.02, "power_correlation_s": 0.5},
    },
    "waits alike over 100 steps": {"work_s": 0.010, "wait_s": 0.004, "wait_rel": 0.5, "correlation_steps": 100.0},
    "sequences of various lengths": {"work_s": 0.030, "work_rel": 0.3},
    "slow noise 1 %, 2 s": {"work_s": 0.012, "power_rel": 0.01, "power_correlation_s": 2.0},
    "slow noise 2 %, 0.5 s": {"work_s": 0.012, "power_rel": 0.02, "power_correlation_s": 0.5},
    "steps of 100 ms": {"work_s": 0.08, "wait_s": 0.02, "wait_rel": 0.1},
    "steps of 330 ms": {"work_s": 0.26, "wait_s": 0.07, "wait_rel": 0.2},
    "10 ms of logging every 20 steps": {"work_s": 0.012, "pause_every": 20, "pause_s": 0.01},
    "1 s of evaluation every 100 steps": {"work_s": 0.012, "pause_every": 100, "pause_s": 1.0},
    "loader slower than the device": {"work_s": 0.1, "wait_s": 0.15, "wait_rel": 0.3},
}


def window(loop: str, counter: str, seconds: float, seed: int) -> tuple[float, float]:
    """Relative distance of one estimate from the truth, and its stated half width (infinite without one)."""
    simulated = simulated_loop(**LOOPS[loop], length_s=LENGTH_S, seed=seed)
    timeline = Timeline(simulated.start_s, simulated.end_s, np.arange(len(simulated.start_s)))
    start_s = float(np.random.default_rng([seed, 7]).uniform(AROUND_S / 2, LENGTH_S - AROUND_S / 2 - seconds))
    meter = SimulatedMeter(simulated.trace, VirtualClock(), seen_s=COUNTERS[counter], seed=seed)
    meter.clock.sleep(start_s)
    readings = poll_simulated(meter, seconds, 0.1, seed)
    seen = (timeline.start_s >= start_s) & (timeline.end_s <= start_s + seconds)
    watched = Timeline(timeline.start_s[seen], timeline.end_s[seen], np.arange(np.sum(seen)))
    middle_s = start_s + seconds / 2
    near = np.abs((timeline.start_s + timeline.end_s) / 2 - middle_s) < AROUND_S / 2
    truth_j = float(np.mean(simulated.energy_j[near]))
    try:
        found = energy_per_step(find_ticks(readings), watched)
    except WindowTooShort:
        return np.nan, np.inf
    return found.energy_j / truth_j - 1, found.rel_error


def row(loop: str, counter: str, seconds: float, outcomes: Sequence[tuple[float, float]]) -> str:
    """One line of the Markdown table."""
    error, stated = np.array(outcomes).T
    told = np.isfinite(stated)
    if not told.any():
        return f"| {loop} | {counter} | {seconds:g} s | 0 | - | - | - | - |"
    error, stated = error[told], stated[told]
    return (
        f"| {loop} | {counter} | {seconds:g} s | {told.mean():.2f} | {np.mean(np.abs(error) <= stated):.2f} "
        f"| {np.sqrt(np.mean(error**2)):.2%} | {np.mean(error):+.2%} | {np.median(stated):.2%} |"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=200, help="of each case")
    parser.add_argument("--loops", nargs="+", choices=list(LOOPS), default=list(LOOPS), metavar="LOOP")
    parser.add_argument("--counters", nargs="+", choices=list(COUNTERS), default=list(COUNTERS))
    parser.add_argument("--seconds", nargs="+", type=float, default=[1.0, 2.0, 5.0])
    args = parser.parse_args(argv)
    print("| loop | counter | watched | estimated | coverage | RMS error | mean error | stated half width, median |")
    print("|---|---|---|---|---|---|---|---|")
    for loop in args.loops:
        for counter in args.counters:
            for seconds in args.seconds:
                found = [window(loop, counter, seconds, seed) for seed in range(args.windows)]
                print(row(loop, counter, seconds, found), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
