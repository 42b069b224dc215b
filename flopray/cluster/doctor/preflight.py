"""Before the first trial: are the nodes alike, and can each measure what was asked for? Seconds on a cluster.

On a Ray that was started here there is nothing to compare, so this machine alone is looked at, in this process.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

import flopray
from flopray.cluster.doctor.cluster import Node, clock_skews, look_everywhere, look_here
from flopray.cluster.doctor.report import differences
from flopray.errors import ClusterError
from flopray.units import counted

#: A node that has not answered within this time is named, and the sweep does not wait for it.
_ANSWER_S = 30.0
_SKEW_S = 1.0
_BUSY_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Preflight:
    """What was found.

    Attributes:
        nodes: how many were looked at.
        lacks: node and what it lacks, one line each.
        differs: what nodes differ in.
        seconds: how long it took.
        no_energy: why none of the devices has an energy source; None where one has, or where a node did not answer.
    """

    nodes: int
    lacks: list[tuple[str, str]]
    differs: list[str]
    seconds: float
    no_energy: str | None = None


def check_nodes(device_types: Sequence[str], instruments: Sequence[str], *, local: bool) -> Preflight:
    """Look at all nodes of the connected cluster that have one of the device types.

    Args:
        device_types: that the sweep will use; `CPU` is on every node.
        instruments: that it will use.
        local: Ray was started here for this sweep.
    """
    begin = time.monotonic()
    counters = "counters" in instruments
    nodes = (
        [look_here(quick=True, counters=counters)]
        if local
        else look_everywhere(_ANSWER_S, quick=True, counters=counters)
    )
    nodes = [_named(node, device_types) for node in nodes]
    lacks = _failing_drivers(nodes)  # all nodes: one whose GPUs cannot be seen has no type to be selected by
    nodes = [n for n in nodes if "CPU" in device_types or set(n.ray_gpus or {}) & set(device_types)]
    lacks += [] if nodes else [("all", f"no node with {', '.join(device_types)} was found")]
    lacks += [(node.name, line) for node in nodes for line in _lacks(node, device_types, instruments)]
    skews = {} if local or len(nodes) < 2 else clock_skews()
    names = {node.name for node in nodes}
    lacks += [
        (name, f"its clock is {skew:+.1f} s off this one's: run NTP, or times of rows cannot be compared")
        for name, skew in skews.items()
        if abs(skew) > _SKEW_S and name in names
    ]
    no_energy = _no_energy(nodes, device_types)
    return Preflight(len(nodes), lacks, differences(nodes), time.monotonic() - begin, no_energy)


def _failing_drivers(nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """Nodes that have an NVIDIA driver and show no GPU, with its reason."""
    return [(n.name, f"no GPU: {n.machine.gpus_reason}") for n in nodes if n.machine and n.machine.gpus_fail]


def _named(node: Node, device_types: Sequence[str]) -> Node:
    """A node with GPUs that have no type in Ray, under the one type that a setting gives to all of them."""
    gpus = [name for name in device_types if name != "CPU"]
    if len(gpus) != 1 or set(node.ray_gpus or {}) != {"GPU"}:
        return node
    return dataclasses.replace(node, ray_gpus={gpus[0]: (node.ray_gpus or {})["GPU"]})


def _no_energy(nodes: Sequence[Node], device_types: Sequence[str]) -> str | None:
    """The first reason, where no device of these types has a source."""
    sources = []
    for node in nodes:
        if node.machine is None:
            return None
        if "CPU" in device_types:
            sources.append(node.machine.cpu_energy)
        if set(node.ray_gpus or {}) & set(device_types):
            sources += [gpu.energy for gpu in node.machine.gpus]
    if not sources or any(source.source for source in sources):
        return None
    return sources[0].reason or "unknown reason"


def tell(console: Console, found: Preflight, *, strict: bool) -> list[str]:
    """Show what differs and what is missing; returns the same lines for the log.

    Raises:
        ClusterError: something differs or is missing, and `strict` is set.
    """
    lines = [f"{name}: {line}" for name, line in found.lacks] + [f"nodes differ in {line}" for line in found.differs]
    for line in lines:  # not a table: a narrow one would break paths and commands
        console.print(f"before the first trial, {line}", highlight=False, markup=False, soft_wrap=True)
    if lines and strict:
        more = f" (and {len(lines) - 1} more, above)" if len(lines) > 1 else ""
        raise ClusterError(f"<strict>: {lines[0]}{more}; mend that, or leave <strict> out")
    return lines or [f"pre-flight: {counted(found.nodes, 'node')}, alike and complete, {found.seconds:.1f} s"]


def _lacks(node: Node, device_types: Sequence[str], instruments: Sequence[str]) -> list[str]:
    machine = node.machine
    if machine is None:
        return [node.reason or "no answer"]
    lines = []
    if machine.flopray != flopray.__version__:
        lines.append(f"flopray {machine.flopray} where this is {flopray.__version__}")
    if machine.torch.version is None:
        lines.append("no torch: pip install torch")
    on_gpu = bool(set(node.ray_gpus or {}) & set(device_types))
    for gpu in machine.gpus if on_gpu else ():
        if gpu.reason or ("energy" in instruments and gpu.energy.source is None):
            lines.append(f"GPU {gpu.index}: {gpu.reason or gpu.energy.reason}")
        if gpu.other_processes:
            lines.append(f"GPU {gpu.index}: {gpu.other_processes} other processes compute on it")
        elif gpu.memory_total_bytes and gpu.memory_free_bytes is not None:
            used = gpu.memory_total_bytes - gpu.memory_free_bytes
            if used > _BUSY_BYTES:
                lines.append(f"GPU {gpu.index}: {used / 2**30:.1f} GiB of its memory are in use")
    if "CPU" in device_types and "energy" in instruments and machine.cpu_energy.source is None:
        lines.append(f"no energy of the CPU: {machine.cpu_energy.reason}")
    if "counters" in instruments and machine.counters:
        reasons = (machine.counters.ncu_reason, machine.counters.permission_reason, machine.counters.nvtx_reason)
        lines += [reason for reason in reasons if reason]
    return lines
