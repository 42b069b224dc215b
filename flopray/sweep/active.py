"""Which point of a grid to measure next: the most informative one.

A Gaussian process stands for each quantity, in its logarithm, over the logarithms of the dimensions and the choices of
a point: a linear trend and a smooth rest (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
http://gaussianprocess.org/gpml/), both relative to what fitted models expect, where there are some. For a surface the
next point is the one that reduces the remaining variance over the whole grid most (Cohn 1996,
https://doi.org/10.1613/jair.295); for a Pareto front the one that is most likely on it, weighted by how uncertain it
is. This module knows no Ray.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Of a larger grid this many points are used: the matrices grow with the square of their number.
_MOST_POINTS = 1_200
#: Relative error of a measurement, where it is not known: windows reach 1 to 2 %.
_NOISE = 0.015
_LEAST_TO_FIT = 4
#: The hyperparameters are learned again when there are this many times more points than last time.
_GROWTH = 1.25
_DRAWS = 64


def features_of(axes: Mapping[str, Sequence[Any]], keys: Sequence[tuple[Any, ...]]) -> Floats:
    """Places of points: dimensions from 0 to 1 in their logarithm, a column for each word of a choice.

    Args:
        axes: values by axis, in the order of a key.
        keys: N points by their value on each axis.

    Returns:
        Shape (N, F); axes of one value have no column.
    """
    columns: list[Floats] = []
    for place, values in enumerate(axes.values()):
        own = [key[place] for key in keys]
        if len(values) < 2:
            continue
        if all(type(value) is int for value in values):
            logs = np.log(np.array(own, float))
            low, high = np.log(min(values)), np.log(max(values))
            columns.append((logs - low) / (high - low))
        else:
            # a change of one word counts as much as a whole dimension
            columns += [np.array([value == word for value in own], float) / np.sqrt(2) for word in values]
    return np.stack(columns, axis=1) if columns else np.zeros((len(keys), 1))


class Surrogate:
    """Estimates of several quantities at all points of a grid, from those that are measured.

    All quantities share one kernel: time and energy of the phases change alike with the shape, and a few points say
        little about several kernels.

    Args:
        features: of the N points, shape (N, F).
        seed: of the draws.
        prior: the K quantities as models expect them, shape (N, K), positive or NaN; a quantity that they do not expect
            at each point is learned without. None where there are no models.
    """

    def __init__(self, features: Floats, seed: int = 0, prior: Floats | None = None) -> None:
        self.features = features
        self._prior = np.zeros((len(features), 1)) if prior is None else _whole_columns(prior)
        self._random = np.random.default_rng(seed)
        self._values: dict[int, Floats] = {}
        self._fitted = 0
        self._kernel = _kernel(features.shape[1])
        self._scales = np.ones(1)

    @property
    def measured(self) -> frozenset[int]:
        """Points that are known."""
        return frozenset(self._values)

    def tell(self, place: int, values: Sequence[float]) -> None:
        """Note the values measured at a point: K positive quantities, NaN where one is missing."""
        array = np.array(values, float)
        with np.errstate(invalid="ignore", divide="ignore"):
            self._values[place] = np.where(array > 0, np.log(array), np.nan) - self._prior[place]

    def next_of_surface(self, running: Sequence[int] = (), of: Sequence[int] | None = None) -> int:
        """The point that reduces the remaining variance over the grid most.

        Args:
            running: points that are being measured, whose values are unknown.
            of: the points to choose from; default all that are neither measured nor running.
        """
        self._learn()
        left = self._left(running, of)
        seen = self._sample(left)
        given = [*self._values, *running]
        cross = _covariance(self._kernel, self.features, left, seen, given, self._noise)
        own = _variance(self._kernel, self.features, left, given, self._noise)
        return left[int(((cross**2).sum(axis=1) / (own + self._noise)).argmax())]

    def next_of_front(
        self, smaller: Sequence[bool], running: Sequence[int] = (), of: Sequence[int] | None = None
    ) -> int:
        """The point that is most likely on the Pareto front, weighted by its uncertainty.

        Args:
            smaller: of each quantity, whether less is better.
            running: points that are being measured.
            of: as for a surface.
        """
        from flopray.report.front import front_of  # which draws, too

        self._learn()
        left, (whole, logs) = self._left(running, of), self._whole()
        if len(whole) < _LEAST_TO_FIT or logs.shape[1] < len(smaller):
            return self.next_of_surface(running, of)
        seen = self._sample(left)
        signs = np.where(smaller, 1.0, -1.0)
        draws, spreads = self._draws(seen, running)
        draws, logs = draws + self._expected(seen), logs + self._expected(whole)
        on_front = np.zeros(len(seen))
        for draw in draws:
            front = np.asarray(front_of(signs * np.vstack([draw, logs])))
            on_front[front[front < len(seen)]] += 1
        return seen[int(((on_front + 0.5) / (_DRAWS + 1) * spreads).argmax())]

    def predict(self) -> tuple[Floats, Floats]:
        """The quantities that are known at all points: values and standard deviations of their logarithms, (N, K)."""
        self._learn()
        places = range(len(self.features))
        means, variance = self._posterior(places)
        return np.exp(means + self._expected(places)), np.sqrt(np.maximum(variance, 0))[:, None] * self._scales

    @property
    def _noise(self) -> float:
        """Variance of a measurement, in the units of the kernel."""
        return (_NOISE / float(self._scales.mean())) ** 2

    def _left(self, running: Sequence[int], of: Sequence[int] | None) -> list[int]:
        taken = {*self._values, *running}
        return [place for place in (range(len(self.features)) if of is None else of) if place not in taken]

    def _sample(self, places: Sequence[int]) -> list[int]:
        """All points, or as many of them as the matrices may have."""
        if len(places) <= _MOST_POINTS:
            return list(places)
        return sorted(self._random.choice(places, _MOST_POINTS, replace=False).tolist())

    def _whole(self) -> tuple[list[int], Floats]:
        """Points that have every quantity that some point has, and the logarithms of these, shape (points, K)."""
        if not self._values:
            return [], np.zeros((0, 0))
        table = np.stack(list(self._values.values()))
        table = table[:, self._is_known]
        whole: Any = np.isfinite(table).all(axis=1)
        places = np.array(list(self._values))
        return places[whole].tolist(), table[whole]

    @property
    def _is_known(self) -> NDArray[np.bool_]:
        """Whether some point has it, of each quantity."""
        there: Any = np.isfinite(np.stack(list(self._values.values()))).any(axis=0)
        return there

    def _expected(self, places: Sequence[int]) -> Floats:
        """Logarithms of the known quantities as models expect them, which the values are relative to, (places, K)."""
        is_known = self._is_known
        return np.broadcast_to(self._prior, (len(self.features), len(is_known)))[list(places)][:, is_known]

    def _learn(self) -> None:
        """Fit the kernel, if there are enough new points."""
        whole, logs = self._whole()
        if len(whole) < _LEAST_TO_FIT or len(whole) < self._fitted * _GROWTH or not logs.shape[1]:
            return
        from sklearn.gaussian_process import GaussianProcessRegressor  # an extra, and slow to import

        self._scales = np.maximum(logs.std(axis=0), 0.1)
        process = GaussianProcessRegressor(_kernel(self.features.shape[1]), alpha=self._noise)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a hyperparameter at its bound is not a fault
            process.fit(self.features[whole], (logs - logs.mean(axis=0)) / self._scales)
        self._fitted, self._kernel = len(whole), process.kernel_

    def _posterior(self, places: Sequence[int]) -> tuple[Floats, Floats]:
        """Means of the logarithms, shape (P, K), and their variance in the units of the kernel, shape (P,)."""
        whole, logs = self._whole()
        middle = logs.mean(axis=0)
        among = _prior(self._kernel, self.features, whole, whole) + self._noise * np.eye(len(whole))
        across = _prior(self._kernel, self.features, whole, places)
        means = middle + across.T @ np.linalg.solve(among, logs - middle)
        return means, _variance(self._kernel, self.features, places, whole, self._noise)

    def _draws(self, places: Sequence[int], running: Sequence[int]) -> tuple[Floats, Floats]:
        """Draws of all quantities at some points, shape (draws, places, K), and the spread of each point."""
        means, _ = self._posterior(places)
        given = [*self._whole()[0], *running]
        values, vectors = np.linalg.eigh(_covariance(self._kernel, self.features, places, places, given, self._noise))
        root = vectors * np.sqrt(np.maximum(values, 0))
        normal = self._random.standard_normal((_DRAWS, means.shape[1], len(places)))
        return means + (normal @ root.T).transpose(0, 2, 1) * self._scales, np.sqrt((root**2).sum(axis=1))


def _whole_columns(prior: Floats) -> Floats:
    """Logarithms; of a column that is not whole, zeros: half of a surface would be relative to something else."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(prior)
    return np.where(np.isfinite(logs).all(axis=0), logs, 0.0)


