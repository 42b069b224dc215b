"""Which devices a Ray cluster has, and which of them a sweep can use."""

from __future__ import annotations

import dataclasses
import difflib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flopray.audit.hardware import find_gpu
from flopray.cluster.ray_internals import nvidia_types
from flopray.energy.nvml import why_nvml_fails
from flopray.errors import ClusterError, spaced

#: Seconds between two looks at a cluster while waiting for a type of device.
_LOOK_EVERY_S = 1.0
#: Accelerators that Ray counts and flopray does not measure
#: (https://docs.ray.io/en/latest/ray-core/scheduling/accelerators.html).
_NOT_MEASURED = ("TPU", "neuron_cores", "HPU", "NPU", "RBLN", "TTNPU", "MBLT", "FURIOSA")
_NAME_THEM = """name them where the node is started: ray start --resources='{"accelerator_type:H100": 1}'"""


@dataclass(frozen=True)
class Cluster:
    """What a sweep can run on.

    Attributes:
        slots: whole GPUs by type, such as `{"H100": 8}`.
        cores: CPU cores of the smallest node, which is what a trial on the CPU holds.
        most_cores: by device type, `CPU` included, the most CPU cores that a node with it has.
        dashboard_url: where a browser finds the dashboard; None when there is none.
        local: whether this process started it.
        untyped: GPUs of nodes whose type Ray does not know.
        gpus_reason: why this machine shows no GPU although it has an NVIDIA driver.
        alike: types that nodes have together, so that their GPUs count for each of them.
        unmeasured: accelerators that no trial can own or measure, such as `4 TPU` and `0.5 GPU in parts`.
    """

    slots: dict[str, int]
    cores: int
    most_cores: dict[str, int]
    dashboard_url: str | None
    local: bool
    untyped: int = 0
    gpus_reason: str | None = None
    alike: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()

    def with_gpu_type(self, name: str | None) -> Cluster:
        """The cluster whose GPUs without a type are of this one.

        Raises:
            ClusterError: there are none, or there are typed ones too, which a trial could also get.
        """
        if name is None:
            return self
        if name == "CPU":
            raise ClusterError("<gpu_type> CPU: name the type of the GPUs; <device_type> CPU measures the processor")
        if self.slots:
            typed = ", ".join(self.slots)
            raise ClusterError(f"<gpu_type> {name}: the cluster has GPUs whose type Ray knows ({typed}); {_NAME_THEM}")
        if not self.untyped:
            raise ClusterError(f"<gpu_type> {name}: the cluster has no GPU{self.because}")
        most = self.most_cores | {name: self.most_cores.get("", self.cores)}
        return dataclasses.replace(self, slots={name: self.untyped}, most_cores=most, untyped=0)

    @property
    def because(self) -> str:
        """The reason, as the end of a message about a missing GPU; empty without one."""
        return f" ({self.gpus_reason})" if self.gpus_reason else ""

    def with_types(self, names: list[str]) -> Cluster:
        """The same with one device of each further type, on a node like the smallest."""
        more = dict.fromkeys(names, 1)
        cores = {name: self.most_cores.get("CPU", self.cores) for name in names}
        return dataclasses.replace(self, slots=self.slots | more, most_cores=self.most_cores | cores)


def inspect_cluster(*, dashboard_url: str | None, local: bool) -> Cluster:
    """Count the devices of the connected cluster."""
    import ray

    slots: dict[str, int] = {}
    most_cores: dict[str, int] = {"CPU": 1}
    fewest: int | None = None
    untyped, alike = 0, set[str]()
    others: Counter[str] = Counter()
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        resources = node["Resources"]
        cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        others.update({name: resources[name] for name in _NOT_MEASURED if resources.get(name)})
        others.update({"GPU in parts": resources.get("GPU", 0) % 1})
        named = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
        types = [name for name in named if name]
        alike |= set(types) if gpus and len(types) > 1 else set()
        for device_type in types if gpus else []:
            slots[device_type] = slots.get(device_type, 0) + gpus
        untyped += 0 if types else gpus
        for device_type in ["CPU", *((types or [""]) if gpus else [])]:
            most_cores[device_type] = max(most_cores.get(device_type, 0), cores)
        fewest = min(fewest or cores, cores) if cores else fewest
    reason = why_nvml_fails() if local and not slots and not untyped else None
    slots = dict(sorted(slots.items()))
    left = tuple(f"{count:g} {name}" for name, count in sorted(others.items()) if count)
    return Cluster(slots, fewest or 1, most_cores, dashboard_url, local, untyped, reason, tuple(sorted(alike)), left)


def wait_for(
    cluster: Cluster,
    wanted: list[str] | None,
    seconds: float,
    say: Callable[[str], object],
    gpu_type: str | None = None,
) -> Cluster:
    """Wait until the cluster has all wanted types, or the time is over.

    Args:
        cluster: the connected cluster as it is.
        wanted: types by name; None waits for GPUs of the `gpu_type`, or for nothing.
        seconds: at most.
        say: called with a line when waiting begins.
        gpu_type: of GPUs whose type Ray does not know, also of those that join.

    Returns:
        The cluster as it is then, with the `gpu_type`; `choose_devices` says whether a type is still missing.

    Raises:
        ClusterError: there is no GPU to which the `gpu_type` could apply.
    """
    until = time.monotonic() + seconds
    names = wanted or ([gpu_type] if gpu_type else [])
    told = False
    while True:
        typed = cluster.with_gpu_type(gpu_type) if cluster.slots or cluster.untyped or gpu_type == "CPU" else cluster
        missing = [name for name in names if name not in (*typed.slots, "CPU")]
        if not missing or time.monotonic() >= until:
            return cluster.with_gpu_type(gpu_type)
        if not told:
            say(f"waiting up to {seconds:.0f} s for {', '.join(missing)} to join the cluster")
            told = True
        time.sleep(_LOOK_EVERY_S)
        cluster = inspect_cluster(dashboard_url=cluster.dashboard_url, local=cluster.local)


