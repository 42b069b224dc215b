"""The slope of energy over tick times when both the ticks and the power scatter, with an honest interval.

Model, for tick k at time t_k with counter E_k, in units of one mean tick (so that energy is measured in ticks too):

    E_k = a_s + p t_k + w_k + e_k

* a_s: one intercept for each segment between counter resets; p: mean power, what is asked for.
* e_k: error of the tick's time, independent, known in advance up to a common scale s: the tick lies somewhere between
  two reads, and the counter is cut to its quantum. Gives a slope whose error falls as n**-1.5.
* w_k: what fluctuates in power, summed up by the counter; `flopray.energy.fluctuation` has the candidates for its
  covariance. Gives a slope whose error falls as n**-0.5 or slower, which ordinary least squares would not notice.

A handful of ticks cannot tell the candidates apart, so they are not chosen but averaged: each gives a generalised
least-squares fit with a Student t distribution for p, weighed by its restricted likelihood (Patterson and Thompson
1971, https://doi.org/10.1093/biomet/58.3.545) and its prior weight. The scale has a scaled inverse chi-squared prior of
`PRIOR_DOF` observations at 1 (Gelman et al., Bayesian Data Analysis, section 14.8), so that three ticks that happen to
lie on one line do not claim to be exact: a floor set by tick quantisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from flopray.energy.fluctuation import Candidates

#: Weight of the known tick errors, in observations.
PRIOR_DOF = 6.0


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
        width = 2 * float(np.sqrt(self.weight @ (self.scale**2 + offset**2)))
        for _ in range(60):  # Newton's steps, and halves of what holds the width where one leaves it
            upper, lower = (offset + width) / self.scale, (offset - width) / self.scale
            missing = level - float(self.weight @ (stdtr(self.dof, upper) - stdtr(self.dof, lower)))
            low, high = (width, high) if missing > 0 else (low, width)
            density = float(self.weight @ ((_density(self.dof, upper) + _density(self.dof, lower)) / self.scale))
            step = missing / density if density > 1e-200 else math.inf
            sharp = abs(step) < 1e-7 * width
            if sharp and abs(missing) < 1e-6:
                return width + step
            # Where a narrow component begins, the density is high and a step says little.
            width = width + step if low < width + step < high and not sharp else (low + high) / 2
            if high - low < 1e-7 * high:
                break
        return high


def _density(dof: float, t: np.ndarray) -> np.ndarray:
    """Of a Student t distribution."""
    unit = math.exp(math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2)) / math.sqrt(dof * math.pi)
    return unit * (1 + t**2 / dof) ** (-(dof + 1) / 2)


def fit(
    x: np.ndarray,
    y: np.ndarray,
    variance: np.ndarray,
    segment: np.ndarray,
    noise: Candidates,
    *,
    degree: int = 1,
) -> Posterior:
    """Fits the model of the module's docstring and returns the coefficient of the highest power of time.

    Args:
        x: tick times in mean ticks, rising, centred by the caller; shape (n,).
        y: counter values in mean ticks (energy over mean power and mean tick); shape (n,).
        variance: of each tick's time, in mean ticks squared; shape (n,).
        segment: rising whole numbers, a higher one after each reset of the counter; shape (n,).
        noise: what power may do between the ticks; its covariances in mean ticks squared.
        degree: 1 for the slope, 2 for the curvature d2y/dx2 (which is the change of power per tick).
    """
    starts = segment[:, None] == np.unique(segment)[None, :]
    powers = [x**power / power for power in range(1, degree + 1)]
    design = np.column_stack([starts.astype(float), *powers])
    # Columns in comparable units keep the normal equations well conditioned; undone at the end.
    column_scale = np.max(np.abs(design), axis=0)
    design = design / column_scale
    unit = float(np.mean(variance))
    covariance = np.diag(variance)[None] + noise.covariance

    factor = np.linalg.cholesky(covariance)
    right = np.column_stack([design, y])
    white = np.linalg.solve(factor, np.broadcast_to(right, (len(factor), *right.shape)))
    normal = np.swapaxes(white, 1, 2) @ white
    gram, moment, total = normal[:, :-1, :-1], normal[:, :-1, -1], normal[:, -1, -1]
    inverse = np.linalg.inv(gram)
    solution = (inverse @ moment[..., None])[..., 0]
    residual = np.maximum(total - np.sum(solution * moment, axis=1), 0.0)

    dof = PRIOR_DOF + len(x) - design.shape[1]
    variance_scale = (PRIOR_DOF + residual) / dof
    log_weight = (
        np.log(noise.weight)
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
        walk=float(np.sqrt(weight @ (variance_scale * noise.power_noise**2))),
    )
