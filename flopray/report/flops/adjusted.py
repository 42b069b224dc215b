"""A formula for the FLOPs that one type of GPU executes: fitted to counted points, and used for others.

The closed form says what the mathematics needs. What a chip executes lies above it: products are padded to tiles, split
products are summed, a sigmoid takes many instructions. The formula adds up the terms of `flopray.report.flops.tiles`,

    executed(n, d, m) = sum over terms of  coefficient x term(n, d, m),   no coefficient below zero

with one coefficient for each size of tile, each output element and each layer. Coefficients come from non-negative
least squares on relative errors (`scipy.optimize.nnls`). No mixture of tiles fits everywhere, because a library changes
its tile with the shape, by unpublished rules. So there are two sets of coefficients: one for all shapes, which
`describe` prints, and, for a prediction, one of the neighbourhood of its shape, where counted points have

    weight (r^2 + 0.001^2)^-3,   r^2 = (difference in ln d)^2 + (difference in ln m)^2

and the coefficients of all shapes act as a weak prior. So a shape that was
counted at a few n is predicted well at every n.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from threadpoolctl import threadpool_limits

from flopray.report.flops.held_out import METHODS, SPLITS, closed_form, interpolated, splits
from flopray.report.flops.tiles import PARTS, Term, terms
from flopray.report.plot.scales import Array

#: Distance in (ln d, ln m) below which two shapes count as the same, and how fast weight falls with it.
_SAME, _STEEPNESS = 1e-3, 3
#: Weight of the prior against that of the nearest counted point, and the least weight that is used at all.
_PRIOR, _LEAST_WEIGHT = 1e-4, 1e-4

#: With fewer counted points of a phase no formula is fitted.
LEAST_POINTS = 10
#: Columns that fits and predictions need; the hundred other columns of a record are slow to copy.
_COLUMNS = ["phase", "n_layers", "width", "tokens", "model_flops", "executed_flops"]
_COLUMNS += ["executed_gemm_flops", "executed_reduction_flops"]


@dataclass(frozen=True)
class _Part:
    """One part of the executed FLOPs.

    Attributes:
        name: one of `PARTS`.
        terms: with different values on the counted points, F of them.
        scales: the largest share of each term in the executed total, shape (F,): columns become comparable.
        design: terms / executed total / scales, shape (P, F).
        target: this part / executed total, shape (P,).
        everywhere: coefficients of all shapes, times scales, shape (F,).
    """

    name: str
    terms: tuple[Term, ...]
    scales: Array
    design: Array
    target: Array
    everywhere: Array

    def coefficients_near(self, weights: Array) -> Array:
        """Coefficients where counted points have these weights, shape (P,); times scales, shape (F,)."""
        used = weights > _LEAST_WEIGHT * weights.max()
        roots = np.sqrt(weights[used] / weights.max())
        prior = np.sqrt(_PRIOR)
        rows = np.vstack([self.design[used] * roots[:, None], prior * np.eye(len(self.terms))])
        return _non_negative(rows, np.concatenate([self.target[used] * roots, prior * self.everywhere]))

    def values(self, n: Array, d: Array, m: Array) -> Array:
        """Terms / scales, shape (Q, F)."""
        return np.stack([term.values(n, d, m) for term in self.terms], axis=1) / self.scales


@dataclass(frozen=True)
class AdjustedFormula:
    """The fitted formula of one phase on one type of device at one precision. Made by `fit`.

    Attributes:
        phase: that it was fitted to.
        layers: n of the counted points, shape (P,).
        widths: d of them, shape (P,).
        tokens: m of them, shape (P,).
        parts: those that the phase has.
    """

    phase: str
    layers: Array
    widths: Array
    tokens: Array
    parts: tuple[_Part, ...]

    def predict(self, n: Array, d: Array, m: Array, *, everywhere: bool = False) -> Array:
        """FLOPs that the device executes for layers n, width d and tokens m.

        Args:
            n: whole numbers, shape (Q,).
            d: as n.
            m: as n.
            everywhere: use the coefficients of all shapes, those that `describe` prints.

        Returns:
            FLOPs of one iteration, shape (Q,).

        Raises:
            ValueError: more than one layer, where only single layers were counted, which have other products.
        """
        return np.sum(list(self.predict_parts(n, d, m, everywhere=everywhere).values()), axis=0)

    def predict_parts(self, n: Array, d: Array, m: Array, *, everywhere: bool = False) -> dict[str, Array]:
        """As `predict`, apart for matrix products, reductions and the rest (elementwise, optimizer)."""
        n, d, m = (np.asarray(values, dtype=float) for values in (n, d, m))
        if self.layers.max() == 1 and (n > 1).any():
            raise ValueError("only points of one layer were counted; they do not show what further layers execute")
        if everywhere:
            return {part.name: part.values(n, d, m) @ part.everywhere for part in self.parts}
        found = {part.name: np.empty(n.shape) for part in self.parts}
        shapes, place = np.unique(np.stack([d, m]), axis=1, return_inverse=True)
        for index, (width, tokens) in enumerate(shapes.T):
            here = place.ravel() == index
            weights = self._weights(width, tokens)
            for part in self.parts:
                found[part.name][here] = part.values(n[here], d[here], m[here]) @ part.coefficients_near(weights)
        return found

    def describe(self) -> str:
        """The formula with the coefficients of all shapes: each part and below it its terms, a line each.

        Terms that are less than 0.01 % of the executed FLOPs at every counted point are left out. Of tiles that the
        counted shapes cannot tell apart, the smallest is named.
        """
        lines = [line for part in self.parts for line in (f"{part.name} =", *_term_lines(part))]
        if self.layers.min() == self.layers.max():
            lines.append(f"(all points have n = {self.layers[0]:.0f}: how n enters is assumed)")
        return "\n".join(lines)

    def _weights(self, width: float, tokens: float) -> Array:
        square = np.log(self.widths / width) ** 2 + np.log(self.tokens / tokens) ** 2
        return (square + _SAME**2) ** -_STEEPNESS


def fit(frame: pd.DataFrame) -> AdjustedFormula:
    """Fit the formula to counted points.

    Args:
        frame: rows of one phase, device type and precision with `phase, n_layers, width, tokens, executed_flops,
            executed_gemm_flops` and `executed_reduction_flops`, all present.

    Raises:
        ValueError: no rows, or rows of several phases.
    """
    phases = frame["phase"].unique()
    if len(phases) != 1:
        raise ValueError(f"a formula is of one phase, got {list(phases)}")
    n, d, m, executed, gemm, reduction = (
        frame[name].to_numpy(dtype=float)
        for name in ("n_layers", "width", "tokens", "executed_flops", "executed_gemm_flops", "executed_reduction_flops")
    )
    targets = {"gemm": gemm, "reduction": reduction, "rest": executed - gemm - reduction}
    parts = (_fit_part(name, str(phases[0]), (n, d, m), targets[name], executed) for name in PARTS)
    return AdjustedFormula(str(phases[0]), n, d, m, tuple(part for part in parts if part is not None))


def _fit_part(name: str, phase: str, shapes: tuple[Array, Array, Array], flops: Array, executed: Array) -> _Part | None:
    found = terms(phase, name)
    columns = [term.values(*shapes) / executed for term in found]
    kept = list(_distinct(columns))
    if not kept:
        return None
    design = np.stack([columns[index] for index in kept], axis=1)
    scales = design.max(axis=0)
    design, target = design / scales, flops / executed
    return _Part(name, tuple(found[i] for i in kept), scales, design, target, _non_negative(design, target))


def _distinct(columns: list[Array]) -> Iterable[int]:
    """Columns that are not zero and not multiples of an earlier one: counted shapes cannot tell such tiles apart."""
    seen: set[bytes] = set()
    for index, column in enumerate(columns):
        largest = column.max()
        key = np.round(column / largest, 9).tobytes() if largest > 0 else b""
        if key and key not in seen:
            seen.add(key)
            yield index


def _non_negative(design: Array, target: Array) -> Array:
    return nnls(design, target, maxiter=100 * design.shape[1])[0]


def _term_lines(part: _Part) -> list[str]:
    used = [
        (coefficient / scale, term.text)
        for coefficient, scale, term in zip(part.everywhere, part.scales, part.terms, strict=True)
        if coefficient > 1e-4
    ]
    return [f"  {'+' if index else ' '} {value:<8.3g} {text}" for index, (value, text) in enumerate(used)] or ["    0"]


def held_out(
    frame: pd.DataFrame,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
    ways: Collection[str] = tuple(SPLITS),
) -> pd.DataFrame:
    """Predictions for points that the fit did not see, each way of holding out and each way of predicting.

    BLAS gets one thread meanwhile: there are thousands of tiny problems, and on a busy machine several threads made
        them a hundred times slower.

    Args:
        frame: as in `fit`, and `model_flops`.
        seed: of the random ways of holding out.
        progress: called after each group of points that was held out, with how many are done and how many there are.
        ways: of holding out, among `SPLITS`.

    Returns:
        A row for each held-out point: `split, n_layers, width, tokens, executed_flops` and a column for each of
        `METHODS`, in FLOPs. Ways of holding out that the points do not allow are absent.
    """
    numbers: Any = frame[_COLUMNS].astype(dict.fromkeys(_COLUMNS[4:], float) | dict.fromkeys(_COLUMNS[1:4], int))
    masks = [(name, unseen) for name, folds in splits(numbers, seed).items() if name in ways for unseen in folds]
    found = []
    with threadpool_limits(1, user_api="blas"):
        for done, (name, unseen) in enumerate(masks, start=1):
            rows: Any = numbers[unseen]
            kept = rows[["n_layers", "width", "tokens", "executed_flops"]]
            found.append(kept.assign(split=name, **_predictions(numbers[~unseen], rows)))
            progress(done, len(masks))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["split", "width", *METHODS])


def _predictions(seen: Any, rows: Any) -> dict[str, Array]:
    """Each of `METHODS` for some rows, from rows that were seen."""
    formula = fit(seen)
    n, d, m = (rows[name].to_numpy(dtype=float) for name in ("n_layers", "width", "tokens"))
    return {
        "closed_form": closed_form(rows),
        "interpolation": interpolated(seen, rows),
        "everywhere": formula.predict(n, d, m, everywhere=True),
        "formula": formula.predict(n, d, m),
    }
