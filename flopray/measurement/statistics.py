"""The mean of correlated repeats and how far to trust it.

Neighbouring laps are alike: clocks, caches and other programs leave states that outlast a lap. What decides how far the
mean of n laps may be off is their spectrum at frequency zero, which n laps can only show nearby. So the laps
are decomposed into cosines (a discrete cosine transform). Cosine k has the frequency w_k = pi k / n, the cosines of a
stationary series are nearly independent of each other and of the mean, and

    variance of cosine k = s**2 g(w_k),        variance of the mean = s**2 g(0) / n.

`g` is the spectrum of one of a few models (Whittle's likelihood, https://en.wikipedia.org/wiki/Whittle_likelihood; for
the interval of a mean by low-frequency cosines see Lazarus, Lewis, Stock and Watson 2018,
https://doi.org/10.1080/07350015.2018.1506926):

* independent laps;
* states that last: a first-order autoregression alone, or with independent noise on top. Its corner frequency is
  pi j / n for a few j, so that the states may last from one lap to a good part of the window;
* laps that alternate: a first-order autoregression with a negative coefficient.

Few laps cannot show which model holds, so the models are averaged, as in `flopray.energy.regression`: each model gives
a Student t distribution of the mean, weighed by its likelihood and by a prior that favours independent laps. That prior
is the small-sample correction: with few laps, states that cannot be ruled out make the interval wider; with many laps
only states that the laps show count.

A window that ends as soon as its interval is narrow enough needs more care: windows whose laps look quiet by chance end
first. Nearly all that miss for this reason are short, and hold few states. So the interval of a window that ends by
itself (`stopping`) takes the distributions of lasting states to be wider than their likelihood says and with heavier
tails. Independent laps get no wider interval: the prior of lasting states is lower in exchange.

The interval is of the mean under continued repetition, as far as a window can know it. States that last longer than
about a tenth of the window, and kinds of laps that did not occur in it, are outside. `bench/lap_coverage.py` measures
how often the interval holds the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.fft import dct
from scipy.special import stdtr, stdtrit

from flopray.units import counted

#: With fewer laps, a kind of lap that makes up a tenth of all may not have occurred (chance 0.9**25 = 7 %).
FEWEST_LAPS = 25
#: From this number on, laps that are known to average over such kinds show their scatter.
FEWEST_LONG_LAPS = 5
#: Number of cosines used: the lowest, which are nearest to frequency zero. More would hardly narrow Student's t.
_COSINES = 64
#: Corner frequencies of the states in units of pi / n.
_CORNERS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
#: Shares of the independent noise in the variance of lasting states, and how likely each is beforehand.
_NOISE_SHARES, _NOISE_PRIORS = (0.0, 0.3, 0.6, 0.85), (2.0, 2.0, 1.0, 0.3)
#: States that last longer are a little more likely beforehand, since few laps show them least: prior corner**-0.15.
_LASTING = 0.15
#: Coefficients of laps that alternate.
_ALTERNATING = (-0.3, -0.6)
#: Prior weights of independent laps (at a length that was fixed, and where a window ends by itself) and of alternating
#: ones; states that last share the rest. Chosen so that on independent laps the median interval stays within 1.3 times
#: Student's from 25 laps on, and so that the two differ little.
_INDEPENDENT_PRIOR, _INDEPENDENT_PRIOR_STOPPING, _ALTERNATING_PRIOR = 0.62, 0.82, 0.03
#: Where a window ends by itself, lasting states in n laps are taken to be wider: 1 + this / n, below 25 laps as at 25.
#: Chosen by `bench/lap_coverage.py`, as is `_STATE_DOF`.
_FEW_LAPS = 50.0
#: There, degrees of freedom of states with corner frequency pi j / n: the first of these, and the second times j. About
#: j cosines lie below the corner, and only they show the level that the mean depends on.
_STATE_DOF = (3.0, 2.0)
#: Above this corner frequency (radians a lap) a state lasts half a lap, and laps are independent.
_HIGHEST_CORNER = 2.0


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval.

    Attributes:
        value: the mean.
        rel_error: half width of the interval over the mean; infinite where there is none.
        reason: why there is no interval, or None.
    """

    value: float
    rel_error: float
    reason: str | None = None


def batch_mean(times_s: Sequence[float], *, fewest: int = FEWEST_LAPS, stopping: bool = False) -> Mean:
    """Mean of equally long batches of iterations, with a 95 % interval that allows for correlation between neighbours.

    Args:
        times_s: one value a lap, in the order measured; every lap holds the same number of iterations.
        fewest: laps that an interval needs at least.
        stopping: the window ends when this interval is narrow enough.
    """
    values = np.asarray(times_s, dtype=float)
    mean = float(values.mean())
    if len(values) < fewest:
        return Mean(
            mean,
            float("inf"),
            f"{counted(len(values), 'lap tells', 'laps tell')} too little about their scatter: {fewest} are needed",
        )
    if mean <= 0:
        return Mean(mean, float("inf"), "the mean is not positive")
    return Mean(mean, float(half_widths(values[None], stopping=stopping)[0]) / mean)


