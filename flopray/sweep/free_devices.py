"""Tells whether a trial can start, or has to wait because others hold the cluster's devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flopray.cluster.ray_internals import free_by_node

#: How the recorder of a sweep is named in Ray: this, the run's name and a number of its own.
RECORDER_PREFIX = "flopray"


class NodeResources(NamedTuple):
    """The resources of a node, and those that are free now, by Ray's names."""

    total: Mapping[str, float]
    free: Mapping[str, float]


@dataclass(frozen=True)
class Waiting:
    """Trials that cannot start.

    Attributes:
        lines: why, one for each type of device that has none free.
        all_types: whether that is so for all types of the sweep.
    """

    lines: Sequence[str] = ()
    all_types: bool = False


def waiting(
    cpus_per_trial: Mapping[str, int],
    device_types: Sequence[str],
    nodes: Sequence[NodeResources],
    others: Sequence[str] = (),
) -> Waiting:
    """Which trials have to wait since no node has a device free for them.

    Args:
        cpus_per_trial: CPU cores that a trial holds, by device type.
        device_types: of the sweep.
        nodes: of the cluster.
        others: names of other sweeps that run there.
    """
    who = f"; other sweeps run there: {', '.join(others)}" if others else "; `ray status` shows what is in use"
    lines = []
    for device_type in device_types:
        cores, gpus = float(cpus_per_trial[device_type]), 0.0 if device_type == "CPU" else 1.0
        fitting = [node for node in nodes if _has(node.total, device_type, cores, gpus)]
        if not fitting or any(_has(node.free, None, cores, gpus) for node in fitting):
            continue
        best = max((node.free for node in fitting), key=lambda free: (free.get("GPU", 0.0), free.get("CPU", 0.0)))
        need = _words(cores, "CPU core") + (f" and {_words(gpus, 'GPU')}" if gpus else "")
        left = f"{best.get('CPU', 0.0):g}" + (f" and {best.get('GPU', 0.0):g}" if gpus else "")
        lines.append(
            f"waiting for a device: a trial on {device_type} needs {need} of one node, where {left} are free now{who}"
        )
    return Waiting(tuple(lines), len(lines) == len(device_types))


def waiting_now(cpus_per_trial: Mapping[str, int], device_types: Sequence[str], recorder: str) -> Waiting:
    """`waiting` on the connected cluster, for the sweep whose recorder has this name."""
    nodes = [NodeResources(total, free) for total, free in free_by_node()]
    return waiting(cpus_per_trial, device_types, nodes, _other_sweeps(recorder))


def _other_sweeps(recorder: str) -> list[str]:
    """Names of the other runs whose recorders live in this namespace."""
    from ray.util import list_named_actors

    names = [name for name in list_named_actors() if name != recorder and name.startswith(f"{RECORDER_PREFIX}:")]
    return sorted({name.removeprefix(f"{RECORDER_PREFIX}:").rpartition(":")[0] for name in names})


def _has(resources: Mapping[str, float], device_type: str | None, cores: float, gpus: float) -> bool:
    """Whether resources are enough for a trial, on a node of a type that Ray knows by name or that has none."""
    typed = [name for name in resources if name.startswith("accelerator_type:")]
    if gpus and device_type and typed and f"accelerator_type:{device_type}" not in typed:
        return False
    return resources.get("CPU", 0.0) >= cores and resources.get("GPU", 0.0) >= gpus


def _words(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"
