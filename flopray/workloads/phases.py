"""From a point to work on a device: the model, its inputs, and one callable a phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from flopray.errors import OutOfMemory, Unsupported
from flopray.point import FP8_SCALING, Point, is_compiled
from flopray.workloads import float8
from flopray.workloads.base import KEEPS_MOMENTS, Built, workload_of
from flopray.workloads.capability import why_no_precision
from flopray.workloads.execution import TrainingStep, Work, phase_work

#: Type of weights and input by precision.
DTYPES = {
    **{"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16},
    **dict.fromkeys(FP8_SCALING, torch.bfloat16),
}
#: Parts of operators' names. Where scores are formed and normalised by separate operators, it is the mathematical form.
_BACKENDS = (
    ("flash_attention_for_cpu", "cpu_flash"),
    ("scaled_dot_product_flash", "flash"),
    ("scaled_dot_product_efficient", "efficient"),
    ("scaled_dot_product_cudnn", "cudnn"),
    ("scaled_dot_product_attention_math", "math"),
    ("aten._softmax.", "math"),
    ("aten._safe_softmax.", "math"),
)

_WITHOUT_TRAINING = ("inference", "prefill", "decode")


class BuiltPoint:
    """A point with its model. Building allocates the model on the device; each phase is prepared when it is asked for.

    Args:
        point: the point.
        device: torch device, such as `cuda:0` or `cpu`.
        seed: of weights, input and upstream gradient.
        memory_bytes: of the device, where it is known: what cannot fit is refused before it is tried.

    Raises:
        Unsupported: the device cannot compute at this precision.
        OutOfMemory: the weights alone are larger than the device's memory.
        torch.OutOfMemoryError: the model does not fit.
    """

    def __init__(self, point: Point, *, device: str, seed: int, memory_bytes: int | None = None) -> None:
        check_precision(point.precision, device)
        if reason := float8.why_not(point.precision, point.execution):
            raise Unsupported(reason)
        self.point, self._memory_bytes = point, memory_bytes
        self._workload = workload_of(point)
        self._refuse_what_cannot_fit("weights")
        set_tf32(point.precision == "tf32")
        built = self._workload.build(point, device=device, dtype=DTYPES[point.precision], seed=seed)
        self._module, gradient = built.module, _upstream(built, seed)
        if (scaling := FP8_SCALING.get(point.precision)) is not None:
            self._module = float8.converted(built.module, scaling)
        self._step = TrainingStep(
            self._module,
            built.x,
            gradient,
            execution=point.execution,
            others=built.others,
            layer_call=built.layer_call,
        )

    def phase(self, phase: str) -> Work:
        """One iteration of a phase as a callable; see `flopray.workloads.execution.phase_work`.

        Raises:
            OutOfMemory: the phase needs more than the device has.
        """
        self._prepare(phase)
        return phase_work(self._step, phase, self.point.execution)

    def launched(self, phase: str) -> Work:
        """The same iteration with every kernel launched by itself, as a CUDA graph's capture launches them."""
        self._prepare(phase)
        return phase_work(self._step, phase, "compile" if is_compiled(self.point.execution) else "eager")

    def attention_backend(self, phase: str) -> str | None:
        """Which implementation of attention a phase runs, seen in an eager iteration; None where it has none.

        Compiled code is not looked into: it need not dispatch an operator of that name.
        """
        if not self._workload.sees_attention or phase == "optimizer_step" or is_compiled(self.point.execution):
            return None
        self._prepare(phase)
        work = phase_work(self._step, phase, "eager")
        work()  # the first call may do more: decode fills its cache
        with AttentionSeen() as seen:
            work()
        return seen.backend

    def forget(self) -> None:
        """Free what a phase left: gradients, and the optimizer's moments, which may be incomplete."""
        self._step.forget()

    def _prepare(self, phase: str) -> None:
        self._refuse_what_cannot_fit(phase)
        if phase not in ("optimizer_step", "train_step"):
            self._step.forget()
        # Without dropout the mode changes no number, but layers that checkpoint take no cache while they train.
        self._module.train(phase not in _WITHOUT_TRAINING)

    def _refuse_what_cannot_fit(self, phase: str) -> None:
        needed = self._workload.least_bytes(self.point, phase, DTYPES[self.point.precision].itemsize)
        if self._memory_bytes is not None and needed > self._memory_bytes:
            has = f"the device has {self._memory_bytes / 1e9:.1f} GB"
            what = "weights take" if phase == "weights" else f"{phase} takes"
            raise OutOfMemory(f"predicted: {what} at least {needed / 1e9:.1f} GB, {has}")


def imported_by_optimizers(phases: Sequence[str]) -> str | None:
    """The module that torch imports with the first optimizer of a process; None if no phase has an optimizer.

    It is torch's compiler, which takes seconds.
    """
    return None if set(KEEPS_MOMENTS).isdisjoint(phases) else "torch._dynamo"


def set_tf32(allowed: bool) -> None:
    """Have fp32 mean IEEE fp32 products and tf32 the shorter mantissa of tensor cores, also in convolutions.

    Of convolutions torch allows it by default.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def _upstream(built: Built, seed: int) -> torch.Tensor:
    """The upstream gradient: the workload's own, 1 for a loss, else random numbers, which draw power like others."""
    if built.gradient is not None:
        return built.gradient
    with torch.no_grad():
        y = built.module(built.x)
    check_output(y)
    if y.dim() == 0:
        return torch.ones_like(y)
    generator = torch.Generator(device=y.device).manual_seed(seed + 1)
    return torch.randn(y.shape, device=y.device, dtype=y.dtype, generator=generator)


def check_output(y: object) -> None:
    """Refuse an output that no gradient can be taken of.

    Raises:
        Unsupported: it is not a tensor.
    """
    if not isinstance(y, torch.Tensor):
        raise Unsupported(f"the module returns a {type(y).__name__}: a training step needs one tensor, or a loss")


def check_precision(precision: str, device: str) -> None:
    """Refuse a precision for which a device has no units.

    Raises:
        Unsupported: with the reason. Emulation does not count: it would measure something else.
    """
    capability = torch.cuda.get_device_capability(device) if device.startswith("cuda") else None
    if reason := why_no_precision(precision, capability):
        raise Unsupported(reason)


class AttentionSeen(TorchDispatchMode):
    """While it is active it watches for attention; `backend` is the first that was seen, None where there was none."""

    def __init__(self) -> None:
        super().__init__()
        self.backend: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and check its name."""
        del types
        if self.backend is None:
            name = str(func)
            self.backend = next((backend for part, backend in _BACKENDS if part in name), None)
        return func(*args, **(kwargs or {}))
