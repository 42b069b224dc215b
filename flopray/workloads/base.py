"""What a workload is: a class that states its fields, builds its model, and says what is known before it is measured.

Only `name`, `fields` and `build` are needed. Everything else has a default that is found from the model itself, on
torch's meta device, which computes shapes only.

    class TwoLayers(Workload):
        "Two square layers."
        name = "two_layers"
        fields = (Field(name="width", letter="d", values=(64, 128)), Field(name="rows", letter="m", values=(32,)))

        def build(self, point, *, device, dtype, seed):
            layers = [torch.nn.Linear(point.width, point.width, device=device, dtype=dtype) for _ in range(2)]
            return Built(torch.nn.Sequential(*layers), torch.randn(point.rows, point.width, device=device, dtype=dtype))

Measured as `flopray sweep my_file.py:TwoLayers`. The file is run on every node of the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from flopray.description import Column, Description, Field
from flopray.errors import Unsupported
from flopray.point import FP8_SCALING, Point
from flopray.records import Row
from flopray.workloads.built import Built
from flopray.workloads.contract import HOOKS, guarded
from flopray.workloads.declaration import Declaration, check_declaration
from flopray.workloads.operations import Operation

if TYPE_CHECKING:
    import torch

__all__ = ["Built", "Column", "Field", "Source", "Workload", "workload_of"]

#: Bytes of a number in memory at each precision. In fp8 weights and activations are bf16, and cast for each product.
ELEMENT_BYTES = MappingProxyType({"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, **dict.fromkeys(FP8_SCALING, 2)})

#: FLOPs of AdamW for one parameter, every operation (also square root and division) as one: weight decay 2 (multiply,
#: subtract), first moment 3, second moment 4, both bias corrections 2, square root and epsilon 2, update 3 (multiply,
#: divide, subtract). Source: the algorithm box of https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html
ADAMW_FLOPS = 16

_NO_CLOSED_FORM = "the workload states no closed form"
#: Phases that run with gradients, and so keep each layer's output; that make gradients; and that keep the two moments.
KEEPS_ACTIVATIONS = ("forward", "backward", "forward_backward", "optimizer_step", "train_step")
GIVES_GRADIENTS = ("backward", "forward_backward", "optimizer_step", "train_step")
KEEPS_MOMENTS = ("optimizer_step", "train_step")
#: Backward passes that free what the forward pass kept, layer by layer, as they make gradients.
FREES_ACTIVATIONS = ("forward_backward", "train_step")


@dataclass(frozen=True)
class Source:
    """The file that a workload was found in.

    Attributes:
        path: absolute path.
        class_name: of the workload.
        text: of the file when it was loaded.
        sha256: of that text, hexadecimal.
    """

    path: str
    class_name: str
    text: str
    sha256: str


class Workload(Declaration):
    """A kind of model that can be swept, measured, drawn and merged. Subclasses set the attributes and `build`.

    With values it is one shape of it: `MLP(n_layers=8, width=1024, tokens=128)`.

    Attributes:
        name: of the workload, as the column `workload` has it.
        fields: what makes a point besides device type, precision and execution.
        columns: further columns of the record, which `beside` and `closed_form` fill.
        phases, default_phases, gpu_precisions, gpu_execution, figures, run_name, examples: what a sweep of it does and
            says, see `flopray.workloads.declaration.Declaration`.
        convention: one line on what the closed form counts; None where there is no closed form, and the dispatcher's
            count stands alone.
        sees_attention: whether the implementation of attention that runs is looked up and recorded.
        same_count: fields that do not change the dispatcher's count, with a value for all of them.
        family: workloads with the same one are fitted together (`flopray.predict`); empty takes the name.
        reads_models: whether stating its operations reads a model's configuration, which imports torch.
        as_a_whole: whether its phase is run once and watched, instead of being repeated in a window; only
            `flopray.workloads.evaluation` is.

    Raises:
        SpecError: a value that no point can have.
    """

    convention: ClassVar[str | None] = None
    sees_attention: ClassVar[bool] = False
    same_count: ClassVar[Mapping[str, Any]] = {}
    family: ClassVar[str] = ""
    reads_models: ClassVar[bool] = False
    as_a_whole: ClassVar[bool] = False
    #: Set where the class was loaded from a file.
    source: Source | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap the subclass's methods: their errors name them, and their results are checked (`workloads.contract`)."""
        super().__init_subclass__(**kwargs)
        for name in HOOKS:
            hook = getattr(cls, name)
            if hook is not getattr(Workload, name):
                setattr(cls, name, guarded(name, hook))

    def __init__(self, **values: Any) -> None:
        self.check_names()
        check_declaration(self)
        self.values = self.checked(values) if values else {}

    def __repr__(self) -> str:
        """Such as `MLP(n_layers=8, width=1024, tokens=128)`."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.values == getattr(other, "values", None)

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> Any:
        """To another process, which may not have the file: the description alone."""
        if self.source is not None:
            return Description.from_dict, (self.to_dict(),)
        return super().__reduce__()

    def point(self, *, device_type: str, precision: str = "fp32", execution: str = "eager", **values: Any) -> Point:
        """One point.

        Args:
            device_type: type of device as Ray names it, or `CPU`.
            precision: one of `flopray.point.PRECISIONS`.
            execution: one of `flopray.point.EXECUTIONS`.
            **values: of the fields, besides those that the workload was made with.

        Raises:
            SpecError: a field that is missing or has a value that cannot be.
        """
        given = {**self.values, **values}
        return Point(workload=self, device_type=device_type, precision=precision, execution=execution, values=given)

    # methods that must be defined

    def build(self, point: Point, *, device: str, dtype: torch.dtype, seed: int) -> Built:
        """The model and its input, made on the device from a fixed seed.

        Args:
            point: its fields are attributes, such as `point.width`.
            device: a torch device; `meta` makes shapes without memory.
            dtype: type of weights and input.
            seed: the same seed gives the same numbers on the same device.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build(self, point, *, device, dtype, seed)")

    # methods that may be defined

    def closed_form(self, point: Point, phase: str) -> Mapping[str, int] | None:
        """FLOPs of one iteration of a phase, by disjoint components; their sum is `model_flops`.

        Returns:
            Counts by column (`gemm_flops`, `activation_flops`, `optimizer_flops` or columns of `columns`); None where
            there is no closed form.
        """
        del point, phase
        return None

    def beside(self, point: Point, phase: str) -> Mapping[str, Any]:
        """Further columns of the record that follow from the point."""
        del point, phase
        return {}

    def dispatched(self, point: Point) -> Mapping[str, int | str | None]:
        """FLOPs at torch's dispatcher by phase, counted on the meta device; a text is the reason why there are none."""
        from flopray.workloads.meta import count_phases

        built = _on_meta(point)
        return count_phases(built.module, built.x, built.others)

    def parameters(self, point: Point) -> int:
        """Number of weights of the model."""
        return _weights(type(self), point)[0]

    def least_bytes(self, point: Point, phase: str, element_bytes: int) -> int:
        """Least memory for a phase to run, in bytes; here weights, gradients and moments.

        Args:
            point: the point.
            phase: one of `phases`, or `weights` for what all of them need.
            element_bytes: of the precision's type.
        """
        weights = self.parameters(point)
        return (weights + (copies_of_weights(phase) - 1) * (weights - self._frozen(point))) * element_bytes

    def least_moved_bytes(self, point: Point, phase: str, element_bytes: int) -> int:
        """Bytes that one iteration reads and writes at least, each operand once; here those of the weights alone.

        A pass reads the weights; a backward pass writes gradients too; AdamW reads weights, gradients and both moments,
        and writes all but the gradients. Those that are frozen have no gradients and no moments.
        """
        passes = {"optimizer_step": 0, "forward_backward": 2, "train_step": 2}.get(phase, 1)
        trained = {"backward": 1, "forward_backward": 1, "optimizer_step": 7, "train_step": 8}.get(phase, 0)
        weights = self.parameters(point)
        return (passes * weights + trained * (weights - self._frozen(point))) * element_bytes

    def _frozen(self, point: Point) -> int:
        """Weights that are not trained, where the module says how many there are."""
        return _weights(type(self), point)[1] if type(self).parameters is Workload.parameters else 0

    def operations(self, point: Point, phase: str) -> Sequence[Operation] | None:
        """What one iteration of a phase asks of a device, for predicting time and energy (`flopray.predict`).

        Returns:
            Operations of `flopray.workloads.operations`; None where only sums are known, such as the closed form's.
        """
        del point, phase
        return None

    def reduction_elements(self, point: Point, phase: str) -> int | None:
        """Elements that `splitk_per_element` refers to; None where there is no such number."""
        del point, phase
        return None

    def sentinel(self, point: Point) -> Point | None:
        """The point that is measured repeatedly to see drift; None takes a small MLP, which is quickly built."""
        del point
        return None

    def why_not(self, point: Point, capability: tuple[int, int] | None) -> str | None:
        """Why no phase of a point can run on its type of device; None where nothing is against it.

        Here: layers that have no fp8, where that is asked for.

        Args:
            point: the point.
            capability: compute capability of its GPU; None on a CPU, and of a GPU that is not known.
        """
        del capability
        return _why_no_fp8(type(self), point) if point.precision in FP8_SCALING else None

    def complete(
        self, axes: Mapping[str, tuple[Any, ...]]
    ) -> tuple[Mapping[str, tuple[Any, ...]], Mapping[str, Mapping[Any, Mapping[str, Any]]]]:
        """Look up the models, tasks or files that values of a sweep name, before anything starts.

        Args:
            axes: values by field.

        Returns:
            The axes, with values as the record has them; and the implied fields: by field and value, what further
            fields follow from it.

        Raises:
            InputError: a value that names nothing.
        """
        return axes, {}

    def overhead_s(self, point: Point, phase: str) -> float:
        """Predicted seconds of a phase beside its iterations: first calls, freeing memory."""
        del point, phase
        return 0.0

    def launch_s(self, point: Point, phase: str) -> float:
        """Predicted seconds in which the host launches the operations of an iteration one by one; 0 is not known."""
        del point, phase
        return 0.0

    def count_s(self, point: Point) -> float:
        """Predicted seconds of counting a point at the dispatcher."""
        del point
        return 0.0

    def loads_weights(self, point: Point) -> bool:
        """Whether weights are read from a disk, instead of being drawn."""
        del point
        return False

    def code_of(self, axes: Mapping[str, tuple[Any, ...]]) -> str | None:
        """A digest of code that values of a sweep name, such as a user's own tasks; None where they name none.

        A resume runs this code only if this user ran it here before, since the run may be a stranger's.
        """
        del axes
        return None


