"""A workload's model on torch's meta device: shapes without memory, to count what is dispatched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from flopray.flops.dispatched import count_dispatched

if TYPE_CHECKING:
    from flopray.point import Point
    from flopray.workloads.base import Built, Workload


def built_on_meta(workload: Workload, point: Point) -> Built:
    """The model without memory.

    Raises:
        Exception: whatever building raises.
    """
    return workload.build(point, device="meta", dtype=torch.float32, seed=0)


def count_phases(workload: Workload, point: Point) -> dict[str, int | None]:
    """FLOPs at the dispatcher for each phase; None where an operator that multiplies has no formula."""
    built = built_on_meta(workload, point)
    parameters = list(built.module.parameters())
    kept: list[Any] = []

    def forward() -> None:
        kept.append(built.module(built.x))

    def backward() -> None:
        torch.autograd.grad(kept[-1], parameters, grad_outputs=torch.ones_like(kept[-1]), allow_unused=True)

    counts = {"forward": _count(forward), "backward": _count(backward)}
    both = _sum(counts["forward"], counts["backward"])
    counts |= {"inference": counts["forward"], "forward_backward": both, "train_step": both}
    return counts | {name: _count(work) for name, work in built.others.items()}


def _count(work: Callable[[], object]) -> int | None:
    return count_dispatched(work).flops


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
