"""The feature-first MLP: n square layers without bias, each `sigmoid(W @ x)`, and its closed-form FLOPs.

Shapes: x (d, m), every W (d, d), output (d, m), for n layers of width d on m tokens.

Convention of the closed forms: a matrix product of (a, b) by (b, c) is 2abc FLOPs (one multiply and one add a term), an
activation is one FLOP an element forward and one backward, and the input needs no gradient. These are the formulas of
flopmetrics (https://github.com/jmetrikat/flopmetrics):

    forward    GEMM 2 n d^2 m                      activation n d m
    backward   GEMM (n-1) 4 d^2 m + 2 d^2 m        activation (n-1) 2 d m + d m

The optimizer is AdamW as https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html writes it, counted by
`ADAMW_FLOPS`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from flopray.point import Point
from flopray.workloads.built import Built

if TYPE_CHECKING:
    import torch

#: FLOPs of AdamW for one parameter, every operation (also square root and division) as one: weight decay 2 (multiply,
#: subtract), first moment 3, second moment 4, both bias corrections 2, square root and epsilon 2, update 3 (multiply,
#: divide, subtract). Source: the algorithm box of the page above.
ADAMW_FLOPS = 16

CONVENTION = "2 FLOPs a multiply-add; 1 an activation element; AdamW 16 a parameter; input without gradient"


def closed_form(spec: Point, phase: str) -> dict[str, int]:
    """FLOPs of one iteration of a phase, by component.

    Args:
        spec: an MLP's specification.
        phase: one of `flopray.records.PHASES`.

    Returns:
        `gemm_flops`, `activation_flops` and `optimizer_flops`; their sum is the phase's `model_flops`.
    """
    n, d, m = spec.shape().values()
    forward = {"gemm_flops": 2 * n * d * d * m, "activation_flops": n * d * m, "optimizer_flops": 0}
    backward = {
        "gemm_flops": (n - 1) * 4 * d * d * m + 2 * d * d * m,
        "activation_flops": (n - 1) * 2 * d * m + d * m,
        "optimizer_flops": 0,
    }
    optimizer = {"gemm_flops": 0, "activation_flops": 0, "optimizer_flops": ADAMW_FLOPS * parameters(spec)}
    parts = {
        "inference": (forward,),
        "forward": (forward,),
        "backward": (backward,),
        "forward_backward": (forward, backward),
        "optimizer_step": (optimizer,),
        "train_step": (forward, backward, optimizer),
    }[phase]
    return {name: sum(part[name] for part in parts) for name in forward}


def parameters(spec: Point) -> int:
    """Number of parameters: n d^2."""
    n, d, _ = spec.shape().values()
    return n * d**2


def beside(spec: Point, phase: str) -> dict[str, int]:
    """Nothing: the components say it all."""
    del spec, phase
    return {}


#: Phases that run with gradients and so keep what each layer gave, that give gradients, and that keep the two moments.
_KEEPS_ACTIVATIONS = ("forward", "backward", "forward_backward", "optimizer_step", "train_step")
_GIVES_GRADIENTS = ("backward", "forward_backward", "optimizer_step", "train_step")
_KEEPS_MOMENTS = ("optimizer_step", "train_step")


def least_bytes(spec: Point, phase: str, element_bytes: int) -> int:
    """Memory without which a phase cannot run: weights, gradients, moments, and the outputs of layers that are kept.

    Args:
        spec: an MLP's specification.
        phase: one of `flopray.records.PHASES`.
        element_bytes: of the precision's type.
    """
    n, d, m = spec.shape().values()
    copies = 1 + (phase in _GIVES_GRADIENTS) + 2 * (phase in _KEEPS_MOMENTS)
    # Compiled code may compute activations again instead of keeping them.
    kept = n * d * m if phase in _KEEPS_ACTIVATIONS and spec.execution != "compile" else d * m
    return (copies * parameters(spec) + kept) * element_bytes


def least_moved_bytes(spec: Point, phase: str, element_bytes: int) -> int:
    """Bytes that one iteration reads and writes at least, each operand of a pass once, however it is fused.

    Forward reads weights and input and writes the output of each layer, which a backward pass reads again beside the
    weights (but the first layer's) and the upstream gradient, to write the gradients. AdamW reads weights, gradients
    and both moments, and writes all but the gradients. What stays in caches from iteration to iteration is counted too.

    Args:
        spec: an MLP's specification.
        phase: one of `flopray.records.PHASES`.
        element_bytes: of the precision's type.
    """
    n, d, m = spec.shape().values()
    weights = parameters(spec)
    inference = weights + 2 * d * m
    forward = weights + (1 + n) * d * m
    backward = (n - 1) * d * d + weights + (2 + n) * d * m
    optimizer = 7 * weights
    moved = {
        "inference": inference,
        "forward": forward,
        "backward": backward,
        "forward_backward": forward + backward,
        "optimizer_step": optimizer,
        "train_step": forward + backward + optimizer,
    }
    return moved[phase] * element_bytes


def build(spec: Point, *, device: str, dtype: torch.dtype, seed: int) -> Built:
    """The module and its input, made on the device from a fixed seed.

    Args:
        spec: an MLP's specification.
        device: a torch device; `meta` makes shapes without memory.
        dtype: type of weights and input.
        seed: of the device's generator; the same seed gives the same numbers on the same device.

    Returns:
        The module, x of shape (width, tokens), which needs no gradient, and an upstream gradient of the same shape.
    """
    import torch

    n, d, m = spec.shape().values()

    def generator(offset: int) -> torch.Generator | None:
        return None if device == "meta" else torch.Generator(device=device).manual_seed(seed + offset)

    # Entries of about 1/sqrt(d) keep the sigmoids out of saturation, so that gradients are ordinary numbers: chips draw
    # less power on zeros.
    one, other = generator(0), generator(1)
    weights = [torch.randn(d, d, device=device, dtype=dtype, generator=one).div_(d**0.5) for _ in range(n)]
    x = torch.randn(d, m, device=device, dtype=dtype, generator=one)
    gradient = torch.randn(d, m, device=device, dtype=dtype, generator=other)
    return Built(_module_class()(weights), x, gradient)


def dispatched(spec: Point) -> dict[str, int]:
    """FLOPs at torch's dispatcher by phase."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    built = build(spec, device="meta", dtype=torch.float32, seed=0)
    with FlopCounterMode(display=False) as counter:
        y = built.module(built.x)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(y, list(built.module.parameters()), grad_outputs=built.gradient)
    backward = counter.get_total_flops()
    both = {"forward_backward": forward + backward, "train_step": forward + backward}
    return {"inference": forward, "forward": forward, "backward": backward, **both}


@cache
def _module_class() -> type[torch.nn.Module]:
    """Made when torch is needed, and once: a class is a reference cycle, and one a model would keep its weights."""
    import torch

    class FeatureFirstMLP(torch.nn.Module):
        """x (d, m) -> sigmoid(W_n @ ... sigmoid(W_1 @ x)) (d, m)."""

        def __init__(self, weights: list[torch.Tensor]) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList([torch.nn.Parameter(w) for w in weights])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for weight in self.weights:
                x = torch.sigmoid(weight @ x)
            return x

    return FeatureFirstMLP
