"""What this machine has, read from the kernel's files. Standard library only."""

from __future__ import annotations

from pathlib import Path


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
