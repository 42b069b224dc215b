"""What can go wrong with NVML, as errors of this package with one line that says what to do."""

from __future__ import annotations

from importlib.metadata import packages_distributions
from typing import Any

from flopray.errors import MeterError, NoEnergySource, one_line


class NvmlUnavailable(NoEnergySource):
    """NVML itself cannot be used: no library, no driver, no such GPU, no permission."""


class NvmlFails(NvmlUnavailable):
    """The driver's library is there, but does not start or answers with an error: there may be a GPU."""


class NvmlNoSuchGpu(NvmlUnavailable):
    """NVML works, but does not know this GPU."""


class NvmlNotSupported(NoEnergySource):
    """NVML works, but this GPU does not offer what was asked for."""


class GpuLost(MeterError):
    """The GPU does not answer any more; nothing on it can be measured."""


def wrong_bindings(pynvml: Any, why: str) -> str:
    """What to do where the module of this name is not that of nvidia-ml-py.

    Args:
        pynvml: the module; None where it cannot be imported.
        why: what shows it.
    """
    version, file = getattr(pynvml, "__version__", None), getattr(pynvml, "__file__", None)
    owners = sorted(set(packages_distributions().get("pynvml", [])) - {"nvidia-ml-py"})
    owner = owners[0] if owners else "pynvml"
    named = f"{owner} {version}" if version else f"the module {file or 'pynvml'}"
    if owners and not version:
        named += f" of {owner}"
    return f"{named} hides nvidia-ml-py ({why}): pip uninstall -y {owner} && pip install -U nvidia-ml-py"


def typed(error: Exception, doing: str) -> NoEnergySource | MeterError:
    """The error of this package for one of `pynvml`, with one line that says what to do.

    NVML has many codes (UNKNOWN, TIMEOUT, NOT_READY, OPERATING_SYSTEM, ... and new ones with each driver), and none of
    them prevents measuring time. So the default is that there is no energy, for this reason; only a GPU
    that is lost cannot be measured at all.
    """
    import pynvml

    code = getattr(error, "value", None)
    if code == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return NvmlUnavailable("no NVML library: this machine has no NVIDIA driver")
    fails = {
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the NVIDIA driver and its library differ in version: reboot",
        pynvml.NVML_ERROR_NO_PERMISSION: f"no permission for {doing}: ask the administrator of this machine",
    }
    if code in fails:
        return NvmlFails(fails[code])
    if code in (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT):
        return NvmlNoSuchGpu(f"{doing}: NVML knows no such device")
    if code in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
        return NvmlNotSupported(f"{doing} is not supported by this GPU or driver")
    if code == pynvml.NVML_ERROR_GPU_IS_LOST:
        return GpuLost("the GPU is lost (it fell off the bus or crashed): see dmesg for its Xid")
    if code is None:  # not an error of NVML: its library, its bindings, or an answer that they cannot read
        return NvmlFails(f"{doing} failed: {one_line(f'{type(error).__name__}: {error}')}; nvidia-smi may tell more")
    return NvmlFails(f"{doing} failed: {error or type(error).__name__} (NVML code {code}); nvidia-smi may tell more")
