"""FLOPs that any callable asks the framework for, by operator; a count that would be partial is refused by name.

torch's FlopCounterMode (https://github.com/pytorch/pytorch/blob/main/torch/utils/flop_counter.py) knows formulas for
matrix products, convolutions and attention, and counts everything else as zero: also attention on a CPU, grouped
products, recurrent layers, and kernels that other packages registered. Here an operator that multiplies and has no
formula makes the count null and is named. Attention counts as full squares, with the query's number of heads, so that
grouped queries are right as well.

Elementwise operations are not counted. CUDA graphs replay kernels that no dispatcher sees: a callable that replays one
has no count. Compiled functions run their original code while they are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

#: Words in the names of operators that multiply matrices or solve with them.
_PRODUCTS = {
    *("mm", "addmm", "bmm", "baddbmm", "addbmm", "sspaddmm", "hspmm", "smm", "matmul", "gemm", "mv", "addmv", "dot"),
    *("vdot", "addr", "linear", "bilinear", "trilinear", "conv", "convolution", "attention", "attn", "einsum", "kron"),
    *("tensordot", "lstm", "gru", "rnn", "cdist", "fft", "linalg", "cholesky", "qr", "geqrf", "orgqr", "ormqr", "svd"),
    *("lu", "solve", "spsolve", "lstsq", "inverse", "pinverse", "det", "slogdet", "eigh", "eigvals"),
}
#: Operators with such a word whose work is that of elements.
_ELEMENTWISE = {
    *("linalg_vector_norm", "linalg_norm", "linalg_cross", "linalg_diagonal", "fft_fftshift", "fft_ifftshift"),
    *("fft_fftfreq", "fft_rfftfreq", "slice_inverse"),
}
#: Namespaces of torch's own operators; those of others can do anything.
_OWN = ("aten", "prim", "prims", "profiler", "c10d", "_c10d_functional", "inductor", "higher_order")


@dataclass(frozen=True)
class DispatchedCount:
    """What one call of a callable asked for.

    Attributes:
        flops: the sum over operators; None where `reason` says why there is none.
        by_operator: FLOPs by the operator's name, those without a formula left out.
        reason: one line; None where the count is whole.
    """

    flops: int | None
    by_operator: dict[str, int]
    reason: str | None


def count_dispatched(step: Callable[[], object]) -> DispatchedCount:
    """Call a step once and count what it dispatches, its backward pass included.

    Args:
        step: any callable without arguments; whatever it changes (weights, a data loader) it changes once more.

    Returns:
        The count, or the reason why there is none.

    Example:
        >>> x = torch.ones(4, 8)
        >>> count_dispatched(lambda: x @ x.T).flops  # 2 * 4 * 8 * 4
        256
    """
    with dispatches_counted() as found:
        step()
    return found()


@contextmanager
def dispatches_counted() -> Iterator[Callable[[], DispatchedCount]]:
    """The same for a block; what it gives tells the count once the block is over."""
    with _replays_seen() as replays, torch.compiler.set_stance("force_eager"), _Counter() as counter:
        yield lambda: _told(replays, counter)


def _told(replays: list[object], counter: _Counter) -> DispatchedCount:
    flops = dict(sorted(counter.flops.items(), key=lambda item: -item[1]))
    if replays:
        return DispatchedCount(None, flops, "the step replays a CUDA graph, whose kernels no dispatcher sees")
    if counter.unknown:
        names = ", ".join(sorted(counter.unknown)[:3]) + (", ..." if len(counter.unknown) > 3 else "")
        return DispatchedCount(None, flops, f"no formula for {names}: a sum without it would be partial")
    if not counter.operators:
        return DispatchedCount(None, {}, "the step dispatched no operator of torch in this thread")
    return DispatchedCount(sum(flops.values()), flops, None)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.unknown: set[str] = set()
        self.operators = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, or the parts that it is made of, and count it."""
        del types
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", None)
        formula = _FORMULAS.get(packet) or flop_registry.get(packet)
        if formula is None and hasattr(func, "decompose"):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self.operators += 1
        name = str(packet or func)
        if formula is not None:
            self.flops[name] += int(formula(*args, **kwargs, out_val=out))
        elif _may_multiply(name):
            self.unknown.add(name)
        return out


def _may_multiply(name: str) -> bool:
    namespace, _, operator = name.partition(".")
    if namespace not in _OWN:
        return True
    words = set(re.split(r"[_\d]+", operator))
    return bool(words & _PRODUCTS) and operator not in _ELEMENTWISE and "upsample" not in words


@contextmanager
def _replays_seen() -> Iterator[list[object]]:
    """CUDA graphs that are replayed meanwhile."""
    seen: list[object] = []
    graph = torch.cuda.CUDAGraph
    original = graph.replay

    def replay(self: Any) -> Any:
        seen.append(self)
        return original(self)

    graph.replay = replay  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        graph.replay = original  # type: ignore[method-assign]


def _attention(products: int) -> Callable[..., int]:
    """A formula for attention of query (b, h, t, e), key (b, k, s, e) and value (b, k, s, v), as full squares."""

    def formula(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        b, h, t, e = query.shape
        s, v = key.shape[-2], value.shape[-1]
        # Half of the products, rounded up, are as deep as the query (scores and what goes back to query and key), the
        # others as the value.
        scores = products - products // 2
        return 2 * b * h * t * s * (scores * e + (products - scores) * v)

    return formula


def _attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    return _attention(5)(query, key, value)


_aten = torch.ops.aten


def _packets(*names: str) -> list[Any]:
    return [packet for name in names if (packet := getattr(_aten, name, None)) is not None]


#: By operator, called with its arguments: products with vectors, and attention, since torch's own formulas
#: for it refuse grouped queries, and do not know that of CPUs.
#: A backward pass of fused attention computes the scores again: five products instead of four
#: (https://arxiv.org/abs/2205.14135, section 3.2).
_FORMULAS: dict[Any, Callable[..., int]] = {
    _aten.mv: lambda matrix, *_, **__: 2 * matrix.numel(),
    _aten.addmv: lambda _self, matrix, *_, **__: 2 * matrix.numel(),
    _aten.dot: lambda one, *_, **__: 2 * one.numel(),
    _aten.vdot: lambda one, *_, **__: 2 * one.numel(),
    _aten.addr: lambda _, one, other, **__: 2 * one.numel() * other.numel(),
    **dict.fromkeys(
        _packets(
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention(2),
    ),
    **dict.fromkeys(
        _packets(
            "_scaled_dot_product_flash_attention_backward",
            "_scaled_dot_product_efficient_attention_backward",
            "_scaled_dot_product_cudnn_attention_backward",
            "_scaled_dot_product_flash_attention_for_cpu_backward",
            "_scaled_dot_product_fused_attention_overrideable_backward",
        ),
        _attention_backward,
    ),
}
