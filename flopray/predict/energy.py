"""Model 3, of energy: power at rest x time, and joules for each FLOP and each byte, none of them negative.

    energy   rest x (time - waiting) + waiting power x waiting
             + FLOPs of whole tiles x J/FLOP + bytes between cache and processors x J/B + bytes of memory x J/B
             + bytes of passes x J/B + bytes of an update x J/B

Waiting is the time in which an optimizer's many small kernels are launched. A tile that sticks out of its matrix costs
what a full one does, so FLOPs of whole tiles are counted. Non-negative least squares on relative errors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import nnls

from flopray.predict.arrays import Floats, Works
from flopray.predict.device import Device
from flopray.predict.roofline import TimeModel

#: Constants in order, with their units.
UNITS = {
    "rest_w": "W",
    "waiting_w": "W",
    "tile_j_per_flop": "J/FLOP",
    "cache_j_per_byte": "J/B",
    "memory_j_per_byte": "J/B",
    "pass_j_per_byte": "J/B",
    "update_j_per_byte": "J/B",
    "bulk_j_per_flop": "J/FLOP",
    "attention_j_per_flop": "J/FLOP",
}
_ROUNDS, _ROBUST = 5, 0.05
#: Weights of a constant's relative distance beside a row's relative error: from that of all devices, and from a guess.
HELD, HELD_LOOSELY = 0.5, 0.05


def parts_of(model: TimeModel, works: Works, times_s: Floats) -> Floats:
    """What each constant is multiplied by, shape (W, 9).

    Args:
        model: of time, which gives waiting times and cache misses.
        works: W of them.
        times_s: of one iteration, measured or predicted, shape (W,).
    """
    p = works.products
    waiting = np.minimum(model.update_times(works), times_s)
    missing = model.missing(works)
    whole = 2 * p.blocks * p.tile_rows * p.tile_columns * p.inner * p.count
    between = p.blocks * (p.tile_rows + p.tile_columns) * p.inner * p.each + p.partial_bytes
    between = (between + p.rows * p.columns * p.each) * p.count
    memory = works.summed(p.work, p.operand_bytes * p.count * missing[p.work])
    memory += works.summed(works.bulk_work, works.bulk_bytes)
    attention = works.bulk_flops * works.bulk_attention
    return np.column_stack(
        [
            times_s - waiting,
            waiting,
            works.summed(p.work, whole),
            works.summed(p.work, between),
            memory,
            works.summed(works.pass_work, works.pass_bytes * works.pass_count),
            works.summed(works.update_work, works.update_bytes),
            works.summed(works.bulk_work, works.bulk_flops - attention),
            works.summed(works.bulk_work, attention),
        ]
    )


class EnergyModel:
    """Energy of works on one type of device at one precision.

    Args:
        values: of the constants, in the order of `UNITS`.
    """

    def __init__(self, values: Floats) -> None:
        self.values = np.asarray(values, float)

    @property
    def constants(self) -> dict[str, float]:
        """Constants by name, in SI units."""
        return dict(zip(UNITS, self.values.tolist(), strict=True))

    @classmethod
    def of_constants(cls, constants: Mapping[str, float]) -> EnergyModel:
        """The model of stored constants."""
        return cls(np.array([constants[name] for name in UNITS]))

    def energies(self, model: TimeModel, works: Works, times_s: Floats) -> Floats:
        """Energy of one iteration of each work, in joules, shape (W,)."""
        return parts_of(model, works, times_s) @ self.values


def start_of(device: Device, precision: str) -> Floats:
    """Guessed constants, used where rows do not decide: a fifth of the board's power at rest, half at work."""
    peak = device.flops_per_s.get(precision) or max(device.flops_per_s.values(), default=1e12)
    each = 0.5 * device.power_w / peak
    rest = 0.2 * device.power_w
    return np.array([rest, rest, each, 2e-11, 8e-11, 1.5e-10, 4e-10, each, each])


def fit_energy(parts: Floats, energies_j: Floats, centre: Floats, held: float) -> EnergyModel:
    """Constants from measured energies.

    Args:
        parts: `parts_of` measured times, shape (W, 9).
        energies_j: measured, shape (W,).
        centre: constants that these are held to.
        held: weight of that, `HELD` or `HELD_LOOSELY`.
    """
    shares = parts / energies_j[:, None]
    # a constant stays 0 where no row has its part
    scales = np.where(shares.any(axis=0), shares.mean(axis=0), np.inf)
    used = np.isfinite(scales) & (centre > 0)
    pull = np.diag(held / np.where(used, centre * np.where(used, scales, 1.0), 1.0))[used]
    weights = np.ones(len(energies_j))
    found = np.zeros(len(scales))
    for _ in range(_ROUNDS):
        left = np.vstack([shares / scales * weights[:, None], pull])
        found, _ = nnls(left, np.concatenate([weights, np.full(len(pull), held)]))
        errors = np.abs((shares / scales) @ found - 1)
        weights = 1 / np.sqrt(np.maximum(1.0, errors / _ROBUST))
    return EnergyModel(found / scales)
