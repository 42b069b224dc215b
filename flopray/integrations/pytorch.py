"""Steps of plain PyTorch and of Accelerate, told by torch's hooks of optimizers: the loop needs no further line.

A step goes from one step of the optimizer to the next, so it has all batches whose gradients are accumulated: an
optimizer that Accelerate has wrapped steps only when they are complete.
https://docs.pytorch.org/docs/stable/optim.html (`register_optimizer_step_post_hook`)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from flopray.errors import InputError
from flopray.integrations.step_costs import StepCosts
from flopray.watching.running import Watch
from flopray.watching.summary import Summary

#: Accelerate's names of precisions, and this package's.
_PRECISIONS = {"bf16": "bf16", "fp16": "fp16", "no": "fp32"}


class OptimizerWatch:
    """A watch whose steps are those of an optimizer, with the costs of a step on all ranks.

    Everything else that a `flopray.watch` has (`frame`, `save`, `plot`, `step_count`, ...) it has as well.

    Attributes:
        watch: of this rank.
        precision: whose peak `mfu` is a share of; None is not known.
    """

    def __init__(self, costs: StepCosts, watch: Watch) -> None:
        self._costs, self.watch, self.precision = costs, watch, costs.precision

    def metrics(self) -> dict[str, float]:
        """Time, energy, FLOPs and MFU of a step on all ranks, which all must ask; `StepCosts.metrics` has the names.

        Nothing once the block has ended: `summary` is for then.
        Every rank gets the same energy and FLOPs, so that one of them logs. What is not known is missing, and a
        warning says why.
        """
        return self._costs.metrics()

    def summary(self) -> Summary:
        """Of this rank, so far or after the block."""
        return self.watch.summary()

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        """A block with a name, such as `eval`, which interrupts a step; its FLOPs are in none."""
        self._costs.interrupt()
        with self.watch.region(name):
            yield

    def __getattr__(self, name: str) -> Any:
        return getattr(self.watch, name)

    def __repr__(self) -> str:
        return repr(self.watch)


@contextmanager
def watch_optimizer(
    optimizer: Any = None, *, flops: bool | float = True, precision: str | None = None, **options: Any
) -> Iterator[OptimizerWatch]:
    """Watch a block in which an optimizer makes steps; each of them ends a step of the watch.

    What lies before the first one is in no step. `w.region("eval")` in the block interrupts a step.

    Args:
        optimizer: whose steps count, also one that Accelerate wrapped; by default the first that makes a step.
        flops: see `flopray.integrations.step_costs.StepCosts`.
        precision: see there; by default that of an optimizer that Accelerate wrapped.
        options: of `flopray.watch`; of several ranks each gets a folder of its own by `save`.

    Yields:
        The watch; `w.metrics()` has time, joules, FLOPs and MFU of a step.

    Raises:
        InputError: an argument that cannot be.

    Example:
        >>> import torch
        >>> from flopray.integrations.pytorch import watch_optimizer
        >>> net = torch.nn.Linear(8, 4, bias=False)
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> with watch_optimizer(cpu=False) as w:
        ...     for _ in range(6):
        ...         net(torch.ones(2, 8)).sum().backward()
        ...         sgd.step()
        ...     costs = w.metrics()
        >>> w.summary().steps
        5
        >>> costs["flops_per_step"]  # 2 * 2 * 8 * 4 in each pass; the input needs no gradient
        256.0
    """
    if optimizer is not None and not callable(getattr(optimizer, "step", None)):
        raise InputError(
            f"optimizer must be an optimizer of torch, or one in a wrapper, got {type(optimizer).__name__}"
        )
    counted = [_unwrapped(optimizer)]
    costs = StepCosts(flops=flops, precision=precision, **options)
    watch = costs.start(_precision(optimizer))

    def stepped(made_by: Optimizer, *_: object) -> None:
        if counted[0] is None:
            counted[0] = made_by
        if made_by is counted[0]:
            costs.next()

    handle = register_optimizer_step_post_hook(stepped)
    try:
        yield OptimizerWatch(costs, watch)
    finally:
        handle.remove()
        costs.stop()


def _precision(optimizer: Any) -> str | None:
    """That of the state of Accelerate, which an optimizer that it wrapped carries; None of another one."""
    state = getattr(optimizer, "accelerator_state", None)
    found = _PRECISIONS.get(str(getattr(state, "mixed_precision", None)))
    return "tf32" if found == "fp32" and torch.get_float32_matmul_precision() != "highest" else found


def _unwrapped(optimizer: Any) -> Any:
    """The optimizer of torch inside of wrappers."""
    while optimizer is not None and not type(optimizer).__module__.startswith("torch.optim"):
        inner = getattr(optimizer, "optimizer", None)
        if inner is None or inner is optimizer:
            break
        optimizer = inner
    return optimizer
