"""The mean of correlated repeats and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

#: Groups that batch means are merged into. Neighbouring batches are alike (clocks and caches drift slowly); means over
#: long groups are nearly independent, and 20 to 30 of them keep Student's t close to normal. Schmeiser 1982,
#: https://doi.org/10.1287/opre.30.3.556
GROUPS = 20
#: Fewer say nothing of their scatter. Three long iterations are what a large model has time for.
_MIN_GROUPS = 3


@dataclass(frozen=True)
class Mean:
    """A mean with the half width of its 95 % interval relative to it (infinite while there are too few values)."""

    value: float
    rel_error: float


def batch_mean(times_s: Sequence[float]) -> Mean:
    """Mean of equally long batches, with a 95 % interval that allows for correlation between neighbours.

    Args:
        times_s: one value a batch, in the order measured; every batch holds the same number of iterations.

    Returns:
        The mean, and the half width of its interval by non-overlapping batch means.
    """
    values = np.asarray(times_s, dtype=float)
    mean = float(values.mean())
    per_group = max(1, len(values) // GROUPS)
    groups = len(values) // per_group
    if groups < _MIN_GROUPS or mean <= 0:
        return Mean(mean, float("inf"))
    # The oldest values that fill no group are left out of the error, not of the mean.
    means = values[len(values) - groups * per_group :].reshape(groups, per_group).mean(axis=1)
    half_width = float(student_t.ppf(0.975, groups - 1) * means.std(ddof=1) / np.sqrt(groups))
    return Mean(mean, half_width / mean)


def in_quadrature(*rel_errors: float) -> float:
    """Relative errors of independent causes together."""
    return float(np.sqrt(sum(error**2 for error in rel_errors)))