def workload_of(point: Point) -> Workload:
    """The workload of a point, with its code.

    Raises:
        Unsupported: the point came from another process, without its code.
    """
    return with_code(point.workload)


def with_code(description: Description) -> Workload:
    """The same as a workload, where it is one.

    Raises:
        Unsupported: it is a description alone, from a run's manifest or another process.
    """
    if not isinstance(description, Workload):
        raise Unsupported(f"the code of the workload {description.name} is not loaded in this process")
    return description


def closed_columns(point: Point, phase: str) -> Row:
    """The record's columns of the closed form: `model_flops`, its components, its convention, and further columns.

    `least_moved_bytes` is there where the workload counts it: the default counts the weights alone, and a phase touches
        more.

    Args:
        point: the point.
        phase: one of its workload's phases.

    Returns:
        Counts of one iteration, as exact integers; without a closed form, the further columns alone.
    """
    workload = workload_of(point)
    columns = {**workload.beside(point, phase)}
    if (components := workload.closed_form(point, phase)) is not None:
        columns |= {
            "model_flops": sum(components.values()),
            "model_flops_convention": workload.convention,
            **components,
        }
    else:
        columns.setdefault("model_flops_reason", _NO_CLOSED_FORM)
    if type(workload).least_moved_bytes is not Workload.least_moved_bytes:
        moved = workload.least_moved_bytes(point, phase, ELEMENT_BYTES[point.precision])
        columns["least_moved_bytes"] = int(moved) or None  # the workload states nothing
    return columns


