"""How power may fluctuate under a load that repeats itself: candidates for the covariance of a counter's ticks.

A counter adds up power, so what fluctuates in power is summed up in the energy at its ticks. Four kinds are known:

* white: each tick's mean power scatters by itself (a sensor that sees a part of the time, short iterations);
* slow: power wanders and comes back within some time (a limiter, clocks, a board that flips between two states, phases
  of a training loop, a beat of something unknown with the ticks), an Ornstein-Uhlenbeck process;
* swing: power swings about its mean with a period of about a second, as a limiter or a clock does that corrects too
  much; a whole period averages out, so that a mean over seconds is far better known than its ticks' scatter tells;
* phase: power depends on where in its iteration the device is. Ticks of a long iteration see it at phases that are
  known, and a phase that comes again shows the same power.

A handful of ticks cannot tell which of them is at work and how strong it is, so none is chosen: each candidate has a
prior weight, and `flopray.energy.regression` averages over all of them.

All energies are relative to the mean power, in seconds: 0.001 is what the device takes in a millisecond.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from flopray.energy.iterations import SEEN_S

#: Standard deviation of one tick's mean power, relative, and prior weight.
WHITE = {0.0: 0.93, 0.02: 0.03, 0.1: 0.02, 0.3: 0.02}
#: (standard deviation of power, relative; correlation time in seconds) and prior weight. No board holds still for
#: longer than the first: with less of it, boards that flip between two states 1 % apart are held less often. Of five
#: loads on an H100 two wandered by 1.5 to 2 %, and eager Transformers on an H200 by far more; five ticks cannot show
#: it, so more than half of the weight is on power that wanders. The price: a window of steady power is half as long
#: again as its own scatter requires.
SLOW = {
    (0.002, 2.0): 0.40,
    (0.01, 0.5): 0.07,
    (0.025, 0.5): 0.35,
    (0.06, 0.5): 0.08,
    (0.15, 2.0): 0.14,
}
#: (standard deviation of power, relative; time in seconds after which its phase is forgotten; period in seconds) and
#: prior weight, beside the weights above. An eager convolutional net on an H200 swung with a period of about a second,
#: and so does a board at its power limit. One period is enough, since its phase is forgotten so soon: swings of 0.6 s
#: are told nearly as well by it. A swing of 6 % as well would take weight from loads that wander by as much, and held
#: fewer of their means.
SWING = {(0.01, 0.5, 1.0): 0.11, (0.025, 0.5, 1.0): 0.24}
#: Standard deviation of power over the phases of a long iteration, relative, and prior weight; 0 comes first.
PHASE = {0.0: 0.1, 0.01: 0.1, 0.04: 0.15, 0.12: 0.15, 0.3: 0.1, 0.6: 0.1}
#: Standard deviation of the energy by which a long iteration is ahead or behind at a phase, over the energy of the
#: iteration, and prior weight; for a counter that adds up all power, so that each iteration adds the same.
WITHIN = {0.01: 0.15, 0.03: 0.2, 0.1: 0.15}
#: Phases closer than about this are alike. Short, so that a phase nobody saw stays unknown.
PHASE_LENGTH = 0.15
#: Iterations shorter than this pass many times within a tick, and the ticks' times are too blurred to know the phase.
MIN_PHASED_ITERATION_S = 0.01


#: More points than this are averaged in groups of neighbours: the cost of a fit grows with their cube.
MAX_POINTS = 48


@dataclass(frozen=True)
class Candidates:
    """Covariances of the ticks' energies, one for each candidate.

    Attributes:
        weight: prior weights; shape (candidates,).
        share: variances of the kinds (white, slow ones, swings, phases) in each candidate; shape (candidates, kinds).
        kind: covariance of each kind of variance 1, in seconds squared; shape (kinds, n, n).
    """

    weight: np.ndarray
    share: np.ndarray
    kind: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """Of each candidate, in seconds squared; shape (candidates, n, n)."""
        return np.tensordot(self.share, self.kind, axes=1)

    @property
    def power_noise(self) -> np.ndarray:
        """Standard deviation of one tick's mean power, relative; shape (candidates,)."""
        return np.sqrt(np.sum(self.share, axis=1))

    def averaged(self, mean: np.ndarray) -> Candidates:
        """The same for means of ticks; `mean` has shape (groups, n)."""
        return Candidates(self.weight, self.share, mean @ self.kind @ mean.T)


