"""Counts a phase operation by operation, each distinct one once.

The layers of a deep model launch the same kernels on the same shapes, and reading the counters of one kernel takes
Nsight Compute 7 to 10 ms. So only the first of equal operations is launched inside an NVTX range, where its kernels are
counted; the others run outside and are added as many times as they occur. Two operations are
equal when a library that chooses kernels cannot tell them apart: the same operator on tensors of the same shapes,
strides, types and alignment, with the same other arguments, at the same precision.

A kernel whose work depended on the numbers themselves would be missed by that; `every_launch` counts all of them, and
`bench/counters.py` compares both ways.

Processes that count one after the other hand on what they know, so the later ones read new operations only.

Once every operation of a point is known, launching it would only show how often each one occurs, and Nsight Compute
slows launches that it does not count, too. Such a point is walked `Unlaunched`: operations return memory without
numbers. Where the numbers could decide what is launched, because the host would see them, the walk ends with
`MustLaunch`, and the point is launched.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flopray.measurement.counting.effects import Effect, effect_of

#: Kernels are chosen by the alignment of their operands too; cuBLASLt, the most demanding, checks for this many bytes
#: (https://docs.nvidia.com/cuda/cublas/#cublasltmatmulpreferenceattributes-t).
_ALIGNMENT = 256

Within = Callable[[int], AbstractContextManager[object]]


class MustLaunch(Exception):
    """What an operation does is not known without launching it."""


class Operations:
    """The distinct operations so far, numbered in the order of their first occurrence."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._effects: dict[object, Effect | None] = {}
        self.names: list[str] = []
        self.pointwise: list[bool] = []
        #: An operation occurred again that can never be walked without a launch.
        self.need_launches = False

    def number(self, key: object, operator: Any) -> tuple[int, bool]:
        """The operation's number, and whether it occurs for the first time."""
        known = self._numbers.get(key)
        if known is not None:
            return known, False
        number = self._numbers[key] = len(self.names)
        self.names.append(str(operator))
        self.pointwise.append(torch.Tag.pointwise in getattr(operator, "tags", ()))
        return number, True

    def saved(self) -> bytes:
        """For a later process of this machine; empty where an effect cannot be saved."""
        try:
            content = pickle.dumps(self)
            pickle.loads(content)
        except Exception:  # the types of results may be a workload's own
            return b""
        return content

    @staticmethod
    def loaded(content: bytes) -> Operations:
        """What `saved` gave to this process's parent."""
        return pickle.loads(content)

    def forget(self, key: object) -> None:
        """An operation failed: the next of its kind is the first whose kernels can be counted."""
        del self._numbers[key]

    def learn(self, key: object, effect: Callable[[], Effect | None]) -> None:
        """Keep the effect of an operation, or that it cannot be known without a launch."""
        if key not in self._effects:
            self._effects[key] = effect()

    def known(self, key: object, *, counted: bool) -> tuple[int | None, Effect]:
        """The number and the effect of an operation.

        Args:
            key: of the operation.
            counted: whether its kernels must have been counted.

        Raises:
            MustLaunch: it has to be launched.
        """
        effect, number = self._effects.get(key), self._numbers.get(key)
        self.need_launches |= effect is None and key in self._effects
        if effect is None or (counted and number is None):
            raise MustLaunch
        return number, effect


class Walk(TorchDispatchMode):
    """While it is active, operations are launched and counted, and new ones run inside a range.

    Args:
        operations: met so far; grows.
        precision: of the work; the same operation is another one at another precision.
        within: makes the range of an operation from its number; None where operations are not counted.
        device: type of the device whose kernels are counted.
    """

    def __init__(self, operations: Operations, precision: str, within: Within | None, *, device: str = "cuda") -> None:
        super().__init__()
        self._operations, self._precision, self._within, self._device = operations, precision, within, device
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, inside a range if it is the first of its kind."""
        del types
        kwargs = kwargs or {}
        key = _operation_key(self._precision, func, args, kwargs)
        out = self._launch(key, func, args, kwargs)
        self._operations.learn(key, lambda: effect_of(func, args, kwargs, out, self._device))
        return out

    def _launch(self, key: object, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._within is None:
            return func(*args, **kwargs)
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


class Unlaunched(TorchDispatchMode):
    """While it is active, operations are counted and not launched: each returns what an equal one returned before.

    Args:
        operations: met so far.
        precision: of the work.
        counted: whether the work is counted: then each operation must have a number.

    Attributes:
        counts: times of each operation, by number.
        memory: in place of results; it holds no numbers.
    """

    def __init__(self, operations: Operations, precision: str, *, counted: bool) -> None:
        super().__init__()
        self._operations, self._precision, self._counted = operations, precision, counted
        self._ended = False
        self.counts: Counter[int] = Counter()
        self.memory: list[StorageWeakRef] = []

    def check(self) -> None:
        """Check that no operation had to be launched, even if the work caught the exception.

        Raises:
            MustLaunch: one had to be.
        """
        if self._ended:
            raise MustLaunch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count an operation and return memory in place of its results.

        Raises:
            MustLaunch: it has to be launched.
        """
        del types
        kwargs = kwargs or {}
        key = _operation_key(self._precision, func, args, kwargs)
        try:
            number, effect = self._operations.known(key, counted=self._counted)
        except MustLaunch:
            self._ended = True
            raise
        if number is not None:
            self.counts[number] += 1
        out = effect.repeat(func, args, kwargs)
        if effect.makes_memory:
            made = (one for one in tree_leaves(out) if isinstance(one, torch.Tensor))
            self.memory += [StorageWeakRef(tensor.untyped_storage()) for tensor in made]
        return out


def _operation_key(precision: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    return (precision, str(func), _key(args), _key(tuple(sorted(kwargs.items()))))


def _key(value: Any) -> object:
    """The properties of an argument that decide which kernels run."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.stride(), value.dtype, value.device.type, _alignment(value))
    if isinstance(value, tuple | list):
        return tuple(_key(item) for item in value)
    if isinstance(value, torch.Generator):
        return ("generator", value.device.type)  # its state decides numbers only
    if isinstance(value, torch.ScriptObject):
        return ("object", str(value._type()))  # its text is an address; torch's own object is a profiler's mark
    return repr(value)


def _alignment(tensor: torch.Tensor) -> int:
    """Largest power of two, up to `_ALIGNMENT`, that divides the address."""
    address = tensor.data_ptr() | _ALIGNMENT
    return address & -address
