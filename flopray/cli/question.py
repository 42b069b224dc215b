"""The question of `flopray ask`: a point on each type of GPU, its work, and how often it is done."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopray.audit.hardware import find_gpu
from flopray.cli.axes import default_of, dest_of, flag_of, values_of
from flopray.cli.request import common_default
from flopray.description import Field
from flopray.errors import FloprayError, InputError
from flopray.mappings import Values
from flopray.point import Point
from flopray.predict.work import NoWork, Work, work_of
from flopray.sweep.space import grid
from flopray.units import prefixed
from flopray.workloads.base import ELEMENT_BYTES, Workload
from flopray.workloads.capability import why_not
from flopray.workloads.causal_lm.workload import CausalLM
from flopray.workloads.dispatch import dispatched_flops
from flopray.workloads.registry import find_workload

#: Of a question that names none.
_PRECISION = "bf16"


@dataclass(frozen=True)
class Asked:
    """One point on one type of GPU.

    Attributes:
        point: whose `device_type` is that of the GPU.
        phase: of it.
        work: what one iteration asks of the device; None where that is not known, with the reason.
        why_not: why there can be no answer, known before anything is predicted; None where there may be one.
    """

    point: Point
    phase: str
    work: Work | None
    why_not: str | None = None


def named_workload(name: str) -> tuple[Workload, str | None]:
    """The workload that a word means, and the model of it where the word is one.

    Args:
        name: a workload, `FILE.py:NAME`, or a language model: a built-in one, config.json, a folder or a hub id.

    Raises:
        InputError: it is neither.
    """
    try:
        return find_workload(name), None
    except InputError as unknown:
        if name.endswith(".py") or ".py:" in name:
            raise
        workload = CausalLM()
        try:
            workload.complete({"model": (name,), "weights": ("random",)})
        except FloprayError as error:
            known = "mlp, causal_lm, FILE.py:NAME"
            raise InputError(f"{name!r:.60} is neither a workload ({known}) nor a model: {error}") from unknown
        return workload, name


def add_fields(group: Any, workload: Workload, taken: set[str]) -> None:
    """Flags of a workload's fields, which take one value each.

    Raises:
        InputError: a flag that another one has.
    """
    for field in _fields(workload):
        if flag_of(field) in taken:
            raise InputError(f"workload {workload.name}, field {field.name}: the flag {flag_of(field)} is taken")
        known = _default(field)
        shown = f" (default {'as measured, else ' if field.is_dimension else ''}{known})" if known else ""
        text = (field.doc or field.label or field.name) + shown
        group.add_argument(
            flag_of(field), dest=dest_of(field), nargs="+", metavar="VALUE", help=text.replace("%", "%%")
        )


def _fields(workload: Workload) -> list[Field]:
    return [field for field in workload.fields if not field.implied]


def _default(field: Field) -> str | None:
    """The last value of the default grid on a GPU, its largest; of a range its end."""
    words = default_of(field, on_gpu=True)
    if not words:
        return None
    parts = words[-1].split(":")
    return parts[1] if field.is_dimension and len(parts) == 3 else words[-1]


def axes_of(
    workload: Workload, options: argparse.Namespace, model: str | None, shapes: Sequence[Mapping[str, int]] = ()
) -> tuple[Values, list[str]]:
    """One value of each field, and lines on those that were not named.

    Args:
        workload: which one.
        options: of the command line.
        model: of a language model.
        shapes: that were measured: what nobody named is that of the one that is nearest to what was named.

    Raises:
        InputError: a value that cannot be, or a field without a value and a default.
    """
    axes: Values = {}
    assumed: list[str] = []
    measured = _nearest(shapes, _named_sizes(workload, options))
    for field in _fields(workload):
        words = getattr(options, dest_of(field))
        if words is not None and len(words) > 1:
            raise InputError(f"{flag_of(field)} {' '.join(words)}: ask about one value")
        word = words[0] if words else None
        if word is None and field.name == "model" and model is not None:
            word = model
        if word is None:
            word = str(measured[field.name]) if field.is_dimension and field.name in measured else _default(field)
            if word is None:
                raise InputError(f"{flag_of(field)} has no default in {workload.name}: name its value")
            if field.is_dimension:
                assumed.append(f"{flag_of(field)} {word}")
        axes[field.name] = values_of(field, [word])
        if len(axes[field.name]) != 1:
            raise InputError(f"{flag_of(field)} {word}: ask about one value")
    return axes, assumed


def _named_sizes(workload: Workload, options: argparse.Namespace) -> dict[str, int]:
    dimensions = [field for field in _fields(workload) if field.is_dimension and getattr(options, dest_of(field))]
    return {field.name: values_of(field, getattr(options, dest_of(field)))[0] for field in dimensions}


def _nearest(shapes: Sequence[Mapping[str, int]], named: Mapping[str, int]) -> Mapping[str, int]:
    """The shape that is nearest to named sizes, by their factors; of equally near ones the largest."""

    def distance(shape: Mapping[str, int]) -> tuple[float, int]:
        factors = [abs(math.log(shape[name] / size)) for name, size in named.items() if name in shape]
        return round(sum(factors), 6), -math.prod(shape.values())

    return min(shapes, key=distance, default={})


def points_of(
    workload: Workload, axes: Mapping[str, Any], ways: Mapping[str, Sequence[tuple[str, str]]]
) -> list[Point]:
    """A point for each type of GPU, precision and execution.

    Args:
        workload: which one.
        axes: its fields.
        ways: precisions with executions, by type of GPU.

    Raises:
        InputError: values that make no point.
    """
    points = []
    for gpu, precision, execution in ((gpu, *way) for gpu, several in ways.items() for way in several):
        every = {"device_type": (gpu,), "precision": (precision,), "execution": (execution,), **axes}
        points += grid(workload, *workload.complete(every))
    return points


def ways_of(
    workload: Workload, fitted: Sequence[tuple[str, str]], precisions: Sequence[str] | None, execution: str | None
) -> list[tuple[str, str]]:
    """Precisions with the execution of each: those that were named, else the usual ones if they were fitted.

    Args:
        workload: which one.
        fitted: those that were, most rows first.
        precisions: that were named.
        execution: that was named.
    """
    usual = common_default(workload, "execution", on_gpu=True)[0]
    there = [way for way in fitted if execution in (None, way[1])] or list(fitted)
    if precisions is None:
        precisions = [_PRECISION if not there or _PRECISION in dict(there) else there[0][0]]
    found = []
    for precision in dict.fromkeys(precisions):
        executions = [way[1] for way in there if way[0] == precision] or [usual]
        found.append((precision, execution or (usual if usual in executions else executions[0])))
    return found


def asked_of(point: Point, phase: str) -> Asked:
    """The work of a point; FLOPs of a workload without a closed form are counted, on the meta device."""
    reason = why_not(point) or _too_large(point, phase)
    if reason:
        return Asked(point, phase, None, reason)
    try:
        return Asked(point, phase, _work(point, phase))
    except FloprayError as error:
        return Asked(point, phase, None, str(error))


def _work(point: Point, phase: str) -> Work:
    try:
        return work_of(point, phase)
    except NoWork:
        # precision does not change the count, and neither does the device
        counted = dispatched_flops(dataclasses.replace(point, device_type="CPU", execution="eager"), phase, None)
        if counted["dispatched_flops"] is None:
            raise NoWork(f"its FLOPs are not known: {counted['dispatched_reason']}") from None
        return work_of(point, phase, dispatched_flops=int(counted["dispatched_flops"]))


def _too_large(point: Point, phase: str) -> str | None:
    """Why the GPU has too little memory; None where it has enough, or where that is not known."""
    gpu = find_gpu(point.device_type)
    workload: Any = point.workload
    try:
        least = workload.least_bytes(point, phase, ELEMENT_BYTES[point.precision])
    except FloprayError:
        return None
    if gpu is None or least <= gpu.memory_bytes:
        return None
    return (
        f"it needs {prefixed(least, 'B')} of memory at least, and the {gpu.name} has {prefixed(gpu.memory_bytes, 'B')}"
    )


def tokens_of(point: Point, phase: str) -> int | None:
    """Tokens that one iteration processes; None where the workload has none."""
    workload: Any = point.workload
    known = workload.beside(point, phase).get("tokens_per_iteration")
    return known or point.shape().get("tokens")


def steps_of(steps: float | None, total_tokens: float | None, tokens: int | None, gpus: int) -> int | None:
    """How many steps a run has, each with a batch on every GPU; None where it is not asked.

    Raises:
        InputError: tokens of a workload that has none.
    """
    if steps is not None:
        return math.ceil(steps)
    if total_tokens is None:
        return None
    if not tokens:
        raise InputError("--total-tokens: this workload does not say how many tokens a step has; name --steps")
    return math.ceil(total_tokens / (tokens * gpus))
