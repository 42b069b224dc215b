"""Steps of plain PyTorch and of Accelerate, told by torch's hooks of optimizers: the loop needs no further line.

A step goes from one step of the optimizer to the next, so it has all batches whose gradients are accumulated: an
optimizer that Accelerate has wrapped steps only when they are complete.
https://docs.pytorch.org/docs/stable/optim.html (`register_optimizer_step_post_hook`)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from flopray.errors import InputError
from flopray.watching.api import watch
from flopray.watching.running import Watch


@contextmanager
def watch_optimizer(optimizer: Any = None, **options: Any) -> Iterator[Watch]:
    """Watch a block in which an optimizer makes steps; each of them ends a step of the watch.

    What lies before the first one is in no step. `w.region("eval")` in the block interrupts a step.

    Args:
        optimizer: whose steps count, also one that Accelerate wrapped; by default the first that makes a step.
        options: of `flopray.watch`.

    Yields:
        The watch.

    Raises:
        InputError: an argument that cannot be.

    Example:
        >>> import torch
        >>> from flopray.integrations.pytorch import watch_optimizer
        >>> weight = torch.ones(8, requires_grad=True)
        >>> sgd = torch.optim.SGD([weight], lr=0.1)
        >>> with watch_optimizer(cpu=False) as w:
        ...     for _ in range(5):
        ...         weight.sum().backward()
        ...         sgd.step()
        >>> w.summary().steps
        4
    """
    if optimizer is not None and not callable(getattr(optimizer, "step", None)):
        raise InputError(
            f"optimizer must be an optimizer of torch, or one in a wrapper, got {type(optimizer).__name__}"
        )
    counted = [_unwrapped(optimizer)]
    with watch(**options) as w:

        def stepped(made_by: Optimizer, *_: object) -> None:
            if counted[0] is None:
                counted[0] = made_by
            if made_by is counted[0]:
                w.next_step()

        handle = register_optimizer_step_post_hook(stepped)
        try:
            yield w
        finally:
            handle.remove()


def _unwrapped(optimizer: Any) -> Any:
    """The optimizer of torch inside of wrappers."""
    while optimizer is not None and not type(optimizer).__module__.startswith("torch.optim"):
        inner = getattr(optimizer, "optimizer", None)
        if inner is None or inner is optimizer:
            break
        optimizer = inner
    return optimizer
