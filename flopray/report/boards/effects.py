"""The spread between boards of one type of device, and the interval of the type: a model with random effects.

The value of row r (a phase of a point) on board b is

    ln y_rb = mu_r + f_b + e_rb,    f_b ~ N(0, spread^2),    e_rb ~ N(0, scale_r (own_rb^2 + scatter^2))

with the factor f_b of a board, which all its rows share, and a scatter of the row on that board: its own stated error,
and what boards differ by beyond that. `scale_r` lets some rows scatter more than others.

- Factors and means are a weighted least-squares fit of rows and boards (the factors sum to zero). Many rows share a
  factor, so that it is well known.
- `scatter` gives chi-squared of the residuals its expected value (Paule and Mandel 1982, doi:10.6028/jres.087.022). The
  scales come from each row's own residuals and from those of all rows, by as much as rows differ in scatter at all:
  empirical Bayes of variances (Smyth 2004, doi:10.2202/1544-6115.1027). The fit is then repeated with them, so that
  rows that scatter do not move the factors.
- The interval of the type is that of the **mean over boards of the type**, of which the measured ones are a sample. Its
  variance is that of the mean of B factors, estimated from these B (so with B - 1 degrees of freedom: more rows do not
  help), and that of the row's scatter. Half its width is the root of both, times the mean of their quantiles of
  Student's t, weighed by the variances (Cochran and Cox 1957, Experimental Designs, 4.14): degrees of freedom that
  follow from the estimates, as Satterthwaite's, covered 87 % with two boards. A further interval is that of the value
  on **another board**.
- A `Prior` adds the spread that other boards of the type had, as so many more degrees of freedom: t falls from 12.7
  (two boards) to 3.2 with three boards before them. It is left out where the boards contradict it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import digamma, fdtrc, polygamma, stdtrit

Floats = NDArray[np.float64]

#: Half the width of a 95 % interval over the standard deviation.
_NORMAL = 1.959964
#: A prior is left out where its spread and that of the boards would differ this much with less than this probability.
_CONTRADICTS = 0.02
#: Fewer rows than this, or fewer degrees of freedom, do not show how rows differ in scatter.
_ROWS_FOR_SCALES = 8
#: More than this is as good as infinitely many.
_MOST_DEGREES = 1e4
#: The fit is repeated until factors change by less than this, or at most this often.
_CLOSE, _ROUNDS = 1e-4, 25


@dataclass(frozen=True)
class Prior:
    """What is known of the spread between boards of a type before any of them is measured.

    Attributes:
        spread: standard deviation of the factors of boards, relative.
        boards: how many boards it was estimated from; at least 2.
        source: where it comes from.
        groups: in how many groups these boards were measured; they were compared within a group only.
    """

    spread: float
    boards: int
    source: str
    groups: int = 1

    @property
    def degrees(self) -> int:
        """Degrees of freedom: each group has one less than it has boards."""
        return self.boards - self.groups


@dataclass(frozen=True, eq=False)
class BoardFit:
    """The fit of boards of one type. Arrays are of rows (R,) or of boards (B,); all errors are relative.

    Attributes:
        means: geometric mean over the boards of the type, in the unit of the values; NaN for rows without a value on a
            connected board.
        type_errors: half width of the 95 % interval of the mean over boards of the type.
        other_board_errors: half width of the 95 % interval of the value on another board of the type.
        factors: of each board against the mean of the boards, less 1; NaN for a board that shares no row with the
        others. factor_errors: half width of the 95 % interval of a factor. pair_errors: half width of that of the
        difference of two logarithms of factors, (B, B). spread: standard deviation between boards,
        after the prior if that is used. own_spread: the same from these boards alone. scatter: standard deviation of a
        row on a board about the factor, beyond the row's own error. residual: root mean square of the residuals, own
        errors included. degrees: of freedom of `spread`. prior: that was used. prior_left_out: the boards contradict
        it.
    """

    means: Floats
    type_errors: Floats
    other_board_errors: Floats
    factors: Floats
    factor_errors: Floats
    pair_errors: Floats
    spread: float
    own_spread: float
    scatter: float
    residual: float
    degrees: float
    prior: Prior | None
    prior_left_out: bool

    @property
    def boards(self) -> int:
        """Boards that share rows with one another."""
        return int(np.isfinite(self.factors).sum())


def fit_boards(values: Floats, errors: Floats, prior: Prior | None = None) -> BoardFit | None:
    """Separate the effects of boards, rows and scatter.

    Args:
        values: shape (R, B), positive; NaN where a board has no value of a row.
        errors: shape (R, B), relative half widths of the 95 % intervals that rows state of themselves; NaN where one
            states none, which then counts as the widest of all.
        prior: the spread of other boards of the type.

    Returns:
        None where no two boards share a row; one board has a fit with a prior alone.
    """
    logs = np.log(np.where(values > 0, values, np.nan))
    there = np.isfinite(logs)
    if not there.any():
        return None
    together = _connected(there)
    if together.sum() < (1 if prior and there.any(axis=0).sum() == 1 else 2):
        return None
    there = there & together
    own = _own_variances(errors, there)
    fit = _Fit.of(logs, there, own)
    degrees = fit.scales.degrees
    factors = fit.factors[together]
    count = len(factors)
    own_variance = float(np.sum(factors**2)) / max(count - 1, 1)
    variance, prior_degrees, left_out = _with_prior(own_variance, count - 1, prior)
    total = count - 1 + prior_degrees
    # The spread of the estimated factors contains their own error, which a row's mean has too: it counts once.
    blur = float(np.trace(fit.covariance)) / max(count - 1, 1) / count
    rows = np.maximum(fit.mean_variances - blur, 0.0)
    of_type = _half_width(variance / count, total, rows, degrees)
    of_row = np.divide((own * there).sum(axis=1), there.sum(axis=1), out=np.zeros(len(own)), where=there.any(axis=1))
    scattered = np.maximum(fit.scales.factors * (of_row + fit.scatter**2) - of_row, 0.0)
    another = _half_width(variance * (1 + 1 / count), total, rows + scattered, degrees)
    placed = np.where(together, np.expm1(fit.factors), np.nan)
    quantile = float(stdtrit(fit.degrees, 0.975))
    return BoardFit(
        means=np.where(there.any(axis=1), np.exp(fit.means), np.nan),
        type_errors=np.where(there.any(axis=1), of_type, np.nan),
        other_board_errors=np.where(there.any(axis=1), another, np.nan),
        factors=placed,
        factor_errors=np.where(together, fit.deviations * quantile, np.nan),
        pair_errors=np.where(np.outer(together, together), _of_pairs(fit) * quantile, np.nan),
        spread=float(np.sqrt(variance)),
        own_spread=float(np.sqrt(own_variance)),
        scatter=fit.scatter,
        residual=fit.residual,
        degrees=float(total),
        prior=None if left_out else prior,
        prior_left_out=left_out,
    )


def _of_pairs(fit: _Fit) -> Floats:
    """Standard errors of the differences of factors, (B, B).

    Factors sum to zero, so that those of two boards alone move against each other: the error of their difference is
    twice that of each, and not its root of two.
    """
    own = np.sqrt(np.maximum(np.diag(fit.covariance), 0.0))
    scale = np.divide(fit.deviations, own, out=np.ones_like(own), where=own > 0)  # by the rows' own residuals
    covariance = fit.covariance * np.outer(scale, scale)
    variances = np.diag(covariance)
    return np.sqrt(np.maximum(variances[:, None] + variances - 2 * covariance, 0.0))


@dataclass(frozen=True, eq=False)
class _Scales:
    """Variance of each row's scatter against that of all rows, and its degrees of freedom; shape (R,)."""

    factors: Floats
    degrees: Floats

    @classmethod
    def alike(cls, rows: int, degrees: float) -> _Scales:
        """For rows that scatter alike; where no residual says by how much, their own errors are used."""
        return cls(np.ones(rows), np.full(rows, degrees if degrees >= 1 else _MOST_DEGREES))


