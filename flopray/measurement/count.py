"""`count`: the FLOPs of one call of any function, or of a phase of a workload, counted in three ways side by side."""

from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, overload

import torch

from flopray.errors import FloprayError, InputError, MeasurementError, SettingError, SpecError, Unsupported, brief
from flopray.flops.by_module import count_by_module
from flopray.flops.comparison import ClosedForm, Counts, Executed, ModuleCount
from flopray.flops.executed.counts import NotCounted, PhaseCounts
from flopray.flops.executed.metrics import passes_for
from flopray.mappings import Values
from flopray.measurement.counting.chunk import Chunks
from flopray.measurement.counting.function import count_function
from flopray.point import PRECISIONS, Point, unit_of
from flopray.records import KERNEL_CLASSES, Status
from flopray.report.counts.scaling import CountTable
from flopray.workloads.base import Workload, closed_columns, workload_of
from flopray.workloads.execution import TrainingStep, phase_work
from flopray.workloads.target import StepFactory, find_target

#: Precision whose counters see the products of a type; tensor cores compute those of float32 where torch allows TF32.
_PRECISION_OF = {
    **{"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"},
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2"), "fp8"),
}
_NOT_REQUESTED = Executed(str(Status.NOT_REQUESTED), "not requested")
_NO_GPU = "executed FLOPs need an NVIDIA GPU: torch sees none here, and a CPU's cores have no FLOP counters"
_OF_FUNCTION = "a function states no closed form; a Workload can"
#: What is counted of a workload unless a phase is named.
_USUAL_PHASE = "forward_backward"


@overload
def count(
    target: object,
    *,
    phase: str | None = ...,
    device: str | None = ...,
    precision: str | None = ...,
    executed: bool = ...,
    **shape: Any,
) -> Counts: ...


@overload
def count(
    target: object,
    *,
    shapes: Sequence[Mapping[str, Any]],
    phase: str | None = ...,
    device: str | None = ...,
    precision: str | None = ...,
    executed: bool = ...,
    **shape: Any,
) -> CountTable: ...


def count(
    target: object,
    *,
    shapes: Sequence[Mapping[str, Any]] | None = None,
    phase: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    executed: bool = True,
    **shape: Any,
) -> Counts | CountTable:
    """Count the FLOPs of one call: what the mathematics needs, what torch is asked for, and what the chip executes.

    Args:
        target: a function that makes a step, a workload's name, class or instance, or `FILE.py:NAME` of one of them.
            The function gets the shape, and returns a callable without arguments, one call of which is counted.
        shapes: count each of these, as further values beside `shape`.
        phase: of a workload; by default `forward_backward`.
        device: where a function makes tensors that name no device, such as `cuda` or `meta` (shapes alone, without
            memory); it is also given to a parameter `device`. A workload is counted without memory in any case.
        precision: of a workload, one of `flopray.point.PRECISIONS`. For a function it says which cores' counters are
            read; by default its products decide.
        executed: whether the GPU's counters are read too, by Nsight Compute around a process of its own.
        **shape: values by parameter or field.

    Returns:
        The three counts, each with its value or the reason why it is missing; the dispatched one by module and
        operator. With `shapes` a table of them.

    Raises:
        InputError: an impossible argument, or a function that fails.

    Example:
        >>> def make_step(width, batch=4):
        ...     layer, x = torch.nn.Linear(width, width), torch.ones(batch, width)
        ...     return lambda: layer(x)
        >>> count(make_step, width=8, executed=False).dispatched.flops  # 2 * 4 * 8 * 8
        512
        >>> table = count(make_step, shapes=[{"width": 8}, {"width": 16}], executed=False)
        >>> [one.dispatched.flops for one in table]
        [512, 2048]
    """
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"precision: unknown {precision!r:.60}, choose from {', '.join(PRECISIONS)}")
    found = find_target(target)
    every = [shape] if shapes is None else [{**shape, **dict(one)} for one in shapes]
    if not every:
        raise InputError("shapes: name at least one")
    if isinstance(found, StepFactory):
        if phase is not None:
            raise InputError(f"phase: {found.name} is a function, and has no phases; a Workload has")
        for one in every:
            found.check(one)
        counted = [_of_function(found, one, device, precision, executed) for one in every]
    else:
        points = [_point(found, one, precision) for one in every]
        counted = _of_workload(found, points, phase, executed)
    return counted[0] if shapes is None else CountTable(counted)


