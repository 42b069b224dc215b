"""Three counts of the FLOPs of one call, side by side: closed form, dispatched, executed, and what makes them differ.

Nothing here imports torch: what was counted elsewhere can be shown anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flopray.mappings import Json
from flopray.records import Status
from flopray.units import prefixed


@dataclass(frozen=True)
class OperatorCount:
    """What one operator did in one module.

    Attributes:
        module: names of the module and of those around it, the outermost first; empty outside of modules.
        operator: such as `aten.mm`.
        direction: `forward`, `backward` or `recomputed` (a forward pass once more, within the backward pass).
        calls: how often it was dispatched.
        flops: of all calls; None where it has no formula.
    """

    module: tuple[str, ...]
    operator: str
    direction: str
    calls: int
    flops: int | None


@dataclass(frozen=True)
class ModuleCount:
    """FLOPs at the dispatcher, by module and operator.

    Attributes:
        flops: of all operators; None where the sum would be partial.
        reason: why it is missing.
        operators: that multiply, in the order they first ran.
        attention_flops: of fused attention, as full squares.
        causal_flops: of that, where only the lower triangle was asked for.
        recomputed_flops: of forward passes that checkpointing repeats.
        scores_again_flops: of the scores that fused attention's backward pass computes again.
        convolution_flops: of convolutions.
        elementwise_calls: operations without products, which are not counted.
        product_types: types of the operands, such as `bfloat16`.
    """

    flops: int | None
    reason: str | None
    operators: tuple[OperatorCount, ...] = ()
    attention_flops: int = 0
    causal_flops: int = 0
    recomputed_flops: int = 0
    scores_again_flops: int = 0
    convolution_flops: int = 0
    elementwise_calls: int = 0
    product_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClosedForm:
    """FLOPs that the mathematics needs.

    Attributes:
        flops: the sum; None without a closed form.
        reason: why there is none.
        components: that make the sum.
        products: of the sum, products of matrices; None where the workload does not say.
        convention: what is counted.
    """

    flops: int | None
    reason: str | None = None
    components: Mapping[str, int] = field(default_factory=dict)
    products: int | None = None
    convention: str | None = None


@dataclass(frozen=True)
class Executed:
    """FLOPs that the chip executed, by its counters.

    Attributes:
        status: `ok`, or a word of `flopray.records.Status` that says why there is no count.
        reason: in a line.
        by_class: FLOPs by class of kernel, of `flopray.records.KERNEL_CLASSES`.
        kernels: each kernel's `name`, `class`, `launches`, `tensor_flops` and `cuda_flops`, most FLOPs first.
        device_name: where it was counted.
        ncu_version: that counted.
    """

    status: str
    reason: str | None = None
    by_class: Mapping[str, int] = field(default_factory=dict)
    kernels: tuple[Mapping[str, Any], ...] = ()
    device_name: str | None = None
    ncu_version: str | None = None

    @property
    def flops(self) -> int | None:
        """Of all kernels; None where they were not counted."""
        return sum(self.by_class.values()) if self.status == Status.OK else None


@dataclass(frozen=True)
class Difference:
    """A part of what lies between two counts.

    Attributes:
        between: the two counts, such as `closed -> dispatched`.
        flops: by which the second count is larger; the differences of a pair add up to the whole difference.
        words: what it is.
    """

    between: str
    flops: int
    words: str


@dataclass(frozen=True)
class Counts:
    """The FLOPs of one call.

    Attributes:
        name: what was counted, such as `step.py:make_step`.
        shape: the values that it was made with.
        phase: of a workload; None of a function.
        closed: what the mathematics needs.
        dispatched: what torch was asked for.
        executed: what the chip did.
    """

    name: str
    shape: Mapping[str, Any]
    phase: str | None
    closed: ClosedForm
    dispatched: ModuleCount
    executed: Executed

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What makes the counts differ; the parts of each pair add up."""
        return (*_closed_to_dispatched(self), *_dispatched_to_executed(self))

    @property
    def label(self) -> str:
        """Name, shape and phase in a line."""
        shape = " ".join(f"{name}={value}" for name, value in self.shape.items())
        return " ".join(word for word in (self.name, shape, self.phase) if word)

    def counted(self) -> list[tuple[str, int | None, str | None]]:
        """Name, FLOPs and reason of each count."""
        return [
            ("closed", self.closed.flops, self.closed.reason),
            ("dispatched", self.dispatched.flops, self.dispatched.reason),
            ("executed", self.executed.flops, self.executed.reason),
        ]

    def to_dict(self) -> Json:
        """JSON-ready."""
        found = asdict(self)
        found["executed"]["flops"] = self.executed.flops
        found["differences"] = [asdict(one) for one in self.differences]
        return found

    def __repr__(self) -> str:
        """Three lines, and one for each difference."""
        lines = [self.label]
        for name, flops, reason in self.counted():
            lines.append(f"  {name:<10}  {f'none: {reason}' if flops is None else prefixed(flops, 'FLOP')}")
        for one in self.differences:
            sign = "+" if one.flops >= 0 else "-"
            lines.append(f"  {one.between}  {sign}{prefixed(abs(one.flops), 'FLOP')}  {one.words}")
        return "\n".join(lines)


