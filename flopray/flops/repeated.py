"""Runs an operator on torch's meta device once for each set of shapes: equal shapes give equal shapes.

Most of torch's meta functions are Python and take a tenth of a millisecond. A model repeats its operators layer by
layer, and is counted in less than half of the time where their shapes are remembered.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: What is remembered of a process, before it is forgotten: some megabytes.
_MOST = 8192
_WORDS = (int, float, bool, complex, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
#: Stands for what cannot be remembered.
_UNKNOWN = object()


class RepeatedShapes(TorchDispatchMode):
    """Below this mode, results on the meta device are made from the shapes of those that equal arguments gave.

    Operators that change an argument or give a view of one run each time, and so does what has an argument on another
    device.
    """

    #: By operator and arguments: shape, strides and type of each result.
    _known: ClassVar[dict[Hashable, Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, or make what it would give."""
        del types
        kwargs = kwargs or {}
        key = (func, _key(args), _key(tuple(kwargs.items()))) if _makes_results(func) else (_UNKNOWN,)
        if _UNKNOWN in key:
            return func(*args, **kwargs)
        if (known := self._known.get(key, _UNKNOWN)) is not _UNKNOWN:
            return _made(known)
        out = func(*args, **kwargs)
        result = _result(out)
        if result is not _UNKNOWN:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = result
        return out


@cache
def _makes_results(func: Any) -> bool:
    """Whether an operator gives new tensors and leaves its arguments alone."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten":
        return False
    schema = func._schema
    return not schema.is_mutable and all(x.alias_info is None for x in (*schema.arguments, *schema.returns))


def _key(value: Any) -> Any:
    """What a result's shape depends on."""
    if isinstance(value, torch.Tensor):
        plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.device.type == "meta"
        if not plain or value.layout is not torch.strided or value.is_conj() or value.is_neg():
            return _UNKNOWN
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        keys = tuple([_key(one) for one in value])
        return _UNKNOWN if _UNKNOWN in keys else keys
    return (type(value), value) if isinstance(value, _WORDS) else _UNKNOWN


def _result(out: Any) -> Any:
    if out is None:
        return None
    if isinstance(out, torch.Tensor):
        return (tuple(out.shape), out.stride(), out.dtype) if _key(out) is not _UNKNOWN else _UNKNOWN
    if isinstance(out, (list, tuple)):
        results = [_result(one) for one in out]
        return _UNKNOWN if _UNKNOWN in results else results
    return _UNKNOWN


def _made(result: Any) -> Any:
    if result is None:
        return None
    if isinstance(result, list):
        return tuple([_made(one) for one in result])
    shape, strides, dtype = result
    return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
