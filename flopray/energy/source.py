"""Which meter a device gets. A simulated one is never among them."""

from __future__ import annotations

from pathlib import Path

from flopray.energy.meter import Meter
from flopray.energy.nvml import Gpu
from flopray.energy.nvml_errors import NvmlNotSupported
from flopray.energy.nvml_meter import NvmlCounterMeter, NvmlPowerMeter
from flopray.energy.rapl import POWERCAP_ROOT, RaplMeter
from flopray.errors import NoEnergySource


def open_gpu_meter(uuid: str) -> Meter:
    """The energy counter of a GPU, or the integral of its power where it has none.

    Args:
        uuid: of NVML (`GPU-...`) or of torch (without the prefix).

    Raises:
        NoEnergySource: one line: what is missing and what would give it.
    """
    gpu = Gpu.from_uuid(uuid)
    try:
        return NvmlCounterMeter(gpu)
    except NoEnergySource as reason:
        if gpu.is_mig():
            raise
        try:
            return NvmlPowerMeter(gpu)
        except NoEnergySource as other:
            # The counter's error says more, unless the GPU is merely too old to have one.
            raise (other if isinstance(reason, NvmlNotSupported) else reason) from other


def open_cpu_meter(root: Path | str = POWERCAP_ROOT) -> Meter:
    """RAPL's package and DRAM counters of this machine.

    Raises:
        NoEnergySource: one line: what is missing and what would give it.
    """
    return RaplMeter(root)