def shapes_of(axes: Mapping[str, Sequence[Any]]) -> list[Values]:
    """Every combination of values, the last axis fastest.

    >>> shapes_of({"width": [8, 16], "batch": [1]})
    [{'width': 8, 'batch': 1}, {'width': 16, 'batch': 1}]
    """
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _of_function(
    factory: StepFactory, shape: Mapping[str, Any], device: str | None, precision: str | None, executed: bool
) -> Counts:
    dispatched = _dispatched_by(factory, shape, device)
    ran = _executed_by(factory, shape, device, precision, dispatched) if executed else _NOT_REQUESTED
    return Counts(factory.name, dict(shape), None, ClosedForm(None, _OF_FUNCTION), dispatched, ran)


def _dispatched_by(factory: StepFactory, shape: Mapping[str, Any], device: str | None) -> ModuleCount:
    try:
        step = factory.make(shape, device)
        with torch.device(device) if device is not None else nullcontext():
            return count_by_module(step)
    except FloprayError:
        raise
    except Exception as error:
        raise InputError(f"the step of {factory.name} failed: {brief(error)}") from error
    finally:
        step = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the counted process needs the memory


def _executed_by(
    factory: StepFactory,
    shape: Mapping[str, Any],
    device: str | None,
    precision: str | None,
    dispatched: ModuleCount,
) -> Executed:
    if device is not None and torch.device(device).type != "cuda":
        return Executed(str(Status.UNSUPPORTED), f"executed FLOPs need an NVIDIA GPU, and the device is {device}")
    if not torch.cuda.is_available():
        return Executed(str(Status.UNSUPPORTED), _NO_GPU)
    if factory.path is None or factory.attribute is None:
        why = "another process counts them, which cannot load this function: name it as FILE.py:NAME"
        return Executed(str(Status.UNSUPPORTED), why)
    try:
        json.dumps(dict(shape))
    except (TypeError, ValueError):
        why = "another process counts them, which takes numbers, words, lists and dicts as values of a shape"
        return Executed(str(Status.UNSUPPORTED), why)
    capability = _capability()
    try:
        kernels, version = count_function(
            factory.path,
            factory.attribute,
            shape,
            device=device,
            precisions=_precisions(precision, dispatched, capability),
            compute_capability=capability,
        )
    except MeasurementError as error:
        return Executed(error.status, str(error), device_name=torch.cuda.get_device_name())
    return _executed(kernels, version)


def _precisions(asked: str | None, dispatched: ModuleCount, capability: str) -> tuple[str, ...]:
    """Whose cores are counted: those of the products' types, and all where the dispatcher does not see the products.

    Raises:
        Unsupported: products of a type whose counters are not known, so that a count would be partial.
    """
    if asked is not None:
        return (asked,)
    if dispatched.flops is None or not dispatched.product_types:
        return tuple(one for one in PRECISIONS if unit_of(one) == one and _countable(one, capability))
    unknown = [one for one in dispatched.product_types if one not in _PRECISION_OF]
    if unknown:
        raise Unsupported(f"no counters are known for products of {unknown[0]}: a sum without them would be partial")
    found = [_PRECISION_OF[one] for one in dispatched.product_types]
    short = torch.backends.cudnn.allow_tf32 or torch.get_float32_matmul_precision() != "highest"
    if "fp32" in found and short and _countable("tf32", capability):
        found.append("tf32")
    return tuple(found)


def _countable(precision: str, capability: str) -> bool:
    try:
        passes_for(precision, capability)
    except MeasurementError:
        return False
    return True


def _capability() -> str:
    return "{}.{}".format(*torch.cuda.get_device_capability())


def _executed(found: PhaseCounts | NotCounted, version: str | None) -> Executed:
    if isinstance(found, NotCounted):
        return Executed(found.status, found.reason, ncu_version=version)
    return Executed(
        str(Status.OK),
        by_class={kind: sum(one.flops for one in found.kernels if one.kind == kind) for kind in KERNEL_CLASSES},
        kernels=tuple(
            {
                "name": one.name,
                "class": one.kind,
                "launches": one.launches,
                "tensor_flops": one.tensor_flops,
                "cuda_flops": one.cuda_flops,
            }
            for one in found.kernels
        ),
        device_name=torch.cuda.get_device_name(),
        ncu_version=version,
    )


