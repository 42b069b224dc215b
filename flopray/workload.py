"""From a specification to work on a device: the model, its inputs, and one callable a phase."""

from __future__ import annotations

import torch

from flopray.errors import Unsupported
from flopray.execution import TrainingStep, Work, phase_work
from flopray.models import mlp
from flopray.records import TrialSpec

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MODELS = {"mlp": mlp}


class Workload:
    """A built point. Building allocates the model on the device; each phase is prepared when it is asked for.

    Args:
        spec: the point.
        device: torch device, such as `cuda:0` or `cpu`.
        seed: of weights, input and upstream gradient.

    Raises:
        Unsupported: the device cannot compute at this precision.
        torch.OutOfMemoryError: the model does not fit.
    """

    def __init__(self, spec: TrialSpec, *, device: str, seed: int) -> None:
        check_precision(spec.precision, device)
        # fp32 means IEEE fp32 products, tf32 means the tensor cores' shorter mantissa; torch has one switch for both.
        torch.set_float32_matmul_precision("high" if spec.precision == "tf32" else "highest")
        self.spec = spec
        module, x = _MODELS[spec.workload].build(spec, device=device, dtype=_DTYPES[spec.precision], seed=seed)
        generator = torch.Generator(device=device).manual_seed(seed + 1)
        gradient = torch.randn(x.shape, device=device, dtype=x.dtype, generator=generator)
        self._step = TrainingStep(module, x, gradient, execution=spec.execution)

    def phase(self, phase: str) -> Work:
        """One iteration of a phase as a callable; see `flopray.execution.phase_work`."""
        return phase_work(self._step, phase, self.spec.execution)

    def launched(self, phase: str) -> Work:
        """The same iteration with every kernel launched by itself, as a CUDA graph's capture launches them."""
        return phase_work(self._step, phase, "compile" if self.spec.execution == "compile" else "eager")


def check_precision(precision: str, device: str) -> None:
    """Say whether a device computes at a precision by itself.

    Raises:
        Unsupported: with the reason; emulation does not count, since it would measure something else.
    """
    if precision == "fp32":
        return
    if device.startswith("cuda"):
        major, minor = torch.cuda.get_device_capability(device)
        needed = {"tf32": (8, 0), "bf16": (8, 0), "fp16": (5, 3)}[precision]
        if (major, minor) < needed:
            raise Unsupported(
                f"{precision} needs compute capability {needed[0]}.{needed[1]}, this GPU has {major}.{minor}"
            )
    elif precision == "tf32":
        raise Unsupported("tf32 exists only on NVIDIA GPUs of compute capability 8.0 and newer")
