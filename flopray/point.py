"""What makes a point of a sweep: a workload's shape at one precision and execution on one type of device.

Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flopray.description import Description
from flopray.errors import SpecError
from flopray.mappings import Values

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "fp8_rowwise")
#: How linear layers are scaled at each fp8 precision, in the words of torchao's recipes: one factor for a whole tensor,
#: or one for each row; either is found anew for every product (dynamic scaling).
FP8_SCALING: Mapping[str, str] = MappingProxyType({"fp8": "tensorwise", "fp8_rowwise": "rowwise"})
EXECUTIONS = ("eager", "graph", "compile", "compile_graph")


def is_compiled(execution: str) -> bool:
    """Whether an execution goes through `torch.compile`."""
    return execution in ("compile", "compile_graph")


def is_captured(execution: str) -> bool:
    """Whether an execution is a CUDA graph that is replayed."""
    return execution in ("graph", "compile_graph")


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """One point of a sweep. Its fields are attributes too: `point.width` of an MLP.

    Made by `Workload.point` (`flopray.workloads.base`), which knows the fields.

    Attributes:
        workload: what is run, see `flopray.workloads.base.Workload`.
        device_type: type of device as Ray names it, or `CPU`.
        precision: one of `PRECISIONS`.
        execution: one of `EXECUTIONS`.
        values: of the workload's fields, by name.

    Raises:
        SpecError: an unknown precision or execution, or a field that is missing or has a value that cannot be.
    """

    workload: Description
    device_type: str
    precision: str = "fp32"
    execution: str = "eager"
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("execution", self.execution, EXECUTIONS),
        ):
            if value not in known:
                raise SpecError(f"unknown {name} {value!r}: choose from {', '.join(known)}")
        object.__setattr__(self, "values", self.workload.checked(self.values))

    def __getattr__(self, name: str) -> Any:
        """The value of a field of the workload."""
        # Not by `self.values`: while a point is unpickled there are no attributes yet.
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(f"a point has no field {name!r}{self._has()}") from None

    def _has(self) -> str:
        values = self.__dict__.get("values")
        return f": it has {', '.join(values)}" if values else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """16 hexadecimal digits that name this point in every run: SHA-256 of the fields that are set."""
        if (known := self.__dict__.get("_id")) is not None:
            return known
        fields = {name: value for name, value in self.fields().items() if value is not None}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        made = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.__dict__["_id"] = made
        return made

    def shape(self) -> dict[str, int]:
        """The workload's dimensions by name, in order."""
        values = self.__dict__["values"]
        return {f.name: values[f.name] for f in self.workload.fields if f.is_dimension}

    def fields(self) -> Values:
        """All that makes the point, by the name of its column."""
        own = {"device_type": self.device_type, "precision": self.precision, "execution": self.execution}
        return {"workload": self.workload.name, **own, **self.values}

    def label(self) -> str:
        """A short line for people, such as `n=8 d=1024 m=128 fp32 eager`."""
        return " ".join(filter(None, (self.workload.label(self.values), self.precision, self.execution)))


def unit_of(precision: str) -> str:
    """The precision whose units compute, such as `fp8` for `fp8_rowwise`: scaling changes no peak and no counter."""
    return "fp8" if precision in FP8_SCALING else precision


def point_of(trial_id: str) -> str:
    """The point of a trial id: in a merged run, further measurements of a point add -2, -3, ... to its id."""
    return trial_id.partition("-")[0]
