"""What can go wrong with NVML, as errors of this package with one line that says what to do."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from importlib.metadata import files, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flopray.errors import MeterError, NoEnergySource, one_line


class NvmlUnavailable(NoEnergySource):
    """NVML itself cannot be used: no library, no driver, no such GPU, no permission."""


class NvmlFails(NvmlUnavailable):
    """The driver's library is there, but does not start or answers with an error: there may be a GPU."""


class WrongBindings(NvmlUnavailable):
    """There is no nvidia-ml-py, an old one, or another package of its import name."""


class NvmlNoSuchGpu(NvmlUnavailable):
    """NVML works, but does not know this GPU."""


class NvmlNotSupported(NoEnergySource):
    """NVML works, but this GPU does not offer what was asked for."""


class GpuLost(MeterError):
    """The GPU does not answer any more; nothing on it can be measured."""


def wrong_bindings(pynvml: Any, why: str) -> WrongBindings:
    """The error where the module of this name is not that of nvidia-ml-py, or an old one, with what to do about it.

    Args:
        pynvml: the module; None where it cannot be imported.
        why: what shows it.
    """
    file = getattr(pynvml, "__file__", None) or _found("pynvml")
    owners = _owners(file)
    strangers = [owner for owner in owners if owner != "nvidia-ml-py"]
    if not owners:
        return WrongBindings(
            f"the module {file or 'pynvml'} hides nvidia-ml-py ({why}): rename it, or take its folder out of PYTHONPATH"
        )
    if not strangers:
        return WrongBindings(f"nvidia-ml-py {version('nvidia-ml-py')} is too old ({why}): pip install -U nvidia-ml-py")
    owner = strangers[0]
    # A file that two packages have written goes with the first that is uninstalled.
    away = " ".join(sorted({owner, *owners}, reverse=True))
    return WrongBindings(
        f"{owner} {version(owner)} hides nvidia-ml-py ({why}): pip uninstall -y {away} && pip install -U nvidia-ml-py"
    )


def _found(module: str) -> str | None:
    """The file that an import would run."""
    with suppress(ImportError, ValueError):
        spec = find_spec(module)
        return spec.origin if spec else None
    return None


def _owners(file: str | None) -> list[str]:
    """Installed packages that the file of the module `pynvml` belongs to, sorted; some do not list their files."""
    owners = []
    for name in sorted(set(packages_distributions().get("pynvml", []))):
        listed = files(name)
        places = {Path(str(one.locate())).resolve() for one in listed or ()}
        if (file and Path(file).resolve() in places) or (listed is None and name != "nvidia-ml-py"):
            owners.append(name)
    return owners


def driver_is_here() -> bool:
    """Whether this machine has the library of NVIDIA's driver, whatever its bindings in Python are."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


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
