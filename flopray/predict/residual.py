"""Model 4: a Gaussian process on the errors of model 3, the logarithms of measured over predicted.

It learns operations, and not phases: what a product of one shape takes beyond model 3 is the same in a forward pass and
in a training step, where it has a smaller share. The error of a work is

    sum over its terms of share x (g(sizes of the term) + own of the term) + h(sizes of the work)

with shares by model 3, of time or of energy. A product has a deviation of its own, that of the kernel which the library
chose for it; its neighbours learn nothing from it. g and h are Gaussian processes with a Matern kernel of smoothness
3/2, one for each kind of term: products of each layout, passes, updates, sums. A sum of Gaussian processes is one again
(Rasmussen and Williams 2006, chapters 2, 5 and 9.8, http://gaussianprocess.org/gpml/). Lengths and sizes of the kernels
are those of the highest posterior, by L-BFGS from a prior that is broad. It is kept as numbers, and far from its points
it goes to 0, which leaves model 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from flopray.predict.arrays import Floats, Places, Works
from flopray.predict.roofline import TimeModel
from flopray.workloads.operations import LAYOUTS

#: Kinds of terms, with their sizes; the last one is the work itself.
KINDS: tuple[str, ...] = (*LAYOUTS, "pass", "update", "bulk", "attention", "work")
_WIDTHS = (3, 3, 3, 1, 2, 2, 2, 4)
WIDTHS: dict[str, int] = dict(zip(KINDS, _WIDTHS, strict=True))
_WIDTH = max(_WIDTHS)
#: Kinds that have the lengths and the size of their kernel in common.
_ALIKE = (0, 0, 0, 1, 2, 3, 3, 4)
#: Fewer rows are not learned from.
LEAST_ROWS = 24
#: Where the search starts: sizes of terms' and works' residuals, noise of windows and boards, lengths in logarithms.
_SIZE, _WORK_SIZE, _NOISE, _LENGTH, _WORK_LENGTH, _OWN = 0.05, 0.03, 0.012, 2.0, 3.0, 0.03
_LOWEST, _HIGHEST = np.log((0.003, 0.3, 0.003)), np.log((0.3, 50.0, 0.1))
_MOST_STEPS = 25
#: The share of products counts for as much as this many logarithms.
_SHARE_SCALE = 3.0


@dataclass(frozen=True, eq=False)
class Terms:
    """What works are made of, as a residual sees it.

    Attributes:
        kind: place in `KINDS`, shape (U,).
        sizes: logarithms, shape (U, 4); those that a kind does not have are 0.
        shares: of each term in each work, shape (W, U).
    """

    kind: Places
    sizes: Floats
    shares: Floats

    def of(self, mask: np.ndarray) -> Terms:
        """Those of some of the works."""
        return replace(self, shares=self.shares[mask])


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned of one kind of term.

    Attributes:
        kind: one of `KINDS`.
        size: standard deviation of the kernel.
        lengths: of the kernel, one for each size of the kind, in logarithms.
        points: sizes of its terms, shape (R, lengths).
        weights: of each point, shape (R,).
        own: standard deviation of what one term alone has beyond the kernel, and its neighbours have not.
    """

    kind: str
    size: float
    lengths: list[float]
    points: list[list[float]]
    weights: list[float]
    own: float = 0.0

    def of(self, sizes: Floats) -> Floats:
        """What terms take beyond model 3, as logarithms, shape (U,).

        Args:
            sizes: of terms of this kind, shape (U, lengths).
        """
        apart = _apart(sizes, np.array(self.points), np.array(self.lengths)).sum(axis=2)
        return (self.size**2 * _matern(apart) + self.own**2 * (apart == 0)) @ np.array(self.weights)


class Residual(msgspec.Struct, frozen=True, kw_only=True):
    """A Gaussian process over terms, as numbers.

    Attributes:
        parts: of each kind that there is.
    """

    parts: list[Part]

    def of(self, terms: Terms) -> Floats:
        """Predicted logarithm of measured over model 3, shape (W,).

        Args:
            terms: `terms_of` works.
        """
        found = np.zeros(len(terms.shares))
        for part in self.parts:
            own = np.flatnonzero(terms.kind == KINDS.index(part.kind))
            if own.size and part.points:
                found += terms.shares[:, own] @ part.of(terms.sizes[own][:, : len(part.lengths)])
        return found


