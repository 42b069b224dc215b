"""What the methods of a workload must take and return, and how their errors are reported.

`Workload` puts `guarded` around every method that a subclass may define (`HOOKS`). An error inside becomes a
`WorkloadError` that names the file, the method and the point, and so does an unusable result: it is reported where it
was made, not where it first causes a failure.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flopray.description import Description
from flopray.errors import FloprayError, InputError, WorkloadError, brief
from flopray.point import Point
from flopray.workloads.built import Built
from flopray.workloads.operations import LAYOUTS, Bulk, Pass, Product, Update

if TYPE_CHECKING:
    import torch

#: Components of a closed form that every record has a column for.
COMPONENTS = ("gemm_flops", "activation_flops", "optimizer_flops")
#: Columns of every record that follow from the point, where the workload states them: name and type.
BESIDE: Mapping[str, type] = {
    **dict.fromkeys((*COMPONENTS, "recomputed_flops", "tokens_per_iteration"), int),
    "model_flops_reason": str,
}
#: Prefix of the name of a workload file's module; the hash of its text follows.
OF_A_FILE = "flopray_workload_"
_MARK = "_flopray_guarded"
#: What can be written into 64 bits, with a sign.
_LARGEST = 2**63 - 1


class _Wrong(Exception):
    """What is wrong with a result, in words."""


def guarded(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a workload whose errors and wrong results are `WorkloadError`s.

    Out of memory stays what it is, and so does an error of flopray, such as `Unsupported`.

    Args:
        name: of the method, one of `HOOKS`.
        hook: the method.
    """
    if hasattr(hook, _MARK):
        return hook

    @functools.wraps(hook)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return HOOKS[name](self, hook(self, *args, **kwargs), kwargs)
        except _Wrong as wrong:
            raise error_of(self, name, args, str(wrong)) from None
        except FloprayError:
            raise
        except (Exception, SystemExit) as error:
            if _is_out_of_memory(error):
                raise
            raise error_of(self, name, args, brief(error)) from error

    setattr(call, _MARK, True)
    return call


def error_of(workload: Description, name: str, args: tuple[Any, ...], said: str) -> FloprayError:
    """The error of a method. Where it was called without a point, nothing has begun yet and it is an `InputError`."""
    what = f"{place_of(workload)}.{name}"
    point = next((arg for arg in args if isinstance(arg, Point)), None)
    if point is None:
        return InputError(f"{what} failed: {said}")
    return WorkloadError(what, point_words(point), said)


def place_of(workload: Description) -> str:
    """Where the class is: `conv.py:ConvNet`, `my_package.models:ConvNet`, or its name alone."""
    cls = type(workload)
    if cls.__module__.startswith(OF_A_FILE):
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        return f"{Path(file).name}:{cls.__qualname__}" if file else cls.__qualname__
    own = cls.__module__ == "__main__" or cls.__module__.partition(".")[0] == "flopray"
    return cls.__qualname__ if own else f"{cls.__module__}:{cls.__qualname__}"


def point_words(point: Point) -> str:
    """The point as people know it, such as `c=12 s=16`."""
    return point.workload.label(point.values) or point.id


