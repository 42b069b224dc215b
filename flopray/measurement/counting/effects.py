"""The results of an operation, kept so that equal operations can be walked without launching kernels.

An effect may be repeated without numbers only where numbers cannot change what is launched later: the operation is
torch's own, returns no number to the host, writes nothing from the device to the host, and its results' shapes follow
from its arguments. Other operations have no effect that could be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

#: Operators whose results' shapes or host values follow from the numbers.
_BY_NUMBERS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
#: Namespaces whose operators state by tags and schemas what they do.
_OWN = ("aten", "prims")
#: Namespace of operators that mark code for a profiler.
_MARKS = "profiler"
#: A view whose schema does not say so.
_UNSAFE_VIEW = torch.ops.aten._unsafe_view.default


@dataclass(frozen=True)
class _Fresh:
    """A tensor in memory of its own."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    elements: int
    dtype: torch.dtype
    device: torch.device

    def result(self, given: list[Any]) -> torch.Tensor:
        """Such a tensor."""
        del given
        memory = torch.empty(self.elements, dtype=self.dtype, device=self.device)
        return memory.as_strided(self.shape, self.stride, self.offset)


@dataclass(frozen=True)
class _Argument:
    """An argument that is returned, as by operations in place."""

    index: int

    def result(self, given: list[Any]) -> Any:
        """The argument."""
        return given[self.index]


@dataclass(frozen=True)
class _Plain:
    """Nothing, or a number that follows from shapes."""

    value: int | None

    def result(self, given: list[Any]) -> int | None:
        """The value."""
        del given
        return self.value


@dataclass(frozen=True)
class Effect:
    """How an operation is repeated without launching kernels.

    Attributes:
        results: of the flattened output; None where the operation launches none and is simply called: views, and work
            of the host on the host's numbers.
        structure: of the output.
    """

    results: tuple[_Fresh | _Argument | _Plain, ...] | None = None
    structure: TreeSpec | None = None

    @property
    def makes_memory(self) -> bool:
        """Whether a result would be memory without numbers."""
        return any(isinstance(result, _Fresh) for result in self.results or ())

    def repeat(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The operation's results, with whatever numbers are in the memory."""
        if self.results is None:
            return func(*args, **kwargs)
        assert self.structure is not None
        needs_arguments = any(isinstance(result, _Argument) for result in self.results)
        given = tree_flatten((args, kwargs))[0] if needs_arguments else []
        return tree_unflatten([result.result(given) for result in self.results], self.structure)


def effect_of(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any, device: str) -> Effect | None:
    """The effect of an operation that was just launched.

    Args:
        func: the operator.
        args: its arguments.
        kwargs: its keyword arguments.
        out: what it gave back.
        device: type of the device whose kernels are counted.

    Returns:
        None where the operation must be launched each time.
    """
    given, (results, structure) = tree_flatten((args, kwargs))[0], tree_flatten(out)
    tensors = [value for value in (*given, *results) if isinstance(value, torch.Tensor)]
    if func.namespace == _MARKS or (tensors and all(tensor.device.type != device for tensor in tensors)):
        return Effect()  # the host's numbers never come from the device, so they are right
    if func.namespace not in _OWN or any(tag in func.tags for tag in _BY_NUMBERS):
        return None
    written = _written(func, args, kwargs)
    if any(tensor.device.type != device for tensor in (*written, *_tensors(results))):
        return None
    if not written and _is_view(func):
        return Effect()
    kept = [_kept(value, given) for value in results]
    whole = tuple(one for one in kept if one is not None)
    return Effect(whole, structure) if len(whole) == len(kept) else None


def _tensors(values: list[Any]) -> list[torch.Tensor]:
    return [value for value in values if isinstance(value, torch.Tensor)]


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """Tensors that the operator's schema says it writes to."""
    found: list[torch.Tensor] = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            found += _tensors(tree_flatten(value)[0])
    return found


def _is_view(func: Any) -> bool:
    return func is _UNSAFE_VIEW or any(argument.alias_info is not None for argument in func._schema.arguments)


def _kept(value: Any, given: list[Any]) -> _Fresh | _Argument | _Plain | None:
    """What is kept of one result; None where it cannot be made again."""
    if not isinstance(value, torch.Tensor):
        # A count or a flag that no tag calls dependent on numbers follows from shapes.
        return _Plain(value) if value is None or isinstance(value, bool | int) else None
    for index, one in enumerate(given):
        if one is value:
            return _Argument(index)
    plain = type(value) is torch.Tensor and value.layout is torch.strided and not value.is_quantized
    if not plain or value.is_conj() or value.is_neg() or _shares_memory(value, given):
        return None
    elements = value.untyped_storage().nbytes() // value.element_size()
    return _Fresh(tuple(value.shape), value.stride(), int(value.storage_offset()), elements, value.dtype, value.device)


def _shares_memory(value: torch.Tensor, given: list[Any]) -> bool:
    address = value.untyped_storage().data_ptr()
    return address != 0 and any(
        one.layout is torch.strided and one.untyped_storage().data_ptr() == address for one in _tensors(given)
    )
