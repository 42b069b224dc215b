"""Refuses a search whose objective no point can have, as far as that is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from flopray.audit.hardware import peak_flops_per_s
from flopray.errors import InputError
from flopray.point import Point
from flopray.sweep.definition import Sweep
from flopray.workloads.base import Workload

ENERGY_OBJECTIVES = ("energy_j", "flops_per_j")
_FLOP_OBJECTIVES = ("flops_per_s", "flops_per_j", "mfu")
#: FLOPs are counted at torch's dispatcher, which takes a moment, for the first and the last point of so many choices.
_COUNTED_CHOICES = 16


def refuse_objective(sweep: Sweep, no_energy: str | None = None) -> None:
    """Refuse a search whose objective would be missing in every point.

    Args:
        sweep: the sweep.
        no_energy: why none of its devices has an energy source; None where one may have.

    Raises:
        InputError: the objective needs an energy source, FLOPs or a peak, and there is none.
    """
    asked, first = sweep.objective, sweep.settings.phases[0]
    if asked in ENERGY_OBJECTIVES and no_energy:
        raise InputError(f"--objective {asked}: no device of this sweep has an energy source ({no_energy})")
    refuse_mfu(sweep)
    if asked in _FLOP_OBJECTIVES and not _may_have_flops(sweep, first):
        remedy = "put another one first in --phases, or search for time_s"
        raise InputError(f"--objective {asked}: no FLOPs are known for {first} in {sweep.workload.name}: {remedy}")


def refuse_mfu(sweep: Sweep, *, types_known: bool = True) -> None:
    """Refuse a search for MFU that no point can have; this needs no device, only its type.

    Args:
        sweep: the sweep.
        types_known: whether its device types are real, and not stand-ins for unknown ones.

    Raises:
        InputError: the first phase has no MFU, or no type has a peak at any precision.
    """
    if sweep.objective != "mfu":
        return
    if sweep.settings.phases[0] == "optimizer_step":
        raise InputError("--objective mfu: optimizer_step has none, put another phase first in --phases")
    if types_known:
        _check_peaks(sweep)


def _check_peaks(sweep: Sweep) -> None:
    """MFU needs the peak of at least one device type at one precision; that of a CPU is measured."""
    types, precisions = sweep.axes["device_type"], sweep.axes["precision"]
    on_cpu = "CPU" in types and set(precisions) != {"tf32"}
    if not on_cpu and not any(peak_flops_per_s(name, precision) for name in types for precision in precisions):
        where = f"{', '.join(types)} at {', '.join(precisions)}"
        raise InputError(f"--objective mfu: no peak is known for {where}; flops_per_s needs none")


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
    except Exception:  # the workload's code fails at some point, whose rows will say it
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
