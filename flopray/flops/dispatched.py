"""FLOPs that any callable asks the framework for, by operator; a count that would be partial is refused by name.

torch's FlopCounterMode (https://github.com/pytorch/pytorch/blob/main/torch/utils/flop_counter.py) knows formulas for
matrix products, convolutions and attention, and counts everything else as zero: also attention on a CPU, grouped
products, recurrent layers, and kernels that other packages registered. Here an operator that may multiply and has no
formula makes the count null and is named: one of another package, one with a product's word in its name, and any other
one that takes two matrices and is not known to work on elements alone. Attention counts as full squares, with the
query's number of heads, so that grouped queries are right as well.

Formulas are of dense operands: a product with a sparse, jagged or otherwise stored one is refused by its name as well.
Multiplying and adding complex numbers takes four real multiplications and additions each, which are 8 FLOPs.

Elementwise operations are not counted. The dispatcher does not see some launches: replays of a CUDA graph, Triton
kernels that are called directly, models that AOTInductor compiled. A callable that makes one has no count, and it is
named. What other libraries compute, such as a product of NumPy, is in no count, and nothing tells of it. Functions of
`torch.compile` run their original code while they are counted. Threads that a step starts are counted with it, and so
is what it gives to an executor; threads that ran before are not.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from flopray.flops import repeated
from flopray.flops.step import check_returned
from flopray.flops.threads import in_threads
from flopray.flops.unseen import unseen_launches

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
    *("fft_fftfreq", "fft_rfftfreq", "slice_inverse", "dist", "_pdist_backward", "_dirichlet_grad"),
    *("_standard_gamma_grad", "_transform_bias_rescale_qkv", "_sparse_coo_tensor_with_dims_and_tensors"),
    *("sparse_compressed_tensor", "_sparse_sum_backward", "_linalg_check_errors"),
}
#: Words in the names of operators that take several matrices and do not multiply them: they move, compare, normalise or
#: differentiate elements. An operator with a product's word still counts as a product.
_NO_PRODUCTS = {
    *("pool", "unpool", "norm", "softmax", "loss", "index", "scatter", "gather", "embedding", "copy", "where"),
    *("mask", "foreach", "fused", "sampler", "pad", "padded", "padding", "dropout", "quantize", "quantized", "nested"),
    *("elu", "gelu", "glu", "relu", "prelu", "rrelu", "leaky", "hardshrink", "hardsigmoid", "hardswish", "hardtanh"),
    *("softplus", "softshrink", "shrink", "threshold", "sigmoid", "silu", "swish", "mish", "tanh", "logit"),
    *("cummax", "cummin", "cumsum", "cumprod", "sort", "topk", "histogram", "histogramdd", "bincount", "bucketize"),
    *("searchsorted", "take", "put", "select", "slice", "diagonal", "strided", "complex", "polar", "fill", "cat"),
    *("stack", "isin", "resize", "set", "same", "allclose", "equal", "entropy"),
    *("eq", "ne", "lt", "le", "gt", "ge", "gcd", "lcm", "floor", "divide", "rsub", "heaviside", "copysign", "lshift"),
    *("rshift", "irshift", "batch", "binomial", "bernoulli", "normal", "uniform", "rand", "randint", "linspace"),
    *("logspace", "segment", "sequence", "jagged", "indices", "meshgrid", "broadcast", "expand", "view", "reshape"),
    *("histc", "unique", "min", "max", "storage", "metadata", "amp", "assert", "dual", "spdiags", "masked"),
}
#: Namespaces of torch's own operators. What other operators do is unknown.
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


@dataclass(frozen=True)
class Operation:
    """One operation that was dispatched.

    Attributes:
        operator: of torch.
        name: of the operator, without the overload.
        flops: by its formula, 0 of one that works on elements; None where it may multiply and has no formula.
        args, kwargs: of the call.
        out: its result.
    """

    operator: Any
    name: str
    flops: int | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any


Observer = Callable[[Operation], object]


def count_dispatched(
    step: Callable[[], object], observe: Observer | None = None, *, repeat_shapes: bool = False
) -> DispatchedCount:
    """Call a step once and count what it dispatches, its backward pass included.

    Args:
        step: any callable without arguments; whatever it changes (weights, a data loader) it changes once more.
        observe: told of each operation.
        repeat_shapes: find what an operator gives on the meta device once for each set of shapes.

    Returns:
        The count, or the reason why there is none.

    Raises:
        InputError: the call only made a generator or a coroutine.

    Example:
        >>> x = torch.ones(4, 8)
        >>> count_dispatched(lambda: x @ x.T).flops  # 2 * 4 * 8 * 4
        256
    """
    with dispatches_counted(observe, repeat_shapes=repeat_shapes) as found:
        check_returned(step())
    return found()


@contextmanager
def dispatches_counted(
    observe: Observer | None = None, *, repeat_shapes: bool = False
) -> Iterator[Callable[[], DispatchedCount]]:
    """The same for a block; what it gives tells the count once the block is over.

    Args:
        observe: told of each operation.
        repeat_shapes: see `count_dispatched`.
    """
    counter = _Totals(observe, repeated.called if repeat_shapes else _called)
    counted = in_threads(lambda: _Counter(counter))
    with unseen_launches() as unseen, torch.compiler.set_stance("force_eager"), counted, _Counter(counter):
        yield lambda: _told(unseen, counter)


def _told(unseen: Sequence[str], counter: _Totals) -> DispatchedCount:
    flops = dict(sorted(counter.flops.items(), key=lambda item: -item[1]))
    if unseen:
        return DispatchedCount(None, flops, f"the step {unseen[0]}, which no dispatcher sees: a sum would be partial")
    if counter.unknown:
        names = ", ".join(sorted(counter.unknown)[:3]) + (", ..." if len(counter.unknown) > 3 else "")
        return DispatchedCount(None, flops, f"no formula for {names}: a sum without it would be partial")
    if not counter.operators:
        return DispatchedCount(None, {}, "the step dispatched no operator of torch")
    return DispatchedCount(sum(flops.values()), flops, None)


class _Totals:
    """What the threads of a step dispatched, together."""

    def __init__(self, observe: Observer | None, call: Callable[..., Any]) -> None:
        self._observe, self._lock = observe, threading.Lock()
        #: Runs an operator. A second dispatch mode for that would cost each operation as much as this one.
        self.call = call
        self.flops: Counter[str] = Counter()
        self.unknown: set[str] = set()
        self.operators = 0
        # A model repeats its operators many times, so what is known of each is found once a count.
        #: By operator: what `_known` says.
        self.known: dict[Any, tuple[str, Callable[..., Any] | None, bool | None]] = {}
        #: Operators that are not made of parts.
        self.whole: set[Any] = set()

    def add(self, operation: Operation) -> None:
        """Add an operation."""
        with self._lock:
            self.operators += 1
            if operation.flops is None:
                self.unknown.add(operation.name)
            elif operation.flops:
                self.flops[operation.name] += operation.flops
            if self._observe:
                self._observe(operation)


class _Counter(TorchDispatchMode):
    """Counts one thread."""

    #: Operators that run functions (`flex_attention`, `cond`) come here too, instead of failing; what they run inside
    #: is not counted, so one without a formula is named.
    supports_higher_order_operators = True

    def __init__(self, totals: _Totals) -> None:
        super().__init__()
        self._totals = totals

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled while a step is counted: torch's guard against it would cost as much as the count."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, or the parts that it is made of, and count it."""
        del types
        kwargs = kwargs or {}
        totals = self._totals
        if (known := totals.known.get(func)) is None:
            known = totals.known[func] = _known(func)
        name, formula, multiplies = known
        stored = None if multiplies is False and formula is None else _stored(args, kwargs)
        # A jagged operator that is taken apart comes back as itself, again and again.
        if formula is None and stored is None and func not in totals.whole and hasattr(func, "decompose"):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
            totals.whole.add(func)
        out = totals.call(func, args, kwargs)
        flops: int | None = 0
        if stored is not None and (formula is not None or multiplies):
            name, flops = f"{name} with a {stored} operand", None
        elif formula is not None:
            flops = int(formula(*args, **kwargs, out_val=out)) * _real_products(out)
        elif multiplies or (multiplies is None and _takes_matrices(args, kwargs)):
            flops = None
        totals.add(Operation(func, name, flops, args, kwargs, out))
        return out


