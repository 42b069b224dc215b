"""Do other prior weights make energy windows narrower? Fitted ones, and those of a device's earlier windows.

    python bench/energy_priors.py --fitted      # the weights that give the narrowest intervals with coverage
    python bench/energy_priors.py --pooled      # weights of a device's earlier windows, of the same load or of another

The loads are those of `energy_coverage.py`, at fixed lengths. What a sensor may have missed between the phases that
ticks see does not depend on weights and is left out. Each window is fitted once, with a least fluctuation of
0.05 and 0.1 % among the candidates as well; other weights then only mix what the candidates found.

`--fitted` looks for weights of what wanders, swings and phases, by random steps, that lower the mean ratio of half
width and real error (median over 95th percentile, 2 where it is less) while no load's coverage falls below 0.90
or, where it is below that already, below what it is. The weights are judged by windows that they were not fitted to.
`--pooled` adds the posterior weights of eight earlier windows to the prior ones, which count as four; and its second
row of a load has the quantiles of a normal distribution in place of Student's.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from energy_coverage import COUNTERS, estimated, polled

from flopray.energy import estimator, fluctuation
from flopray.energy.regression import Posterior

LENGTHS_S = (2.0, 3.0, 5.0)
LOADS = (
    *("steady", "iteration 95 ms", "iteration 105 ms", "square 9.5 Hz, known", "iteration 330 ms", "iteration 500 ms"),
    *("noise 2 %, 0.5 s", "noise 1 %, 1 s", "noise 4 %, 0.2 s", "swing 2 %, 1 s", "two states 1 % apart, 3 s"),
    *("sine 1 s, 2.3 %, unknown", "square 9.5 Hz, unknown"),
)
#: Least fluctuations that are tried besides that of the estimator.
_SMALLER = {(0.001, 2.0): 0.01, (0.0005, 2.0): 0.01}
_OWN = dict(fluctuation.SLOW)
_SLOW = {**_OWN, **_SMALLER}
_PHASES = [*fluctuation.PHASE.values(), *fluctuation.WITHIN.values()]
EARLIER, PRIOR_WINDOWS = 8, 4.0
Weights = Mapping[str, np.ndarray]
#: What the estimator uses: of slow kinds, of swings, of phases.
USED: Weights = {
    "slow": np.array([*_OWN.values(), *(1e-9 for _ in _SMALLER)]),
    "swing": np.array(list(fluctuation.SWING.values())),
    "phase": np.array(_PHASES),
}


class Window(NamedTuple):
    """A window that was fitted once: what each candidate found, how likely it makes the ticks, and what is added."""

    found: Posterior
    likelihood: np.ndarray
    rough_w: float
    truth_w: tuple[float, float]
    other: float
    unseen: float


def prior_of(weights: Weights, phased: bool) -> np.ndarray:
    """Weights of the candidates, in the order of `flopray.energy.fluctuation.candidates`."""
    kinds = [white * slow for white, slow in itertools.product(fluctuation.WHITE.values(), weights["slow"])]
    phases = weights["phase"] if phased else np.ones(1)
    return np.outer([*kinds, *weights["swing"]], phases).ravel()


def judged(window: Window, weights: Weights, dof: float | None = None) -> tuple[float, float]:
    """Half width and real error of a window with some weights, both relative; `dof` in place of the fit's."""
    weight = window.likelihood * prior_of(weights, len(window.likelihood) > len(prior_of(weights, False)))
    found = replace(window.found, weight=weight / weight.sum(), dof=dof or window.found.dof)
    power_w = found.mean * window.rough_w
    half = float(np.hypot(found.half_width() / found.mean, window.other)) + window.unseen
    return half, max(abs(truth_w - power_w) for truth_w in window.truth_w) / power_w


def windows_of(case: str, counter: str, seeds: Sequence[int]) -> list[list[Window]]:
    """For each length a list of windows."""
    kept: list[tuple[Posterior, np.ndarray]] = []
    plain: Any = estimator.fit

    def keep(*args: Any, **more: Any) -> Posterior:
        kept.append((plain(*args, **more), args[4].weight))
        return kept[-1][0]

    found: list[list[Window]] = [[] for _ in LENGTHS_S]
    try:
        estimator.fit, fluctuation.SLOW = keep, _SLOW
        for seed in seeds:
            load, readings = polled(case, counter, seed, max(LENGTHS_S))
            for place, length_s in enumerate(LENGTHS_S):
                kept.clear()
                estimate = estimated(load, [reading for reading in readings if reading.after_s <= length_s])
                slope, prior = kept[0]
                drift = estimate.drift_rel / 2 if estimate.drift_significant else 0.0
                likelihood = slope.weight / prior
                found[place].append(
                    Window(
                        slope,
                        likelihood / likelihood.max(),
                        estimate.power_w / slope.mean,
                        load.truth_w,
                        drift,
                        estimate.unseen_share,
                    )
                )
    finally:
        estimator.fit, fluctuation.SLOW = plain, _OWN
    return found


def figures(windows: Sequence[Window], weights: Weights, dof: float | None = None) -> tuple[float, float, float]:
    """Coverage, median half width, and the 95th percentile of the real error."""
    halves, errors = np.array([judged(window, weights, dof) for window in windows]).T
    return float(np.mean(errors <= halves)), float(np.median(halves)), float(np.percentile(errors, 95))