def wrong_signature(name: str, hook: Callable[..., Any], base: Callable[..., Any]) -> str | None:
    """How a method must be defined, where it does not take its arguments; None where it does."""
    wanted = inspect.signature(base)
    positional = [p for p in wanted.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = [p.name for p in wanted.parameters.values() if p.kind is p.KEYWORD_ONLY]
    try:
        inspect.signature(hook).bind(*([None] * len(positional)), **dict.fromkeys(keywords))
    except TypeError as error:
        words = [p.name for p in positional] + (["*", *keywords] if keywords else [])
        return f"{name} must be defined as {name}({', '.join(words)}): {error}"
    except ValueError:  # of a callable that has no signature
        return None
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    from flopray.workloads.execution import is_out_of_memory  # imports torch

    return is_out_of_memory(error)


# what each method must return


def _built(workload: Any, built: Any, asked: Mapping[str, Any]) -> Any:
    """A `Built` whose weights and input are of the device and the type that were asked for."""
    import torch

    del workload
    if not isinstance(built, Built):
        raise _Wrong(f"it must return Built(module, x) of flopray.workloads, got {_kind(built)}")
    if not isinstance(built.module, torch.nn.Module):
        raise _Wrong(f"the module of Built must be a torch.nn.Module, got {_kind(built.module)}")
    for what, tensor, needed in (("x", built.x, True), ("gradient", built.gradient, False)):
        if not isinstance(tensor, torch.Tensor) and (needed or tensor is not None):
            raise _Wrong(f"the {what} of Built must be a tensor, got {_kind(tensor)}")
    others = built.others
    if not isinstance(others, Mapping) or not all(callable(work) for work in others.values()):
        raise _Wrong("the others of Built must be callables by the name of their phase")
    weights = dict(built.module.named_parameters())
    if not weights:
        raise _Wrong("the module has no parameters, and so no training step")
    tensors = {**{f"the weight {name}": weight for name, weight in weights.items()}, "the input": built.x}
    for what, tensor in tensors.items():
        _check_dtype(what, tensor, asked.get("dtype"))
    tensors |= {} if built.gradient is None else {"the gradient": built.gradient}  # of a loss it may be float32
    for what, tensor in tensors.items():
        _check_device(what, tensor, asked.get("device"))
    return built


def _check_dtype(what: str, tensor: torch.Tensor, dtype: torch.dtype | None) -> None:
    """With numbers of another type the record would name a precision that was not measured."""
    if dtype is not None and tensor.dtype.is_floating_point and tensor.dtype is not dtype:
        short = [str(name).removeprefix("torch.") for name in (tensor.dtype, dtype)]
        raise _Wrong(f"{what} is {short[0]}, not {short[1]}: make it with dtype=dtype")


def _check_device(what: str, tensor: torch.Tensor, device: str | None) -> None:
    import torch

    wanted = torch.device(device) if device is not None else tensor.device
    numbers = (tensor.device.index, wanted.index)
    if tensor.device.type != wanted.type or (None not in numbers and numbers[0] != numbers[1]):
        raise _Wrong(f"{what} is on {tensor.device}, not on {wanted}: make it with device=device")


def _components(workload: Description, given: Any, _: object) -> Any:
    """FLOPs as exact numbers, by columns that the record has."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise _Wrong(f"it must return FLOPs by column, such as {{'gemm_flops': 12}}, or None, got {_kind(given)}")
    for name, flops in given.items():
        if name not in COMPONENTS and name not in (known := _known_components(workload)):
            raise _Wrong(f"unknown column {name!r:.60}: choose from {', '.join(known)}, or add it to columns as an int")
        whole = type(flops) is int or (isinstance(flops, numbers.Integral) and not isinstance(flops, bool))
        if not whole or flops < 0:
            raise _Wrong(f"{name} must be a whole number of FLOPs from 0, got {flops!r:.60}")
    return {name: int(flops) for name, flops in given.items()}


def _known_components(workload: Description) -> tuple[str, ...]:
    own = {column.name for column in workload.columns if column.type is int}
    return (*COMPONENTS, *(name for name in own if name not in COMPONENTS))


def _columns(workload: Description, given: Any, _: object) -> Any:
    """Values of columns that the record has, of their types."""
    if not isinstance(given, Mapping):
        raise _Wrong(f"it must return values by column, got {_kind(given)}")
    known: dict[str, type] = {**BESIDE, **{column.name: column.type for column in workload.columns}}
    return {name: _cell(name, value, known) for name, value in given.items()}


def _cell(name: Any, value: Any, known: Mapping[str, type]) -> Any:
    """A value as plain data, which any reader understands."""
    if name not in known:
        raise _Wrong(f"unknown column {name!r:.60}: add it to columns")
    kind = known[name]
    if value is None:
        return None
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        if abs(int(value)) > _LARGEST:
            raise _Wrong(f"{name} must fit into 64 bits, got {value!r:.60}")
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise _Wrong(f"{name} must be {_an(kind.__name__)} or None, got {value!r:.60}")


def _amount(workload: object, given: Any, _: object) -> Any:
    del workload
    real = type(given) in (int, float) or (isinstance(given, numbers.Real) and not isinstance(given, bool))
    if not real or not 0 <= float(given) < math.inf:
        raise _Wrong(f"it must return a number from 0, got {given!r:.60}")
    return given


def _number_or_none(workload: object, given: Any, _: object) -> Any:
    return None if given is None else _amount(workload, given, _)


def _operations(workload: object, given: Any, _: object) -> Any:
    """Operations whose numbers are counts."""
    del workload
    if given is None:
        return None
    if not isinstance(given, Sequence) or not all(isinstance(one, Product | Pass | Update | Bulk) for one in given):
        raise _Wrong(f"it must return operations of flopray.workloads.operations, or None, got {_kind(given)}")
    for one in given:
        sizes = {name: value for name, value in vars(one).items() if name not in ("layout", "attention", "token_rows")}
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
                raise _Wrong(f"{name} of {_an(type(one).__name__)} must be a whole number from 0, got {value!r:.60}")
        if isinstance(one, Product) and one.layout not in LAYOUTS:
            raise _Wrong(f"the layout of a Product must be one of {', '.join(LAYOUTS)}, got {one.layout!r:.60}")
    return tuple(given)


def _counts(workload: object, given: Any, _: object) -> Any:
    del workload
    whole = isinstance(given, Mapping) and all(
        n is None or isinstance(n, str) or (isinstance(n, numbers.Integral) and int(n) >= 0) for n in given.values()
    )
    if not whole:
        raise _Wrong(f"it must return whole numbers (or None, or a reason) by phase, got {given!r:.60}")
    return {phase: count if count is None or isinstance(count, str) else int(count) for phase, count in given.items()}


def _of_type(what: str, *types: type) -> Callable[[object, Any, object], Any]:
    def check(workload: object, given: Any, _: object) -> Any:
        del workload
        if not isinstance(given, types):
            raise _Wrong(f"it must return {what}, got {_kind(given)}")
        return given

    return check


def _completed(workload: object, given: Any, _: object) -> Any:
    del workload
    if not (isinstance(given, tuple) and len(given) == 2 and all(isinstance(part, Mapping) for part in given)):
        raise _Wrong(f"it must return axes and implied fields, two mappings, got {_kind(given)}")
    return given


def _kind(value: object) -> str:
    return "None" if value is None else _an(type(value).__name__)


def _an(word: str) -> str:
    return f"{'an' if word[:1].lower() in 'aeio' else 'a'} {word}"


#: Methods that a workload may define, with what they must return.
HOOKS: Mapping[str, Callable[[Any, Any, Any], Any]] = {
    "build": _built,
    "closed_form": _components,
    "beside": _columns,
    "dispatched": _counts,
    "parameters": _amount,
    "least_bytes": _amount,
    "least_moved_bytes": _amount,
    "reduction_elements": _number_or_none,
    "operations": _operations,
    "sentinel": _of_type("a point or None", Point, type(None)),
    "why_not": _of_type("a reason or None", str, type(None)),
    "complete": _completed,
    "overhead_s": _amount,
    "count_s": _amount,
    "loads_weights": _of_type("True or False", bool),
}
