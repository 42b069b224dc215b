"""Do the intervals of energy windows contain the truth? Simulated counters under loads whose power varies.

    python bench/energy_coverage.py                      # the table of docs/method.md
    python bench/energy_coverage.py --windows 40 --cases steady "iteration 95 ms"   # a quick look
    python bench/energy_coverage.py --fixed 1 2 3 5      # windows of fixed lengths, in seconds

Each window is polled and ends like a real one: the estimate is computed at each new tick until its error is at the
target, for at most 3 s. The truth is the load's mean power in the long run. Counters: `ideal` adds up all
power; `partial` sees the last 25 ms of each tick of 100 ms; `known` is the ideal one, and the estimator knows it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flopray.energy.estimator import EnergyEstimate, estimate_energy
from flopray.energy.load import LoadSpan
from flopray.energy.meter import Characteristics, Reading
from flopray.errors import WindowTooShort
from flopray.testing.power_traces import (
    ConstantPower,
    PowerTrace,
    RampPower,
    SinePower,
    SquarePower,
    StepPower,
    swinging_power,
    switching_power,
    wandering_power,
)
from flopray.testing.simulated_meter import Faults, SimulatedMeter, VirtualClock, poll_simulated

POWER_W = 300.0
CAP_S = 3.0
#: Windows of fixed lengths may go on for this long.
LONGEST_S = 5.0
COUNTERS = {"ideal": None, "partial": 0.025}
#: The ideal one, where the estimator knows that it adds up all power.
KNOWN = "known"


@dataclass(frozen=True)
class Load:
    """A power trace, the length of an iteration, and the long-run mean power (the lowest and highest correct value).

    Before `changes_s`, and until two ticks have shown the change, only the lowest is correct. `mean_w_per_s` is the
    increase of the mean for a window that is longer by a second.
    """

    trace: PowerTrace
    truth_w: tuple[float, float]
    iteration_s: float = 0.002
    changes_s: float = 0.0
    mean_w_per_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """One window: relative distance of its power from the truth, stated error, length, and whether it converged."""

    error: float
    stated: float
    window_s: float
    converged: bool

    @property
    def covered(self) -> bool:
        """Whether the interval contains the truth."""
        return self.error <= self.stated


def _phase(seed: int) -> float:
    """Where in its period a load is at the start; the counter draws its own phase from the plain seed."""
    return float(np.random.default_rng([seed, 1]).random())


def steady(seed: int) -> Load:
    del seed
    return Load(ConstantPower(POWER_W), (POWER_W, POWER_W))


def iteration(period_s: float, low_share: float = 0.2, low: float = 0.45, known: bool = True) -> Callable[[int], Load]:
    """An iteration whose last part takes less power; its length is known, or a wrong length is given."""

    def load(seed: int) -> Load:
        trace = SquarePower(POWER_W, low * POWER_W, period_s, low_share, _phase(seed))
        return Load(trace, (trace.mean_w, trace.mean_w), period_s if known else 0.002)

    return load


def sine(period_s: float, amplitude: float, known: bool = True) -> Callable[[int], Load]:
    """A sine; its period is an iteration, or is independent of iterations."""

    def load(seed: int) -> Load:
        trace = SinePower(POWER_W, amplitude * POWER_W, period_s, _phase(seed))
        return Load(trace, (POWER_W, POWER_W), period_s if known else 0.002)

    return load


def step(seed: int) -> Load:
    """A step of 15 %: once the window has seen it, both powers and all values between them are correct."""
    step_s = 0.4 + 0.6 * _phase(seed)
    return Load(StepPower(POWER_W, 1.15 * POWER_W, step_s), (POWER_W, 1.15 * POWER_W), changes_s=step_s)


def wandering(noise: float, correlation_s: float) -> Callable[[int], Load]:
    return lambda seed: Load(wandering_power(POWER_W, noise, correlation_s, LONGEST_S + 0.5, seed), (POWER_W, POWER_W))


def swinging(noise: float, damping_s: float, period_s: float) -> Callable[[int], Load]:
    """Power that swings about its mean, as under a power limiter."""

    def load(seed: int) -> Load:
        trace = swinging_power(POWER_W, noise, damping_s, period_s, LONGEST_S + 0.5, seed)
        return Load(trace, (POWER_W, POWER_W))

    return load


def switching(seed: int) -> Load:
    return Load(switching_power(POWER_W, 0.01, 3.0, LONGEST_S + 0.5, seed), (POWER_W, POWER_W))


def ramp(seed: int) -> Load:
    """1 % in a second: the truth is the mean of the window."""
    del seed
    return Load(RampPower(POWER_W, 0.01 * POWER_W), (POWER_W, POWER_W), mean_w_per_s=0.005 * POWER_W)


CASES: dict[str, Callable[[int], Load]] = {
    "steady": steady,
    "iteration 95 ms": iteration(0.095),
    "iteration 105 ms": iteration(0.105),
    "square 9.5 Hz, unknown": iteration(1 / 9.5, 0.5, 0.7, known=False),
    "square 9.5 Hz, known": iteration(1 / 9.5, 0.5, 0.7),
    "noise 2 %, 0.5 s": wandering(0.02, 0.5),
    "step of 15 %": step,
    "iteration 20 ms, 30 % of it low": iteration(0.02, 0.3),
    "iteration 50 ms": iteration(0.05),
    "iteration 66.7 ms, 30 % of it low": iteration(0.0667, 0.3),
    "iteration 99 ms": iteration(0.099),
    "iteration 100 ms": iteration(0.1),
    "iteration 101 ms": iteration(0.101),
    "iteration 110 ms": iteration(0.11),
    "iteration 133.3 ms": iteration(0.13333),
    "iteration 190 ms": iteration(0.19),
    "iteration 200 ms": iteration(0.2),
    "iteration 210 ms": iteration(0.21),
    "iteration 233 ms": iteration(0.233),
    "iteration 233 ms, half of it low": iteration(0.233, 0.5),
    "iteration 330 ms": iteration(0.33),
    "iteration 500 ms": iteration(0.5),
    "iteration 500 ms, 30 % of it low": iteration(0.5, 0.3),
    "iteration 700 ms": iteration(0.7),
    "iteration 1 s": iteration(1.0),
    "iteration 95 ms, half of it low": iteration(0.095, 0.5),
    "sine 95 ms, 10 %": sine(0.095, 0.1),
    "sine 1 s, 2.3 %, unknown": sine(1.0, 0.0226, known=False),
    "two states 1 % apart, 3 s": switching,
    "drift 1 % a second": ramp,
    "noise 2 %, 0.1 s": wandering(0.02, 0.1),
    "noise 4 %, 0.2 s": wandering(0.04, 0.2),
    "noise 1 %, 1 s": wandering(0.01, 1.0),
    "noise 1 %, 2 s": wandering(0.01, 2.0),
    "swing 2 %, 1 s": swinging(0.02, 0.5, 1.0),
    "swing 2 %, 0.6 s": swinging(0.02, 0.3, 0.6),
    "swing 5 %, 1.5 s": swinging(0.05, 0.75, 1.5),
}
FAULTS = {
    "steady, missed ticks": ("steady", {"faults": Faults(missed_tick_rate=0.2)}),
    "steady, jittered ticks": ("steady", {"jitter_rel": 0.05}),
    "iteration 95 ms, missed ticks": ("iteration 95 ms", {"faults": Faults(missed_tick_rate=0.2)}),
    "iteration 95 ms, jittered ticks": ("iteration 95 ms", {"jitter_rel": 0.05}),
}


def polled(case: str, counter: str, seed: int, length_s: float = CAP_S) -> tuple[Load, list[Reading]]:
    """A load and what the poller reads from it until the cap, or for another time."""
    case, options = FAULTS.get(case, (case, {}))
    load = CASES[case](seed)
    meter = SimulatedMeter(load.trace, VirtualClock(), seen_s=COUNTERS.get(counter), seed=seed, **options)
    return load, poll_simulated(meter, length_s, 0.1, seed)


def estimated(load: Load, readings: Sequence[Reading], counter: str = "ideal") -> EnergyEstimate:
    """The estimate of a window that ends with the last reading."""
    return estimate_energy(
        readings,
        LoadSpan(0.0, readings[-1].after_s),
        meter=Characteristics(seen_share=1.0) if counter == KNOWN else Characteristics(),
        time_per_iteration_s=load.iteration_s,
        time_rel_error=0.0,
    )


def fixed(case: str, counter: str, seed: int, lengths_s: Sequence[float]) -> list[Outcome]:
    """One window for each length, cut from the same readings."""
    load, readings = polled(case, counter, seed, max(lengths_s))
    outcomes = []
    for length_s in lengths_s:
        seen = [reading for reading in readings if reading.after_s <= length_s]
        outcomes.append(_outcome(load, estimated(load, seen, counter), seen[-1].after_s, False))
    return outcomes


def windows(case: str, counter: str, seed: int, targets: Sequence[float]) -> list[Outcome]:
    """One window for each target error, cut from the same readings."""
    load, readings = polled(case, counter, seed)
    outcomes: list[Outcome] = []
    estimate: EnergyEstimate | None = None
    for count in range(6, len(readings) + 1, 2):
        end_s = readings[count - 1].after_s
        try:
            estimate = estimated(load, readings[:count], counter)
        except WindowTooShort:
            continue
        while len(outcomes) < len(targets) and estimate.energy_rel_error <= targets[len(outcomes)]:
            outcomes.append(_outcome(load, estimate, end_s, True))
        if len(outcomes) == len(targets):
            return outcomes
    if estimate is None:
        raise WindowTooShort(f"no estimate within {CAP_S} s", CAP_S)
    return outcomes + [_outcome(load, estimate, CAP_S, False)] * (len(targets) - len(outcomes))


def _outcome(load: Load, estimate: EnergyEstimate, end_s: float, converged: bool) -> Outcome:
    low_w, high_w = load.truth_w
    if end_s < load.changes_s + 0.2:
        high_w = low_w
    more_w = load.mean_w_per_s * end_s
    # If a range is correct, the interval contains the truth when it reaches both ends of the range.
    error = max(abs(truth_w - estimate.power_w) for truth_w in (low_w + more_w, high_w + more_w)) / estimate.power_w
    return Outcome(error, estimate.energy_rel_error, end_s, converged)


def row(case: str, counter: str, target: float, outcomes: Sequence[Outcome]) -> str:
    """One line of the Markdown table."""
    covered = np.array([o.covered for o in outcomes])
    converged = np.array([o.converged for o in outcomes])
    among = f"{covered[converged].mean():.2f}" if converged.any() else "-"
    return (
        f"| {case} | {counter} | {target:.0%} | {covered.mean():.2f} | {converged.mean():.2f} | {among} "
        f"| {np.median([o.window_s for o in outcomes]):.2f} s | {np.median([o.stated for o in outcomes]):.2%} "
        f"| {np.percentile([o.error for o in outcomes], 95):.2%} |"
    )


def fixed_cell(outcomes: Sequence[Outcome]) -> str:
    """Coverage, median half width, real error, and the ratio of both."""
    half = float(np.median([o.stated for o in outcomes]))
    real = float(np.percentile([o.error for o in outcomes], 95))
    return f"{np.mean([o.covered for o in outcomes]):.2f}, {half:.2%} / {real:.2%} = {half / real:.1f}"


def fixed_lengths(args: argparse.Namespace) -> None:
    """The table of windows of fixed lengths: coverage, median half width over the real error's 95th percentile."""
    print("| load | counter | " + " | ".join(f"{length:g} s" for length in args.fixed) + " |")
    print("|---|---|" + "---|" * len(args.fixed))
    for case in args.cases:
        for counter in args.counters:
            runs = [fixed(case, counter, seed, args.fixed) for seed in range(args.windows)]
            cells = [fixed_cell([run[number] for run in runs]) for number in range(len(args.fixed))]
            print(f"| {case} | {counter} | " + " | ".join(cells) + " |", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=200, help="of each case")
    parser.add_argument("--cases", nargs="+", choices=[*CASES, *FAULTS], default=[*CASES, *FAULTS], metavar="CASE")
    parser.add_argument("--counters", nargs="+", choices=[*COUNTERS, KNOWN], default=list(COUNTERS))
    parser.add_argument("--targets", nargs="+", type=float, default=[0.02, 0.01])
    parser.add_argument(
        "--fixed", nargs="+", type=float, metavar="SECONDS", help="lengths of 0.6 to 5 s, instead of a stopping rule"
    )
    args = parser.parse_args(argv)
    if args.fixed:
        if not 0.6 <= min(args.fixed) <= max(args.fixed) <= LONGEST_S:
            parser.error(f"--fixed takes 0.6 to {LONGEST_S:g} s: shorter windows have too few ticks")
        fixed_lengths(args)
        return 0
    targets = sorted(args.targets, reverse=True)
    print("| load | counter | target | coverage | converged | of these | window | half width | real error, p95 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in args.cases:
        for counter in args.counters:
            runs = [windows(case, counter, seed, targets) for seed in range(args.windows)]
            for number, target in enumerate(targets):
                print(row(case, counter, target, [run[number] for run in runs]), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