def half_widths(series: np.ndarray, *, stopping: bool = False) -> np.ndarray:
    """Half widths of the 95 % intervals of the means of several series of laps; the module says how.

    Args:
        series: laps in the order measured, shape (series, laps); three laps at least.
        stopping: see `batch_mean`.

    Returns:
        Half widths in the unit of the laps, shape (series,).
    """
    laps = series.shape[1]
    models = _models(laps, stopping)
    cosines = models.inverse.shape[1]
    centred = series - series.mean(axis=1, keepdims=True)
    power = np.asarray(dct(centred, type=2, axis=1, norm="ortho"))[:, 1 : cosines + 1] ** 2
    # Rounding leaves a little power in laps that are all equal, and no power leaves no likelihood.
    tiny = (np.finfo(float).eps * np.abs(series).max(axis=1)) ** 2 + np.finfo(float).tiny
    scale2 = np.maximum(power @ models.inverse.T / cosines, tiny[:, None])  # shape (series, models)
    log_weight = models.log_prior + 0.5 * np.log(models.inverse).sum(axis=1) - 0.5 * cosines * np.log(scale2)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    widths = _mixture_half_width(weight, np.sqrt(scale2 * models.at_zero / laps) * models.wider, models.dof)
    return np.where(np.ptp(series, axis=1) == 0, 0.0, widths)


def student_half_widths(series: np.ndarray) -> np.ndarray:
    """The same for independent values (Student): shape (series, values) to (series,), two values at least."""
    count = series.shape[1]
    return stdtrit(count - 1, 0.975) * series.std(axis=1, ddof=1) / np.sqrt(count)


class _Models(NamedTuple):
    """Models of a number of laps.

    Attributes:
        log_prior: weights; shape (models,).
        at_zero: spectra at frequency zero; shape (models,).
        inverse: one over the spectra at the cosines; shape (models, cosines).
        wider: factor on the scale of the mean; shape (models,).
        dof: degrees of freedom of the mean; shape (models,).
    """

    log_prior: np.ndarray
    at_zero: np.ndarray
    inverse: np.ndarray
    wider: np.ndarray
    dof: np.ndarray


@lru_cache(maxsize=1024)
def _models(laps: int, stopping: bool) -> _Models:
    """The models of the module's docstring."""
    frequency = np.pi * np.arange(min(laps - 1, _COSINES) + 1) / laps  # of the mean, then of the cosines
    cosines = float(len(frequency) - 1)
    alternating = _ALTERNATING_PRIOR / len(_ALTERNATING)
    independent = _INDEPENDENT_PRIOR_STOPPING if stopping else _INDEPENDENT_PRIOR
    wider = 1 + _FEW_LAPS / max(laps, FEWEST_LAPS) if stopping else 1.0
    # Each is (prior weight, spectrum, factor on the scale, degrees of freedom).
    plain = [(independent, np.ones_like(frequency), 1.0, cosines)]
    plain += [(alternating, _autoregression(coefficient, frequency), 1.0, cosines) for coefficient in _ALTERNATING]
    states = [
        (
            j**-_LASTING * prior,
            share + (1 - share) * _autoregression(float(np.exp(-np.pi * j / laps)), frequency),
            wider,
            min(_STATE_DOF[0] + _STATE_DOF[1] * j, cosines) if stopping else cosines,
        )
        for j in _CORNERS
        if np.pi * j / laps <= _HIGHEST_CORNER
        for share, prior in zip(_NOISE_SHARES, _NOISE_PRIORS, strict=True)
    ]
    rest = (1 - sum(weight for weight, *_ in plain)) / sum(weight for weight, *_ in states)
    models = plain + [(rest * weight, *others) for weight, *others in states]
    weights, spectra, factors, dofs = (np.array(column) for column in zip(*models, strict=True))
    return _Models(np.log(weights), spectra[:, 0], 1 / spectra[:, 1:], factors, dofs)


def _autoregression(coefficient: float, frequency: np.ndarray) -> np.ndarray:
    """Spectrum of a first-order autoregression of variance 1, where that of independent laps is 1."""
    return (1 - coefficient**2) / (1 - 2 * coefficient * np.cos(frequency) + coefficient**2)


def _mixture_half_width(weight: np.ndarray, scale: np.ndarray, dof: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Half width that holds `level` of a mixture of centred Student t distributions; shape (series,).

    Args:
        weight: of each component, shape (series, components).
        scale: of each component, shape (series, components).
        dof: degrees of freedom of each component, shape (components,).
        level: of the interval.
    """
    widths = stdtrit(dof, (1 + level) / 2) * scale
    low, high = np.log(widths.min(axis=1)), np.log(widths.max(axis=1))
    for _ in range(14):  # to a thousandth of the width: the ends are less than a factor of 1e4 apart
        middle = (low + high) / 2
        outside = 2 * np.sum(weight * stdtr(dof, -np.exp(middle)[:, None] / scale), axis=1)
        low, high = np.where(outside > 1 - level, middle, low), np.where(outside > 1 - level, high, middle)
    return np.exp(high)


def in_quadrature(*rel_errors: float) -> float:
    """Relative errors of independent causes together."""
    return float(np.sqrt(sum(error**2 for error in rel_errors)))
