"""Models 1 and 2: constant FLOP/s and FLOPs/J of a phase, the recipe of flopmetrics, and a power law in its sizes.

Both know one phase at a time and minimise relative errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from flopray.predict.arrays import Floats
from flopray.predict.work import Work

#: Few different sizes do not determine a power law: exponents are pulled to 0 with this weight.
_RIDGE = 1e-3


class PowerLaw(msgspec.Struct, frozen=True):
    """`factor x product of size ** exponent`.

    Attributes:
        factor: value where all sizes are 1, in SI units.
        exponents: by name of the size.
    """

    factor: float
    exponents: dict[str, float]

    def of(self, shape: Mapping[str, float]) -> float:
        """The value of a shape.

        Example:
            >>> round(PowerLaw(2.0, {"width": 2.0}).of({"width": 3.0}), 6)
            18.0
        """
        logs = sum(power * np.log(max(shape.get(name, 1.0), 1e-300)) for name, power in self.exponents.items())
        return float(self.factor * np.exp(logs))


def fit_rate(works: Sequence[Work], values: Floats) -> float | None:
    """FLOPs for a unit of a value (FLOP/s, FLOPs/J): the geometric mean of the rows; None without FLOPs."""
    flops = np.array([work.flops for work in works])
    if not len(flops) or not (flops > 0).all():
        return None
    return float(np.exp(np.mean(np.log(flops / values))))


def fit_power_law(works: Sequence[Work], values: Floats) -> PowerLaw:
    """A power law in the sizes of the works, by least squares on logarithms.

    Args:
        works: of one phase, at least one.
        values: measured, shape (W,).
    """
    names = sorted({name for work in works for name in work.shape if all(one.shape.get(name) for one in works)})
    logs = np.log([[work.shape[name] for name in names] for work in works]).reshape(len(works), len(names))
    centre = logs.mean(axis=0)
    left = np.vstack([np.column_stack([np.ones(len(works)), logs - centre]), np.zeros((len(names), len(names) + 1))])
    left[len(works) :, 1:] = np.eye(len(names)) * _RIDGE
    right = np.concatenate([np.log(values), np.zeros(len(names))])
    found = np.linalg.lstsq(left, right, rcond=None)[0]
    factor = float(np.exp(found[0] - found[1:] @ centre))
    return PowerLaw(factor, dict(zip(names, found[1:].tolist(), strict=True)))
