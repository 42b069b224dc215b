"""From a specification to work on a device: the model, its inputs, and one callable a phase."""

from __future__ import annotations

import torch

from flopray.errors import OutOfMemory, Unsupported
from flopray.point import Point
from flopray.workloads.attention import AttentionSeen
from flopray.workloads.capability import why_no_precision
from flopray.workloads.execution import TrainingStep, Work, phase_work
from flopray.workloads.registry import MODELS

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_WITHOUT_TRAINING = ("inference", "prefill", "decode")


class Workload:
    """A built point. Building allocates the model on the device; each phase is prepared when it is asked for.

    Args:
        spec: the point.
        device: torch device, such as `cuda:0` or `cpu`.
        seed: of weights, input and upstream gradient.
        memory_bytes: of the device, where it is known: what certainly cannot fit is refused before it is tried.

    Raises:
        Unsupported: the device cannot compute at this precision.
        OutOfMemory: the weights alone are larger than the device's memory.
        torch.OutOfMemoryError: the model does not fit.
    """

    def __init__(self, spec: Point, *, device: str, seed: int, memory_bytes: int | None = None) -> None:
        check_precision(spec.precision, device)
        self.spec, self._memory_bytes = spec, memory_bytes
        self._refuse_what_cannot_fit("weights")
        # fp32 means IEEE fp32 products, tf32 means the tensor cores' shorter mantissa; torch has one switch for both.
        torch.set_float32_matmul_precision("high" if spec.precision == "tf32" else "highest")
        built = MODELS[spec.workload].build(spec, device=device, dtype=_DTYPES[spec.precision], seed=seed)
        self._module = built.module
        self._step = TrainingStep(built.module, built.x, built.gradient, execution=spec.execution, others=built.others)

    def phase(self, phase: str) -> Work:
        """One iteration of a phase as a callable; see `flopray.workloads.execution.phase_work`.

        Raises:
            OutOfMemory: the phase certainly needs more than the device has.
        """
        self._prepare(phase)
        return phase_work(self._step, phase, self.spec.execution)

    def launched(self, phase: str) -> Work:
        """The same iteration with every kernel launched by itself, as a CUDA graph's capture launches them."""
        self._prepare(phase)
        return phase_work(self._step, phase, "compile" if self.spec.execution == "compile" else "eager")

    def attention_backend(self, phase: str) -> str | None:
        """Which implementation of attention a phase runs, seen in an eager iteration; None where it has none.

        Compiled code is not looked into: it need not dispatch an operator of that name.
        """
        if self.spec.workload != "llama" or phase == "optimizer_step" or self.spec.execution == "compile":
            return None
        self._prepare(phase)
        work = phase_work(self._step, phase, "eager")
        work()  # the first call may do more: decode fills its cache
        with AttentionSeen() as seen:
            work()
        return seen.backend

    def forget(self) -> None:
        """Let go of what a phase left: the optimizer's moments, which may be incomplete, and gradients."""
        self._step.forget()

    def _prepare(self, phase: str) -> None:
        self._refuse_what_cannot_fit(phase)
        if phase not in ("optimizer_step", "train_step"):
            self._step.forget()
        # Without dropout the mode changes no number, but layers that checkpoint take no cache while they train.
        self._module.train(phase not in _WITHOUT_TRAINING)

    def _refuse_what_cannot_fit(self, phase: str) -> None:
        needed = MODELS[self.spec.workload].least_bytes(self.spec, phase, _DTYPES[self.spec.precision].itemsize)
        if self._memory_bytes is not None and needed > self._memory_bytes:
            has = f"the device has {self._memory_bytes / 1e9:.1f} GB"
            what = "weights take" if phase == "weights" else f"{phase} takes"
            raise OutOfMemory(f"predicted: {what} at least {needed / 1e9:.1f} GB, {has}")


def check_precision(precision: str, device: str) -> None:
    """Say whether a device computes at a precision by itself.

    Raises:
        Unsupported: with the reason; emulation does not count, since it would measure something else.
    """
    capability = torch.cuda.get_device_capability(device) if device.startswith("cuda") else None
    if reason := why_no_precision(precision, capability):
        raise Unsupported(reason)
