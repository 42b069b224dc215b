"""The kernels of a decoder's phases, as operations: its products with their shapes, and about how many others.

Products and attention follow from the sizes. Elementwise kernels are those that transformers' code launches operation
by operation; each is stated with the elements it reads and writes, counted in elements of the precision's type:

    RMS norm        8 kernels in half precision (cast, square, mean, root, scale, cast, weight), 14 backward; in fp32
                    two less, as there is nothing to cast
    layer norm      one kernel, 2 backward
    rotary          5 kernels for queries and 5 for keys (two products with angles, a half negated, both joined, a sum),
                    and one each where a part of a head is rotated and joined with the rest; OLMo rotates in fp32 and
                    casts back, and multiplies by the weights of norms in fp32, too
    attention       a block of the kernel takes 64 queries, so decode computes 64 times what its one query needs
    MLP             an activation and, with a gate, a product; backward a kernel for each input
    fp8             two kernels for each operand of a product, to find its scale and to cast it
    residuals       an addition for attention and one for the MLP
    loss            logits in fp32, a softmax, and their gradients

Compiled code has about one kernel where several follow each other without a product between them. The numbers of
kernels need not be exact: how long a launch takes, and how fast bytes move, is fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from flopray.point import FP8_SCALING, Point, is_compiled
from flopray.workloads.base import ELEMENT_BYTES
from flopray.workloads.causal_lm.flops import pairs
from flopray.workloads.causal_lm.sizes import LAYER_FLOPS, RMS_FLOPS, Attention, Layer, Linear, Norm, Sizes
from flopray.workloads.operations import GRADIENT, PLAIN, TRANSPOSED, Bulk, Operation, Pass, Product, Update, with_casts

_GENERATES = ("prefill", "decode")
#: The backward pass of flash attention forms the scores again: five products instead of two.
_ATTENTION_BACKWARD = 2.5
#: Queries of a block of a flash kernel.
_QUERIES = 64
#: Bytes that are rotated in fp32, with a cast back, beside those that are rotated in half precision: 36 and 20.
_ROTATED_WIDE = 1.8


@dataclass(frozen=True)
class Asked:
    """What is run.

    Attributes:
        batch, tokens: sequences and their length; of the cache for `decode`.
        phase: one of `flopray.records.PHASES`.
        element_bytes: of the precision's type.
        fused: whether code is compiled.
        checkpointing: whether the backward pass runs the layers again.
        cast: whether the products of layers are in fp8; that of the output projection is not.
        widened: whether the model rotates, and multiplies by the weights of norms, in fp32 and not in the precision.
    """

    batch: int
    tokens: int
    phase: str
    element_bytes: int
    fused: bool = False
    checkpointing: bool = False
    cast: bool = False
    widened: bool = False

    @property
    def new(self) -> int:
        """Tokens that go through the layers."""
        return self.batch if self.phase == "decode" else self.batch * self.tokens

    @property
    def wide(self) -> float:
        """Elements of the precision's type in a number of fp32."""
        return 4 / self.element_bytes


def asked_of(point: Point, phase: str) -> Asked:
    """What a phase of a point of a language model runs."""
    batch, tokens = point.shape().values()
    return Asked(
        batch=batch,
        tokens=tokens,
        phase=phase,
        element_bytes=ELEMENT_BYTES[point.precision],
        fused=is_compiled(point.execution),
        checkpointing=bool(point.checkpointing),
        cast=point.precision in FP8_SCALING,
    )


def operations(sizes: Sizes, asked: Asked) -> tuple[Operation, ...]:
    """One iteration of a phase.

    Args:
        sizes: of the model, of which all weights are trained.
        asked: what is run.
    """
    asked = replace(asked, widened=sizes.wide and asked.wide > 1 and not asked.fused)
    update = (Update(7 * sizes.parameters, _tensors(sizes)),)
    if asked.phase == "optimizer_step":
        return update
    forward, backward = tuple(_forward(sizes, asked)), tuple(_backward(sizes, asked))
    return {
        "backward": backward,
        "forward_backward": forward + backward,
        "train_step": forward + backward + update,
    }.get(asked.phase, forward)


def _forward(sizes: Sizes, asked: Asked) -> Iterator[Operation]:
    for layer, count in sizes.kinds:
        yield from _layer(layer, sizes.width, asked, count)
    logits = asked.batch if asked.phase in _GENERATES else asked.new
    yield Pass(2 * sizes.width * asked.new, 1)
    for norm in sizes.end_norms:
        yield from _norm(norm, asked, 1)
    yield from _products((sizes.head,), logits, 1)
    if asked.phase not in (*_GENERATES, "inference"):
        yield from _loss(sizes, asked)


