"""Which GPUs a program uses, and what else runs on them, by the processes that NVML reports.

A container may see the process ids of the host: then none of them is the program's, and processes that came after it
began are taken to be its own. Where NVML reports no process at all, a rise of memory in use shows it.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from flopray.energy.nvml import Gpu, list_gpus
from flopray.errors import MeterError, NoEnergySource
from flopray.watching.programs import family, process_name

#: A context of CUDA alone takes some hundred MiB; less may be noise of other processes.
_TAKEN_BYTES = 64 * 2**20


@dataclass
class GpuUse:
    """What was seen of one GPU.

    Attributes:
        gpu: as NVML sees it.
        uuid: of NVML.
        before: processes that computed on it before the program began.
        memory_before: bytes in use then.
        own: processes of the program that computed on it.
        came: processes that are not its own by their ids, and came after it began.
        others: names of the processes that are not the program's, by their ids.
        memory_rose: more memory was in use than before.
    """

    gpu: Gpu
    uuid: str
    before: Set[int] = frozenset()
    memory_before: int = 0
    own: set[int] = field(default_factory=set)
    came: set[int] = field(default_factory=set)
    others: dict[int, str] = field(default_factory=dict)
    memory_rose: bool = False


class Usage:
    """The GPUs of this machine, from before a program begins; there may be none.

    Attributes:
        reason: why no GPU can be seen, or None.
        gpus: all that can be seen.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.gpus: list[GpuUse] = []
        try:
            found = list_gpus()
        except (NoEnergySource, MeterError) as error:
            self.reason = str(error)
            return
        for gpu in found:
            try:
                use = GpuUse(gpu, gpu.uuid, set(gpu.processes() or ()), gpu.memory_used_bytes() or 0)
            except (NoEnergySource, MeterError) as error:
                self.reason = f"no GPU of this machine answers NVML: {error}"
                continue
            self.gpus.append(use)
        if self.gpus:
            self.reason = None
        elif not found:
            self.reason = "there is no GPU"

    def look(self, pid: int) -> None:
        """Notes which processes compute where now.

        Args:
            pid: of the program.
        """
        now = {use.uuid: self._processes(use) for use in self.gpus}
        new = {use.uuid: now[use.uuid] - use.own - set(use.others) for use in self.gpus}
        # Listing all processes of a machine takes milliseconds: done only for unknown ones.
        ours = family(pid) if any(new.values()) else set()
        for use in self.gpus:
            use.own |= new[use.uuid] & ours
            strange = new[use.uuid] - ours
            use.came |= strange - use.before
            use.others |= {other: process_name(other) for other in strange}

    @staticmethod
    def _processes(use: GpuUse) -> set[int]:
        """Those that compute on a GPU now; also notes whether more of its memory is in use."""
        try:
            memory = use.gpu.memory_used_bytes() or 0
            use.memory_rose |= memory - use.memory_before > _TAKEN_BYTES
            return set(use.gpu.processes() or ())
        except (NoEnergySource, MeterError):
            return set()

    def used(self) -> dict[str, tuple[str, list[str]]]:
        """The GPUs that the program used, by UUID: how that is known, and what else ran there."""
        if any(use.own for use in self.gpus):
            return {use.uuid: ("its processes", _named(use.others)) for use in self.gpus if use.own}
        if any(use.came for use in self.gpus):
            return {
                use.uuid: (
                    "processes that came after it began",
                    _named({pid: name for pid, name in use.others.items() if pid not in use.came}),
                )
                for use in self.gpus
                if use.came
            }
        return {
            use.uuid: ("memory that was allocated after it began", _named(use.others))
            for use in self.gpus
            if use.memory_rose
        }


def _named(processes: dict[int, str]) -> list[str]:
    return [name if name == str(pid) else f"{name} ({pid})" for pid, name in sorted(processes.items())]
