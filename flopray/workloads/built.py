"""What `Workload.build` returns: a module, its input, and further phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Built:
    """A model on its device.

    Attributes:
        module: one call is the forward pass of a training step.
        x: its input.
        gradient: upstream gradient of its output, of the output's shape; None takes 1 for a scalar (a loss), and a
            fixed random one otherwise.
        others: further phases by name; one call is one iteration, none of them keeps a graph for a backward pass.
        layer_call: how a layer of a stack is called, from the layer and its compiled forward pass, where equal layers
            get arguments that tell them apart; None calls them as they are.
    """

    module: torch.nn.Module
    x: torch.Tensor
    gradient: torch.Tensor | None = None
    others: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    layer_call: Callable[[torch.nn.Module, Callable[..., Any]], Callable[..., Any]] | None = None