def _kernel(dimensions: int) -> Any:
    """A linear trend, and a twice differentiable rest with a separate length in each dimension."""
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern

    trend = ConstantKernel(1.0, (1e-2, 1e3)) * DotProduct(1.0, (1e-2, 1e2))
    lengths: Any = [1.0] * dimensions  # whose stubs know one length only
    return trend + ConstantKernel(0.3, (1e-2, 10.0)) * Matern(lengths, (0.3, 10.0), nu=2.5)


def _prior(kernel: Any, features: Floats, one: Sequence[int], other: Sequence[int]) -> Floats:
    return kernel(features[list(one)], features[list(other)])


def _covariance(
    kernel: Any, features: Floats, one: Sequence[int], other: Sequence[int], given: Sequence[int], noise: float
) -> Floats:
    """Covariance of some points with others, given those that are measured, shape (one, other)."""
    prior = _prior(kernel, features, one, other)
    if not given:
        return prior
    among = _prior(kernel, features, given, given) + noise * np.eye(len(given))
    return prior - _prior(kernel, features, one, given) @ np.linalg.solve(among, _prior(kernel, features, given, other))


def _variance(kernel: Any, features: Floats, places: Sequence[int], given: Sequence[int], noise: float) -> Floats:
    """The diagonal of `_covariance` of some points with themselves, shape (places,)."""
    prior = kernel.diag(features[list(places)])
    if not given:
        return prior
    among = _prior(kernel, features, given, given) + noise * np.eye(len(given))
    across = _prior(kernel, features, given, places)
    return prior - (across * np.linalg.solve(among, across)).sum(axis=0)
