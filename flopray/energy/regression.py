"""The slope of energy over tick times when both the ticks and the power scatter, with an honest interval.

Model, for tick k at time t_k with counter E_k, in units of one mean tick (so that energy is measured in ticks too):

    E_k = a_s + p t_k + w_k + e_k

* a_s: one intercept for each segment between counter resets; p: mean power, what is asked for.
* e_k: error of the tick's time, independent, known in advance up to a common scale s: the tick lies somewhere between
  two reads, and the counter is cut to its quantum. Gives a slope whose error falls as n**-1.5.
* w_k: a random walk, since the counter adds up power and power fluctuates; variance `ratio` s**2 mean(var e) a tick.
  Gives a slope whose error falls as n**-0.5, which ordinary least squares would not notice.

`ratio` cannot be told from a handful of ticks, so it is not chosen but averaged over a grid: each value gives a
generalised least-squares fit with a Student t distribution for p, weighed by its restricted likelihood (Patterson and
Thompson 1971, https://doi.org/10.1093/biomet/58.3.545) and a prior that favours small ones. The scale has a scaled
inverse chi-squared prior of `PRIOR_DOF` observations at 1 (Gelman et al., Bayesian Data Analysis, section 14.8), so
that three ticks that happen to lie on one line do not claim to be exact: this is the floor by tick quantisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

#: Weight of the known tick errors, in observations.
PRIOR_DOF = 4.0
#: Variance that the random walk gains in one tick over the mean variance of a tick's time.
RATIOS = np.array([0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0])
#: Prior weights of `RATIOS`. A walk that is as large as the tick errors hides in a handful of ticks, so more weight on
#: it means wide intervals for steady power too; with these, intervals of steady power cover 95 to 97 %.
RATIO_PRIOR = np.array([0.9, 0.01, 0.02, 0.03, 0.015, 0.01, 0.01, 0.005])
#: More points than this are averaged in groups of neighbours first: the cost of a fit grows with their cube.
MAX_POINTS = 160


@dataclass(frozen=True)
class Posterior:
    """A mixture of Student t distributions.

    Attributes:
        weight, centre, scale: one value for each component; shape (components,).
        dof: degrees of freedom of all of them.
        noise: standard deviation of a tick's time, in mean ticks.
        walk: standard deviation that the random walk gains in one tick, in mean ticks.
    """

    weight: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    dof: float
    noise: float
    walk: float

    @property
    def mean(self) -> float:
        """Weighed mean of the centres."""
        return float(self.weight @ self.centre)

    def half_width(self, level: float = 0.95) -> float:
        """Half the width of the interval around `mean` that holds `level` of the probability."""
        offset = self.mean - self.centre
        low, high = 0.0, float(np.max(np.abs(offset)) + 700 * np.max(self.scale))
        for _ in range(60):
            middle = (low + high) / 2
            upper = stdtr(self.dof, (offset + middle) / self.scale)
            lower = stdtr(self.dof, (offset - middle) / self.scale)
            low, high = (middle, high) if self.weight @ (upper - lower) < level else (low, middle)
            if high - low < 1e-6 * high:
                break
        return high


def fit(
    x: np.ndarray, y: np.ndarray, variance: np.ndarray, segment: np.ndarray, *, walk_sd: float = 0.0, degree: int = 1
) -> Posterior:
    """Fits the model of the module's docstring and returns the coefficient of the highest power of time.

    Args:
        x: tick times in mean ticks, rising, centred by the caller; shape (n,).
        y: counter values in mean ticks (energy over mean power and mean tick); shape (n,).
        variance: of each tick's time, in mean ticks squared; shape (n,).
        segment: rising whole numbers, another one after each reset of the counter; shape (n,).
        walk_sd: what the random walk is known to gain in one tick at least, in mean ticks.
        degree: 1 for the slope, 2 for the curvature d2y/dx2 (which is the change of power per tick).
    """
    x, y, variance, segment = _thin(x, y, variance, segment)
    starts = segment[:, None] == np.unique(segment)[None, :]
    powers = [x**power / power for power in range(1, degree + 1)]
    design = np.column_stack([starts.astype(float), *powers])
    # Columns in comparable units keep the normal equations well conditioned; undone at the end.
    column_scale = np.max(np.abs(design), axis=0)
    design = design / column_scale
    since_s = x - np.array([x[segment == s][0] for s in segment]) if starts.shape[1] > 1 else x - x[0]
    walk = np.minimum(since_s[:, None], since_s[None, :]) * (segment[:, None] == segment[None, :])
    unit = float(np.mean(variance))
    covariance = np.diag(variance)[None] + (walk_sd**2 + RATIOS[:, None, None] * unit) * walk[None]

    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(
        factor, np.broadcast_to(np.column_stack([design, y]), (len(RATIOS), len(x), len(design.T) + 1))
    )
    normal = np.swapaxes(white, 1, 2) @ white
    gram, moment, total = normal[:, :-1, :-1], normal[:, :-1, -1], normal[:, -1, -1]
    inverse = np.linalg.inv(gram)
    solution = (inverse @ moment[..., None])[..., 0]
    residual = np.maximum(total - np.sum(solution * moment, axis=1), 0.0)

    dof = PRIOR_DOF + len(x) - design.shape[1]
    variance_scale = (PRIOR_DOF + residual) / dof
    log_weight = (
        np.log(RATIO_PRIOR)
        - np.sum(np.log(np.diagonal(factor, axis1=1, axis2=2)), axis=1)
        - 0.5 * np.linalg.slogdet(gram)[1]
        - 0.5 * dof * np.log(variance_scale)
    )
    weight = np.exp(log_weight - np.max(log_weight))
    weight /= np.sum(weight)
    return Posterior(
        weight=weight,
        centre=solution[:, -1] / column_scale[-1],
        scale=np.sqrt(variance_scale * inverse[:, -1, -1]) / column_scale[-1],
        dof=dof,
        noise=float(np.sqrt(weight @ variance_scale * unit)),
        walk=float(np.sqrt(weight @ (variance_scale * (walk_sd**2 + RATIOS * unit)))),
    )


def _thin(x: np.ndarray, y: np.ndarray, variance: np.ndarray, segment: np.ndarray) -> tuple[np.ndarray, ...]:
    """Averages groups of neighbouring points of the same segment where there are more than `MAX_POINTS`."""
    if len(x) <= MAX_POINTS:
        return x, y, variance, segment
    size = int(np.ceil(len(x) / MAX_POINTS))
    place = np.concatenate([np.arange(np.sum(segment == s)) // size for s in np.unique(segment)])
    new = np.concatenate([[True], (np.diff(place) != 0) | (np.diff(segment) != 0)])
    first = np.flatnonzero(new)
    count = np.diff(np.append(first, len(x)))
    mean = [np.add.reduceat(values, first) / count for values in (x, y)]
    return mean[0], mean[1], np.add.reduceat(variance, first) / count**2, segment[first]