@dataclass(frozen=True, eq=False)
class _Fit:
    """The fit of rows and boards, with the covariance of the factors, (B, B), and their standard errors, (B,)."""

    means: Floats
    mean_variances: Floats
    factors: Floats
    covariance: Floats
    deviations: Floats
    scatter: float
    residual: float
    degrees: float
    scales: _Scales

    @classmethod
    def of(cls, logs: Floats, there: NDArray[np.bool_], own: Floats) -> _Fit:
        """Fit, and fit again with the scatter of each row from the residuals."""
        boards_of_row = there.sum(axis=1)
        degrees = float(there.sum() - (boards_of_row > 0).sum() - there.any(axis=0).sum() + 1)
        compared = boards_of_row > 1
        scales, scatter = np.ones(len(logs)), 0.0
        solved = _robust(logs, there)
        found = _Scales.alike(len(logs), degrees)
        for step in range(_ROUNDS):
            residuals = np.where(there, logs - solved[0][:, None] - solved[2], 0.0)
            scatter = (
                _scatter(residuals, there, own, scales, degrees) if step else _middle(residuals, there, own, degrees)
            )
            found = _row_scales(residuals**2 * _weights(there, own, np.ones_like(scales), scatter), there, degrees)
            # A row that agrees by chance gets no more weight than the usual one: its next value may not agree.
            scales = np.maximum(found.factors, np.median(found.factors[compared])) if compared.any() else scales
            before, solved = solved[2], _solve(logs, _weights(there, own, scales, scatter))
            if step and np.abs(solved[2] - before).max() < _CLOSE:
                break
        residuals = np.where(there, logs - solved[0][:, None] - solved[2], 0.0)
        residual = float(np.sqrt(np.sum(residuals**2) / max(degrees, 1.0)))
        means, variances, factors, covariance = solved
        weights = _weights(there, own, scales, scatter)
        errors, effective = _factor_errors(covariance, weights, residuals, max(degrees, 1.0))
        return cls(means, variances, factors, covariance, errors, scatter, residual, effective, found)


