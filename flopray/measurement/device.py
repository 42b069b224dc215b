"""The device of a trial: its properties, its state and its energy meter."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch

from flopray.energy.meter import Meter
from flopray.energy.nvml import Gpu, GpuState
from flopray.energy.source import open_cpu_meter, open_gpu_meter
from flopray.errors import FloprayError, InputError, NoEnergySource
from flopray.measurement.host import memory_bytes
from flopray.records import Row

#: Most seconds to wait for a device to cool down.
_COOLDOWN_CAP_S = 600.0


class Device:
    """One whole GPU (by default the first that this process sees) or this node's CPU.

    Args:
        device_type: as Ray names it; `CPU` takes the CPU, anything else the GPU.
        threads: threads torch computes with on a CPU.
        whole: nothing else of this sweep can run on the device meanwhile.
        index: of the GPU among those that this process sees.

    Raises:
        InputError: a GPU is asked for and this process sees none.
    """

    def __init__(self, device_type: str, *, threads: int | None = None, whole: bool = True, index: int = 0) -> None:
        self.device_type, self._whole = device_type, whole
        self.is_cuda = device_type != "CPU"
        self._gpu: Gpu | None = None
        if not self.is_cuda:
            self.torch_name = "cpu"
            torch.set_num_threads(threads or torch.get_num_threads())
            return
        if not torch.cuda.is_available():
            raise InputError(
                f"device type {device_type} was asked for, but torch {torch.__version__} sees no CUDA device"
            )
        self.torch_name, self._index = f"cuda:{index}", index
        torch.cuda.init()
        self._properties = torch.cuda.get_device_properties(index)
        try:
            self._gpu = Gpu.from_uuid(str(self._properties.uuid))
        except FloprayError:
            self._gpu = None  # without NVML time can still be measured; the energy says what is missing

    def columns(self) -> Row:
        """The record's device columns; what cannot be read is absent."""
        common: Row = {"device_type": self.device_type, "node": platform.node()}
        if not self.is_cuda:
            return common | {
                "device_name": _cpu_name(),
                "cpu_threads": torch.get_num_threads(),
                "memory_total_bytes": memory_bytes(),
            }
        own = {
            "device_name": self._properties.name,
            "compute_capability": f"{self._properties.major}.{self._properties.minor}",
            "sm_count": self._properties.multi_processor_count,
            "memory_total_bytes": self._properties.total_memory,
        }
        seen = {k: v for k, v in self._gpu.info().items() if v is not None} if self._gpu else {}
        return common | own | seen

    def state(self) -> GpuState | None:
        """Temperature, clocks and throttle reasons now; None on a CPU or without NVML."""
        return self._gpu.state() if self._gpu else None

    def cool_down(self, limit_c: float | None) -> None:
        """Wait until the device is no warmer than a limit, for ten minutes at most; without one, not at all."""
        until = time.monotonic() + _COOLDOWN_CAP_S
        while limit_c is not None and time.monotonic() < until:
            state = self.state()
            if state is None or state.temperature_c is None or state.temperature_c <= limit_c:
                return
            time.sleep(0.5)

    def clock_and_memory(self) -> tuple[float | None, int | None]:
        """SM clock in Hz and memory in use in bytes at this moment; cheap to ask. None on a CPU or without NVML."""
        return (self._gpu.sm_clock_hz(), self._gpu.memory_used_bytes()) if self._gpu else (None, None)

    def power_capped(self) -> bool:
        """Whether the device holds its clocks down at this moment because it is at its power limit; cheap to ask."""
        return self._gpu is not None and "sw_power_cap" in (self._gpu.throttle() or "").split("|")

    def other_processes(self) -> int | None:
        """Other processes that compute on the GPU now; None where it cannot be known."""
        return self._gpu.other_processes() if self._gpu else None

    def open_meter(self) -> Meter:
        """The best energy meter of the device.

        Raises:
            NoEnergySource: with what is missing and what would give it.
        """
        if self.is_cuda:
            return open_gpu_meter(str(self._properties.uuid))
        if not self._whole:
            raise NoEnergySource(
                "a CPU's counter covers all cores of its node and a trial holds some: leave cpus_per_trial out (on "
                "nodes of several sizes it is that of the smallest, so sweep them one by one)"
            )
        return open_cpu_meter()

    def synchronize(self) -> None:
        """Wait for everything that was launched."""
        if self.is_cuda:
            torch.cuda.synchronize(self._index)

    def release(self) -> None:
        """Give cached memory back, so that the next point starts with all of it."""
        if self.is_cuda:
            torch.cuda.empty_cache()

    def reset_peak_memory(self) -> None:
        """Begin counting the peak of torch's allocations anew."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self._index)

    def peak_memory_bytes(self) -> int | None:
        """Peak of torch's allocations since the last reset; None on a CPU, where torch does not count them."""
        return torch.cuda.max_memory_allocated(self._index) if self.is_cuda else None


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
