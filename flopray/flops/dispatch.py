"""FLOPs that the framework was asked to do, counted at the dispatcher on the meta device.

The meta device computes shapes only, so the count needs no GPU and no memory and is the same on every machine. torch's
FlopCounterMode (https://github.com/pytorch/pytorch/blob/main/torch/utils/flop_counter.py) counts matrix products,
convolutions and attention; elementwise operations and optimizers it does not know, and the record says so.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from flopray.models import mlp
from flopray.records import TrialSpec

_ELEMENTWISE_NOTE = "the dispatcher counts matrix products; elementwise operations are left out"
_OPTIMIZER_NOTE = "the dispatcher counts no elementwise operations, and this phase has no others"
_TRAIN_NOTE = "the dispatcher counts matrix products; elementwise operations and the optimizer are left out"


def dispatched_flops(spec: TrialSpec, phase: str, model_flops: int) -> dict[str, Any]:
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
    forward, backward = _forward_and_backward(spec.workload, tuple(spec.shape().items()))
    count = {"forward": forward, "backward": backward}.get(phase, forward + backward)
    return {
        "dispatched_flops": count,
        "dispatched_reason": _TRAIN_NOTE if phase == "train_step" else _ELEMENTWISE_NOTE,
        "dispatched_rel_difference": count / model_flops - 1,
    }


@lru_cache(maxsize=4096)
def _forward_and_backward(workload: str, shape: tuple[tuple[str, int], ...]) -> tuple[int, int]:
    """Counts of both passes of a shape; cached, since precisions, executions and phases share them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    fields: dict[str, Any] = dict(shape)
    spec = TrialSpec(workload=workload, device_type="meta", **fields)
    model, x = mlp.build(spec, device="meta", dtype=torch.float32, seed=0)
    with FlopCounterMode(display=False) as counter:
        y = model(x)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(y, list(model.parameters()), grad_outputs=torch.empty_like(y))
    return forward, counter.get_total_flops()
