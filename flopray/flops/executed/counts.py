"""The FLOPs of each phase, kernel by kernel, from ncu's counts and the worker's events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopray.flops.executed.classes import kernel_class, short_name
from flopray.flops.executed.metrics import CounterPass
from flopray.flops.executed.report import Launch


@dataclass(frozen=True)
class KernelCount:
    """All launches of one kernel in one iteration of a phase.

    Attributes:
        name: short name.
        kind: class, of `flopray.records.KERNEL_CLASSES`.
        launches: how often it runs.
        tensor_flops: on tensor cores, all launches together.
        cuda_flops: on CUDA cores.
    """

    name: str
    kind: str
    launches: int
    tensor_flops: int
    cuda_flops: int

    @property
    def flops(self) -> int:
        """On all cores."""
        return self.tensor_flops + self.cuda_flops


@dataclass(frozen=True)
class PhaseCounts:
    """What one iteration of a phase executed.

    Attributes:
        kernels: by name and class, most FLOPs first.
        counted: launches whose counters were read; the other launches repeat one of them.
    """

    kernels: tuple[KernelCount, ...]
    counted: int

    @property
    def launches(self) -> int:
        """Kernels of one iteration."""
        return sum(kernel.launches for kernel in self.kernels)


@dataclass(frozen=True)
class NotCounted:
    """Why a phase has no counts: a word of `flopray.records.Status`, and one line."""

    status: str
    reason: str


@dataclass(frozen=True)
class Run:
    """One run of ncu over a chunk, read.

    Attributes:
        counters: what was counted.
        launches: counted kernels by the label of their range.
        outcomes: by point and phase, the worker's event that ended it.
        operations: the worker's event of each operation, by number.
    """

    counters: CounterPass
    launches: Mapping[str, Sequence[Launch]]
    outcomes: Mapping[tuple[int, str], Mapping[str, Any]]
    operations: Mapping[int, Mapping[str, Any]]


def by_label(found: Sequence[Launch]) -> dict[str, list[Launch]]:
    """Launches by the label of their range."""
    labelled: dict[str, list[Launch]] = {}
    for launch in found:
        labelled.setdefault(launch.label, []).append(launch)
    return labelled


def phase_counts(runs: Sequence[Run], point: int, phase: str) -> PhaseCounts | NotCounted:
    """The counts of a phase from all runs over its chunk.

    Args:
        runs: one for each kind of core; the same work each time.
        point: index in the chunk.
        phase: as in `flopray.records.PHASES`.
    """
    for run in runs:
        outcome = run.outcomes[point, phase]
        if "status" in outcome:
            return NotCounted(outcome["status"], outcome["reason"])
    totals = [_totals(run, point, phase) for run in runs]
    times = [{key: total.launches for key, total in of_run.items()} for of_run in totals]
    if any(others != times[0] for others in times):
        return NotCounted("failed", "the runs for CUDA cores and for tensor cores launched different kernels")
    if not times[0]:
        return NotCounted("failed", "Nsight Compute counted no kernel of this phase")
    kernels = []
    for (name, kind), launches in times[0].items():
        flops = Counter[str]()  # tensor cores have a run for each type of number
        for run, of_run in zip(runs, totals, strict=True):
            flops[run.counters.unit] += of_run[name, kind].flops
        kernels.append(KernelCount(name, kind, launches, flops["tensor"], flops["cuda"]))
    counted = sum(total.counted for total in totals[0].values())
    return PhaseCounts(tuple(sorted(kernels, key=lambda kernel: (-kernel.flops, kernel.name))), counted)


@dataclass
class _Total:
    launches: int = 0
    counted: int = 0
    flops: int = 0


def _totals(run: Run, point: int, phase: str) -> dict[tuple[str, str], _Total]:
    """Launches and FLOPs of one iteration in one run, by short name and class of the kernel."""
    operations = run.outcomes[point, phase]["operations"]
    if not operations:  # every launch was counted, in one range
        return _add({}, run, f"point{point}-{phase}", {}, 1, phase)
    totals: dict[tuple[str, str], _Total] = {}
    for number, times in operations.items():
        _add(totals, run, f"operation{number}", run.operations[int(number)], times, phase)
    return totals


def _add(
    totals: dict[tuple[str, str], _Total], run: Run, label: str, told: Mapping[str, Any], times: int, phase: str
) -> dict[tuple[str, str], _Total]:
    for launch in run.launches.get(label, ()):
        operation, pointwise = told.get("name", ""), told.get("pointwise", False)
        kind = kernel_class(launch.kernel, operation=operation, pointwise=pointwise, phase=phase)
        total = totals.setdefault((short_name(launch.kernel), kind), _Total())
        total.launches += times
        total.counted += 1
        total.flops += times * run.counters.flops(launch.values)
    return totals
