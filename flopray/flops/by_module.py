"""FLOPs at the dispatcher by module and operator, forward and backward, and those that the mathematics does not need.

The module of an operation is the innermost one whose forward pass runs. In a backward pass it is the module that made
the node of the graph: torch numbers nodes in the order they are made, and the number of the node that is walked says
which operation of the forward pass made it. (The profiler pairs both passes in the same way:
https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.profiler.profile.) No hooks are on tensors, so that
the step does the same as without counting.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

from flopray.flops.comparison import ModuleCount, OperatorCount
from flopray.flops.dispatched import Operation, count_dispatched

#: A level that `torch.compile` puts around a module.
_WRAPPED = "_orig_mod"
_CHECKPOINT = "torch/utils/checkpoint.py"
#: In fused attention's backward pass one product of five computes the scores again, which the mathematics already has.
_SCORES_AGAIN = 5


def count_by_module(step: Callable[[], object]) -> ModuleCount:
    """Call a step once and count what it dispatches, by module and operator.

    Args:
        step: any callable without arguments.

    Returns:
        The counts; the total is missing with its reason where it would be partial.

    Example:
        >>> layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
        >>> count = count_by_module(lambda: layers(torch.ones(2, 8)))
        >>> count.flops
        768
        >>> [(".".join(one.module), one.flops) for one in count.operators]
        [('Sequential.0', 512), ('Sequential.1', 256)]
    """
    with _Modules() as modules, warnings.catch_warnings():
        # A compiled module calls the hooks of its wrapper too, which is no level here.
        warnings.filterwarnings("ignore", message="Using `torch.compile.*global hooks")
        seen = _Seen(modules)
        count = count_dispatched(step, seen)
    return ModuleCount(
        flops=count.flops,
        reason=count.reason,
        operators=tuple(seen.operators.values()),
        attention_flops=seen.attention_flops,
        causal_flops=seen.causal_flops,
        recomputed_flops=seen.recomputed_flops,
        scores_again_flops=seen.scores_again_flops,
        convolution_flops=seen.convolution_flops,
        elementwise_calls=seen.elementwise_calls,
        product_types=tuple(sorted(seen.product_types)),
    )


@dataclass
class _Seen:
    """Adds up operations."""

    modules: _Modules

    def __post_init__(self) -> None:
        self.operators: dict[tuple[Any, ...], OperatorCount] = {}
        self.attention_flops = self.causal_flops = self.recomputed_flops = self.scores_again_flops = 0
        self.convolution_flops = self.elementwise_calls = 0
        self.product_types: set[str] = set()

    def __call__(self, operation: Operation) -> None:
        module, direction = self.modules.place()
        if operation.flops == 0:
            self.elementwise_calls += 1
            return
        key = module, operation.name, direction
        before = self.operators.get(key) or OperatorCount(module, operation.name, direction, 0, 0)
        flops = None if operation.flops is None or before.flops is None else before.flops + operation.flops
        self.operators[key] = replace(before, calls=before.calls + 1, flops=flops)
        self.product_types |= {
            str(_kept_as(leaf)).removeprefix("torch.")
            for leaf in tree_leaves(_operands(operation))
            if isinstance(leaf, torch.Tensor) and leaf.dtype.is_floating_point
        }
        self._add_kinds(operation, operation.flops or 0, direction)

    def _add_kinds(self, operation: Operation, flops: int, direction: str) -> None:
        if direction == "recomputed":
            self.recomputed_flops += flops
        if "convolution" in operation.name:
            self.convolution_flops += flops
        if "attention" in operation.name:
            self.attention_flops += flops
            self.causal_flops += flops if _is_causal(operation) else 0
            self.scores_again_flops += flops // _SCORES_AGAIN if "backward" in operation.name else 0


def _operands(operation: Operation) -> tuple[Any, ...]:
    """The operands that are multiplied: those of a scaled product are followed by their scales."""
    scaled = operation.name.startswith("aten._scaled_") and operation.name.endswith("mm")
    return operation.args[:2] if scaled else operation.args


def _kept_as(operand: torch.Tensor) -> torch.dtype:
    """The type that a product reads: torchao's tensors of fp8 state the one that they were cast from."""
    numbers = getattr(operand, "_data", None) if type(operand).__name__ == "Float8TrainingTensor" else None
    return operand.dtype if numbers is None else numbers.dtype


def _is_causal(operation: Operation) -> bool:
    """Whether fused attention was asked for its lower triangle alone."""
    for place, argument in enumerate(operation.operator._schema.arguments):
        if argument.name in ("is_causal", "causal"):
            given = operation.args[place] if place < len(operation.args) else operation.kwargs.get(argument.name)
            return bool(given)
    return False


class _Modules(AbstractContextManager["_Modules"]):
    """Tracks which module is running, by hooks on all modules."""

    def __init__(self) -> None:
        self._thread = threading.local()
        self._names: dict[int, dict[int, str]] = {}
        self._paths: dict[int, tuple[str, ...]] = {}
        self._made_by: dict[int, tuple[str, ...]] = {}

    def __enter__(self) -> _Modules:
        self._hooks = (
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def _stack(self) -> list[tuple[torch.nn.Module, tuple[str, ...]]]:
        """Modules whose forward pass runs in this thread, the innermost last."""
        if not hasattr(self._thread, "stack"):
            self._thread.stack = []
        return self._thread.stack

    def place(self) -> tuple[tuple[str, ...], str]:
        """The path of the module, and `forward`, `backward` or `recomputed`."""
        inner = self._stack[-1][1] if self._stack else ()
        number = torch.autograd._get_sequence_nr() - 1  # type: ignore[attr-defined]
        if torch._C._current_graph_task_id() == -1:
            if torch.is_grad_enabled():
                self._made_by.setdefault(number, inner)
            return inner, "forward"
        if torch.is_grad_enabled() and _in_checkpoint():
            self._made_by[number] = inner
            return inner, "recomputed"
        node = torch._C._current_autograd_node()
        return self._made_by.get(node._sequence_nr(), inner) if node is not None else inner, "backward"

    def _enter_module(self, module: torch.nn.Module, _: object) -> None:
        if not self._stack and id(module) in self._paths:  # checkpointing runs it once more, outside of the others
            self._stack.append((module, self._paths[id(module)]))
            return
        above, path = self._stack[-1] if self._stack else (None, ())
        name = self._names_in(above).get(id(module)) if above is not None else None
        parts = tuple(part for part in (name or type(module).__name__).split(".") if part != _WRAPPED)
        path = (*path, ".".join(parts)) if parts else path
        self._paths.setdefault(id(module), path)
        self._stack.append((module, path))

    def _leave_module(self, *_: object) -> None:
        if self._stack:
            self._stack.pop()

    def _names_in(self, module: torch.nn.Module) -> dict[int, str]:
        """Names of the modules below one, by identity."""
        if id(module) not in self._names:
            self._names[id(module)] = {id(one): name for name, one in module.named_modules() if name}
        return self._names[id(module)]


def _in_checkpoint() -> bool:
    """Whether activations are computed again: then a frame of torch's checkpointing is on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(_CHECKPOINT):
            return True
        frame = frame.f_back
    return False