def candidates(
    time_s: np.ndarray,
    gap_s: float,
    *,
    known_noise: float = 0.0,
    iterations: np.ndarray | None = None,
    iteration_s: float = 0.0,
    seen_s: float = SEEN_S,
    slow: bool = True,
) -> Candidates:
    """The candidates for ticks at some times.

    Args:
        time_s: of the ticks, rising; shape (n,).
        gap_s: usual distance of two ticks.
        known_noise: white noise that is always there, relative.
        iterations: iterations since some start at each tick, with their fraction; shape (n,). None if unknown, or so
            short that ticks do not tell their phases.
        iteration_s: length of one.
        seen_s: how much of the end of each tick the sensor sees at least.
        slow: with swings, and slow kinds beyond the weakest; without them a drift is a drift and not a fluctuation.
    """
    since_s = time_s - time_s[0]
    whites_and_wanderings, rates = _products(slow)
    kinds = [np.minimum(since_s[:, None], since_s[None, :]) * gap_s, *(_summed(since_s, rate) for rate in rates)]
    phases = [(0, 0.0, 1.0)]
    if iterations is not None:
        kinds += [_phased(time_s, gap_s, iterations), iteration_s**2 * _within(iterations)]
        shown = min(1.0, iteration_s / (np.pi * seen_s))
        phases = [(-2, shown * sd, weight) for sd, weight in PHASE.items()]
        phases += [(-1, sd, weight) for sd, weight in WITHIN.items()]
    weight, share = [], []
    for (white, wanders, p), (kind, a, p_a) in itertools.product(whites_and_wanderings, phases):
        variance = np.zeros(len(kinds))
        variance[0] = known_noise**2 + white**2
        for rate, sd in wanders:
            variance[1 + rates.index(rate)] += sd**2
        variance[kind] += a**2
        weight.append(p * p_a)
        share.append(variance)
    return Candidates(np.array(weight), np.array(share), np.array(kinds))


def _products(slow: bool) -> tuple[list[tuple[float, list[tuple[complex, float]], float]], list[complex]]:
    """White noise, what else power does (rates and standard deviations) and prior weights; and all rates.

    A swing comes without white noise beyond what is known, which keeps the number of candidates low, and on top of what
    no board is without.
    """
    least, *others = SLOW.items()
    (least_sd, least_tau_s), _ = least
    found = [
        (white, [(complex(1 / tau_s), sd)], p_white * p_slow)
        for (white, p_white), ((sd, tau_s), p_slow) in itertools.product(
            WHITE.items(), [least, *others] if slow else [least]
        )
    ]
    if slow:
        found += [
            (0.0, [(complex(1 / least_tau_s), least_sd), (1 / tau_s - 2j * np.pi / period_s, sd)], p)
            for (sd, tau_s, period_s), p in SWING.items()
        ]
    return found, list(dict.fromkeys(rate for _, wanders, _ in found for rate, _ in wanders))


def _summed(since_s: np.ndarray, rate: complex) -> np.ndarray:
    """Covariance of the integral, from 0 to each time, of a power with the covariance Re exp(-rate |t|).

    With a real rate that is an Ornstein-Uhlenbeck process of variance 1, with an imaginary part a damped swing
    (https://doi.org/10.3847/1538-3881/aa9332, section 3). The double integral is the same for both.
    """
    s, t = since_s[:, None], since_s[None, :]
    decays = np.exp(-rate * since_s)
    apart = np.exp(-rate * np.abs(s - t))
    return np.real((2 * rate * np.minimum(s, t) - 1 + decays[:, None] + decays[None, :] - apart) / rate**2)


def _phased(time_s: np.ndarray, gap_s: float, iterations: np.ndarray) -> np.ndarray:
    """Covariance of a sum over ticks of a power that depends on the phase of the iteration, of variance 1.

    Missed ticks are put in again: the counter summed up at their times too.
    """
    count = np.maximum(np.rint(np.diff(time_s) / gap_s).astype(int), 1)
    last = np.concatenate([[0], np.cumsum(count)])
    phase = np.interp(np.arange(1, last[-1] + 1), last, iterations) % 1.0
    width_s = np.repeat(np.diff(time_s) / count, count)
    alike = _circle(phase[:, None] - phase[None, :])
    summed = np.tril(np.ones((last[-1] + 1, last[-1])), -1)[last] * width_s
    return summed @ alike @ summed.T


def _within(iterations: np.ndarray) -> np.ndarray:
    """Correlation of the energies by which an iteration is ahead or behind at the ticks' phases.

    One half is a Brownian bridge round the circle (power that changes all the time within an iteration), the other half
    its integral less the mean (few changes, with steady power between them): the Bernoulli polynomials B2 and B4 of the
    distance, as in periodic smoothing splines (Wahba 1990, https://doi.org/10.1137/1.9781611970128, section 2.1).
    """
    distance = (iterations[:, None] - iterations[None, :]) % 1.0
    around = distance * (1 - distance)
    return 1 - 3 * around - 15 * around**2


def _circle(difference: np.ndarray) -> np.ndarray:
    """Correlation of the powers of two phases; their mean over all phases is zero, since that is the mean power."""
    distance = np.abs((difference + 0.5) % 1.0 - 0.5)
    mean = 2 * PHASE_LENGTH * (1 - np.exp(-0.5 / PHASE_LENGTH))
    return (np.exp(-distance / PHASE_LENGTH) - mean) / (1 - mean)
