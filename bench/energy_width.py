"""Where the half width of an energy window comes from, and how small it can be. Simulated counters.

    python bench/energy_width.py --terms           # the half width, term by term
    python bench/energy_width.py --bound           # what the best possible test of steady power would allow
    python bench/energy_width.py --variants        # what narrower intervals cost
    python bench/energy_width.py --terms --windows 20 --cases steady --seconds 2    # a quick look

The loads are those of `energy_coverage.py`. With `--terms` the same windows are estimated again and again, each time
with one more kind of fluctuation that power may have. With `--bound` nothing is left but the question whether power is
steady or wanders by 2 % within half a second, and the test that answers it with the fewest ticks: the ratio of both
likelihoods (Wald 1945, https://doi.org/10.1214/aoms/1177731118). With `--variants` the prior weights are others.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from energy_coverage import (
    CASES,
    COUNTERS,
    FAULTS,
    LONGEST_S,
    POWER_W,
    Outcome,
    fixed,
    fixed_cell,
    polled,
    windows,
)

from flopray.energy import fluctuation
from flopray.energy.estimator import MIN_TICKS, ticks_in_load
from flopray.energy.meter import Characteristics
from flopray.energy.regression import fit
from flopray.energy.ticks import Ticks, find_ticks

#: Power that does nothing: the fits need some fluctuation.
_NOTHING = (1e-6, 2.0)
_LEAST = next(iter(fluctuation.SLOW))
_ALL = {name: getattr(fluctuation, name) for name in ("WHITE", "SLOW", "SWING", "PHASE", "WITHIN")}
_NONE = {"WHITE": {0.0: 1.0}, "SLOW": {_NOTHING: 1.0}, "SWING": {}, "PHASE": {0.0: 1.0}, "WITHIN": {}}
#: Each estimate allows for what the one before allows for, and for one kind more; the last one is the estimator's own.
TERMS: dict[str, dict[str, dict]] = {
    "ticks": _NONE,
    "+ least fluctuation": {**_NONE, "SLOW": {_LEAST: 1.0}},
    "+ pattern of an iteration": {**_ALL, "WHITE": {0.0: 1.0}, "SLOW": {_LEAST: 1.0}, "SWING": {}},
    "+ wandering, white": {**_ALL, "SWING": {}},
    "+ swings": _ALL,
}
_OTHERS = {kind: weight for kind, weight in fluctuation.SLOW.items() if kind != _LEAST}
_HALF = {
    name: {kind: weight / 2 for kind, weight in kinds.items()}
    for name, kinds in (("SLOW", _OTHERS), ("SWING", fluctuation.SWING))
}
#: Other weights, which make narrower intervals.
VARIANTS: dict[str, dict[str, dict]] = {
    "as it is": _ALL,
    "least fluctuation 0.1 %": {**_ALL, "SLOW": {(0.001, 2.0): fluctuation.SLOW[_LEAST], **_OTHERS}},
    "least fluctuation 0.05 %": {**_ALL, "SLOW": {(0.0005, 2.0): fluctuation.SLOW[_LEAST], **_OTHERS}},
    "half as much wandering": {**_ALL, **_HALF, "SLOW": {_LEAST: fluctuation.SLOW[_LEAST], **_HALF["SLOW"]}},
}
#: The noise that a window of steady power has to be told from.
NOISE, NOISE_CASE = (0.02, 0.5), "noise 2 %, 0.5 s"
BOTH = ("steady", NOISE_CASE)
ODDS = (2.0, 5.0, 10.0, 20.0, 50.0)
TARGET = 0.01


@contextlib.contextmanager
def prior(weights: dict[str, dict]) -> Iterator[None]:
    """Estimates inside use these tables of prior weights instead of the estimator's own."""
    for name, table in weights.items():
        setattr(fluctuation, name, table)
    try:
        yield
    finally:
        for name, table in _ALL.items():
            setattr(fluctuation, name, table)


def term(name: str, case: str, counter: str, seconds: float, count: int) -> list[Outcome]:
    """Windows of one length, estimated with the fluctuations of one of `TERMS`."""
    with prior(TERMS[name]):
        return [fixed(case, counter, seed, [seconds])[0] for seed in range(count)]


def print_terms(cases: Sequence[str], counters: Sequence[str], lengths_s: Sequence[float], count: int) -> None:
    """Median half width after each term, and the real error's 95th percentile."""
    print("| load | counter | window | " + " | ".join(TERMS) + " | real error, p95 |")
    print("|---|---|---|" + "---|" * (len(TERMS) + 1))
    for case in cases:
        for counter in counters:
            for seconds in lengths_s:
                found = {name: term(name, case, counter, seconds, count) for name in TERMS}
                halves = [f"{np.median([o.stated for o in outcomes]):.2%}" for outcomes in found.values()]
                real = np.percentile([o.error for o in found["+ swings"]], 95)
                print(f"| {case} | {counter} | {seconds:g} s | {' | '.join(halves)} | {real:.2%} |", flush=True)