def _factor_errors(covariance: Floats, weights: Floats, residuals: Floats, degrees: float) -> tuple[Floats, float]:
    """Standard errors of factors, and their degrees of freedom, by the effective number of rows (Kish 1965).

    Weights follow from the residuals, which makes the covariance too small; that of the rows' own residuals (Huber's
    sandwich, by row) is taken where it is larger.
    """
    sums = weights.sum(axis=1)
    shared = (weights > 0).sum(axis=1) > 1
    scores = (weights * residuals)[shared] @ covariance
    count = max(int(shared.sum()), 1)
    sandwich = (scores**2).sum(axis=0) * count / max(count - 1, 1)
    effective = float(sums[shared].sum() ** 2 / max((sums[shared] ** 2).sum(), 1e-300)) - 1
    return np.sqrt(np.maximum(np.diag(covariance), sandwich)), min(max(effective, 1.0), degrees)


def _connected(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Boards of the largest group whose members are linked by shared rows; shape (B,)."""
    counts = there.astype(float)
    _, labels = connected_components(coo_array(counts.T @ counts), directed=False)
    sizes = np.array([np.sum((labels == group) & there.any(axis=0)) for group in range(labels.max() + 1)])
    rows = [there[:, labels == group].sum() for group in range(len(sizes))]
    best = max(range(len(sizes)), key=lambda group: (sizes[group], rows[group]))
    return (labels == best) & there.any(axis=0)


def _own_variances(errors: Floats, there: NDArray[np.bool_]) -> Floats:
    known = there & np.isfinite(errors) & (errors >= 0)
    widest = float(errors[known].max()) if known.any() else 0.0
    return (np.where(known, errors, widest) / _NORMAL) ** 2


def _weights(there: NDArray[np.bool_], own: Floats, scales: Floats, scatter: float) -> Floats:
    variances = (own + scatter**2) * scales[:, None]
    return np.where(there, 1 / np.maximum(variances, 1e-14), 0.0)


def _solve(logs: Floats, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Means, their variances, factors and the covariance of factors, of weighted least squares.

    Rows are eliminated: what is left is one equation a board, singular by the constant that the sum of zero fixes.
    """
    sums = weights.sum(axis=1)
    shares = weights / np.where(sums > 0, sums, 1.0)[:, None]
    filled = np.where(weights > 0, logs, 0.0)
    centred = filled - (shares * filled).sum(axis=1, keepdims=True)
    normal = np.diag(weights.sum(axis=0)) - weights.T @ shares
    covariance: Any = np.linalg.pinv(normal, hermitian=True, rcond=1e-12)
    factors = covariance @ (weights * centred).sum(axis=0)
    means: Any = (shares * (filled - factors)).sum(axis=1)
    variances: Any = 1 / np.where(sums > 0, sums, np.inf)
    variances = variances + np.einsum("rb,bc,rc->r", shares, covariance, shares)
    return means, variances, factors, covariance


def _robust(logs: Floats, there: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats, Floats]:
    """The fit of least absolute residuals, for a few rows that differ widely, as rows that wait for the host do.

    Least squares would attribute their difference to the board, and then find that all rows scatter as much.
    """
    weights = there.astype(float)
    solved = _solve(logs, weights)
    for _ in range(_ROUNDS):
        residuals = np.where(there, logs - solved[0][:, None] - solved[2], 0.0)
        # both boards of a pair have half the difference: a row's weight is one
        sizes = np.sqrt((residuals**2).sum(axis=1, keepdims=True)) + 1e-6
        solved = _solve(logs, weights / sizes)
    return solved


def _middle(residuals: Floats, there: NDArray[np.bool_], own: Floats, degrees: float) -> float:
    """Scatter beyond own errors by the median of the residuals, which is 0.6745 standard deviations."""
    freedom = max(degrees, 1.0) / there.sum()
    variance = (np.median(np.abs(residuals[there])) / 0.6745) ** 2 / freedom
    return float(np.sqrt(max(variance - np.median(own[there]), 0.0)))


def _scatter(residuals: Floats, there: NDArray[np.bool_], own: Floats, scales: Floats, degrees: float) -> float:
    """Standard deviation with which chi-squared is its degrees of freedom; 0 where own errors suffice."""
    if degrees < 1:
        return 0.0

    def excess(scatter: float) -> float:
        return float(np.sum(_weights(there, own, scales, scatter) * residuals**2)) - degrees

    low, high = 0.0, 1e-3
    if excess(low) <= 0:
        return 0.0
    while excess(high) > 0 and high < 10:
        low, high = high, high * 4
    root: Any = brentq(excess, low, high, xtol=1e-6)
    return float(root)


def _row_scales(squares: Floats, there: NDArray[np.bool_], degrees: float) -> _Scales:
    """Scatter of each row over that of all rows, from squared residuals in units of their expected variance.

    Row variances are taken to be `typical` times an inverse chi-squared with `shared` degrees of freedom, whose two
    numbers come from the mean and the variance of their logarithms.
    """
    counts = there.sum(axis=1)
    # factors took their share of the residuals' freedom
    spare = float((counts - 1)[counts > 1].sum())
    freedom = np.where(counts > 1, (counts - 1) * (degrees / spare if spare else 0.0), 0.0)
    scales = np.divide(squares.sum(axis=1), freedom, out=np.zeros(len(counts)), where=freedom > 0)
    pooled = _Scales.alike(len(counts), degrees)
    some = freedom > 0
    if some.sum() < _ROWS_FOR_SCALES:
        return pooled
    lifted = np.maximum(scales[some], 1e-5 * np.median(scales[some]) + 1e-12)
    halves = freedom[some] / 2
    centred = np.log(lifted) - digamma(halves) + np.log(halves)
    beyond = float(np.var(centred, ddof=1) - np.mean(polygamma(1, halves)))
    if beyond <= polygamma(1, _MOST_DEGREES / 2):
        return pooled
    shared = 2 * _inverse_trigamma(beyond)
    typical = float(np.exp(np.mean(centred) + digamma(shared / 2) - np.log(shared / 2)))
    return _Scales((shared * typical + freedom * scales) / (shared + freedom), shared + freedom)


def _inverse_trigamma(value: float) -> float:
    root: Any = brentq(lambda x: float(polygamma(1, np.exp(x))) - value, -20.0, 20.0)
    return float(np.exp(root))


def _with_prior(own: float, degrees: int, prior: Prior | None) -> tuple[float, int, bool]:
    """Variance of factors with a prior, the degrees of freedom that it brings, and whether it was left out."""
    if prior is None:
        return own, 0, False
    more = prior.degrees
    if degrees and fdtrc(degrees, more, own / prior.spread**2) < _CONTRADICTS:
        return own, 0, True
    return (own * degrees + prior.spread**2 * more) / (degrees + more), more, False


def _half_width(between: float, between_degrees: float, rows: Floats, row_degrees: Floats) -> Floats:
    """Half width of a 95 % interval with the variance of two sources, by Cochran and Cox."""
    rows = np.maximum(rows, 1e-24)
    shares = between / (between + rows)
    quantiles = shares * stdtrit(between_degrees, 0.975) + (1 - shares) * stdtrit(np.maximum(row_degrees, 1.0), 0.975)
    return quantiles * np.sqrt(between + rows)
