"""Boards of one type with known factors, and what a sweep on them would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fleet:
    """What B boards of a type measured of R rows, and what is true.

    Attributes:
        values: shape (R, B); NaN where a board has no value of a row.
        errors: relative half widths of the 95 % intervals that rows state of themselves, shape (R, B).
        means: of each row over all boards of the type, shape (R,).
        factors: logarithms of the boards' factors, shape (B,).
        another: true values on a board that was not measured, shape (R,).
    """

    values: _Floats
    errors: _Floats
    means: _Floats
    factors: _Floats
    another: _Floats


def simulated_fleet(
    rng: np.random.Generator,
    boards: int,
    rows: int = 64,
    *,
    spread: float = 0.016,
    scatter: float = 0.01,
    unequal: float = 0.0,
    missing: float = 0.0,
    astray: float = 0.0,
    errors: tuple[float, float] = (0.005, 0.02),
) -> Fleet:
    """Measure made-up rows on made-up boards.

    Args:
        rng: where the noise comes from.
        boards: that are measured.
        rows: of each.
        spread: standard deviation between boards.
        scatter: typical standard deviation of a row on a board about the board's factor.
        unequal: standard deviation of the logarithm of a row's scatter; 0 makes all alike.
        missing: share of values that are not there.
        astray: share of rows that scatter by 20 %, as those that wait for the host do.
        errors: range of the errors that rows state.
    """
    means = np.exp(rng.uniform(-4, 4, rows))
    factors = rng.normal(0, spread, boards + 1)
    scatters = scatter * np.exp(rng.normal(0, unequal, rows)) if unequal else np.full(rows, scatter)
    scatters = np.where(rng.uniform(size=rows) < astray, 0.2, scatters)
    stated = rng.uniform(*errors, (rows, boards))
    true = np.log(means)[:, None] + factors + rng.normal(size=(rows, boards + 1)) * scatters[:, None]
    values: Any = np.exp(true[:, :boards] + rng.normal(size=stated.shape) * stated / 1.96)
    values[rng.uniform(size=values.shape) < missing] = np.nan
    return Fleet(values, stated, means, factors[:boards], np.exp(true[:, boards]))