def _closed_to_dispatched(counts: Counts) -> list[Difference]:
    closed, count = counts.closed, counts.dispatched
    if closed.flops is None or count.flops is None:
        return []
    pair = "closed -> dispatched"
    products = closed.flops if closed.products is None else closed.products
    parts = [(products - closed.flops, "elementwise operations and the optimizer, which the dispatcher does not count")]
    left = count.flops - products
    for flops, words in (
        (count.scores_again_flops, "attention's scores, which its fused backward pass computes again"),
        (count.recomputed_flops, "forward passes that checkpointing repeats within the backward pass"),
    ):
        if flops and left >= flops:
            parts.append((flops, words))
            left -= flops
    parts.append((left, "products that the two count differently: see the convention of the closed form"))
    return [Difference(pair, flops, words) for flops, words in parts if flops]


def _dispatched_to_executed(counts: Counts) -> list[Difference]:
    count, executed = counts.dispatched, counts.executed
    if count.flops is None or executed.flops is None:
        return []
    by_class = dict(executed.by_class)
    gemm, attention = by_class.pop("gemm", 0), by_class.pop("attention", 0)
    parts: list[tuple[int, str]] = []
    if count.attention_flops and attention:
        causal = count.causal_flops and attention < count.attention_flops
        skipped = "attention: its kernels skip blocks above the diagonal of a causal mask, and fill up the others"
        parts.append((attention - count.attention_flops, skipped if causal else "attention: blocks that are filled up"))
        parts.append(_products(gemm, count.flops - count.attention_flops, count))
    else:  # attention that ran as products, or none
        parts.append(_products(gemm + attention, count.flops, count))
    parts += [
        (flops, _NOT_DISPATCHED.get(kind, f"{kind}: not counted at the dispatcher")) for kind, flops in by_class.items()
    ]
    return [Difference("dispatched -> executed", flops, words) for flops, words in parts if flops]


_NOT_DISPATCHED = {
    "reduction": "sums: pieces of split-K products, losses, gradients of biases; not counted at the dispatcher",
    "elementwise": "elementwise kernels, every instruction of a function such as exp; not counted at the dispatcher",
    "normalisation": "softmax and norms; not counted at the dispatcher",
    "optimizer": "the optimizer; not counted at the dispatcher",
    "other": "kernels whose names tell nothing",
}


def _products(executed: int, dispatched: int, count: ModuleCount) -> tuple[int, str]:
    """The difference of products, and what explains it."""
    share = f" ({executed / dispatched - 1:+.1%})" if dispatched else ""
    if executed >= dispatched:
        return executed - dispatched, f"products{share}: tiles that are filled up at the edges of matrices"
    if count.convolution_flops:
        return executed - dispatched, f"products{share}: convolutions by Winograd or FFT need fewer"
    words = f"products{share}: fewer than asked for; are there kernels of a type that the counters do not cover?"
    return executed - dispatched, words