def cell(found: tuple[float, float, float]) -> str:
    covered, half, real = found
    return f"{covered:.2f}, {half:.2%} / {real:.2%} = {half / real:.1f}"


def normed(weights: Weights) -> Weights:
    """Weights whose sum over slow kinds and swings, and over phases, is 1."""
    total = weights["slow"].sum() + weights["swing"].sum()
    return {
        "slow": weights["slow"] / total,
        "swing": weights["swing"] / total,
        "phase": weights["phase"] / weights["phase"].sum(),
    }


def fitted_weights(sets: Sequence[Sequence[Window]], steps: int) -> Weights:
    """The best weights that random steps find."""
    rng = np.random.default_rng(0)
    best = normed(USED)
    before = [figures(windows, best) for windows in sets]
    needed = [min(0.9, covered) for covered, _, _ in before]
    lowest = np.mean([max(2.0, half / real) for _, half, real in before])
    print(f"as it is: mean ratio {lowest:.2f}", flush=True)
    for step in range(steps):
        tried = normed(
            {name: table * np.exp(rng.normal(0, 1.0 if step % 2 else 0.4, len(table))) for name, table in best.items()}
        )
        if step < 2:  # a smaller least fluctuation has nearly no weight yet
            tried = normed({**tried, "slow": np.maximum(tried["slow"], 0.1)})
        found, ratios = [], []
        for windows, least in zip(sets, needed, strict=True):
            found.append(figures(windows, tried))
            if found[-1][0] < least:
                break
            ratios.append(max(2.0, found[-1][1] / found[-1][2]))
        if len(ratios) == len(sets) and np.mean(ratios) < lowest:
            best, lowest = tried, np.mean(ratios)
            print(f"step {step}: mean ratio {lowest:.2f}", flush=True)
    return best


def print_fitted(count: int, steps: int) -> None:
    """The fitted weights, and both on other windows."""
    names = [(case, counter) for case in LOADS for counter in COUNTERS]
    both = {name: windows_of(*name, range(2 * count)) for name in names}
    sets = [windows[:count] for of_lengths in both.values() for windows in of_lengths]
    # of hard cases first, since a step ends at the first one that loses coverage
    sets.sort(key=lambda windows: figures(windows, USED)[0])
    best = fitted_weights(sets, steps)
    for name, table in best.items():
        print(name, " ".join(f"{value:.3f}" for value in table))
    print("| load | counter | weights | " + " | ".join(f"{length:g} s" for length in LENGTHS_S) + " |")
    print("|---|---|---|" + "---|" * len(LENGTHS_S))
    for (case, counter), of_lengths in both.items():
        for words, weights in (("as they are", USED), ("fitted", best)):
            cells = [cell(figures(windows[count:], weights)) for windows in of_lengths]
            print(f"| {case} | {counter} | {words} | {' | '.join(cells)} |", flush=True)


def learned(windows: Sequence[Window], smallest: float = 1e-9) -> Weights:
    """The weights after some earlier windows, by which candidates made their ticks likely.

    Args:
        windows: of the same device.
        smallest: prior weight of each of the smaller least fluctuations.
    """
    weights = normed({**USED, "slow": np.maximum(USED["slow"], smallest)})
    slow, swing = PRIOR_WINDOWS * weights["slow"], PRIOR_WINDOWS * weights["swing"]
    for window in windows:
        phased = len(window.likelihood) > len(prior_of(weights, False))
        posterior = window.likelihood * prior_of(weights, phased)
        kinds = posterior.reshape(-1, len(weights["phase"]) if phased else 1).sum(axis=1) / posterior.sum()
        whites = kinds[: -len(swing)].reshape(len(fluctuation.WHITE), -1)
        slow, swing = slow + whites.sum(axis=0), swing + kinds[-len(swing) :]
    return normed({**weights, "slow": slow, "swing": swing})


def print_pooled(count: int) -> None:
    """Windows of a load after eight windows of the same load, and after eight of steady power."""
    earlier = {case: windows_of(case, "ideal", range(EARLIER)) for case in LOADS}
    print("| load | earlier windows | " + " | ".join(f"{length:g} s" for length in LENGTHS_S) + " |")
    print("|---|---|" + "---|" * len(LENGTHS_S))
    for case in LOADS:
        now = windows_of(case, "ideal", range(EARLIER, EARLIER + count))
        none: list[list[Window]] = [[]] * len(LENGTHS_S)
        for words, history, smallest, dof in (
            ("none", none, 1e-9, None),
            ("none, normal quantiles", none, 1e-9, 1e6),
            ("of the same load", earlier[case], 1e-9, None),
            ("of the same load, and a smaller least fluctuation", earlier[case], 0.2, None),
            ("of steady power, and a smaller least fluctuation", earlier["steady"], 0.2, None),
        ):
            weights = [learned(windows, smallest) for windows in history]
            cells = [cell(figures(windows, each, dof)) for windows, each in zip(now, weights, strict=True)]
            print(f"| {case} | {words} | {' | '.join(cells)} |", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--fitted", action="store_true", help="weights for the narrowest intervals with coverage")
    what.add_argument("--pooled", action="store_true", help="weights of earlier windows")
    parser.add_argument("--windows", type=int, default=60, help="of each load (twice as many with --fitted)")
    parser.add_argument("--steps", type=int, default=400, help="of the search")
    args = parser.parse_args(argv)
    if args.fitted:
        print_fitted(args.windows, args.steps)
    else:
        print_pooled(args.windows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
