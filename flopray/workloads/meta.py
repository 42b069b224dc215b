"""Counts what a model dispatches on torch's meta device, which computes shapes without memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from flopray.flops.dispatched import count_dispatched
from flopray.workloads.execution import trained_of


def count_phases(
    module: torch.nn.Module, x: torch.Tensor, others: Mapping[str, Callable[[], object]]
) -> dict[str, int | str]:
    """FLOPs at the dispatcher for each phase; a text names what has no formula.

    Args:
        module: on the meta device; one call is the forward pass.
        x: its input.
        others: further phases by name.
    """
    parameters = trained_of(module)
    kept: list[Any] = []

    def forward() -> None:
        kept.append(module(x))

    def backward() -> None:
        torch.autograd.grad(kept[-1], parameters, grad_outputs=torch.ones_like(kept[-1]), allow_unused=True)

    counts = {"forward": _count(forward), "backward": _count(backward)}
    both = _sum(counts["forward"], counts["backward"])
    counts |= {"inference": counts["forward"], "forward_backward": both, "train_step": both}
    return counts | {name: _count(work) for name, work in others.items()}


def _count(work: Callable[[], object]) -> int | str:
    count = count_dispatched(work, repeat_shapes=True)
    return str(count.reason) if count.flops is None else count.flops


def _sum(one: int | str, other: int | str) -> int | str:
    if isinstance(one, str):
        return one
    return other if isinstance(other, str) else one + other
