"""What makes a point of a sweep: a workload's shape at one precision and execution on one type of device.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from flopray.errors import SpecError

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
EXECUTIONS = ("eager", "graph", "compile")
ATTENTIONS = ("auto", "flash", "efficient", "cudnn", "math")
WEIGHTS = ("random", "pretrained")
#: The fields that make a shape, for each workload; the order is the order of the axes in plots and tables.
SHAPE_FIELDS = {"mlp": ("n_layers", "width", "tokens"), "llama": ("batch_size", "sequence_length")}
#: What else makes a point of a workload, beside precision and execution.
CHOICE_FIELDS = {"mlp": (), "llama": ("model", "model_config", "weights", "attention", "checkpointing")}
#: Short names of dimensions, on labels.
LETTERS = {"n_layers": "n", "width": "d", "tokens": "m", "batch_size": "b", "sequence_length": "t"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a sweep: a workload's shape at one precision and execution on one type of device.

    Raises:
        SpecError: an unknown workload, precision or execution, or a dimension that is missing or not positive.
    """

    workload: str
    device_type: str
    precision: str = "fp32"
    execution: str = "eager"
    n_layers: int | None = None
    width: int | None = None
    tokens: int | None = None
    model: str | None = None
    model_config: str | None = None
    weights: str | None = None
    attention: str | None = None
    checkpointing: bool | None = None
    batch_size: int | None = None
    sequence_length: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("workload", self.workload, tuple(SHAPE_FIELDS)),
            ("precision", self.precision, PRECISIONS),
            ("execution", self.execution, EXECUTIONS),
            *self._choices(),
        ):
            if value not in known:
                raise SpecError(f"unknown {name} {value!r}: choose from {', '.join(known)}")
        for name, value in self.shape().items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpecError(f"{name} of the {self.workload} must be a whole number of at least 1, got {value!r}")

    @property
    def id(self) -> str:
        """16 hexadecimal digits that name this point in every run: SHA-256 of the fields that are set."""
        # By name: `dataclasses.asdict` copies deeply and takes five times as long, a second for 100,000 points.
        fields = {k: v for k in _SPEC_FIELDS if (v := getattr(self, k)) is not None}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def shape(self) -> dict[str, int]:
        """The workload's dimensions by name, in the order of `SHAPE_FIELDS`."""
        return {name: getattr(self, name) for name in SHAPE_FIELDS[self.workload]}

    def fields(self) -> dict[str, Any]:
        """All that makes the point, by name; `Point(**fields)` is the point again."""
        names = ("workload", "device_type", "precision", "execution", *CHOICE_FIELDS[self.workload])
        return {name: getattr(self, name) for name in names} | self.shape()

    def label(self) -> str:
        """A short line for people, such as `n=8 d=1024 m=128 fp32 eager`."""
        return label_of(self)

    def _choices(self) -> tuple[tuple[str, Any, tuple[str, ...]], ...]:
        """Further words that a workload must choose, with what there is to choose from."""
        if self.workload != "llama":
            return ()
        if not self.model:
            raise SpecError("a Llama needs the name of its model")
        return ("weights", self.weights, WEIGHTS), ("attention", self.attention, ATTENTIONS)


def point_of(trial_id: str) -> str:
    """The point of a trial id: in a merged run, further measurements of a point have its id with -2, -3, ... behind."""
    return trial_id.partition("-")[0]


_SPEC_FIELDS = tuple(f.name for f in dataclasses.fields(Point))


def label_of(point: Any) -> str:
    """The label of a point, from its `Point` or from a `PhaseRecord` of it."""
    dims = (f"{LETTERS[name]}={getattr(point, name)}" for name in SHAPE_FIELDS.get(point.workload, ()))
    return " ".join(filter(None, (point.model, *dims, point.precision, point.execution)))
