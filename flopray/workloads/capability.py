"""What a type of device cannot do: checked before anything starts, and stated in the row of each point.

Standard library only. Nothing is refused for a GPU whose compute capability is not known.
"""

from __future__ import annotations

from collections.abc import Sequence

from flopray.audit.hardware import find_gpu
from flopray.errors import WorkloadError
from flopray.point import FP8_SCALING, Point, is_captured
from flopray.workloads import float8
from flopray.workloads.base import workload_of

#: Compute capability from which a GPU has units for a precision; emulation would measure something else.
#: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#arithmetic-instructions
_LEAST_CAPABILITY = {
    "fp32": (0, 0),
    "tf32": (8, 0),
    "bf16": (8, 0),
    "fp16": (5, 3),
    **dict.fromkeys(FP8_SCALING, (8, 9)),
}
#: Kernels of attention that are written for 16 bits, and the capability they need:
#: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
_SIXTEEN_BIT_ATTENTION = ("flash", "cudnn")
_ATTENTION_CAPABILITY = (8, 0)
_CPU_ATTENTION = ("auto", "flash", "math")
ATTENTIONS = ("auto", "flash", "efficient", "cudnn", "math")


def why_no_precision(precision: str, capability: tuple[int, int] | None) -> str | None:
    """Why a device cannot compute at a precision; None where it can.

    Args:
        precision: one of `flopray.point.PRECISIONS`.
        capability: compute capability of a GPU; None for a CPU.
    """
    if capability is None:
        if precision != "tf32" and precision not in FP8_SCALING:
            return None
        major, minor = _LEAST_CAPABILITY[precision]
        return f"{precision} exists only on NVIDIA GPUs of compute capability {major}.{minor} and newer"
    least = _LEAST_CAPABILITY[precision]
    if capability >= least:
        return None
    return f"{precision} needs compute capability {least[0]}.{least[1]}, this GPU has {capability[0]}.{capability[1]}"


def why_not(point: Point) -> str | None:
    """Why no phase of a point can run on its type of device, as its rows would say; None where they can.

    Args:
        point: a point, whose `device_type` is `CPU` or the name of a GPU.
    """
    on_cpu = point.device_type == "CPU"
    if on_cpu and is_captured(point.execution):
        return f"execution {point.execution} needs a CUDA device; use execution='eager' or execution='compile' on a CPU"
    capability = None if on_cpu else _capability(point.device_type)
    if (on_cpu or capability) and (reason := why_no_precision(point.precision, capability)):
        return reason
    if reason := float8.why_not(point.precision, point.execution):
        return reason
    try:
        return workload_of(point).why_not(point, capability)
    except WorkloadError as error:
        return str(error)


def why_no_attention(
    attention: str, precision: str, device_type: str, capability: tuple[int, int] | None
) -> str | None:
    """Why a backend of attention has no kernel; None where it has one, or nothing is known.

    Args:
        attention: one of `ATTENTIONS`.
        precision: of the point.
        device_type: `CPU` or the name of a GPU.
        capability: compute capability of the GPU, where it is known.
    """
    if device_type == "CPU":
        if attention in _CPU_ATTENTION:
            return None
        return f"attention {attention} has no kernel for a CPU; use one of {', '.join(_CPU_ATTENTION)}"
    if attention not in _SIXTEEN_BIT_ATTENTION:
        return None
    if precision not in ("bf16", "fp16"):
        return f"attention {attention} computes in bf16 and fp16 only, not in {precision}"
    if capability and capability < _ATTENTION_CAPABILITY:
        return f"attention {attention} needs compute capability 8.0, this GPU has {capability[0]}.{capability[1]}"
    return None


def why_no_instrument(instruments: Sequence[str], device_types: Sequence[str]) -> str | None:
    """Why an instrument can read nothing on any of the types of device; None where it can."""
    if "counters" in instruments and all(device_type == "CPU" for device_type in device_types):
        return "only NVIDIA GPUs have hardware counters, and the sweep is on a CPU: leave counters out"
    return None


def _capability(device_type: str) -> tuple[int, int] | None:
    gpu = find_gpu(device_type)
    if gpu is None:
        return None
    major, _, minor = gpu.compute_capability.partition(".")
    return int(major), int(minor)
