"""What a person reads before a sweep: points, trials, time and disk, and what the devices cannot do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from flopray.audit.hardware import memory_bytes as gpu_memory_bytes
from flopray.errors import InputError, SettingError, named
from flopray.measurement.host import memory_bytes as host_memory_bytes
from flopray.measurement.temperature_hold import CAP_S
from flopray.point import Point, is_compiled
from flopray.settings import CPU_DEFAULTS, refuse_on_a_cpu
from flopray.sweep import planned_disk
from flopray.sweep.counting_plan import MOST_S
from flopray.sweep.definition import Sweep
from flopray.sweep.prediction import (
    Rates,
    count_seconds,
    phases_too_large,
    predict_point_seconds,
    rates_of,
    refused_seconds,
)
from flopray.sweep.space import slabs
from flopray.sweep.summary import duration
from flopray.units import counted, prefixed
from flopray.workloads.base import with_code
from flopray.workloads.capability import why_no_instrument, why_not
from flopray.workloads.tryout import failures_at, is_tried

#: Drawing one figure.
_DRAW_S = 0.3
#: Starting Ray, actors and the device with its idle power; half of it where a cluster runs already.
_START_S = {"CPU": 15.0, "GPU": 35.0}
#: The first compilation of a process on a CPU readies a C++ compiler.
_FIRST_COMPILE_S = 8.0
#: Starting Nsight Compute, once for all kinds of core.
_COUNTER_START_S = 12.0
#: Points at which the code of a workload is tried before anything starts, and for a plan, and the time for it.
_TRIED, _TRIED_S = 8, 5.0
_PLANNED, _PLANNED_S = 500, 5.0
#: A point that needs at least this share of a device's memory may not fit.
_TIGHT = 0.8


@dataclass(frozen=True)
class Target:
    """A type of device that is planned for.

    Attributes:
        count: devices.
        memory_bytes: of one; None where it is not known.
        rates: of one; None where nothing is known.
        has_energy: whether it has an energy source.
        here: whether there is such a device; otherwise one is assumed.
    """

    count: int
    memory_bytes: int | None
    rates: Rates | None
    has_energy: bool
    here: bool = True


class Placed(NamedTuple):
    """A sweep on existing devices.

    Attributes:
        sweep: what is measured.
        slots: devices by type.
        targets: what is known of them.
        warning: a line about devices that are left out.
    """

    sweep: Sweep
    slots: dict[str, int]
    targets: dict[str, Target]
    warning: str | None = None


def targets(slots: Mapping[str, int], *, local: bool, absent: Sequence[str] = ()) -> dict[str, Target]:
    """What is known about types of devices without looking at other machines.

    Args:
        slots: devices by type.
        local: the CPU is this machine's.
        absent: types that are not there, and planned for all the same.
    """
    found = {}
    for name, count in slots.items():
        memory = (host_memory_bytes() if local else None) if name == "CPU" else gpu_memory_bytes(name)
        found[name] = Target(count, memory, rates_of(name), has_energy=name != "CPU", here=name not in absent)
    return found


def refuse_what_none_can(sweep: Sweep, found: Mapping[str, Target]) -> None:
    """Refuse a sweep of which nothing can be measured, before anything is started.

    If a device can measure some points and not others, the latter are rows with their reason, and the plan names them.

    Raises:
        InputError: with the reason of the most points.
    """
    if reason := why_no_instrument(sweep.settings.instruments, list(found)):
        raise SettingError(f"<instruments> counters: {reason}")
    if set(found) == {"CPU"}:
        refuse_on_a_cpu(sweep.settings)
    reasons: Counter[str] = Counter()
    least: dict[str, tuple[int, str]] = {}
    _refuse_code_that_fails(sweep)
    for point in sweep.points():
        name, memory = point.device_type, found[point.device_type].memory_bytes
        too_large = phases_too_large(point, sweep.settings.phases, memory)
        if reason := why_not(point):
            reasons[f"{name}: {reason}"] += 1
        elif len(too_large) == len(sweep.settings.phases):
            least[name] = min(least.get(name, (2**80, "")), (min(too_large.values()), point.label()))
        else:
            return
    for name, (need, label) in least.items():
        there = prefixed(found[name].memory_bytes or 0, "B")
        reasons[f"{name}: out of memory: {label} needs {prefixed(need, 'B')} at least, and there are {there}"] += 1
    if reasons:
        (first, _), more = reasons.most_common(1)[0], len(reasons) - 1
        others = f" (other points: {more} other reason{'s' if more > 1 else ''})" if more else ""
        raise InputError(f"nothing of this sweep can be measured. {first}{others}")


def _refuse_code_that_fails(sweep: Sweep) -> None:
    """Refuse a workload whose code fails at every tried point; if one works, failures are rows.

    Raises:
        InputError: with the first reason.
    """
    points = sweep.points()
    if not points or not is_tried(points[0]):
        return
    first: str | None = None
    for _, error in failures_at(points, sweep.settings.phases, most=_TRIED, seconds=_TRIED_S):
        if error is None:
            return
        first = first or str(error)
    if first is not None:
        raise InputError(first)


def print_plan(
    console: Console,
    sweep: Sweep,
    slots: Mapping[str, int],
    *,
    finished: Mapping[str, str] | None = None,
    found: Mapping[str, Target] | None = None,
    figures: bool = True,
    start: bool = True,
    names: Mapping[str, str] | None = None,
) -> None:
    """Print what a sweep would do: points, trials, time and disk for each device type, and what will be refused.

    Args:
        console: where to.
        sweep: the sweep.
        slots: devices by type.
        finished: points that are measured already.
        found: what is known of the types; None looks it up.
        figures: whether figures will be drawn.
        start: whether Ray will be started, too.
        names: of settings where this is read, as `flopray.errors.named` takes them.
    """
    found = found or targets(slots, local=True)
    table = Table("device type", "devices", "points", "trials", "predicted time", "disk", title=f"{sweep.search} sweep")
    todo = [point for point in sweep.points() if point.id not in (finished or {})]
    notes: list[str] = []
    whole, left = with_code(sweep.workload).as_a_whole, sweep.size - len(finished or {})
    for device_type, target in found.items():
        on_type = [point for point in todo if point.device_type == device_type]
        points, trials, seconds = _work(sweep, on_type, target, left=left)
        count, figures_size = planned_disk.figures(sweep, len(found)) if figures else (0, 0)
        seconds += _START_S["CPU" if device_type == "CPU" else "GPU"] / (1 if start else 2) + count * _DRAW_S
        if device_type == "CPU" and any(map(is_compiled, sweep.axes["execution"])):
            seconds += _FIRST_COMPILE_S
        size = planned_disk.table_bytes(points, trials, len(sweep.settings.phases))
        size += (planned_disk.A_RUN + figures_size) // len(found)
        time = duration(seconds) if target.rates and not whole else "unknown"
        table.add_row(device_type, str(target.count), str(points), str(trials), time, prefixed(size, "B"))
        notes += _notes(sweep, device_type, on_type, target, left)
    console.print(table)
    if "time" in sweep.settings.instruments and not whole:
        console.print(named(_windows(sweep), names), highlight=False, soft_wrap=True)
    for note in (*_beside_windows(sweep), *notes):
        console.print(named(note, names), highlight=False, soft_wrap=True)
    console.print("dry run: nothing was started and nothing was written", highlight=False, soft_wrap=True)


def _windows(sweep: Sweep) -> str:
    """How exactly each phase is measured, and for how long at most; settings as `flopray.errors.named` takes them."""
    settings = sweep.settings
    both = "energy" in settings.instruments and sweep.axes["device_type"] != ("CPU",)
    known = "time and energy are known" if both else "time is known"
    line = f"windows: until {known} to {settings.target_error:.2g} (<target_error>)"
    line += f", at most {settings.max_seconds:g} s (<max_seconds>)"
    chosen = {name: getattr(settings, name) for name in CPU_DEFAULTS}
    return line + (": the defaults without a GPU" if chosen == dict(CPU_DEFAULTS) else "")


def _beside_windows(sweep: Sweep) -> list[str]:
    """What takes time besides the points and cannot be predicted: how hot a board is and gets is not known here."""
    settings, lines = sweep.settings, []
    if settings.hold_temperature_c is not None:
        lines.append(
            f"<hold_temperature_c={settings.hold_temperature_c:g}>: filler work and pauses before each window, at most "
            f"{CAP_S:g} s each, are not in the predicted time"
        )
    if settings.calibrate:
        lines.append("<calibrate>: some minutes for each GPU, which are not in the predicted time")
    return lines


def slabs_of(sweep: Sweep, todo: Sequence[Point], slots: Mapping[str, int], *, has_energy: bool) -> list[list[Point]]:
    """The slabs of a grid sweep, in the order Tune gets them.

    Args:
        sweep: the sweep.
        todo: points that are left.
        slots: devices by type.
        has_energy: whether energy will be measured, which sets the windows' length.

    Returns:
        Lists of points; each is one trial.
    """
    seconds = cache(lambda point: predict_point_seconds(sweep.settings, point, has_energy=has_energy))
    return slabs(
        todo,
        seconds=seconds,
        slots=slots,
        seed=sweep.settings.seed if "time" in sweep.settings.instruments else None,
        points_per_trial=sweep.points_per_trial,
    )


def _work(sweep: Sweep, points: Sequence[Point], target: Target, *, left: int) -> tuple[int, int, float]:
    """Points, trials and seconds on the devices of a type."""
    if not points:
        return 0, 0, 0.0
    slots = {points[0].device_type: target.count}
    count = len(points)
    one_each = sweep.trial_shape == "point"
    trials = count if one_each else len(slabs_of(sweep, points, slots, has_energy=target.has_energy))
    seconds = sum(_point_seconds(sweep, point, target) for point in points)
    if "counters" in sweep.settings.instruments:
        counted_s = sum(count_seconds(sweep.settings, point) for point in points) / target.count
        starts = max(1, math.ceil(counted_s / MOST_S)) * min(target.count, trials)
        seconds += (count if sweep.is_drawn else starts) * _COUNTER_START_S
    if sweep.is_drawn:  # one point a trial; the search decides which ones, and so on which devices
        seconds *= left / count
        count = trials = left
    return count, trials, seconds / min(target.count, trials)


def _point_seconds(sweep: Sweep, point: Point, target: Target) -> float:
    too_large = phases_too_large(point, sweep.settings.phases, target.memory_bytes)
    if why_not(point) or len(too_large) == len(sweep.settings.phases):
        return refused_seconds(point)
    whole = predict_point_seconds(sweep.settings, point, has_energy=target.has_energy, rates=target.rates)
    return whole * (1 - len(too_large) / len(sweep.settings.phases))


def _energy_line(sweep: Sweep, device_type: str, points: Sequence[Point], target: Target, left: int) -> list[str]:
    """Seconds and joules by fitted models, where there are some for this type of device and this kind of workload."""
    if device_type == "CPU":
        return []
    from flopray.sweep.planned_energy import (
        planned_energy,
        why_not_planned,
    )  # imported here, since fitted models need scipy

    able = [point for point in points if not why_not(point)]
    drawn = round(left * len(able) / len(points)) if sweep.is_drawn and points else None
    planned = planned_energy(sweep.settings, able, target.rates, drawn=drawn)
    if planned is None:
        return [f"{device_type}: joules are not predicted: {why_not_planned(sweep.settings, able)}"]
    shared = sweep.is_drawn and len(sweep.axes["device_type"]) > 1
    return [planned.line(device_type) + ("; if it takes all of them on this type" if shared else "")]


def _code_that_fails(sweep: Sweep, points: Sequence[Point]) -> list[str]:
    """A line for each way in which the workload's code fails, of points that are tried on the meta device."""
    if not points or not is_tried(points[0]):
        return []
    failed: dict[str, list[str]] = {}
    tried = 0
    for _, error in failures_at(points, sweep.settings.phases, most=_PLANNED, seconds=_PLANNED_S):
        tried += 1
        if error is not None:
            failed.setdefault(getattr(error, "said", str(error)), []).append(str(error))
    of = (
        f"of {counted(len(points), 'point')}"
        if tried == len(points)
        else f"of {counted(tried, 'point')} that were tried"
    )
    return [f"{len(lines)} {of} will fail: {lines[0]}" for lines in failed.values()]