def copies_of_weights(phase: str) -> int:
    """Tensors as large as the weights that a phase keeps: weights, gradients, and the optimizer's two moments."""
    return 1 + (phase in GIVES_GRADIENTS) + 2 * (phase in KEEPS_MOMENTS)


def held_at_once(phase: str, *, weights: int, trained: int, kept: int) -> int:
    """What a phase holds at least at its fullest moment, in the unit of its arguments.

    A backward pass that frees activations as it makes gradients never holds all of both: when it begins there are no
    gradients, when it ends no activations.

    Args:
        phase: one of `flopray.records.PHASES`.
        weights: all.
        trained: those that have gradients and moments.
        kept: activations, logits, or a cache.
    """
    gradients = trained if phase in GIVES_GRADIENTS else 0
    moments = 2 * trained if phase in KEEPS_MOMENTS else 0
    between = max(gradients, kept) if phase in FREES_ACTIVATIONS else gradients + kept
    return weights + moments + between


@lru_cache(maxsize=4096)
def _weights(_: type[Workload], point: Point) -> tuple[int, int]:
    """All weights of a shape, and the frozen ones.

    Another class of the same name, such as that of a file that changed, has its own.
    """
    weights = list(_on_meta(point).module.parameters())
    trained = any(weight.requires_grad for weight in weights)
    frozen = sum(weight.numel() for weight in weights if not weight.requires_grad) if trained else 0
    return sum(weight.numel() for weight in weights), frozen


@lru_cache(maxsize=4096)
def _why_no_fp8(_: type[Workload], point: Point) -> str | None:
    from flopray.workloads import float8

    return float8.why_not_module(_on_meta(point).module)


def _on_meta(point: Point) -> Built:
    """The model without memory."""
    import torch

    return workload_of(point).build(point, device="meta", dtype=torch.float32, seed=0)
