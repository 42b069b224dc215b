"""Model 3, of energy: power at rest x time, and joules for each FLOP and each byte, none of them negative.

    energy   rest x (time - waiting) + waiting power x waiting + power of active processors x time of products
             + FLOPs of whole tiles x J/FLOP + operands x J/B + operands in crossing rows x J/B
             + bytes that tiles read x J/B + bytes of memory x J/B + bytes of passes x J/B + bytes of an update x J/B

Waiting is the time in which an optimizer's many small kernels are launched. A tile that sticks out of its matrix costs
what a full one does, so FLOPs of whole tiles are counted. An operand costs joules once for each product, wherever it
comes from, once more where it comes from memory, and what of it lies in rows that cross lines of memory costs more
still; tiles read it again and again. Processors without a tile are not
active. Non-negative least squares on relative errors.

No board draws more than its limit: it lowers its clock f instead. Power above rest is about f V^2, and voltage V about
f, so that it falls as the third power of the clock and time rises as its inverse (Le Sueur and Heiser 2010,
https://www.usenix.org/legacy/event/hotpower10/tech/full_papers/LeSueur.pdf, for the formula and where it ends).
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
    "active_w": "W",
    "tile_j_per_flop": "J/FLOP",
    "operand_j_per_byte": "J/B",
    "crossing_j_per_byte": "J/B",
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
    """What each constant is multiplied by, shape (W, 12): that of all terms of a work.

    Args:
        model: of time, which gives the times of terms and cache misses.
        works: W of them.
        times_s: of one iteration, measured or predicted, shape (W,).
    """
    of_terms = term_parts(model, works, times_s)
    return np.column_stack([works.summed(works.term_work, column) for column in of_terms.T])


def term_parts(model: TimeModel, works: Works, times_s: Floats) -> Floats:
    """The same of each term, shape (T, 12): terms share the time of their work as the model of time says."""
    works = model.with_kernels(works)
    p, each = works.products, model.term_times(works)
    each = each * (times_s / works.summed(works.term_work, each))[works.term_work]
    ends = np.cumsum([len(p.work), len(works.pass_work), len(works.update_work)])
    product, passed, update, bulk = (slice(a, b) for a, b in zip([0, *ends], [*ends, len(each)], strict=True))
    found = {name: np.zeros(len(each)) for name in UNITS}
    waiting = np.minimum(model.waiting_times(works), each[update])
    found["rest_w"] = each.copy()
    found["rest_w"][update] -= waiting
    found["waiting_w"][update] = waiting
    found["active_w"][product] = each[product] * np.minimum(1.0, p.blocks * p.splits / model.device.processors)
    found["tile_j_per_flop"][product] = 2 * p.blocks * p.tile_rows * p.tile_columns * p.inner * p.count
    found["operand_j_per_byte"][product] = p.operand_bytes * p.count
    found["crossing_j_per_byte"][product] = p.crossing_bytes * p.count
    read = p.blocks * (p.tile_rows + p.tile_columns) * p.inner * p.each + p.partial_bytes
    found["cache_j_per_byte"][product] = (read + p.rows * p.columns * p.each) * p.count
    found["memory_j_per_byte"][product] = p.operand_bytes * p.count * model.missing(works)[p.work]
    found["memory_j_per_byte"][bulk] = works.bulk_bytes
    found["pass_j_per_byte"][passed] = works.pass_bytes * works.pass_count
    found["update_j_per_byte"][update] = works.update_bytes
    found["bulk_j_per_flop"][bulk] = works.bulk_flops * (1 - works.bulk_attention)
    found["attention_j_per_flop"][bulk] = works.bulk_flops * works.bulk_attention
    return np.column_stack(list(found.values()))


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
    active = 0.07 * device.power_w
    return np.array([rest, rest, active, each, 5e-11, 2e-11, 2e-11, 8e-11, 1.5e-10, 4e-10, each, each])


def fit_energy(parts: Floats, energies_j: Floats, centre: Floats, held: float) -> EnergyModel:
    """Constants from measured energies.

    Args:
        parts: `parts_of` measured times, shape (W, 12).
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


def limited(times_s: Floats, energies_j: Floats, limit_w: float, rest_w: float) -> tuple[Floats, Floats]:
    """Times and energies of a board that keeps to its power limit, shape (W,) each.

    Args:
        times_s, energies_j: without a limit, shape (W,); where no energy is known, time stays.
        limit_w: of the board.
        rest_w: power that does not depend on the clock.
    """
    if rest_w >= limit_w:
        return times_s, energies_j
    over = np.maximum(1.0, (energies_j / times_s - rest_w) / (limit_w - rest_w))
    slowed = np.where(over > 1, times_s * over ** (1 / 3), times_s)
    return slowed, np.where(over > 1, limit_w * slowed, energies_j)
