"""Counts a phase operation by operation, each distinct one once.

The hundred layers of a deep model launch the same kernels on the same shapes again and again, and reading the counters
of one kernel takes Nsight Compute 7 to 10 ms. So only the first of equal operations is launched inside an NVTX range,
where its kernels are counted; the others run outside and are added as many times as they occur. Two operations are
equal when a library that chooses kernels cannot tell them apart: the same operator on tensors of the same shapes,
strides, types and alignment, with the same other arguments, at the same precision.

A kernel whose work depended on the numbers themselves would be missed by that; `every_launch` counts all of them, and
`bench/counters.py` compares both ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Kernels are chosen by the alignment of their operands too; cuBLASLt, which asks for most, looks for so many bytes
#: (https://docs.nvidia.com/cuda/cublas/#cublasltmatmulpreferenceattributes-t).
_ALIGNMENT = 256


class Operations:
    """The distinct operations that were met so far, numbered in the order they were met."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self.names: list[str] = []
        self.pointwise: list[bool] = []

    def number(self, key: object, operator: Any) -> tuple[int, bool]:
        """The operation's number, and whether it is met for the first time."""
        known = self._numbers.get(key)
        if known is not None:
            return known, False
        number = self._numbers[key] = len(self.names)
        self.names.append(str(operator))
        self.pointwise.append(torch.Tag.pointwise in getattr(operator, "tags", ()))
        return number, True

    def forget(self, key: object) -> None:
        """An operation failed: the next of its kind is the first whose kernels can be counted."""
        del self._numbers[key]


class Walk(TorchDispatchMode):
    """While it is active, operations are counted, and new ones run inside a range.

    Args:
        operations: met so far; grows.
        precision: of the work; the same operation is another one at another precision.
        within: makes the range of an operation from its number.
    """

    def __init__(
        self, operations: Operations, precision: str, within: Callable[[int], AbstractContextManager[object]]
    ) -> None:
        super().__init__()
        self._operations, self._precision, self._within = operations, precision, within
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, inside a range if it is the first of its kind."""
        del types
        kwargs = kwargs or {}
        key = (self._precision, str(func), _key(args), _key(tuple(sorted(kwargs.items()))))
        number, new = self._operations.number(key, func)
        self.counts[number] += 1
        if not new:
            return func(*args, **kwargs)
        try:
            with self._within(number):
                return func(*args, **kwargs)
        except BaseException:
            self._operations.forget(key)
            raise


def _key(value: Any) -> object:
    """What of an argument decides which kernels run."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.stride(), value.dtype, value.device.type, _alignment(value))
    if isinstance(value, tuple | list):
        return tuple(_key(item) for item in value)
    return repr(value)


def _alignment(tensor: torch.Tensor) -> int:
    """Largest power of two, up to `_ALIGNMENT`, that divides the address."""
    address = tensor.data_ptr() | _ALIGNMENT
    return address & -address