def _backward(sizes: Sizes, asked: Asked) -> Iterator[Operation]:
    yield from _loss_backward(sizes, asked)
    yield from _gradients((sizes.head,), asked.new, 1)
    for norm in sizes.end_norms:
        yield from _norm_backward(norm, asked, 1)
    for layer, count in sizes.kinds:
        if asked.checkpointing:
            yield from _layer(layer, sizes.width, asked, count)
        yield from _layer_backward(layer, sizes.width, asked, count)
    embedded = sizes.vocabulary * sizes.width
    yield Pass(embedded + 2 * sizes.width * asked.new, 1)
    if sizes.tied:  # both gradients of one matrix are added
        yield Pass(3 * embedded, 1)


def _layer(layer: Layer, width: int, asked: Asked, count: int) -> Iterator[Operation]:
    attention, new = layer.attention, asked.new
    products = _products((*attention.projections, *layer.mlp), new, count)
    yield from with_casts(products) if asked.cast else products
    for norm in (*layer.norms, *attention.norms):
        yield from _norm(norm, asked, count)
    yield from _attention(attention, asked, count)
    yield from _rotary(attention, asked, count, kernels=5)
    if layer.mlp:
        gates = len(layer.mlp) == 3
        yield from _chain(asked, 1 + gates, (5 if gates else 2) * layer.mlp[-1].inputs * new, count)
    yield from _chain(asked, 2, 6 * width * new, count, joined=2)
    if layer.experts is not None:
        yield from _experts(layer, width, asked, count)


