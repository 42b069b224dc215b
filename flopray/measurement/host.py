"""What this machine has, read from the kernel's files. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cpu_threads(cores: int) -> int:
    """Threads that compute in a CPU trial: one of its cores is left to Ray, the driver and the meter.

    A parallel loop waits for its slowest thread, so one core that is shared for a moment stalls all of them.
    """
    return max(1, cores - 1)


def cores_here(cgroup: Path = _CGROUP) -> float:
    """CPU cores that Ray counts here: those of the machine, or fewer where a container is limited to them.

    Args:
        cgroup: where the kernel tells of the limits of control groups, version 1 or 2.
            https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    cores = os.cpu_count() or 1
    if os.environ.get("RAY_USE_MULTIPROCESSING_CPU_COUNT"):
        return cores
    limits = [limit for limit in (_quota(cgroup), _cpuset(cgroup)) if limit]
    return min(limits) if limits else cores


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that a container gets; None without a limit."""
    try:
        if (cgroup / "cpu" / "cpu.cfs_quota_us").exists():
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        else:
            quota, period = (cgroup / "cpu.max").read_text().split()
        cores = float(quota) / float(period)
    except (OSError, ValueError):  # "max" is no limit
        return None
    return None if cores < 0 else cores or 1.0


def _cpuset(cgroup: Path) -> int | None:
    """Cores that a container is bound to, by version 1 of control groups."""
    try:
        ranges = (cgroup / "cpuset" / "cpuset.cpus").read_text().strip().split(",")
        bounds = [(int(first), int(last or first)) for first, _, last in (one.partition("-") for one in ranges)]
    except (OSError, ValueError):
        return None
    return sum(last - first + 1 for first, last in bounds)


def memory_bytes(
    meminfo: Path = Path("/proc/meminfo"), limits: tuple[Path, ...] = (Path("/sys/fs/cgroup/memory.max"),)
) -> int | None:
    """Memory that processes here can use in all; None where the kernel does not say.

    Args:
        meminfo: of the machine.
        limits: of a container, which sees the memory of its machine in `meminfo`.
    """
    found = [_total(meminfo), *(_limit(path) for path in limits)]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def _total(meminfo: Path) -> int | None:
    for line in _text(meminfo).splitlines():
        if line.startswith("MemTotal"):
            return int(line.split()[1]) * 1024
    return None


def _limit(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None  # `max` is no limit


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
