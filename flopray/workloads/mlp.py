"""The feature-first MLP: n square layers without bias, each `sigmoid(W @ x)`, and its closed-form FLOPs.

Shapes: x (d, m), every W (d, d), output (d, m), for n layers of width d on m tokens.

Convention of the closed forms: a matrix product of (a, b) by (b, c) is 2abc FLOPs (one multiply and one add a term), an
activation is one FLOP an element forward and one backward, and the input needs no gradient. These are the formulas of
flopmetrics (https://github.com/jmetrikat/flopmetrics):

    forward    GEMM 2 n d^2 m                      activation n d m
    backward   GEMM (n-1) 4 d^2 m + 2 d^2 m        activation (n-1) 2 d m + d m

The optimizer is AdamW as https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html writes it, counted by
`flopray.workloads.base.ADAMW_FLOPS`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from flopray.description import Field
from flopray.flops.executed.overheads import elements
from flopray.point import FP8_SCALING, Point, is_compiled
from flopray.workloads import float8
from flopray.workloads.base import (
    ADAMW_FLOPS,
    KEEPS_ACTIVATIONS,
    Built,
    Workload,
    held_at_once,
)
from flopray.workloads.operations import GRADIENT, PLAIN, TRANSPOSED, Operation, Pass, Product, Update, with_casts

if TYPE_CHECKING:
    import torch
#: CPU seconds of a layer, whatever its size: of launching its operations in each phase, and of counting it.
_LAUNCH_S = {"inference": 5e-6, "forward": 11e-6, "backward": 18e-6, "forward_backward": 30e-6}
_LAUNCH_S |= {"optimizer_step": 29e-6, "train_step": 59e-6}
_COUNT_S = 4.5e-4


class MLP(Workload):
    """Sweep the feature-first MLP over layers n, width d and tokens m: FLOPs, energy and time of each training phase.

    Example:
        >>> mlp = MLP(n_layers=2, width=128, tokens=32)
        >>> mlp.closed_form(mlp.point(device_type="CPU"), "forward")["gemm_flops"]  # 2 n d^2 m
        2097152
    """

    name = "mlp"
    fields = (
        Field(
            name="n_layers",
            letter="n",
            flag="--n",
            label="layers",
            doc="number of layers",
            values=(2, 4),
            gpu_values=(2, 4, 8, 16, 32),
        ),
        Field(
            name="width",
            letter="d",
            flag="--d",
            label="width",
            doc="width of each layer",
            values=(128, 256, 512),
            gpu_values=("128:2048:128",),
        ),
        Field(
            name="tokens",
            letter="m",
            flag="--m",
            label="tokens",
            doc="tokens, the columns of the input",
            values=(32, 64, 128, 256),
            gpu_values=("16:256:16",),
        ),
    )
    convention = "2 FLOPs a multiply-add; 1 an activation element; AdamW 16 a parameter; input without gradient"
    run_name = "mlp_grid"
    examples = """examples:
  flopray sweep mlp
      start Ray here and measure the default grid
  flopray sweep mlp --address auto --n 2 4 8 --d 128:2048:128 --m 16:256:16 --precision fp32 bf16
      join the running cluster and measure a grid of your own
  flopray resume results/mlp_grid-20260101-120000
      go on with an interrupted run