def variant_row(name: str, case: str, counter: str, lengths_s: Sequence[float], count: int) -> str:
    """One line of the table: windows of fixed lengths, then those that end at the target."""
    with prior(VARIANTS[name]):
        runs = [fixed(case, counter, seed, lengths_s) for seed in range(count)]
        ended = [windows(case, counter, seed, [TARGET])[0] for seed in range(count)]
    cells = [fixed_cell([run[number] for run in runs]) for number in range(len(lengths_s))]
    half, real = np.median([o.stated for o in ended]), np.percentile([o.error for o in ended], 95)
    cells += [f"{np.mean([o.covered for o in ended]):.2f}, {np.median([o.window_s for o in ended]):.2f} s"]
    cells += [f"{half:.2%} / {real:.2%} = {half / real:.1f}"]
    return f"| {case} | {counter} | {name} | {' | '.join(cells)} |"


def print_variants(cases: Sequence[str], counters: Sequence[str], lengths_s: Sequence[float], count: int) -> None:
    """Coverage and half width over the real error's 95th percentile, with other weights."""
    lengths = " | ".join(f"{length:g} s" for length in lengths_s)
    print(f"| load | counter | weights | {lengths} | at {TARGET:.0%}: coverage, window | half width |")
    print("|---|---|---|" + "---|" * (len(lengths_s) + 2))
    for case in cases:
        for counter in counters:
            for name in VARIANTS:
                print(variant_row(name, case, counter, lengths_s, count), flush=True)


def steady_odds(ticks: Ticks) -> tuple[float, float]:
    """How much likelier ticks are under steady power than under `NOISE`, and the power in watts if it is steady."""
    gap_s = float(np.median(np.diff(ticks.time_s)))
    variance = Characteristics().tick_error_share * (ticks.width_s / gap_s) ** 2
    both = {**_NONE, "SLOW": {_NOTHING: 0.5, NOISE: 0.5}}
    with prior(both):
        noise = fluctuation.candidates(ticks.time_s, gap_s).averaged(np.eye(len(ticks)) / gap_s)
    x = (ticks.time_s - np.mean(ticks.time_s)) / gap_s
    found = fit(x, (ticks.energy_j - ticks.energy_j[0]) / (POWER_W * gap_s), variance, ticks.segment, noise)
    return float(found.weight[0] / found.weight[1]), float(found.centre[0]) * POWER_W


def first_passages(case: str, seed: int, odds: Sequence[float]) -> list[tuple[float, float] | None]:
    """When the odds first reach each of these, as seconds and relative error of the power; None: not before the cap."""
    _, readings = polled(case, "ideal", seed)
    ticks = find_ticks(readings)
    ticks = ticks.where(ticks_in_load(ticks, start_s=0.0, end_s=readings[-1].after_s))
    found: list[tuple[float, float] | None] = [None] * len(odds)
    for size in range(MIN_TICKS, len(ticks) + 1):
        seen = ticks.where(np.arange(len(ticks)) < size)
        now, power_w = steady_odds(seen)
        for number, asked in enumerate(odds):
            if found[number] is None and now >= asked:
                found[number] = float(seen.before_s[-1]), abs(power_w / POWER_W - 1)
    return found


def print_bound(count: int) -> None:
    """When the best test calls power steady, and how much of the noise it lets through."""
    runs = {case: [first_passages(case, seed, ODDS) for seed in range(count)] for case in BOTH}
    print(
        "| odds | steady: seconds | real error, p95 | target over it | noise called steady | and outside the target |"
    )
    print("|---|---|---|---|---|---|")
    for number, asked in enumerate(ODDS):
        steady = [run[number] for run in runs["steady"]]
        passed = [p for p in steady if p is not None]
        # A window that never passes is longer than the cap.
        median_s = np.median([np.inf if p is None else p[0] for p in steady])
        real = np.percentile([error for _, error in passed], 95)
        noisy = [p for run in runs[NOISE_CASE] if (p := run[number]) is not None]
        outside = sum(error > TARGET for _, error in noisy) / count
        print(
            f"| {asked:g} | {median_s:.2f} s | {real:.2%} | {TARGET / real:.1f} | {len(noisy) / count:.2f} "
            f"| {outside:.3f} |",
            flush=True,
        )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--terms", action="store_true", help="the half width, term by term")
    what.add_argument("--bound", action="store_true", help="what the best test of steady power would allow")
    what.add_argument("--variants", action="store_true", help="what narrower intervals cost")
    parser.add_argument("--windows", type=int, default=100, help="of each case")
    parser.add_argument(
        "--cases", nargs="+", choices=[*CASES, *FAULTS], default=["steady", "iteration 95 ms"], metavar="CASE"
    )
    parser.add_argument("--counters", nargs="+", choices=list(COUNTERS), default=["ideal"])
    parser.add_argument("--seconds", nargs="+", type=float, default=[1.0, 1.7, 2.0, 3.0, 5.0], help="lengths")
    args = parser.parse_args(argv)
    if not 0.6 <= min(args.seconds) <= max(args.seconds) <= LONGEST_S:
        parser.error(f"--seconds takes 0.6 to {LONGEST_S:g} s: shorter windows have too few ticks")
    if args.bound:
        print_bound(args.windows)
    else:
        table = print_terms if args.terms else print_variants
        table(args.cases, args.counters, args.seconds, args.windows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
