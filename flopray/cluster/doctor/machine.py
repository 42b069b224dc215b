"""Looks at this machine: what it can measure with, or why not. Knows no Ray: a task on another node runs it too.

Nothing is changed, and nothing runs on a GPU: facts about GPUs come from NVML, which sees all of them whatever
CUDA_VISIBLE_DEVICES hides.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import flopray
from flopray.cluster.doctor.software import Counters, Torch, look_at_counters, look_at_torch, version_of
from flopray.energy.meter import Meter
from flopray.energy.nvml import Gpu, library, list_gpus
from flopray.energy.nvml_errors import GpuLost, NvmlFails
from flopray.energy.poller import Poller
from flopray.energy.source import open_cpu_meter, open_gpu_meter
from flopray.energy.ticks import measure_tick_period
from flopray.errors import FloprayError

#: Ten ticks of an NVML counter, which is enough to see their period.
WATCH_S = 1.2


@dataclass(frozen=True)
class Energy:
    """Where joules of a device come from.

    Attributes:
        source: as in `flopray.energy.meter.Meter`; None where there is none.
        reason: why there is none.
        tick_period_s: how often the counter advances, measured now.
        tick_p5_s, tick_p95_s: percentiles of the distance of two ticks.
        tick_reason: why there is no period.
    """

    source: str | None
    reason: str | None
    tick_period_s: float | None = None
    tick_p5_s: float | None = None
    tick_p95_s: float | None = None
    tick_reason: str | None = None


@dataclass(frozen=True)
class GpuReport:
    """One GPU; None for what it does not report.

    Attributes:
        index: in NVML's order.
        name, uuid, driver_version, compute_capability: as the record's columns of these names.
        memory_free_bytes, memory_total_bytes: of the board.
        power_limit_w: enforced board limit.
        mig: whether it is split by MIG.
        other_processes: how many processes compute on it.
        energy: its energy source.
        reason: why nothing is known about it.
    """

    index: int
    energy: Energy
    name: str | None = None
    uuid: str | None = None
    driver_version: str | None = None
    compute_capability: str | None = None
    memory_free_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_limit_w: float | None = None
    mig: bool | None = None
    other_processes: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Machine:
    """What was found on one machine.

    Attributes:
        hostname: of the machine.
        flopray, python, ray: versions; `ray` is None where it is not installed.
        torch: see there.
        gpus: all of the machine.
        gpus_reason: why there are none.
        gpus_fail: whether that is a failure of an installed NVIDIA driver.
        cpu_energy: energy source of the CPU.
        counters: what executed FLOPs need; None without a GPU.
    """

    hostname: str
    flopray: str
    python: str
    ray: str | None
    torch: Torch
    gpus: tuple[GpuReport, ...]
    gpus_reason: str | None
    cpu_energy: Energy
    counters: Counters | None
    gpus_fail: bool = False


def look(*, whole_machine: bool = False, quick: bool = False, counters: bool = True) -> Machine:
    """Look at this machine; takes some seconds.

    Args:
        whole_machine: ask torch for all GPUs, not only those that CUDA_VISIBLE_DEVICES leaves this process.
        quick: without watching ticks and without starting torch, whose version alone is read: a fraction of a second.
        counters: look for what hardware counters need.
    """
    found, gpus_reason, gpus_fail = _find_gpus()
    *gpu_energy, cpu_energy = watch(
        [*(partial(_open_gpu_meter, gpu) for gpu in found), open_cpu_meter], 0.0 if quick else WATCH_S
    )
    gpus = tuple(_look_at_gpu(*each) for each in zip(range(len(found)), found, gpu_energy, strict=True))
    return Machine(
        hostname=platform.node(),
        flopray=flopray.__version__,
        python=platform.python_version(),
        ray=version_of("ray"),
        torch=Torch(version_of("torch"), None, None, None) if quick else look_at_torch(whole_machine=whole_machine),
        gpus=gpus,
        gpus_reason=gpus_reason,
        cpu_energy=cpu_energy,
        counters=look_at_counters(_capabilities(gpus)) if gpus and counters else None,
        gpus_fail=gpus_fail,
    )


def watch(openers: Sequence[Callable[[], Meter]], watch_s: float = WATCH_S) -> list[Energy]:
    """Open meters, poll all of them at the same time and say how often each counter advances.

    Args:
        openers: each opens the meter of one device.
        watch_s: how long to poll.

    Returns:
        One for each opener, in their order.
    """
    opened = [_open(opener) for opener in openers]
    pollers = {i: Poller(meter).start() for i, meter in enumerate(opened) if not isinstance(meter, Energy)}
    time.sleep(watch_s if pollers else 0.0)
    return [meter if isinstance(meter, Energy) else _energy_of(meter, pollers[i]) for i, meter in enumerate(opened)]


def _open(opener: Callable[[], Meter]) -> Meter | Energy:
    """A meter, or why there is none."""
    try:
        return opener()
    except FloprayError as error:
        return Energy(None, str(error))


def _energy_of(meter: Meter, poller: Poller) -> Energy:
    """Ends a poller; what its meter is and how often it ticked."""
    try:
        readings = poller.stop()
    except FloprayError as error:
        return Energy(None, str(error))
    finally:
        meter.close()
    if meter.changes_on_read:
        return Energy(meter.source, None, tick_reason="power is sampled when it is read: there are no ticks")
    try:
        tick = measure_tick_period(readings)
    except FloprayError as error:
        return Energy(meter.source, None, tick_reason=str(error))
    return Energy(meter.source, None, tick.period_s, tick.p5_s, tick.p95_s)


def _find_gpus() -> tuple[list[Gpu], str | None, bool]:
    """All GPUs, or why there are none, and whether an installed driver failed."""
    try:
        found = list_gpus()
    except FloprayError as error:
        return [], str(error), isinstance(error, NvmlFails | GpuLost)
    none = "the NVIDIA driver shows no GPU here: give the container or the job one (docker run --gpus all)"
    return found, None if found else none, False


def _capabilities(gpus: Sequence[GpuReport]) -> list[str | None]:
    """Of the GPUs that answer; of all where none does."""
    return [gpu.compute_capability for gpu in gpus if gpu.reason is None] or [None]


def _open_gpu_meter(gpu: Gpu) -> Meter:
    return open_gpu_meter(gpu.uuid)


def _look_at_gpu(index: int, gpu: Gpu, energy: Energy) -> GpuReport:
    try:
        info = gpu.info()
        return GpuReport(
            index=index,
            energy=energy,
            name=info["device_name"],
            uuid=info["device_uuid"],
            driver_version=info["driver_version"],
            compute_capability=info["compute_capability"],
            memory_free_bytes=_memory_free_bytes(gpu),
            memory_total_bytes=info["memory_total_bytes"],
            power_limit_w=info["power_limit_w"],
            mig=gpu.is_mig(),
            other_processes=gpu.other_processes(own_context=False),
        )
    except FloprayError as error:
        return GpuReport(index, energy, reason=str(error))


def _memory_free_bytes(gpu: Gpu) -> int | None:
    """Free memory of the board; None where the GPU does not say (for example, without memory of its own)."""
    nvml = library()
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(gpu.handle).free)
    except nvml.NVMLError:
        return None