def terms_of(model: TimeModel, works: Works, costs: Floats) -> Terms:
    """Terms of works; equal ones are merged.

    Args:
        model: of time.
        works: W of them.
        costs: of each term, by `Works.term_work`, in seconds or joules, shape (T,).
    """
    p, place, times = works.products, works.term_work, model.term_times(works)
    kinds = [p.layout, np.full(len(works.pass_work), 3), np.full(len(works.update_work), 4), 5 + works.bulk_attention]
    of_each = works.update_bytes / np.maximum(works.update_tensors, 1)
    bulks = [values / np.maximum(works.bulk_count, 1) for values in (works.bulk_flops, works.bulk_bytes)]
    sizes = [_logs(p.rows, p.columns, p.inner), _logs(works.pass_bytes), _logs(of_each, works.update_tensors)]
    in_products = works.summed(p.work, times[: len(p.work)]) / works.summed(place, times)
    whole = _logs(works.working_bytes, works.flops, works.launches)
    whole[:, 3] = _SHARE_SCALE * in_products
    kind = np.concatenate([*kinds, np.full(works.size, KINDS.index("work"))]).astype(np.intp)
    share = np.concatenate([costs / works.summed(place, costs)[place], np.ones(works.size)])
    table: Any = np.column_stack([kind, np.concatenate([*sizes, _logs(*bulks), whole]).round(5)])
    return _merged(table, np.concatenate([place, np.arange(works.size)]), share, works.size)


def _merged(table: Floats, place: Places, share: Floats, size: int) -> Terms:
    unique, of_unique = np.unique(table, axis=0, return_inverse=True)
    shares = np.zeros((size, len(unique)))
    np.add.at(shares, (place, of_unique.ravel()), share)
    return Terms(unique[:, 0].astype(np.intp), unique[:, 1:], shares)


def joined(several: Sequence[Terms]) -> Terms:
    """Terms of the works of all of them, one after the other."""
    tables: Any = np.concatenate([np.column_stack([one.kind, one.sizes]) for one in several])
    unique, of_unique = np.unique(tables, axis=0, return_inverse=True)
    shares, first = [], 0
    for one in several:
        own = np.zeros((len(one.shares), len(unique)))
        own[:, of_unique.ravel()[first : first + len(one.kind)]] = one.shares
        shares.append(own)
        first += len(one.kind)
    return Terms(unique[:, 0].astype(np.intp), unique[:, 1:], np.concatenate(shares))


def fit_residual(terms: Terms, residuals: Floats) -> Residual | None:
    """Learn residuals; None where rows do not suffice.

    Args:
        terms: `terms_of` works, W of them.
        residuals: logarithm of measured over model 3, shape (W,).
    """
    if len(residuals) < LEAST_ROWS:
        return None
    search = _Search(terms, residuals)
    found: Any = minimize(
        search.loss, search.start, jac=True, method="L-BFGS-B", bounds=search.bounds, options={"maxiter": _MOST_STEPS}
    )
    weights = cho_solve(search.factor(search.kernels(found.x), found.x), residuals) @ terms.shares
    parts = []
    for place, (kind, own) in enumerate(search.own.items()):
        size, lengths = np.exp(found.x[search.sizes[place]]), np.exp(found.x[search.lengths[place]])
        parts.append(
            Part(
                kind=KINDS[kind],
                size=float(size),
                lengths=lengths.tolist(),
                points=terms.sizes[own][:, : _WIDTHS[kind]].tolist(),
                weights=[float(f"{value:.9g}") for value in weights[own]],
                own=float(np.sqrt(search.own_variance(place, found.x))),
            )
        )
    return Residual(parts=parts)


