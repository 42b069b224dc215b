"""FLOPs that the framework was asked to do, counted at the dispatcher on the meta device.

The meta device computes shapes only, so the count needs no GPU and no memory and is the same on every machine. torch's
FlopCounterMode (https://github.com/pytorch/pytorch/blob/main/torch/utils/flop_counter.py) counts matrix products,
convolutions and attention; elementwise operations and optimizers it does not know, and the record says so.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

from flopray.point import Point
from flopray.workloads.registry import MODELS

_ELEMENTWISE_NOTE = "products and attention (full squares) are counted, elementwise operations are left out"
_OPTIMIZER_NOTE = "the dispatcher counts no elementwise operations, and this phase has no others"
#: Fields that do not change the count, with a word for all of them.
_ONE_OF_ALL: dict[str, Any] = {
    **{"device_type": "meta", "precision": "fp32", "execution": "eager"},
    **{"weights": "random", "attention": "auto"},
}
_TRAIN_NOTE = "products and attention (full squares) are counted, elementwise operations and optimizer are left out"


def dispatched_flops(spec: Point, phase: str, model_flops: int) -> dict[str, Any]:
    """The record columns of the dispatcher's count.

    Args:
        spec: the point; precision and execution do not change the count.
        phase: one of `flopray.records.PHASES`.
        model_flops: the closed form, which the count is compared with.

    Returns:
        `dispatched_flops` (None where the dispatcher knows none of the operations), `dispatched_reason` and
        `dispatched_rel_difference` = dispatched / model - 1.
    """
    if phase == "optimizer_step":
        return {"dispatched_flops": None, "dispatched_reason": _OPTIMIZER_NOTE, "dispatched_rel_difference": None}
    words = {name: word for name, word in _ONE_OF_ALL.items() if getattr(spec, name) is not None}
    count = _by_phase(dataclasses.replace(spec, **words))[phase]
    return {
        "dispatched_flops": count,
        "dispatched_reason": _TRAIN_NOTE if phase == "train_step" else _ELEMENTWISE_NOTE,
        "dispatched_rel_difference": count / model_flops - 1,
    }


@lru_cache(maxsize=4096)
def _by_phase(spec: Point) -> dict[str, int]:
    """Counts of a shape by phase; cached, since precisions, executions and phases share them."""
    return MODELS[spec.workload].dispatched(spec)
