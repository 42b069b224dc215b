"""Refuses a search with an objective that no point can have, as far as that is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from flopray.audit.hardware import peak_flops_per_s
from flopray.errors import InputError
from flopray.point import FP8_SCALING, Point
from flopray.sweep.definition import Sweep
from flopray.sweep.objectives import Objective
from flopray.workloads.base import Workload

#: FLOPs are counted at torch's dispatcher, which takes a moment, for the first and last point of this many choices.
_COUNTED_CHOICES = 16
_ANOTHER = "put another phase first in --phases, or name one, such as train_step/{}"


def refuse_objective(sweep: Sweep, no_energy: str | None = None) -> None:
    """Refuse a search with an objective that would be missing in every point.

    Args:
        sweep: the sweep.
        no_energy: why none of its devices has an energy source; None where one may have.

    Raises:
        InputError: the objective needs an energy source, FLOPs, a peak, tokens or a GPU's memory, and there is none.
    """
    refuse_mfu(sweep)
    if sweep.of_surface:
        return  # a surface of what was measured
    for objective in sweep.objectives:
        asked, metric = f"--objective {objective.text}", objective.metric
        if metric.of_energy and no_energy:
            raise InputError(f"{asked}: no device of this sweep has an energy source ({no_energy})")
        if objective.column == "memory_peak_bytes" and set(sweep.axes["device_type"]) == {"CPU"}:
            raise InputError(f"{asked}: peak memory is known on GPUs alone, search for time_s")
        if objective.column == "energy_per_token_j" and not _may_have_tokens(sweep, objective.phase):
            where = f"{objective.phase} of {sweep.workload.name}"
            raise InputError(f"{asked}: {where} processes no counted tokens, search for energy_j")
        if metric.of_flops and not _may_have_flops(sweep, objective.phase):
            where = f"{objective.phase} in {sweep.workload.name}"
            remedy = "put another one first in --phases, or search for time_s"
            raise InputError(f"{asked}: no FLOPs are known for {where}: {remedy}")


def sought(sweep: Sweep) -> Sequence[Objective]:
    """The objectives whose best points a search has found; a surface has none."""
    return () if sweep.of_surface else sweep.objectives


def refuse_mfu(sweep: Sweep, *, types_known: bool = True) -> None:
    """Refuse a search for a utilisation that no point can have; this needs no device, only its type.

    Args:
        sweep: the sweep.
        types_known: whether its device types are real, and not stand-ins for unknown ones.

    Raises:
        InputError: the phase has no utilisation, or no type has a peak at any precision.
    """
    for objective in sweep.objectives:
        if not objective.metric.of_peak:
            continue
        if objective.phase == "optimizer_step":
            another = _ANOTHER.format(objective.column)
            raise InputError(f"--objective {objective.text}: optimizer_step has none, {another}")
        if types_known:
            _check_peaks(sweep, objective)


def _check_peaks(sweep: Sweep, objective: Objective) -> None:
    """A utilisation needs the peak of at least one device type at one precision; that of a CPU is measured."""
    types, precisions = sweep.axes["device_type"], sweep.axes["precision"]
    on_cpu = "CPU" in types and not set(precisions) <= {"tf32", *FP8_SCALING}
    if not on_cpu and not any(peak_flops_per_s(name, precision) for name in types for precision in precisions):
        where = f"{', '.join(types)} at {', '.join(precisions)}"
        raise InputError(f"--objective {objective.text}: no peak is known for {where}; flops_per_s needs none")


def _may_have_tokens(sweep: Sweep, phase: str) -> bool:
    """Whether some point counts the tokens of a phase; True where that is unknown."""
    workload = sweep.workload
    if not isinstance(workload, Workload):
        return True
    return any(workload.beside(point, phase).get("tokens_per_iteration") for point in sweep.points())


def _may_have_flops(sweep: Sweep, phase: str) -> bool:
    """Whether some point has FLOPs in a phase: by the closed form, or by the dispatcher; True where that is not known.

    A phase of no FLOPs at all has a rate of 0 everywhere, and nothing to search for.
    """
    workload = sweep.workload
    if not isinstance(workload, Workload):
        return True
    points = sweep.points()
    try:
        return _has_flops(workload, points, phase)
    except Exception:  # the workload's code fails at some point, whose rows will say so
        return True


def _has_flops(workload: Workload, points: Sequence[Point], phase: str) -> bool:
    forms = (workload.closed_form(point, phase) for point in points)
    if any(form is not None and sum(form.values()) for form in forms):
        return True
    ends: dict[tuple[object, ...], list[Point]] = {}
    for point in points:
        if workload.closed_form(point, phase) is None:
            choices = tuple(point.values[choice.name] for choice in workload.choices)
            ends[choices] = [ends.get(choices, [point])[0], point]
    if len(ends) > _COUNTED_CHOICES:
        return True
    return any(workload.dispatched(point).get(phase) for both in ends.values() for point in both)
