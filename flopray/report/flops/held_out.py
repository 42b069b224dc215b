"""How a formula for executed FLOPs is judged: ways to hold points out, and two simpler predictions for comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.spatial import QhullError

from flopray.report.plot.scales import Array

#: Ways of predicting that are compared, as columns and as a person reads them.
METHODS = {
    "closed_form": "closed form",
    "interpolation": "interpolation",
    "everywhere": "formula, global",
    "formula": "formula",
}
#: Ways of holding out.
SPLITS = {
    "points": "20 % of points",
    "shapes": "shapes (d, m)",
    "widths": "widths d",
    "tokens": "token counts m",
}
_SHARE = 5  # one part in five is held out
_MOST_FOLDS = 16


def splits(frame: pd.DataFrame, seed: int) -> dict[str, list[Array]]:
    """Which rows are held out.

    Points: a random fifth, once; the same shape may have been counted at another n. Shapes: every (d, m) once, with all
    its n, in five random groups. Widths and tokens: every value once, one at a time (in at most 16 groups), so the
    smallest and the largest are extrapolated.

    Args:
        frame: rows of one phase.
        seed: of the random ones.

    Returns:
        For each name in `SPLITS` that leaves something to fit, masks of the rows held out, each of shape (P,).
    """
    rng = np.random.default_rng(seed)
    d, m = frame["width"].to_numpy(float), frame["tokens"].to_numpy(float)
    found: dict[str, list[Array]] = {}
    if len(frame) >= _SHARE:
        found["points"] = [rng.permutation(len(frame)) < len(frame) // _SHARE]
    _, shape = np.unique(np.stack([d, m]), axis=1, return_inverse=True)
    if shape.max() + 1 >= _SHARE:
        group = rng.permutation(shape.max() + 1) % _SHARE
        found["shapes"] = [group[shape.ravel()] == k for k in range(_SHARE)]
    for name, values in (("widths", d), ("tokens", m)):
        distinct, place = np.unique(values, return_inverse=True)
        folds = min(len(distinct), _MOST_FOLDS)
        if folds > 1:
            found[name] = [place % folds == k for k in range(folds)]
    return found


def closed_form(rows: pd.DataFrame) -> Array:
    """The closed form as a prediction, shape (Q,)."""
    return rows["model_flops"].to_numpy(float)


def interpolated(seen: pd.DataFrame, rows: pd.DataFrame) -> Array:
    """Closed form times executed/model, interpolated between counted neighbours of the same n.

    The logarithm of the ratio is linear in ln d and ln m between neighbours, and that of the nearest neighbour
    elsewhere. Where nothing was counted at that n, all n are used.

    Args:
        seen: counted rows with `n_layers, width, tokens, model_flops, executed_flops`.
        rows: rows to predict, Q of them.

    Returns:
        FLOPs, shape (Q,).
    """
    ratios = np.empty(len(rows))
    wanted, known = rows["n_layers"].to_numpy(int), seen["n_layers"].to_numpy(int)
    for n in np.unique(wanted):
        same = known == n
        part = seen[same] if same.any() else seen
        ratios[wanted == n] = _interpolated_ratios(part, rows[wanted == n])
    return closed_form(rows) * np.exp(ratios)


def _interpolated_ratios(seen: Any, rows: Any) -> Array:
    places, wanted = (np.log(part[["width", "tokens"]].to_numpy(float)) for part in (seen, rows))
    values = np.log(seen["executed_flops"].to_numpy(float) / seen["model_flops"].to_numpy(float))
    nearest = NearestNDInterpolator(places, values)(wanted)
    try:
        between = LinearNDInterpolator(places, values)(wanted)
    except (QhullError, ValueError):  # fewer than three points, or all on one line
        return nearest
    return np.where(np.isfinite(between), between, nearest)


def summarised(predictions: pd.DataFrame, min_width: int = 0) -> pd.DataFrame:
    """Errors of predictions for points that the fit did not see.

    Args:
        predictions: as `flopray.report.flops.adjusted.held_out` gives them.
        min_width: judge only points of at least this width; all of them took part in the fits.

    Returns:
        A row for each way of holding out and method: `split, method, points`, and the `median` and 95th percentile
        `p95` of |predicted / executed - 1|.
    """
    rows = []
    for split, part in predictions.groupby("split", sort=False):
        judged: Any = part[part["width"] >= min_width]
        for method in METHODS if len(judged) else ():
            errors = np.abs(judged[method].to_numpy(float) / judged["executed_flops"].to_numpy(float) - 1)
            median, p95 = np.quantile(errors, [0.5, 0.95])
            rows.append({"split": split, "method": method, "points": len(judged), "median": median, "p95": p95})
    return pd.DataFrame(rows, columns=["split", "method", "points", "median", "p95"])
