"""The only module that calls NVML: it starts the library once a process, finds GPUs and reads what they report.

Nothing here changes a clock, a limit or the persistence mode. `pynvml` (distribution nvidia-ml-py) and the driver's
library are loaded on first use, so importing this module works anywhere.
NVML's manual: https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flopray.energy.nvml_errors import (
    GpuLost,
    NvmlFails,
    NvmlNoSuchGpu,
    NvmlNotSupported,
    WrongBindings,
    driver_is_here,
    typed,
    wrong_bindings,
)
from flopray.errors import MeterError, NoEnergySource
from flopray.records import Row

#: Reasons for a clock below its maximum, by bit; names of NVML's nvmlClocksEventReasons without prefix.
CLOCK_EVENT_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}

#: Without these names the bindings are not nvidia-ml-py, or older than any driver that has an energy counter.
_NEEDED = (
    *("nvmlInit", "NVMLError", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID"),
    *("nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption"),
    *("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetMaxClockInfo"),
    *("nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetFieldValues", "NVML_ERROR_GPU_IS_LOST", "NVML_CLOCK_SM"),
    *("NVML_ERROR_LIB_RM_VERSION_MISMATCH", "NVML_ERROR_FUNCTION_NOT_FOUND", "NVML_TEMPERATURE_GPU"),
)
#: No board has these limits: 0, and the largest number of 32 bits, by which drivers say that they do not know it.
_NO_LIMIT_MW = (0, 2**32 - 1)
_lock = threading.Lock()
_started_in: int | None = None


@dataclass(frozen=True)
class GpuState:
    """How a GPU is at one instant; a field that the GPU does not report is None.

    Attributes:
        temperature_c: of the GPU.
        sm_clock_hz: of the streaming multiprocessors.
        memory_clock_hz: of the memory.
        throttle: active reasons for a lower clock, sorted by NVML's bits and joined with `|`; empty when there is none.
        power_limit_w: enforced board limit.
    """

    temperature_c: float | None
    sm_clock_hz: float | None
    memory_clock_hz: float | None
    throttle: str | None
    power_limit_w: float | None


def library() -> Any:
    """The `pynvml` module, initialised in this process (and again in a forked child).

    Raises:
        NvmlUnavailable: no nvidia-ml-py, no driver, or a driver and library that do not match.
    """
    global _started_in
    try:
        import pynvml
    except ImportError as error:
        raise WrongBindings("NVML needs the nvidia-ml-py package: pip install nvidia-ml-py") from error
    except Exception as error:  # one of Python 2, or another package of that name
        why = f"it cannot be imported: {type(error).__name__}"
        raise wrong_bindings(None, why) from error
    with _lock:
        if _started_in != os.getpid():
            _check_bindings(pynvml)
            _call(pynvml.nvmlInit)
            _started_in = os.getpid()
    return pynvml


def _check_bindings(pynvml: Any) -> None:
    """Another package of the same import name (`pynvml` before version 12, forks) lacks what is used here.

    Raises:
        NvmlUnavailable: naming what lies there instead of nvidia-ml-py.
    """
    absent = [name for name in _NEEDED if not hasattr(pynvml, name)]
    if absent:
        raise wrong_bindings(pynvml, f"it has no {absent[0]}")


def _call(function: Callable[..., Any], *args: Any) -> Any:
    """Calls an NVML function with its errors typed; texts of older bindings, which are bytes, become texts."""
    import pynvml

    try:
        answer = function(*args)
    except pynvml.NVMLError as error:
        raise typed(error, getattr(function, "__name__", "NVML")) from error
    except (TypeError, AttributeError) as error:  # older bindings take bytes where these give texts, or lack a name
        raise wrong_bindings(pynvml, f"{type(error).__name__}: {error}") from error
    except Exception as error:
        # Newer bindings raise an error of another class where the driver is older than the function.
        if type(error).__name__ == "NVMLLibraryMismatchError":
            raise NvmlNotSupported(f"{function.__name__} needs a newer driver") from error
        raise typed(error, getattr(function, "__name__", "NVML")) from error
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def _optional(function: Callable[..., Any] | None, *args: Any) -> Any:
    """Calls an NVML function; None where a working GPU gives no answer, so that only that column is missing.

    A function that these bindings do not have may be given as None.
    """
    if function is None:
        return None
    try:
        return _call(function, *args)
    except GpuLost:
        raise
    except (NoEnergySource, MeterError):
        return None


def list_gpus() -> list[Gpu]:
    """All GPUs of this machine, in NVML's order (which is not torch's under CUDA_VISIBLE_DEVICES).

    A GPU that is lost or does not answer is in the list too, and every question to it raises the reason.

    Raises:
        NvmlUnavailable: see `library`.
    """
    nvml = library()
    return [_by_index(nvml, index) for index in range(_call(nvml.nvmlDeviceGetCount))]


def _by_index(nvml: Any, index: int) -> Gpu:
    try:
        return Gpu(_call(nvml.nvmlDeviceGetHandleByIndex, index))
    except (NoEnergySource, MeterError) as error:
        return Gpu(None, error)


def why_nvml_fails() -> str | None:
    """Why an installed NVIDIA driver cannot list its GPUs; None where it can, and without a driver."""
    try:
        _call(library().nvmlDeviceGetCount)
    except (NvmlFails, GpuLost) as error:
        return str(error)
    except WrongBindings as error:
        return str(error) if driver_is_here() else None
    except NoEnergySource:
        return None
    return None


class Gpu:
    """One GPU (or MIG slice) as NVML sees it.

    Args:
        handle: of NVML; use `from_uuid` or `list_gpus`.
        failure: why there is none.
    """

    def __init__(self, handle: Any, failure: NoEnergySource | MeterError | None = None) -> None:
        self._nvml = library()
        self._handle, self._failure = handle, failure

    @property
    def handle(self) -> Any:
        """NVML's handle.

        Raises:
            NvmlUnavailable, MeterError: the GPU gave none.
        """
        if self._failure is not None:
            raise self._failure
        return self._handle

    @classmethod
    def from_uuid(cls, uuid: str) -> Gpu:
        """The GPU with a UUID as NVML writes it (`GPU-...`, `MIG-...`) or as torch does (without the prefix).

        Raises:
            NvmlUnavailable: NVML cannot be used, or knows no such GPU.
        """
        nvml = library()
        names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
        for name in names:
            try:
                return cls(_call(nvml.nvmlDeviceGetHandleByUUID, name))
            except NvmlNoSuchGpu:
                continue
            except GpuLost:
                # NVML says so where any GPU is lost that it passes in its search: https://docs.nvidia.com/deploy/nvml-api
                if found := _found_by_hand(names):
                    return found
                raise
        raise NvmlNoSuchGpu(f"NVML knows no GPU with UUID {uuid}: is it visible in this container?")

    @property
    def uuid(self) -> str:
        """UUID as NVML writes it."""
        return _call(self._nvml.nvmlDeviceGetUUID, self.handle)

    @property
    def name(self) -> str | None:
        """Type of board as NVML writes it; None where it does not say."""
        return _optional(self._nvml.nvmlDeviceGetName, self.handle)

    def info(self) -> Row:
        """What the GPU is, under the names of the record's columns; None where it does not say.

        `sm_count` is always None: NVML reports cores, not multiprocessors; torch knows them.
        """
        nvml, handle = self._nvml, self.handle
        capability = _optional(nvml.nvmlDeviceGetCudaComputeCapability, handle)
        clock_mhz = _optional(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM)
        memory = _optional(nvml.nvmlDeviceGetMemoryInfo, handle)
        return {
            "device_name": self.name,
            "device_uuid": _optional(nvml.nvmlDeviceGetUUID, handle),
            "board_part_number": _optional(nvml.nvmlDeviceGetBoardPartNumber, handle),
            "vbios_version": _optional(nvml.nvmlDeviceGetVbiosVersion, handle),
            "driver_version": _optional(nvml.nvmlSystemGetDriverVersion),
            "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
            "sm_count": None,
            "max_sm_clock_hz": _scaled(clock_mhz, 1e6),
            "power_limit_w": self._power_limit_w(),
            "memory_total_bytes": int(memory.total) if memory else None,
        }

    def state(self) -> GpuState:
        """Temperature, clocks, throttle reasons and power limit of this instant.

        Raises:
            MeterError: the GPU stopped answering.
        """
        nvml, handle = self._nvml, self.handle
        return GpuState(
            temperature_c=self.temperature_c(),
            sm_clock_hz=self.sm_clock_hz(),
            memory_clock_hz=_scaled(_optional(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM), 1e6),
            throttle=self.throttle(),
            power_limit_w=self._power_limit_w(),
        )

    def sm_clock_hz(self) -> float | None:
        """Clock of the streaming multiprocessors at this instant; None where NVML does not say.

        Raises:
            MeterError: the GPU stopped answering.
        """
        nvml = self._nvml
        return _scaled(_optional(nvml.nvmlDeviceGetClockInfo, self.handle, nvml.NVML_CLOCK_SM), 1e6)

    def memory_used_bytes(self) -> int | None:
        """Memory that is in use on the GPU at this instant, by any process; None where NVML does not say.

        Raises:
            MeterError: the GPU stopped answering.
        """
        memory = _optional(self._nvml.nvmlDeviceGetMemoryInfo, self.handle)
        return int(memory.used) if memory else None

    def processes(self) -> dict[int, int | None] | None:
        """Memory in bytes of each process that computes on the GPU, by its process id.

        A container may see the ids of the host, or none at all. The memory is None where NVML does not say.

        Returns:
            The processes, or None where NVML does not tell of any.

        Raises:
            MeterError: the GPU stopped answering.
        """
        processes = _optional(self._nvml.nvmlDeviceGetComputeRunningProcesses, self.handle)
        if processes is None:
            return None
        return {int(process.pid): getattr(process, "usedGpuMemory", None) for process in processes}

    def temperature_c(self) -> float | None:
        """Temperature of the chip in whole degrees; None where the GPU reports none."""
        nvml = self._nvml
        return _scaled(_optional(nvml.nvmlDeviceGetTemperature, self.handle, nvml.NVML_TEMPERATURE_GPU), 1.0)

    def other_processes(self, own_context: bool = True) -> int | None:
        """How many other processes compute on the GPU.

        NVML reports the process ids of the host, which inside a container are not the ones this process knows. If its
        own id is not in the list, one entry is taken to be this process; if the list is empty although this process
        has a context, NVML hides processes from the container and the number is unknown.

        Args:
            own_context: this process has a CUDA context on the GPU.

        Returns:
            The number, or None where it cannot be known.
        """
        processes = _optional(self._nvml.nvmlDeviceGetComputeRunningProcesses, self.handle)
        if processes is None:
            return None
        pids = {process.pid for process in processes}
        if os.getpid() in pids:
            return len(pids) - 1
        if not own_context:
            return len(pids)
        return len(pids) - 1 if pids else None

    def is_mig(self) -> bool:
        """The device is a MIG slice, or a GPU that is split into slices: its energy is not one workload's."""
        nvml = self._nvml
        if _optional(getattr(nvml, "nvmlDeviceIsMigDeviceHandle", None), self.handle):
            return True
        mode = _optional(getattr(nvml, "nvmlDeviceGetMigMode", None), self.handle)
        return bool(mode and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE)

    def throttle(self) -> str | None:
        """Reasons for a lower clock at this instant, as in `GpuState`; None where NVML does not tell.

        Raises:
            MeterError: the GPU stopped answering.
        """
        nvml = self._nvml
        # Renamed from "throttle" to "event" reasons in driver 535; the old name stays for older libraries.
        mask = None
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            if mask is None:
                mask = _optional(getattr(nvml, name, None), self.handle)
        return None if mask is None else throttle_names(mask)

    def _power_limit_w(self) -> float | None:
        limit_mw = _optional(self._nvml.nvmlDeviceGetEnforcedPowerLimit, self.handle)
        return None if limit_mw in _NO_LIMIT_MW else _scaled(limit_mw, 1e-3)


def _found_by_hand(uuids: Sequence[str]) -> Gpu | None:
    """The GPU of one of these UUIDs among those that still answer."""
    for gpu in list_gpus():
        with suppress(NoEnergySource, MeterError):
            if gpu.uuid in uuids:
                return gpu
    return None


def throttle_names(mask: int) -> str:
    """Names of the bits of NVML's clock event reasons, joined with `|`; unknown bits as hexadecimal numbers."""
    names = [name for bit, name in CLOCK_EVENT_REASONS.items() if mask & bit]
    unknown = mask & ~sum(CLOCK_EVENT_REASONS)
    return "|".join(names + ([hex(unknown)] if unknown else []))


def _scaled(value: float | None, unit: float) -> float | None:
    """A value of NVML in SI units; None stays None."""
    return None if value is None else value * unit