def _point(workload: Workload, shape: Mapping[str, Any], precision: str | None) -> Point:
    """The point of a shape; fields that are left out take their default where it is one value.

    Raises:
        InputError: a field that is unknown, missing or has a value that cannot be.
    """
    given = {**_defaults(workload), **workload.values, **shape}
    axes, implied = workload.complete({name: (value,) for name, value in given.items()})
    given = {name: values[0] for name, values in axes.items()}  # a file goes by its name
    for name, by_value in implied.items():
        given |= by_value.get(given.get(name), {})
    needed = [field.name for field in workload.fields if not (field.implied or field.optional)]
    if missing := [name for name in needed if name not in given]:
        raise SettingError(f"{workload.name} needs a value of {', '.join(f'<{name}>' for name in missing)}")
    try:
        device_type = "GPU" if torch.cuda.is_available() else "CPU"
        return workload.point(device_type=device_type, precision=precision or "fp32", **given)
    except SpecError as error:
        raise InputError(f"{workload.name}: {error}") from None


def _defaults(workload: Workload) -> Values:
    """Defaults of the fields that have exactly one; where there are several, the user must choose."""
    found: Values = {}
    for field in workload.fields:
        if len(field.values) == 1:
            word = str(field.values[0])
            if not field.is_dimension:
                found[field.name] = field.choice_words.get(word, word)
            elif word.isdigit():
                found[field.name] = int(word)
    return found


def _of_workload(workload: Workload, points: Sequence[Point], phase: str | None, executed: bool) -> list[Counts]:
    phase = phase or (_USUAL_PHASE if _USUAL_PHASE in workload.phases else workload.default_phases[0])
    if phase not in workload.phases:
        raise InputError(f"phase: {workload.name} has no {phase!r:.60}, choose from {', '.join(workload.phases)}")
    ran = _executed_points(points, phase) if executed else dict.fromkeys((one.id for one in points), _NOT_REQUESTED)
    return [
        Counts(workload.name, _shape_of(one), phase, _closed(one, phase), _dispatched(one, phase), ran[one.id])
        for one in points
    ]


def _shape_of(point: Point) -> Values:
    implied = {field.name for field in point.workload.fields if field.implied}
    shape = {name: value for name, value in point.values.items() if name not in implied and value is not None}
    return shape if point.precision == "fp32" else {**shape, "precision": point.precision}


def _closed(point: Point, phase: str) -> ClosedForm:
    components = workload_of(point).closed_form(point, phase)
    columns = closed_columns(point, phase)
    if components is None:
        return ClosedForm(None, columns.get("model_flops_reason") or f"{point.workload.name} states no closed form")
    products = columns.get("gemm_flops")
    if products is not None and "attention_flops" in components:
        products += components["attention_flops"]
    return ClosedForm(
        sum(components.values()),
        components={name: value for name, value in components.items() if value},
        products=products,
        convention=workload_of(point).convention,
    )


def _dispatched(point: Point, phase: str) -> ModuleCount:
    """Of a phase on the meta device, by module."""
    workload = workload_of(point)
    built = workload.build(point, device="meta", dtype=torch.float32, seed=0)
    try:
        gradient = built.gradient
        if gradient is None:
            with torch.no_grad():
                gradient = torch.ones_like(built.module(built.x))
        step = TrainingStep(built.module, built.x, gradient, execution="eager", others=built.others)
        built.module.train(phase not in ("inference", "prefill", "decode"))
        work = phase_work(step, phase, "eager")
        if phase in ("optimizer_step", "train_step", *built.others):
            work()  # the first call makes the optimizer's state, or fills the cache that decode reads
        return count_by_module(work)
    except Exception as error:  # where shapes depend on numbers, the workload's own count is used
        flops = workload.dispatched(point).get(phase)
        if isinstance(flops, str):
            return ModuleCount(None, flops)
        why = None if flops is not None else f"it does not run on the meta device: {brief(error)}"
        return ModuleCount(flops, why)


def _executed_points(points: Sequence[Point], phase: str) -> dict[str, Executed]:
    if not torch.cuda.is_available():
        return {point.id: Executed(str(Status.UNSUPPORTED), _NO_GPU) for point in points}
    try:
        chunks = Chunks((phase,), compute_capability=_capability())
        return {
            point.id: _executed(outcome[phase], chunks.version)
            for point, outcome in chunks.count(list({one.id: one for one in points}.values()))
        }
    except MeasurementError as error:
        missing = Executed(error.status, str(error), device_name=torch.cuda.get_device_name())
        return {point.id: missing for point in points}
