"""FLOPs that the framework was asked to do, counted at the dispatcher on the meta device.

The meta device computes shapes only, so the count needs no GPU and no memory and is the same on every machine. torch's
FlopCounterMode (https://github.com/pytorch/pytorch/blob/main/torch/utils/flop_counter.py) counts matrix products,
convolutions and attention. It does not know elementwise operations and optimizers, and the record says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache

from flopray.point import Point
from flopray.records import Row
from flopray.workloads.base import workload_of

_ELEMENTWISE_NOTE = "products and attention (full squares) are counted, elementwise operations are left out"
_OPTIMIZER_NOTE = "the dispatcher counts no elementwise operations, and this phase has no others"
_NO_FORMULA = "an operator that multiplies has no formula at the dispatcher: a sum without it would be partial"
_ALONE = "; no closed form is stated, so this count stands alone"
#: Fields that change the count of no workload, each with a value for all.
_ONE_OF_ALL = {"device_type": "meta", "precision": "fp32", "execution": "eager"}
_TRAIN_NOTE = "products and attention (full squares) are counted, elementwise operations and optimizer are left out"


def dispatched_flops(point: Point, phase: str, model_flops: int | None) -> Row:
    """The record columns of the dispatcher's count.

    Args:
        point: the point; precision and execution do not change the count.
        phase: one of `flopray.records.PHASES`.
        model_flops: the closed form, which the count is compared with; None where there is none.

    Returns:
        `dispatched_flops` (None where the dispatcher knows none of the operations), `dispatched_reason` and
        `dispatched_rel_difference` = dispatched / model - 1.
    """
    if phase == "optimizer_step":
        return {"dispatched_flops": None, "dispatched_reason": _OPTIMIZER_NOTE, "dispatched_rel_difference": None}
    values = {**point.values, **workload_of(point).same_count}
    count = _by_phase(type(point.workload), dataclasses.replace(point, values=values, **_ONE_OF_ALL)).get(phase)
    if count is None or isinstance(count, str):
        reason = count or _NO_FORMULA
        return {"dispatched_flops": None, "dispatched_reason": reason, "dispatched_rel_difference": None}
    note = _TRAIN_NOTE if phase == "train_step" else _ELEMENTWISE_NOTE
    return {
        "dispatched_flops": count,
        "dispatched_reason": note if model_flops is not None else note + _ALONE,
        "dispatched_rel_difference": count / model_flops - 1 if model_flops else None,
    }


@lru_cache(maxsize=4096)
def _by_phase(_: type, point: Point) -> Mapping[str, int | str | None]:
    """Counts of a class's shape by phase; cached, since precisions, executions and phases share them."""
    return workload_of(point).dispatched(point)