"""

    def closed_form(self, point: Point, phase: str) -> dict[str, int]:
        """FLOPs of one iteration of a phase, by component.

        Args:
            point: an MLP's point.
            phase: one of `flopray.records.PHASES`.

        Returns:
            `gemm_flops`, `activation_flops` and `optimizer_flops`; their sum is the phase's `model_flops`.
        """
        n, d, m = point.shape().values()
        forward = {"gemm_flops": 2 * n * d * d * m, "activation_flops": n * d * m, "optimizer_flops": 0}
        backward = {
            "gemm_flops": (n - 1) * 4 * d * d * m + 2 * d * d * m,
            "activation_flops": (n - 1) * 2 * d * m + d * m,
            "optimizer_flops": 0,
        }
        optimizer = {"gemm_flops": 0, "activation_flops": 0, "optimizer_flops": ADAMW_FLOPS * self.parameters(point)}
        parts = {
            "inference": (forward,),
            "forward": (forward,),
            "backward": (backward,),
            "forward_backward": (forward, backward),
            "optimizer_step": (optimizer,),
            "train_step": (forward, backward, optimizer),
        }[phase]
        return {name: sum(part[name] for part in parts) for name in forward}

    def parameters(self, point: Point) -> int:
        """Number of parameters: n d^2."""
        n, d, _ = point.shape().values()
        return n * d**2

    def least_bytes(self, point: Point, phase: str, element_bytes: int) -> int:
        """Least memory for a phase to run: weights, gradients, moments, and the outputs that are kept.

        Args:
            point: an MLP's point.
            phase: one of `flopray.records.PHASES`.
            element_bytes: of the precision's type.
        """
        n, d, m = point.shape().values()
        # Compiled code may recompute activations instead of keeping them.
        kept = n * d * m if phase in KEEPS_ACTIVATIONS and not is_compiled(point.execution) else d * m
        weights = self.parameters(point)
        return element_bytes * held_at_once(phase, weights=weights, trained=weights, kept=kept)

    def least_moved_bytes(self, point: Point, phase: str, element_bytes: int) -> int:
        """Bytes that one iteration reads and writes at least, each operand of a pass once, however it is fused.

        Forward reads weights and input and writes the output of each layer, which a backward pass reads again beside
        the weights (but the first layer's) and the upstream gradient, to write the gradients. AdamW reads weights,
        gradients and both moments, and writes all but the gradients. What stays in caches from iteration to iteration
        is counted too.

        Args:
            point: an MLP's point.
            phase: one of `flopray.records.PHASES`.
            element_bytes: of the precision's type.
        """
        n, d, m = point.shape().values()
        weights = self.parameters(point)
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

    def operations(self, point: Point, phase: str) -> tuple[Operation, ...]:
        """Products and activations, layer by layer, and AdamW over the weights.

        Args:
            point: an MLP's point.
            phase: one of `flopray.records.PHASES`.
        """
        n, d, m = point.shape().values()
        linear = point.precision in FP8_SCALING
        products, gradients = [Product(PLAIN, d, m, d, n, linear)], [Product(GRADIENT, d, d, m, n, linear)]
        if n > 1:  # the input needs no gradient
            gradients.append(Product(TRANSPOSED, d, m, d, n - 1, linear))
        cast = with_casts if linear else tuple
        forward: tuple[Operation, ...] = (*cast(products), Pass(2 * d * m, n))
        backward: tuple[Operation, ...] = (Pass(3 * d * m, n), *cast(gradients))
        update = (Update(7 * self.parameters(point), n),)
        return {
            "inference": forward,
            "forward": forward,
            "backward": backward,
            "forward_backward": forward + backward,
            "optimizer_step": update,
            "train_step": forward + backward + update,
        }[phase]

    def build(self, point: Point, *, device: str, dtype: torch.dtype, seed: int) -> Built:
        """The module and its input, made on the device from a fixed seed.

        Args:
            point: an MLP's point.
            device: a torch device; `meta` makes shapes without memory.
            dtype: type of weights and input.
            seed: of the device's generator; the same seed gives the same numbers on the same device.

        Returns:
            The module, x of shape (width, tokens), which needs no gradient, and an upstream gradient of the same shape.
        """
        import torch

        n, d, m = point.shape().values()

        def generator(offset: int) -> torch.Generator | None:
            return None if device == "meta" else torch.Generator(device=device).manual_seed(seed + offset)

        # Entries of about 1/sqrt(d) keep the sigmoids out of saturation, so that gradients are ordinary numbers: chips
        # draw less power on zeros.
        one, other = generator(0), generator(1)
        weights = [torch.randn(d, d, device=device, dtype=dtype, generator=one).div_(d**0.5) for _ in range(n)]
        x = torch.randn(d, m, device=device, dtype=dtype, generator=one)
        gradient = torch.randn(d, m, device=device, dtype=dtype, generator=other)
        made = _linear_class() if point.precision in FP8_SCALING else _module_class()
        return Built(made(weights), x, gradient)

    def why_not(self, point: Point, capability: tuple[int, int] | None) -> str | None:
        """Widths and tokens that fp8 cannot have."""
        del capability
        if point.precision not in FP8_SCALING:
            return None
        return float8.why_not_sizes("d and m", point.width, point.tokens)

    def launch_s(self, point: Point, phase: str) -> float:
        """The operations of each layer."""
        return _LAUNCH_S.get(phase, 0.0) * point.n_layers

    def count_s(self, point: Point) -> float:
        """Counting each layer on the meta device."""
        return _COUNT_S * point.n_layers

    def reduction_elements(self, point: Point, phase: str) -> int | None:
        """Elements that rho refers to: n d m forward, (2n - 1) d m backward; None for the optimizer alone."""
        n, d, m = point.shape().values()
        return elements(n, d, m, phase)

    def sentinel(self, point: Point) -> Point:
        """The point itself."""
        return point


@cache
def _module_class() -> type[torch.nn.Module]:
    """Made once, when torch is needed: a class is a reference cycle, and one for each model would keep its weights."""
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


@cache
def _linear_class() -> type[torch.nn.Module]:
    """The same with linear layers, to which fp8 applies: they multiply the transposed input by `W^T`."""
    import torch

    class LinearMLP(torch.nn.Module):
        """x (d, m) -> sigmoid(W_n @ ... sigmoid(W_1 @ x)) (d, m), as rows of tokens within."""

        def __init__(self, weights: list[torch.Tensor]) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList()
            for weight in weights:
                layer = torch.nn.Linear(*weight.shape, bias=False, device="meta")
                layer.weight = torch.nn.Parameter(weight)
                self.layers.append(layer)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.t()
            for layer in self.layers:
                x = torch.sigmoid(layer(x))
            return x.t()

    return LinearMLP
