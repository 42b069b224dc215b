"""Compilation: modules and phases by `torch.compile`, repeated layers once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

#: Makes the call of one layer of a stack from that layer and its compiled forward pass.
LayerCall = Callable[[torch.nn.Module, Callable[..., Any]], Callable[..., Any]]


def compiled(
    module: torch.nn.Module, layers: Sequence[torch.nn.Module], layer_call: LayerCall | None = None
) -> torch.nn.Module:
    """A module by `torch.compile`: layer by layer where it repeats layers, else whole.

    A stack of equal layers is compiled once for all of them, and what stands around it is run as it is written. It is
    what https://docs.pytorch.org/tutorials/recipes/regional_compilation.html recommends.
    """
    if not layers:
        return torch.compile(module, dynamic=False)  # type: ignore[return-value]
    for layer in layers:
        forward = torch.compile(layer.forward, dynamic=False)
        layer.forward = layer_call(layer, forward) if layer_call else forward
    return module


def repeated_layers(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of each stack: of a `ModuleList` of two or more modules of one class that have submodules.

    The class must not be torch's own: torch does not compile its forward pass, without a word.

    Example:
        >>> class Block(torch.nn.Module):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.inner = torch.nn.Linear(2, 2)
        >>> blocks = torch.nn.ModuleList(Block() for _ in range(3))
        >>> len(repeated_layers(blocks)), len(repeated_layers(torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in "ab")))
        (3, 0)
    """
    found: list[torch.nn.Module] = []
    inside: set[int] = set()
    for stack in module.modules():
        if isinstance(stack, torch.nn.ModuleList) and id(stack) not in inside and _repeats(stack):
            found += stack
            inside |= {id(part) for part in stack.modules()}
    return found


def _repeats(stack: torch.nn.ModuleList) -> bool:
    kinds = {type(layer) for layer in stack}
    own = all(not kind.__module__.startswith("torch.nn.") for kind in kinds)
    return len(stack) > 1 and len(kinds) == 1 and own and all(any(True for _ in layer.children()) for layer in stack)


def compiled_work(work: Callable[[], object], *, whole: bool = True) -> Callable[[], object]:
    """A phase that is no part of a training step; what it prepares once is run as it is written.

    Args:
        work: the phase.
        whole: compile it; otherwise the layers of its module are compiled already.
    """
    prepare, step = getattr(work, "prepare", None), getattr(work, "step", None)
    if prepare is None or step is None:
        return torch.compile(work, dynamic=False) if whole else work
    once = torch.compile(step, dynamic=False) if whole else step

    def prepared() -> object:
        with torch.compiler.set_stance("force_eager"):
            prepare()
        return once()

    return prepared