def _layer_backward(layer: Layer, width: int, asked: Asked, count: int) -> Iterator[Operation]:
    attention, new = layer.attention, asked.new
    linears = (*attention.projections, *layer.mlp)
    gradients = _gradients(linears, new, count)
    yield from with_casts(gradients) if asked.cast else gradients
    for norm in (*layer.norms, *attention.norms):
        yield from _norm_backward(norm, asked, count)
    formed = _formed(attention, asked)
    moved = 2 * _attended(attention, asked)
    yield Bulk(int(_ATTENTION_BACKWARD * formed * attention.pair_flops) * count, moved * count, 2 * count, True)
    yield from _rotary(attention, asked, count, kernels=8)
    if layer.mlp:
        gates = len(layer.mlp) == 3
        yield from _chain(asked, 1 + 2 * gates, (9 if gates else 3) * layer.mlp[-1].inputs * new, count)
    yield from _chain(asked, 2, 6 * width * new, count, joined=2)
    biases = [one for one in linears if one.bias]
    if biases:
        yield Pass(new * sum(one.outputs for one in biases) // len(biases), len(biases) * count)
    if layer.experts is not None:
        yield from _experts(layer, width, asked, count, times=2)


def _products(linears: Iterable[Linear], columns: int, count: int) -> Iterator[Product]:
    for one in linears:
        yield Product(PLAIN, one.outputs, columns, one.inputs, count, token_rows=True)


def _gradients(linears: Iterable[Linear], columns: int, count: int) -> Iterator[Product]:
    for one in linears:
        yield Product(TRANSPOSED, one.inputs, columns, one.outputs, count, token_rows=True)
        yield Product(GRADIENT, one.outputs, one.inputs, columns, count, token_rows=True)


def _chain(asked: Asked, kernels: int, elements: float, count: int, joined: int = 1) -> Iterator[Pass]:
    """Kernels that follow each other; `joined` of them where code is compiled, which then move about a third."""
    if asked.fused:
        kernels, elements = joined, elements / 3
    if not elements or not kernels:
        return
    yield Pass(int(elements / kernels), kernels * count)


def _rotary(attention: Attention, asked: Asked, count: int, kernels: int) -> Iterator[Pass]:
    """Of queries and of keys, each with this many kernels that read and write what is rotated."""
    if not attention.rotated:
        return
    moved = 2 * kernels * (_ROTATED_WIDE if asked.widened else 1) * attention.rotated * asked.new
    yield from _chain(asked, 2 * (kernels + asked.widened), moved, count, joined=2)
    whole = attention.heads * attention.query_width + attention.cached // 2
    if attention.rotated < whole:
        yield from _chain(asked, 2, 2 * whole * asked.new, count, joined=0)


def _norm(norm: Norm, asked: Asked, count: int) -> Iterator[Pass]:
    elements, wide = norm.elements * asked.new, asked.wide
    if norm.each == RMS_FLOPS and not asked.fused:
        kernels, moved = (8, 4 + 6 * wide) if wide > 1 else (6, 7)
        moved += 2 * (wide - 1) * asked.widened
        yield Pass(int(elements * moved / kernels), kernels * count)
    else:
        yield Pass(2 * elements, count)


def _norm_backward(norm: Norm, asked: Asked, count: int) -> Iterator[Pass]:
    elements, wide = norm.elements * asked.new, asked.wide
    if norm.each == RMS_FLOPS and not asked.fused:
        kernels, moved = (14, 8 + 14 * wide) if wide > 1 else (12, 20)
        moved += 4 * (wide - 1) * asked.widened
        yield Pass(int(elements * moved / kernels), kernels * count)
    else:
        yield Pass(int(5 * elements / 2), 2 * count)


def _attention(attention: Attention, asked: Asked, count: int) -> Iterator[Operation]:
    formed = _formed(attention, asked)
    if attention.softcapped or attention.sinks or attention.alibi:  # no kernel of torch's: scores are written and read
        scores = formed * attention.heads
        yield Pass(int(3 * scores * asked.wide), 6 * count)
    queries = 1 if asked.phase == "decode" else asked.tokens
    computed = formed * attention.pair_flops * -(-queries // _QUERIES) * _QUERIES // queries
    yield Bulk(computed * count, _attended(attention, asked) * count, count, True)
    yield Pass(2 * attention.heads * attention.value_width * asked.new, count)
    if asked.phase in _GENERATES:  # the cache is joined with the new keys and values, into new memory
        yield Pass(attention.cached * _kept(attention, asked), 2 * count)


def _formed(attention: Attention, asked: Asked) -> int:
    """Pairs of queries and keys: a causal flag leaves out those after a query, a mask does not."""
    formed, visible = pairs(attention, asked.batch, asked.tokens, asked.phase)
    window = attention.window
    return formed if window is not None and window < asked.tokens else visible


def _attended(attention: Attention, asked: Asked) -> int:
    """Elements of queries, keys, values and the output."""
    queries = attention.heads * (attention.query_width + attention.value_width) * asked.new
    return queries + attention.cached * _kept(attention, asked)


def _kept(attention: Attention, asked: Asked) -> int:
    """Tokens whose keys and values are read."""
    tokens = asked.tokens
    if asked.phase == "decode":
        tokens = min(tokens + 1, attention.window or tokens + 1)
    return asked.batch * tokens


def _experts(layer: Layer, width: int, asked: Asked, count: int, times: int = 1) -> Iterator[Operation]:
    """Routed experts: grouped products, of which only sums are known, and what moves tokens to experts and back."""
    experts = layer.experts
    assert experts is not None
    new = asked.new
    for _ in range(times):
        yield from _products(experts.router, new, count)
    flops = sum(one.flops for one in experts.each) * new * experts.active
    used = min(experts.count, new * experts.active)
    weights = used * sum(one.inputs * one.outputs for one in experts.each)
    inside = new * experts.active * sum(one.inputs + one.outputs for one in experts.each)
    launches = times * len(experts.each)
    yield Bulk(times * flops * count, times * (weights + inside) * count, launches * count)
    moved = new * experts.active * (4 * width + 5 * experts.each[-1].inputs)
    yield from _chain(asked, 12 * times, times * moved, count, joined=4 * times)


def _loss(sizes: Sizes, asked: Asked) -> Iterator[Pass]:
    logits = asked.new * sizes.vocabulary
    yield from _chain(asked, 3, logits * (1 + 4 * asked.wide), 1)


def _loss_backward(sizes: Sizes, asked: Asked) -> Iterator[Pass]:
    logits = asked.new * sizes.vocabulary
    yield from _chain(asked, 3, logits * (1 + 6 * asked.wide), 1)


def _tensors(sizes: Sizes) -> int:
    """Weights that an optimizer goes through."""
    norms = sum(map(_of_norm, sizes.end_norms))
    ends = norms + 1 + sizes.head_bias + (not sizes.tied) + bool(sizes.positions)
    return ends + sum(_layer_tensors(layer) * count for layer, count in sizes.kinds)


def _layer_tensors(layer: Layer) -> int:
    linears, experts = layer.linears, layer.experts
    routed = (experts.count - 1) * len(experts.each) if experts else 0  # a family keeps all experts in one tensor
    norms = sum(_of_norm(norm) for norm in (*layer.norms, *layer.attention.norms))
    return len(linears) - routed + sum(one.bias for one in linears) + norms


def _of_norm(norm: Norm) -> int:
    return (norm.weights > 0) * (2 if norm.each == LAYER_FLOPS else 1)