def _known(func: Any) -> tuple[str, Callable[..., Any] | None, bool | None]:
    """An operator's name, its formula, and without one whether it may multiply; None: that depends on its call."""
    packet = getattr(func, "_overloadpacket", None)
    name = str(packet or func)
    formula = _FORMULAS.get(packet) or _OF_OTHERS.get(name) or flop_registry.get(packet)
    namespace, _, operator = name.partition(".")
    if namespace not in _OWN or has_word_of_a_product(operator):
        return name, formula, True
    if namespace != "aten" or takes_elements(operator) or torch.Tag.pointwise in getattr(func, "tags", ()):
        return name, formula, False
    return name, formula, None


def _called(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return func(*args, **kwargs)


def _stored(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """How the first operand is stored whose elements are not all there at regular places, such as `sparse_csr`."""
    for value in tree_leaves((args, dict(kwargs))):
        if isinstance(value, torch.Tensor):
            if value.layout is not torch.strided:
                return str(value.layout).removeprefix("torch.").strip("_")
            if value.is_nested:
                return "nested"
    return None


def _real_products(out: Any) -> int:
    """Real products and sums for each one of a result: four where it is complex."""
    first = next((value for value in tree_leaves(out) if isinstance(value, torch.Tensor)), None)
    return 4 if first is not None and first.is_complex() else 1


def _takes_matrices(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    found = 0
    for value in (*args, *kwargs.values()):
        inside = tree_leaves(value) if isinstance(value, (list, tuple, dict)) else (value,)
        found += sum(isinstance(x, torch.Tensor) and x.dim() > 1 for x in inside)
    return found > 1


@cache
def has_word_of_a_product(operator: str) -> bool:
    """Whether an operator's name, such as `_grouped_mm`, says that it multiplies."""
    words = set(re.split(r"[_\d]+", operator))
    return bool(words & _PRODUCTS) and operator not in _ELEMENTWISE and "upsample" not in words


@cache
def takes_elements(operator: str) -> bool:
    """Whether an operator's name says that it multiplies no matrices, however many it takes."""
    return operator in _ELEMENTWISE or bool(set(re.split(r"[_\d]+", operator)) & {*_NO_PRODUCTS, "upsample"})


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


def _grouped(one: Any, other: Any, *_: Any, **__: Any) -> int:
    """Products of groups: (rows, k) or (groups, rows, k) by (groups, k, n) or (k, n), one group after the other.

    Every row belongs to a group; rows behind the last group, which a kernel skips, are counted too. Where the groups
    divide the columns of the second one, each is multiplied by its own matrix alone.
    """
    divided = one.dim() == 3 and other.dim() == 2
    return 2 * (one[0] if divided else one).numel() * other.shape[-1]


def _convolution_backward(
    grad: Any, x: Any, weight: Any, _bias: Any, _stride: Any, _padding: Any, _dilation: Any, *rest: Any, **__: Any
) -> int:
    """Each requested gradient multiplies as many pairs as the forward pass: 2 x batch x places x weights.

    For the weights' gradient, torch's own formula multiplies the channels of all groups with each other, which is too
    much by a factor of the number of groups.

    Args:
        grad: of the output, (batch, channels, places...).
        x: the input, of the same form.
        weight: (channels, channels of a group, places of the filter...).
        rest: transposed, output padding, groups, and which gradients are asked for: input, weight, bias.
    """
    transposed, _, _, wanted = rest
    places = (x if transposed else grad).shape[2:]
    return 2 * (bool(wanted[0]) + bool(wanted[1])) * x.shape[0] * math.prod(places) * weight.numel()


_aten = torch.ops.aten


def _packets(*names: str) -> list[Any]:
    return [packet for name in names if (packet := getattr(_aten, name, None)) is not None]


#: By operator, called with its arguments: products with vectors, convolutions in groups, and attention, since torch's
#: own formulas for it refuse grouped queries, and do not know that of CPUs. Solving with a triangular matrix of width n
#: takes n multiplications and additions, halves together, for each unknown (https://www.netlib.org/lapack/lawnspdf/lawn41.pdf,
#: appendix C).
#: A backward pass of fused attention computes the scores again: five products instead of four
#: (https://arxiv.org/abs/2205.14135, section 3.2).
_FORMULAS: dict[Any, Callable[..., int]] = {
    _aten.mv: lambda matrix, *_, **__: 2 * matrix.numel(),
    _aten.addmv: lambda _self, matrix, *_, **__: 2 * matrix.numel(),
    _aten.dot: lambda one, *_, **__: 2 * one.numel(),
    _aten.vdot: lambda one, *_, **__: 2 * one.numel(),
    _aten.addr: lambda _, one, other, **__: 2 * one.numel() * other.numel(),
    _aten.linalg_solve_triangular: lambda one, *_, out_val, **__: out_val.numel() * one.shape[-1],
    _aten.convolution_backward: _convolution_backward,
    **dict.fromkeys(_packets("_grouped_mm", "_scaled_grouped_mm"), _grouped),
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

#: Operators of other packages, which need not be loaded, and those that take functions, by name. flex_attention counts
#: as full squares too, whatever its mask leaves out. transformers runs experts through the first two where
#: torch has no grouped product (https://github.com/huggingface/transformers/blob/main/src/transformers/integrations/moe.py).
_OF_OTHERS: dict[str, Callable[..., int]] = {
    "flex_attention": _attention(2),
    "flex_attention_backward": _attention(5),
    "transformers.grouped_mm_fallback": _grouped,
    "transformers.grouped_mm_fallback_backward": lambda one, other, *_, **__: 2 * _grouped(one, other),
}