def absent_types(cluster: Cluster, wanted: list[str] | None) -> list[str]:
    """Wanted types that are missing but possible: names that Ray gives to GPUs. For a plan.

    Where Ray does not say its names, those are possible that the table of GPUs has.
    """
    absent = [name for name in dict.fromkeys(wanted or ()) if name not in (*cluster.slots, "CPU")]
    known = nvidia_types()
    return [name for name in absent if (name in known if known else find_gpu(name) is not None)]


def choose_devices(
    cluster: Cluster, wanted: list[str] | None, *, resumed: bool = False, planned: Sequence[str] | None = None
) -> dict[str, int]:
    """The device types to sweep, with how many trials of each fit at once.

    Args:
        cluster: the connected cluster.
        wanted: types by name; None takes every type of GPU, or the CPU when there is no GPU.
        resumed: the types come from a run that is resumed, not from a setting.
        planned: types among those of the cluster that a plan has added; None where it is no plan.

    Raises:
        ClusterError: a type that no node has (its trial would never start), or GPUs without a type that Ray knows and
            other accelerators, which would be ignored silently, or GPUs with several types, which would be measured
            several times.
    """
    available = {**cluster.slots, "CPU": 1}
    if wanted is None:
        if cluster.untyped and not cluster.slots:
            raise ClusterError(
                f"the cluster has {_gpus(cluster.untyped)} of a type that Ray does not know: say it with <gpu_type> "
                f"H100, or {_NAME_THEM}; <device_type> CPU measures the processor"
            )
        if cluster.alike:
            raise ClusterError(
                f"GPUs of a node have the types {', '.join(cluster.alike)}, and would be measured under each: choose "
                f"one with <device_type> {cluster.alike[0]}"
            )
        if cluster.unmeasured and not cluster.slots:
            there = ", ".join(cluster.unmeasured)
            raise ClusterError(
                f"the cluster has {there}, and flopray measures whole NVIDIA GPUs and processors: <device_type> CPU "
                "measures the processor"
            )
        return dict(cluster.slots) or {"CPU": 1}
    for name in wanted:
        if name not in available:
            more = f" and {_gpus(cluster.untyped)} without a type ({_typing(cluster, name)})" if cluster.untyped else ""
            hint = spaced("<device_type>", name) or _near(name, available)
            there = f"{', '.join(one for one in available if one not in (planned or ()))}{more}{cluster.because}"
            there += "" if planned is None else f"; a plan can be for {', '.join(_with_datasheet())} too"
            if resumed:
                raise ClusterError(f"the run has points for {name}, and no node has it; the cluster has {there}")
            raise ClusterError(f"<device_type> {name}: no node has it; the cluster has {there}{hint}")
    return {name: available[name] for name in wanted}


def _with_datasheet() -> list[str]:
    """Types of which something is known without a device."""
    return sorted(name for name in nvidia_types() if find_gpu(name) is not None)


def _near(name: str, available: Iterable[str]) -> str:
    """Which type may have been meant: one in other letters, or the name of a board that contains a type's."""
    known = {one.lower(): one for one in (*nvidia_types(), *available)}
    words = re.findall(r"[a-z0-9]+", name.lower())
    alike, similar = (difflib.get_close_matches(name.lower(), known, n=1, cutoff=cutoff) for cutoff in (0.9, 0.7))
    near = next((known[word] for word in ("".join(words), *alike, *words, *similar) if word in known), None)
    return f": did you mean {near}?" if near and near != name else ""


def _typing(cluster: Cluster, name: str) -> str:
    """How to give this type to GPUs without one: by a setting only where there are no others."""
    return _NAME_THEM if cluster.slots else f"say it with <gpu_type> {name}, or {_NAME_THEM}"


def passed_over(cluster: Cluster, wanted: list[str] | None = None) -> str | None:
    """A line about GPUs that the sweep cannot use, beside what it can; None where there are none.

    Args:
        cluster: the connected cluster.
        wanted: types by name; where they are the CPU alone, no GPU is missed.
    """
    if wanted == ["CPU"]:
        return None
    if cluster.gpus_reason:
        return f"no GPU is measured, although this machine has an NVIDIA driver: {cluster.gpus_reason}"
    if not cluster.slots:
        return None
    if cluster.untyped:
        return f"{_gpus(cluster.untyped)} of the cluster left out, since Ray does not know their type: {_NAME_THEM}"
    if cluster.unmeasured:
        return f"{', '.join(cluster.unmeasured)} of the cluster left out: flopray measures whole NVIDIA GPUs"
    return None


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def check_cores(cluster: Cluster, cpus_per_trial: Mapping[str, int]) -> None:
    """Refuse what Ray would wait for silently: more cores beside a device than any node with it has.

    Args:
        cluster: the connected cluster.
        cpus_per_trial: cores that a trial holds, by device type.

    Raises:
        ClusterError: naming what there is.
    """
    for device_type, cores in cpus_per_trial.items():
        most = cluster.most_cores.get(device_type, 0)
        if cores > most:
            raise ClusterError(
                f"a trial on {device_type} holds {cores} CPU cores, and no node with it has more than {most}: "
                f"use another cluster, or start a new run with <cpus_per_trial> {max(1, most)} or less"
            )