def _notes(sweep: Sweep, device_type: str, points: Sequence[Point], target: Target, left: int) -> list[str]:
    """What will be refused, by reason, and the basis of the figures of a type."""
    refused, large, tight = Counter(), Counter(), 0
    largest: dict[tuple[str, ...], int] = {}
    for point in points:
        if reason := why_not(point):
            refused[reason] += 1
            continue
        too_large = phases_too_large(point, sweep.settings.phases, target.memory_bytes)
        if too_large:
            phases = tuple(too_large)
            large[phases] += 1
            largest[phases] = max(largest.get(phases, 0), *too_large.values())
        elif target.memory_bytes:
            tight += bool(phases_too_large(point, sweep.settings.phases, int(_TIGHT * target.memory_bytes)))
    of = f"of {counted(len(points), 'point')}"
    notes = [f"{device_type}: {count} {of} will be unsupported: {reason}" for reason, count in refused.items()]
    notes += [f"{device_type}: {line}" for line in _code_that_fails(sweep, points)]
    there = prefixed(target.memory_bytes or 0, "B")
    for phases, count in large.items():
        which = "all phases" if len(phases) == len(sweep.settings.phases) else ", ".join(phases)
        need = f"up to {prefixed(largest[phases], 'B')} are needed at least, and there are {there}"
        notes.append(f"{device_type}: {count} {of} will be out_of_memory in {which}: {need}")
    if tight:
        need = "needs" if tight == 1 else "need"
        notes.append(f"{device_type}: {tight} {of} {need} more than {_TIGHT:.0%} of {there} at least, and may not fit")
    if not target.here:
        notes.append(f"{device_type}: there is none here; planned for one")
    if with_code(sweep.workload).as_a_whole:
        return [*notes, f"{device_type}: how long an evaluation takes follows from its samples, and is not predicted"]
    if target.memory_bytes is None:
        notes.append(f"{device_type}: its memory is not known here, so none of its points is called too large")
    notes += _energy_line(sweep, device_type, points, target, left)
    notes.append(
        f"{device_type}: time predicted from FLOPs and bytes, {target.rates.source}, for an idle device"
        if target.rates
        else f"{device_type}: no datasheet is known for it, so time is not predicted"
    )
    return notes
