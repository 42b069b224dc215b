"""The question of `flopray ask`: a point on each type of GPU, its work, and how often it is done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flopray.audit.hardware import find_gpu
from flopray.cli.axes import default_of, flag_of, values_of
from flopray.cli.flags import add_field
from flopray.cli.quantities import gpus, joules, seconds, steps, tokens
from flopray.cli.request import common_default
from flopray.description import Field
from flopray.errors import FloprayError, InputError, SettingError
from flopray.mappings import Values
from flopray.point import EXECUTIONS, PRECISIONS, Point
from flopray.predict.work import NoWork, Work, work_of
from flopray.settings import check_settings, setting
from flopray.sweep.space import grid
from flopray.units import prefixed
from flopray.workloads.base import ELEMENT_BYTES, Workload
from flopray.workloads.capability import why_not
from flopray.workloads.causal_lm.workload import CausalLM
from flopray.workloads.dispatch import dispatched_flops
from flopray.workloads.registry import find_workload

#: Of a question that names none.
_PRECISION = "bf16"
_WHAT, _WHERE, _BEST = "what is done, and how often", "on what", "which is best"


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, beside the fields of the workload.

    Raises:
        SettingError: a value that cannot be.
    """

    workload: str = setting(
        doc="mlp, causal_lm, FILE.py:NAME, or a language model by its name, config.json, folder or hub id",
        positional=True,
        metavar="WORKLOAD",
    )
    phase: str | None = setting(None, doc="default train_step, where there is one", group=_WHAT)
    steps: int | None = setting(
        None, doc="steps of the run, such as 1e6 or 10k (default: one)", kind=steps, metavar="N", group=_WHAT
    )
    total_tokens: int | None = setting(
        None, doc="tokens of the run instead, such as 1e9 or 1.5B", kind=tokens, metavar="N", group=_WHAT
    )
    gpu: tuple[str, ...] = setting(
        (),
        doc="such as H100 (default: every type that is known)",
        noun="type",
        distinct=False,
        metavar="TYPE",
        group=_WHERE,
    )
    gpus: tuple[int, ...] = setting(
        (1,),
        doc="how many, each with a batch of its own (default {default})",
        kind=gpus,
        noun="number",
        distinct=False,
        metavar="N",
        group=_WHERE,
    )
    precision: tuple[str, ...] = setting(
        (),
        doc="{choices} (default bf16, where models were fitted to it)",
        choices=PRECISIONS,
        distinct=False,
        metavar="P",
        group=_WHERE,
    )
    execution: str | None = setting(
        None, doc="{choices} (default: what models know)", choices=EXECUTIONS, metavar="E", group=_WHERE
    )
    utilisation: float = setting(
        1.0,
        doc="share of the time that GPUs compute (default {default})",
        must="be above 0 and at most 1",
        holds=lambda value: 0 < value <= 1,
        metavar="U",
        group=_WHERE,
    )
    models: Path | None = setting(
        None, doc="of flopray fit --out (default: those of flopray)", kind=Path, metavar="FILE", group=_WHERE
    )
    deadline_s: float | None = setting(
        None,
        doc="the least energy that ends in time, such as 24h",
        kind=seconds,
        flag="--deadline",
        metavar="TIME",
        group=_BEST,
    )
    energy_budget_j: float | None = setting(
        None,
        doc="the fastest within it, such as 5kWh of the boards",
        kind=joules,
        flag="--energy-budget",
        metavar="ENERGY",
        group=_BEST,
    )
    json: bool = setting(False, doc="print one JSON object")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.steps is not None and self.total_tokens is not None:
            raise SettingError("<steps> and <total_tokens> name the same: leave one out")


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
    for field in fields_of(workload):
        known = _default(field)
        shown = f" (default {'as measured, else ' if field.is_dimension else ''}{known})" if known else ""
        add_field(group, workload, field, taken, (field.doc or field.label or field.name) + shown)


def fields_of(workload: Workload) -> list[Field]:
    """Those that a question may name."""
    return [field for field in workload.fields if not field.implied]


def _default(field: Field) -> str | None:
    """The last value of the default grid on a GPU, its largest; of a range its end."""
    words = default_of(field, on_gpu=True)
    if not words:
        return None
    parts = words[-1].split(":")
    return parts[1] if field.is_dimension and len(parts) == 3 else words[-1]


def axes_of(
    workload: Workload,
    named: Mapping[str, Sequence[str]],
    model: str | None,
    shapes: Sequence[Mapping[str, int]] = (),
) -> tuple[Values, list[str]]:
    """One value of each field, and lines on those that were not named.

    Args:
        workload: which one.
        named: words of the command line, by field.
        model: of a language model.
        shapes: that were measured: what nobody named is that of the one that is nearest to what was named.

    Raises:
        InputError: a value that cannot be, or a field without a value and a default.
    """
    axes: Values = {}
    assumed: list[str] = []
    measured = _nearest(shapes, _named_sizes(workload, named))
    for field in fields_of(workload):
        words = named.get(field.name)
        if words is not None and len(words) != 1:
            raise InputError(f"{' '.join([flag_of(field), *words])}: ask about one value")
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


def _named_sizes(workload: Workload, named: Mapping[str, Sequence[str]]) -> dict[str, int]:
    dimensions = [field for field in fields_of(workload) if field.is_dimension and named.get(field.name)]
    return {field.name: values_of(field, list(named[field.name]))[0] for field in dimensions}


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
    workload: Workload, fitted: Sequence[tuple[str, str]], precisions: Sequence[str], execution: str | None
) -> list[tuple[str, str]]:
    """Precisions with the execution of each: those that were named, else the usual ones if they were fitted.

    Args:
        workload: which one.
        fitted: those that were, most rows first.
        precisions: that were named; none stands for the usual one.
        execution: that was named.
    """
    usual = common_default(workload, "execution", on_gpu=True)[0]
    there = [way for way in fitted if execution in (None, way[1])] or list(fitted)
    if not precisions:
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


def steps_of(steps: int | None, total_tokens: int | None, tokens: int | None, gpus: int) -> int | None:
    """How many steps a run has, each with a batch on every GPU; None where it is not asked.

    Raises:
        InputError: tokens of a workload that has none.
    """
    if steps is not None:
        return steps
    if total_tokens is None:
        return None
    if not tokens:
        raise SettingError("<total_tokens>: this workload does not say how many tokens a step has; name <steps>")
    return math.ceil(total_tokens / (tokens * gpus))