class _Search:
    """The posterior of a residual's sizes, lengths and noise, as logarithms in one array.

    Args:
        terms, residuals: see `fit_residual`.
    """

    def __init__(self, terms: Terms, residuals: Floats) -> None:
        self.residuals = residuals
        self.own = {kind: np.flatnonzero(terms.kind == kind) for kind in sorted(set(terms.kind.tolist()))}
        self.shares = [terms.shares[:, own] for own in self.own.values()]
        start, low, high = [np.log(_NOISE), np.log(_OWN)], [_LOWEST[2], _LOWEST[0]], [_HIGHEST[2], _HIGHEST[0]]
        first: dict[int, int] = {}
        self.sizes, self.lengths, self.points, self.products = [], [], [], []
        for kind, own in self.own.items():
            width, whole = _WIDTHS[kind], KINDS[kind] == "work"
            if _ALIKE[kind] not in first:
                first[_ALIKE[kind]] = len(start)
                start += np.log(
                    [_WORK_SIZE if whole else _SIZE, *[_WORK_LENGTH if whole else _LENGTH] * width]
                ).tolist()
                low += [_LOWEST[0], *[_LOWEST[1]] * width]
                high += [_HIGHEST[0], *[_HIGHEST[1]] * width]
            place = first[_ALIKE[kind]]
            self.sizes.append(place)
            self.lengths.append(slice(place + 1, place + 1 + width))
            self.points.append(terms.sizes[own][:, :width])
            self.products.append(KINDS[kind] in LAYOUTS)
        self.start, self.bounds = np.array(start), list(zip(low, high, strict=True))

    def kernels(self, logs: Floats) -> list[tuple[Floats, Floats]]:
        """Of each kind: its kernel, shape (U, U), and squares of how far apart points are, shape (U, U, lengths)."""
        found = []
        for place, points in enumerate(self.points):
            apart = _apart(points, points, np.exp(logs[self.lengths[place]]))
            found.append((np.exp(2 * logs[self.sizes[place]]) * _matern(apart.sum(axis=2)), apart))
        return found

    def own_variance(self, place: int, logs: Floats) -> float:
        """Of what each term of a kind has for itself: that of products, whose kernels a library chooses one by one."""
        return float(np.exp(2 * logs[1])) if self.products[place] else 0.0

    def factor(self, kernels: Sequence[tuple[Floats, Floats]], logs: Floats) -> Any:
        """The Cholesky factor of the covariance of residuals."""
        whole = np.exp(2 * logs[0]) * np.eye(len(self.residuals))
        for place, (shares, (kernel, _)) in enumerate(zip(self.shares, kernels, strict=True)):
            whole += shares @ (kernel @ shares.T + self.own_variance(place, logs) * shares.T)
        return cho_factor(whole, lower=True)

    def loss(self, logs: Floats) -> tuple[float, Floats]:
        """Less the logarithm of the posterior, and its gradient."""
        kernels = self.kernels(logs)
        factor = self.factor(kernels, logs)
        weights = cho_solve(factor, self.residuals)
        inner = cho_solve(factor, np.eye(len(weights))) - np.outer(weights, weights)
        away = logs - self.start
        loss = 0.5 * self.residuals @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * away @ away
        slope = away.copy()
        slope[0] += np.exp(2 * logs[0]) * np.trace(inner)
        for place, (kernel, apart) in enumerate(kernels):
            pulled = self.shares[place].T @ inner @ self.shares[place]
            slope[1] += self.own_variance(place, logs) * np.trace(pulled)
            slope[self.sizes[place]] += (pulled * kernel).sum()
            steep = pulled * np.exp(2 * logs[self.sizes[place]] - np.sqrt(3 * apart.sum(axis=2)))
            slope[self.lengths[place]] += 1.5 * np.einsum("ij,ijk->k", steep, apart)
        return float(loss), slope


def _apart(ours: Floats, theirs: Floats, lengths: Floats) -> Floats:
    return ((ours[:, None, :] - theirs[None, :, :]) / lengths) ** 2


def _matern(squares: Floats) -> Floats:
    far = np.sqrt(3 * squares)
    return (1 + far) * np.exp(-far)


def _logs(*values: Floats) -> Floats:
    """Logarithms of sizes as columns, with 0 for those that are not there, shape (U, 4)."""
    found = np.zeros((len(values[0]), _WIDTH))
    for column, sizes in enumerate(values):
        found[:, column] = np.log(np.maximum(sizes, 1.0))
    return found
