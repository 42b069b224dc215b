"""Model 4: a Gaussian process on the errors of the roofline, the logarithms of measured over predicted.

It is fitted by scikit-learn (`flopray[predict]`) and kept as numbers: its inputs, its weights and its lengths, so that
predicting needs numpy alone and a stored model is data. Far from its inputs it goes to 0, which leaves the roofline.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from scipy.optimize import minimize

from flopray.predict.arrays import Floats, Works
from flopray.predict.roofline import TimeModel
from flopray.workloads.operations import GRADIENT, LAYOUTS, TRANSPOSED

#: Inputs of a residual: means of logarithms over a work's products, weighted by their time, and sums.
INPUTS = (
    *("rows", "columns", "inner", "blocks", "tile", "splits", "steps"),
    *("product_share", "working_bytes", "transposed_share", "gradient_share", "flops", "moved_bytes", "launches"),
)
#: Fewer rows are not learned from.
LEAST_ROWS = 24
#: Residuals of a few per cent; noise of windows and boards of one.
_SIZE, _NOISE = 0.03, 0.01
_MOST_STEPS = 12


class Residual(msgspec.Struct, frozen=True, kw_only=True):
    """A Gaussian process with a Matern kernel of smoothness 3/2, as numbers.

    Attributes:
        mean, scale: that inputs are standardised by, shape (F,); a scale of 0 leaves an input out.
        lengths: of the kernel, shape (F,).
        variance: of the kernel.
        points: standardised inputs, shape (R, F).
        weights: of each point, shape (R,).
    """

    mean: list[float]
    scale: list[float]
    lengths: list[float]
    variance: float
    points: list[list[float]]
    weights: list[float]

    def of(self, inputs: Floats) -> Floats:
        """Predicted logarithm of measured over roofline, shape (W,).

        Args:
            inputs: `inputs_of` works, shape (W, F).
        """
        ours = _standardised(inputs, np.array(self.mean), np.array(self.scale)) / np.array(self.lengths)
        theirs = np.array(self.points).reshape(-1, len(self.lengths)) / np.array(self.lengths)
        apart = np.sqrt(3 * ((ours[:, None, :] - theirs[None, :, :]) ** 2).sum(axis=2))
        return self.variance * ((1 + apart) * np.exp(-apart)) @ np.array(self.weights)


def inputs_of(model: TimeModel, works: Works) -> Floats:
    """Inputs of works, shape (W, F), in the order of `INPUTS`."""
    p = works.products
    each = model.product_times(works)
    all_of = works.summed(p.work, each)
    total = model.times(works)

    def mean(values: Floats) -> Floats:
        return works.summed(p.work, values * each) / np.where(all_of > 0, all_of, 1.0)

    def log(values: Floats) -> Floats:
        return np.log(np.maximum(values, 1.0))

    columns = [mean(log(values)) for values in (p.rows, p.columns, p.inner, p.blocks * p.splits)]
    columns += [mean(log(p.tile_rows * p.tile_columns)), mean(log(p.splits)), mean(log(p.inner / p.splits))]
    columns += [all_of / total, log(works.working_bytes)]
    columns += [mean((p.layout == LAYOUTS.index(name)).astype(float)) for name in (TRANSPOSED, GRADIENT)]
    return np.column_stack([*columns, log(works.flops), log(works.moved_bytes), log(works.launches)])


def available() -> bool:
    """Whether scikit-learn is installed."""
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def fit_residual(inputs: Floats, residuals: Floats) -> Residual | None:
    """Learn residuals; None where rows do not suffice or scikit-learn is not installed.

    Args:
        inputs: `inputs_of` works, shape (R, F).
        residuals: logarithm of measured over roofline, shape (R,).
    """
    if len(residuals) < LEAST_ROWS or not available():
        return None
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 0.0)
    points = _standardised(inputs, mean, scale)
    lengths: Any = np.full(inputs.shape[1], 3.0)
    smooth = Matern(lengths, (0.5, 50.0), nu=1.5)
    kernel = ConstantKernel(_SIZE**2, (1e-4, 0.1)) * smooth + WhiteKernel(_NOISE**2, (1e-5, 1e-2))
    climb: Any = _climb  # scikit-learn's stubs know names of optimizers only
    process = GaussianProcessRegressor(kernel, optimizer=climb, random_state=0)
    with warnings.catch_warnings():
        # A length at its bound is an input that does not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(points, residuals)
    fitted: Any = process
    found = fitted.kernel_.get_params()
    return Residual(
        mean=mean.tolist(),
        scale=scale.tolist(),
        lengths=np.broadcast_to(found["k1__k2__length_scale"], points.shape[1:]).tolist(),
        variance=float(found["k1__k1__constant_value"]),
        points=points.round(5).tolist(),
        weights=np.ravel(fitted.alpha_).tolist(),
    )


def _climb(loss: Any, start: Floats, bounds: Floats) -> tuple[Floats, float]:
    """Lengths of high likelihood: some steps of L-BFGS; further ones do not change predictions."""
    found = minimize(loss, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": _MOST_STEPS})
    return found.x, found.fun


def _standardised(inputs: Floats, mean: Floats, scale: Floats) -> Floats:
    return (inputs - mean) * np.where(scale > 0, 1 / np.where(scale > 0, scale, 1.0), 0.0)
