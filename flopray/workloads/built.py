"""What `Workload.build` returns: a module, its input, and further phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from flopray.workloads.compilation import LayerCall


@dataclass(frozen=True)
class Built:
    """A model on its device.

    Attributes:
        module: one call is the forward pass of a training step.
        x: its input.
        gradient: upstream gradient of its output, of the output's shape; None takes 1 for a scalar (a loss), and a
            fixed random one otherwise.
        others: further phases by name; one call is one iteration, none of them keeps a graph for a backward pass.
        layer_call: makes the call of a layer of a stack from the layer and its compiled forward pass, for equal layers
            that get arguments which tell them apart; None calls the compiled pass itself.
    """

    module: torch.nn.Module
    x: torch.Tensor
    gradient: torch.Tensor | None = None
    others: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    layer_call: LayerCall | None = None
