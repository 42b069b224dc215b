"""What one iteration of a phase asks of a device: for a point whose workload's code is here, or for a measured row.

A row's work is made from its columns, and from a built-in workload that states its operations; no other code is run.
For a language model, that reads its configuration with transformers, which imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flopray.description import Description
from flopray.errors import FloprayError, InputError
from flopray.point import Point
from flopray.predict.choices import MODEL, Choices
from flopray.workloads.base import ELEMENT_BYTES, Workload, closed_columns, workload_of
from flopray.workloads.operations import Bulk, Operation, Pass, Update
from flopray.workloads.registry import BUILT_IN, point_from

#: Components of a closed form that work on elements, about one read or write of an element each.
_ELEMENTWISE = ("activation_flops", "norm_flops", "elementwise_flops", "loss_flops", "embedding_flops")
#: Kernels of one layer of a decoder in a forward pass, about; a backward pass has twice as many.
_LAYER_PRODUCTS, _LAYER_PASSES, _LAYER_TENSORS = 7, 30, 9
_PASSES = {"backward": 2, "forward_backward": 3, "train_step": 3}
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers")


class NoWork(FloprayError):
    """The work of an iteration is not known; the message is the reason, in one line."""


@dataclass(frozen=True)
class Work:
    """One iteration of a phase.

    Attributes:
        family: workloads that are fitted together, by the name of one.
        phase: of the workload.
        precision: one of `flopray.point.PRECISIONS`.
        execution: one of `flopray.point.EXECUTIONS`.
        shape: numbers that say how large it is: the workload's dimensions, and the parameters of a model.
        operations: in no order.
        flops: by the closed form, recomputation included; else as the dispatcher counts.
        moved_bytes: that it reads and writes at least.
        working_bytes: memory that it goes through again in each iteration.
        choices: of the point, beside precision and execution.
    """

    family: str
    phase: str
    precision: str
    execution: str
    shape: Mapping[str, float]
    operations: tuple[Operation, ...] = field(repr=False)
    flops: float
    moved_bytes: float
    working_bytes: float
    choices: Choices = field(default_factory=Choices)

    @property
    def element_bytes(self) -> int:
        """Of a number."""
        return ELEMENT_BYTES[self.precision]

    @property
    def launches(self) -> int:
        """Kernels, about."""
        return sum(one.tensors if isinstance(one, Update) else one.count for one in self.operations)


def family_of(workload: str) -> str:
    """Workloads that are fitted together, such as those of language models: what the workload says, else its name."""
    return (BUILT_IN[workload].family if workload in BUILT_IN else "") or workload


def work_of(point: Point, phase: str, *, dispatched_flops: int | None = None) -> Work:
    """The work of a point.

    Args:
        point: whose workload's code is here. One that builds its model to know its closed form imports torch.
        phase: one of its workload's phases.
        dispatched_flops: for a workload without a closed form.

    Raises:
        NoWork: neither a closed form nor a count.
    """
    workload = workload_of(point)
    stated = workload.operations(point, phase)
    if stated is None:
        moved = workload.least_moved_bytes(point, phase, ELEMENT_BYTES[point.precision])
        known = {"least_moved_bytes": moved, "dispatched_flops": dispatched_flops}
        columns = {key: value for key, value in closed_columns(point, phase).items() if value is not None}
        return _of_columns({**point.fields(), "phase": phase, **known, **columns}, workload)
    flops = sum((workload.closed_form(point, phase) or {}).values()) or dispatched_flops or 0
    return _stated(workload, point, phase, stated, flops)


def work_of_row(row: Mapping[str, Any], workload: Description | None = None) -> Work:
    """The work of a measured row.

    Args:
        row: by the names of a record's columns; a missing value is None.
        workload: of the row, with its code where the caller has it; a built-in one is found.

    Raises:
        NoWork: the row does not state it.
    """
    name = str(row["workload"])
    if workload is None and name in BUILT_IN:
        workload = BUILT_IN[name]()
    if isinstance(workload, Workload) and type(workload).operations is not Workload.operations:
        names = ("workload", "device_type", "precision", "execution", *(f.name for f in workload.fields))
        point = point_from({key: row.get(key) for key in names}, workload)
        stated = workload.operations(point, str(row["phase"]))
        if stated is not None:
            flops = row.get("model_flops") or sum((workload.closed_form(point, str(row["phase"])) or {}).values())
            again = row.get("recomputed_flops") or 0
            return _stated(workload, point, str(row["phase"]), stated, float(flops) + float(again))
    return _of_columns(row, workload)


def _stated(workload: Workload, point: Point, phase: str, operations: Sequence[Operation], flops: float) -> Work:
    each = ELEMENT_BYTES[point.precision]
    shape = {name: float(value) for name, value in point.shape().items()}
    if MODEL in point.fields():
        shape["parameters"] = float(workload.parameters(point) or 0)
    return Work(
        family=family_of(workload.name),
        phase=phase,
        precision=point.precision,
        execution=point.execution,
        shape=shape,
        operations=tuple(operations),
        flops=float(flops),
        moved_bytes=float(workload.least_moved_bytes(point, phase, each)),
        working_bytes=float(workload.least_bytes(point, phase, each)),
        choices=Choices.of(workload, point.fields()),
    )


def _of_columns(row: Mapping[str, Any], workload: Description | None) -> Work:
    """From sums: products as one, attention as one, what is elementwise as one, an optimizer by its parameters."""
    phase, each = str(row["phase"]), ELEMENT_BYTES[str(row["precision"])]
    flops = row.get("model_flops") or row.get("dispatched_flops")
    moved = row.get("least_moved_bytes") or _moved(row, workload, phase)
    if not flops and phase != "optimizer_step":
        raise NoWork(f"{row['workload']} has no FLOPs of {phase}: neither a closed form nor a dispatcher's count")
    if not moved:
        raise NoWork(f"{row['workload']} does not say how many bytes {phase} moves at least")
    layers = _layers(row)
    operations = _operations(row, float(flops or 0), float(moved) / each, layers, phase)
    names = [f.name for f in workload.dimensions] if workload is not None else []
    shape = {name: float(row[name]) for name in names if row.get(name)}
    if row.get("parameters"):
        shape["parameters"] = float(row["parameters"])
    again = row.get("recomputed_flops") or 0
    return Work(
        family=family_of(str(row["workload"])),
        phase=phase,
        precision=str(row["precision"]),
        execution=str(row["execution"]),
        shape=shape or {"flops": float(flops or 0), "bytes": float(moved)},
        operations=operations,
        flops=float(flops or 0) + float(again),
        moved_bytes=float(moved),
        working_bytes=float(moved),
        choices=Choices.of(workload, row),
    )


def _operations(
    row: Mapping[str, Any], flops: float, elements: float, layers: int, phase: str
) -> tuple[Operation, ...]:
    def of(name: str) -> float:
        return float(row.get(name) or 0)

    times = _PASSES.get(phase, 1)
    parameters = of("parameters")
    update = of("optimizer_flops")
    updated = 7 * (parameters or update / 16) if update else 0.0
    elementwise = sum(of(name) for name in _ELEMENTWISE)
    attention = of("attention_flops")
    products = of("gemm_flops") or max(flops - elementwise - update - attention, 0.0)
    products += float(row.get("recomputed_flops") or 0)
    found: list[Operation] = []
    if products:
        count = max(1, layers * _LAYER_PRODUCTS * times)
        found.append(Bulk(int(products), int(max(elements - updated, 0)), count))
    if attention:
        found.append(Bulk(int(attention), 0, max(1, layers * times), attention=True))
    if elementwise:
        count = max(1, layers * _LAYER_PASSES * times)
        found.append(Pass(int(2 * elementwise / count), count))
    if update:
        found.append(Update(int(updated), max(1, layers * _LAYER_TENSORS)))
    return tuple(found)


def _moved(row: Mapping[str, Any], workload: Description | None, phase: str) -> float | None:
    """For a row from before there was a column: as the workload states it, if that takes no model."""
    if not isinstance(workload, Workload) or workload.reads_models:
        return None
    if type(workload).least_moved_bytes is Workload.least_moved_bytes:
        return None
    names = ("workload", "device_type", "precision", "execution", *(f.name for f in workload.fields))
    point = point_from({key: row.get(key) for key in names}, workload)
    return workload.least_moved_bytes(point, phase, ELEMENT_BYTES[point.precision])


def _layers(row: Mapping[str, Any]) -> int:
    """Layers of a language model, from its configuration; 0 where there is none."""
    if not row.get("model"):
        return 0
    try:
        content = _content(str(row["model"]), row.get("model_config"))
    except (FloprayError, InputError, ValueError):
        return 0
    for key in _LAYER_KEYS:
        if isinstance(content.get(key), int):
            return int(content[key])
    return 0


def _content(model: str, config: str | None) -> Mapping[str, Any]:
    from flopray.workloads.causal_lm import models

    content = json.loads(config) if config else models.content_of(model, None)
    return content if isinstance(content, dict) else {}
