"""Looks at every node of a connected Ray cluster at the same time, or at this machine alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flopray.cluster.doctor.machine import Machine, look
from flopray.cluster.quiet import quiet_ray
from flopray.cluster.ray_internals import gpus_found_by_ray

#: Time for a node to unpack flopray, start a worker and look; a node that is busy takes a minute.
ANSWER_S = 180.0
#: Time for a process to start on every node, and then for one to return its clock.
_START_S, _CLOCK_S = 10.0, 1.0


@dataclass(frozen=True)
class Node:
    """A machine, and its GPUs in Ray.

    Attributes:
        name: by which people know it.
        machine: what was found there; None where that was not possible.
        reason: why not.
        ray_gpus: GPUs that Ray offers there, by Ray's type; None where Ray cannot be asked.
    """

    name: str
    machine: Machine | None
    reason: str | None
    ray_gpus: dict[str, int] | None


def look_here(*, quick: bool = False, counters: bool = True) -> Node:
    """This machine, with the GPUs that a Ray started here would have; the flags as for `look`."""
    machine = look(quick=quick, counters=counters)
    if machine.ray:
        quiet_ray()  # before Ray is imported
    ray_gpus = gpus_found_by_ray() if machine.ray else None
    return Node(machine.hostname, machine, None, ray_gpus)


def look_everywhere(answer_s: float = ANSWER_S, *, quick: bool = False, counters: bool = True) -> list[Node]:
    """All living nodes of the connected cluster, by name.

    Args:
        answer_s: how long to wait for a node.
        quick, counters: as for `look`.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]]
    names = _names(alive)
    # No CPU and no GPU is asked for, so that a node that is fully taken answers too.
    task: Any = ray.remote(num_cpus=0, max_retries=0)(look)
    pins = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in alive]
    refs = [
        task.options(scheduling_strategy=pin).remote(whole_machine=True, quick=quick, counters=counters) for pin in pins
    ]
    _, late = ray.wait(refs, num_returns=len(refs), timeout=answer_s)
    for ref in late:
        ray.cancel(ref, force=True)
    nodes = [
        Node(names[node["NodeID"]], *_answer(ref, ref in late, answer_s), _ray_gpus(node["Resources"]))
        for node, ref in zip(alive, refs, strict=True)
    ]
    return sorted(nodes, key=lambda node: node.name)


def _now() -> float:
    """This node's clock; Ray takes no built-in function."""
    return time.time()


def clock_skews() -> dict[str, float]:
    """How far each node's clock is ahead of this one's, in seconds, by node; half of the round trip is the error."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]]
    names, skews = _names(alive), {}
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_now)
    pins = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in alive]
    first = [task.options(scheduling_strategy=pin).remote() for pin in pins]  # starts a process where none is idle
    ready, _ = ray.wait(first, num_returns=len(first), timeout=_START_S)
    for node, pin, awake in zip(alive, pins, first, strict=True):
        if awake not in ready:
            continue  # the node's own line says what is wrong
        sent = time.time()
        try:
            there: Any = ray.get(task.options(scheduling_strategy=pin).remote(), timeout=_CLOCK_S)
        except Exception:
            continue
        skews[names[node["NodeID"]]] = there - (sent + time.time()) / 2
    return skews


def _answer(ref: Any, late: bool, answer_s: float) -> tuple[Machine | None, str | None]:
    """What a node found, or why it did not."""
    import ray

    if late:
        return None, f"no answer within {answer_s:.0f} s: is the node overloaded? `ray status` shows the cluster"
    try:
        return ray.get(ref), None
    except Exception as error:  # if one node fails, the report on the others goes on
        cause = getattr(error, "cause", None) or error
        first = (str(cause).strip().splitlines() or [""])[0]
        return None, f"looking failed: {type(cause).__name__}: {first[:200]}"


def _ray_gpus(resources: Mapping[str, float]) -> dict[str, int]:
    """GPUs of a node by type; Ray has one type a node."""
    count = int(resources.get("GPU", 0))
    types = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    return {types[0] if types else "GPU": count} if count else {}


def _names(nodes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Names by node id: the hostname, and more where several nodes have the same."""
    hosts = Counter(node["NodeManagerHostname"] for node in nodes)
    return {
        node["NodeID"]: node["NodeManagerHostname"]
        if hosts[node["NodeManagerHostname"]] == 1
        else f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}"
        for node in nodes
    }
