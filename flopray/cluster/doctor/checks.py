"""What was found on a node, as a list of things that are there or missing, each with one line for a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flopray.cluster.doctor.cluster import Node
from flopray.cluster.doctor.machine import Energy, GpuReport, Machine
from flopray.cluster.doctor.software import Counters

#: `note`: it is there, with something to know before numbers are trusted.
State = Literal["ok", "missing", "note"]
#: Subjects of checks, in reading order: what can be measured, then what it takes.
ORDER = (
    *("node", "time", "FLOPs", "GPU energy", "CPU energy"),
    *("executed FLOPs", "  ncu", "  chip", "  nvtx", "  permission"),
    *("GPU", "torch", "Ray", "Python"),
)
#: Placeholders for numbers that differ a little between devices, so that equal texts can be shown as one.
FREE, TICK = "{free}", "{tick}"
#: The driver reserves less of a board's memory than this (0.6 GiB of an H100's 80).
_OWN_MEMORY_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Check:
    """One line about one node, or about one of its GPUs.

    Attributes:
        what: one of `ORDER`.
        state: whether it is there.
        text: what it is, or what would give it; may hold `FREE` (GiB) and `TICK` (ms).
        numbers: values for these.
        gpu: index of the GPU.
    """

    what: str
    state: State
    text: str
    numbers: tuple[tuple[str, float], ...] = ()
    gpu: int | None = None


def checks_of(node: Node) -> list[Check]:
    """All checks of a node."""
    machine = node.machine
    if machine is None:
        return [Check("node", "missing", node.reason or "")]
    return [
        *_always(machine),
        *_gpu_energy(machine),
        _cpu_energy(machine.cpu_energy),
        *_counters(machine),
        *_gpus(machine, node.ray_gpus),
        *_versions(machine, node.ray_gpus),
    ]


def _always(machine: Machine) -> Iterator[Check]:
    if machine.torch.version is None:
        yield Check("time", "missing", "lacks torch (below)")
        yield Check("FLOPs", "missing", "lacks torch (below)")
        return
    if machine.gpus and not machine.torch.gpus:
        yield Check("time", "missing", "of the CPU alone, since torch cannot use the GPU (below)")
    else:
        yield Check("time", "ok", "CUDA events on a GPU, the host's clock on a CPU")
    yield Check("FLOPs", "ok", "closed form, and torch's dispatcher")


def _gpu_energy(machine: Machine) -> Iterator[Check]:
    if not machine.gpus:
        yield Check("GPU energy", "missing", "no GPU (below)")
    for gpu in machine.gpus:
        energy = gpu.energy
        if energy.source is None:
            yield Check("GPU energy", "missing", energy.reason or "", gpu=gpu.index)
            continue
        text, numbers = _ticks(energy)
        yield Check("GPU energy", "ok", f"{energy.source}, {text}", numbers, gpu.index)


def _cpu_energy(energy: Energy) -> Check:
    if energy.source is None:
        return Check("CPU energy", "missing", energy.reason or "")
    text, numbers = _ticks(energy)
    return Check("CPU energy", "ok", f"{energy.source}, {text}", numbers)


def _ticks(energy: Energy) -> tuple[str, tuple[tuple[str, float], ...]]:
    if energy.tick_period_s is None:
        return energy.tick_reason or "", ()
    return f"a tick every {TICK} ms", ((TICK, energy.tick_period_s * 1e3),)


def _counters(machine: Machine) -> Iterator[Check]:
    """Executed FLOPs, and each part they need; one line where there is no GPU to count on."""
    what = "executed FLOPs"
    if machine.counters is None:
        yield Check(what, "missing", "hardware counters need an NVIDIA GPU")
        return
    parts = list(_counter_parts(machine.counters))
    missing = list(dict.fromkeys(part.what.strip() for part in parts if part.state == "missing"))
    missing += [] if machine.torch.gpus else ["torch"]
    text = f"lacks {' and '.join(missing)} (below)" if missing else "hardware counters, read by ncu"
    yield Check(what, "missing" if missing else "ok", text)
    yield from parts


def _counter_parts(counters: Counters) -> Iterator[Check]:
    if counters.ncu_reason:
        yield Check("  ncu", "missing", counters.ncu_reason)
    else:
        yield Check("  ncu", "ok", f"{counters.ncu_version}, {counters.ncu}")
    for chip in counters.chips:
        there = f"ncu knows {chip.name} (compute capability {chip.compute_capability})"
        yield Check("  chip", "missing" if chip.reason else "ok", chip.reason or there)
    yield Check("  nvtx", "missing" if counters.nvtx_reason else "ok", counters.nvtx_reason or counters.nvtx or "")
    denied = counters.permission_reason
    yield Check(
        "  permission", "missing" if denied else "ok", denied or "to read counters, as far as the driver's files tell"
    )


def _gpus(machine: Machine, ray_gpus: dict[str, int] | None) -> Iterator[Check]:
    if not machine.gpus:
        yield Check("GPU", "missing", machine.gpus_reason or "")
        return
    ray_type = next(iter(ray_gpus), None) if ray_gpus else None
    for gpu in machine.gpus:
        yield _gpu(gpu, ray_type)
    names = list(dict.fromkeys(gpu.name for gpu in machine.gpus if gpu.name))
    if len(names) > 1 and ray_type:
        text = f"Ray calls all GPUs of a node {ray_type}, after the first: numbers of several kinds would be mixed"
        yield Check("GPU", "note", text)


def _gpu(gpu: GpuReport, ray_type: str | None) -> Check:
    if gpu.reason:
        return Check("GPU", "missing", gpu.reason, gpu=gpu.index)
    limit = "power limit unknown" if gpu.power_limit_w is None else f"limit {gpu.power_limit_w:.0f} W"
    memory, numbers = _memory(gpu)
    shared, others = _others(gpu)
    words = [
        gpu.name or "name unknown",
        *([f"{ray_type} in Ray"] if ray_type else []),
        f"driver {gpu.driver_version or 'unknown'}",
        memory,
        limit,
        "split by MIG" if gpu.mig else "no MIG",
        others,
    ]
    return Check("GPU", "note" if shared or gpu.mig else "ok", ", ".join(words), numbers, gpu.index)


def _memory(gpu: GpuReport) -> tuple[str, tuple[tuple[str, float], ...]]:
    if gpu.memory_total_bytes is None:
        return "memory unknown", ()
    total = f"{gpu.memory_total_bytes / 2**30:.1f} GiB"
    if gpu.memory_free_bytes is None:
        return total, ()
    return f"{FREE} of {total} free", ((FREE, gpu.memory_free_bytes / 2**30),)


def _others(gpu: GpuReport) -> tuple[bool, str]:
    """Whether others seem to use a GPU, and what to say about it."""
    if gpu.other_processes is None:
        return False, "other processes unknown"
    if gpu.other_processes:
        processes = "1 other process" if gpu.other_processes == 1 else f"{gpu.other_processes} other processes"
        return True, f"{processes}: energy and time are not of your work alone"
    total, free = gpu.memory_total_bytes, gpu.memory_free_bytes
    if total is not None and free is not None and total - free > _OWN_MEMORY_BYTES:
        return True, "no other process is visible, but memory is in use: a container may hide others"
    return False, "no other process"


def _versions(machine: Machine, ray_gpus: dict[str, int] | None) -> Iterator[Check]:
    yield _torch(machine)
    offered = sum(ray_gpus.values()) if ray_gpus else 0
    if machine.ray is None:
        yield Check("Ray", "missing", "not installed: pip install 'ray[default,tune]'")
    elif offered != len(machine.gpus):
        why = "CUDA_VISIBLE_DEVICES or `ray start --num-gpus` may say so"
        text = f"{machine.ray} offers {offered} GPU{'s' * (offered != 1)}, and NVML sees {len(machine.gpus)} ({why})"
        yield Check("Ray", "note", text)
    else:
        yield Check("Ray", "ok", machine.ray)
    yield Check("Python", "ok", machine.python)


def _torch(machine: Machine) -> Check:
    torch, count = machine.torch, len(machine.gpus)
    if torch.version is None:
        return Check("torch", "missing", torch.reason or "")
    build = f"{torch.version}, built for CUDA {torch.cuda}" if torch.cuda else f"{torch.version}, built without CUDA"
    if not count:
        return Check("torch", "ok", build)
    if torch.cuda is None:
        return Check("torch", "missing", f"{build}, so it cannot use the GPU: install a CUDA build of torch")
    if not torch.gpus:
        return Check("torch", "missing", f"{build}, sees no GPU: {torch.reason or 'CUDA_VISIBLE_DEVICES hides them'}")
    if torch.gpus < count:
        return Check("torch", "note", f"{build}, sees {torch.gpus} of {count} GPUs: CUDA_VISIBLE_DEVICES hides some")
    return Check("torch", "ok", f"{build}, sees every GPU")
