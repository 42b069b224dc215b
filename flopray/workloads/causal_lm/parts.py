"""Parts that several families have, read from a configuration: attention, MLPs, experts, windows, the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from flopray.units import counted
from flopray.workloads.causal_lm.sizes import (
    LAYER_FLOPS,
    Attention,
    Experts,
    Layer,
    Linear,
    NoClosedForm,
    Norm,
    OtherwiseBuilt,
    Sizes,
    rms,
    total,
)

#: Rotary embeddings whose angles do not depend on the tokens.
_ROPES = ("default", "linear", "llama3", "yarn", "longrope", "dynamic")


def head_dim(c: Any) -> int:
    """Width of a head, which need not be the width of a token over the heads."""
    return getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads


def rotary_factor(c: Any, *, partial: bool = False) -> float:
    """The part of a head that is rotated."""
    rope = getattr(c, "rope_parameters", None) or {}
    parts = [part for part in rope.values() if isinstance(part, Mapping)] or [rope]
    for part in parts:
        kind = part.get("rope_type", "default")
        if kind not in _ROPES:
            raise NoClosedForm(f"no closed form: rotary embedding of the kind {kind!r:.60}")
    factors = {part.get("partial_rotary_factor") or 1.0 for part in parts}
    if factors != {1.0} and not (partial and len(factors) == 1):
        raise NoClosedForm(f"no closed form: partial_rotary_factor {sorted(factors)} of {c.model_type}")
    return factors.pop()


def attention_of(
    c: Any,
    *,
    bias: bool = False,
    out_bias: bool = False,
    norms: str = "",
    window: int | None = None,
    partial: bool = False,
    softcapped: bool = False,
    sinks: bool = False,
    alibi: bool = False,
    kv: int | None = None,
) -> Attention:
    """Queries in heads, keys and values in as many or fewer.

    Args:
        c: the configuration.
        bias: of queries, keys and values.
        out_bias: of the output projection.
        norms: of queries and keys: `head` over each head, `all` over all heads at once; layer norms over each head are
            `head_layer` with weights and biases that heads share, and `own_layer` with weights of each head's own.
        window: of the layer.
        partial: whether the family can rotate a part of a head.
        softcapped: whether scores are capped.
        sinks: whether each head has a weight that takes part of its attention.
        alibi: whether a number by distance is added to each score, in place of a rotation.
        kv: heads of keys and values, where the configuration does not name them as most do.
    """
    h, d = head_dim(c), c.hidden_size
    heads: int = c.num_attention_heads
    kv = int(c.num_key_value_heads if kv is None else kv)
    rotated = 0 if alibi else int(h * rotary_factor(c, partial=partial)) * (heads + kv)
    # A norm over heads has the elements of all heads, and the weights of one.
    norm = {
        "head": (rms(h, heads=heads), rms(h, heads=kv)),
        "all": (rms(h * heads), rms(h * kv)),
        "head_layer": tuple(Norm(h * count, 2 * h, LAYER_FLOPS) for count in (heads, kv)),
        "own_layer": tuple(Norm(h * count, h * count, LAYER_FLOPS - 1) for count in (heads, kv)),
        "": (),
    }[norms]
    return Attention(
        projections=(
            Linear(d, h * heads, bias),
            Linear(d, h * kv, bias),
            Linear(d, h * kv, bias),
            Linear(h * heads, d, out_bias),
        ),
        heads=heads,
        query_width=h,
        value_width=h,
        cached=2 * kv * h,
        rotated=rotated,
        norms=norm,
        window=window,
        sinks=heads if sinks else 0,
        softcapped=softcapped,
        alibi=alibi,
    )


def fused_attention(c: Any, *, bias: bool, out_bias: bool, **further: Any) -> Attention:
    """The same, with queries, keys and values written as one matrix."""
    found = attention_of(c, bias=bias, out_bias=out_bias, **further)
    whole = Linear(c.hidden_size, sum(one.outputs for one in found.projections[:-1]), bias)
    return replace(found, projections=(whole, found.projections[-1]))


def gated(width: int, inner: int, *, bias: bool = False) -> tuple[Linear, ...]:
    """Gate, value and the way back."""
    return Linear(width, inner, bias), Linear(width, inner, bias), Linear(inner, width, bias)


def plain(width: int, inner: int, *, bias: bool = True) -> tuple[Linear, ...]:
    """The way up and the way back."""
    return Linear(width, inner, bias), Linear(inner, width, bias)


def gated_layer(
    c: Any,
    attention: Attention,
    *,
    bias: bool = False,
    norms: tuple[Norm, ...] = (),
    behind: bool = False,
    inner: int | None = None,
) -> Layer:
    """A layer with a gated MLP.

    Args:
        c: the configuration.
        attention: of it.
        bias: of the MLP.
        norms: of the layer; empty takes one before attention and one before the MLP.
        behind: whether a norm follows the MLP, so that a backward pass needs the result of its last product.
        inner: width of the MLP, where it is not `intermediate_size`.
    """
    d: int = c.hidden_size
    inner = int(c.intermediate_size if inner is None else inner)
    mlp = gated(d, inner, bias=bias)
    end = d if behind else total(mlp[-1:]) + mlp[-1].elements + d
    return Layer(attention, mlp, 2 * inner, norms or (rms(d), rms(d)), unrepeated=end)


def model_of(c: Any, layers: Iterable[Layer], norm: Norm | None = None, **further: Any) -> Sizes:
    """The model of some layers; `further` are fields of `Sizes`."""
    return Sizes(
        width=c.hidden_size,
        vocabulary=c.vocab_size,
        layers=tuple(layers),
        norm=norm or rms(c.hidden_size),
        tied=bool(c.tie_word_embeddings),
        **further,
    )


def windows_of(c: Any) -> list[int | None]:
    """Window of each layer, from the kinds that the configuration states or its class adds."""
    types, window = getattr(c, "layer_types", None), getattr(c, "sliding_window", None) or None
    if types is None:
        return [window] * c.num_hidden_layers
    if len(types) != c.num_hidden_layers:
        raise NoClosedForm(
            f"no closed form: layer_types has {counted(len(types), 'entry', 'entries')} for "
            + counted(c.num_hidden_layers, "layer")
        )
    known = {"full_attention": None, "sliding_attention": window}
    for kind in types:
        if kind not in known:
            raise NoClosedForm(f"no closed form: layer_types has {kind!r:.60}")
    if "sliding_attention" in types and window is None:
        raise NoClosedForm("no closed form: layer_types has sliding_attention, and sliding_window is missing")
    return [known[kind] for kind in types]


def plain_layer(
    c: Any, attention: Attention, inner: int, norm: Norm, *, bias: bool = True, parallel: bool = False
) -> Layer:
    """A layer with a plain MLP and two norms alike, or one where attention and MLP stand side by side."""
    mlp = plain(c.hidden_size, inner, bias=bias)
    end = total(mlp[-1:]) + mlp[-1].elements + c.hidden_size
    return Layer(attention, mlp, inner, (norm,) if parallel else (norm, norm), unrepeated=end)


def expert_layer(
    c: Any,
    attention: Attention,
    count: int,
    inner: int,
    *,
    shared: int = 0,
    gate: bool = False,
    active: int | None = None,
) -> Layer:
    """A layer with routed gated experts.

    Args:
        c: the configuration.
        attention: of the layer.
        count: of experts.
        inner: width of each.
        shared: width of the MLP that every token goes through beside them.
        gate: whether the output of that MLP is weighted by the token.
        active: experts of a token, where `num_experts_per_tok` does not say it.
    """
    d: int = c.hidden_size
    active = c.num_experts_per_tok if active is None else active
    if type(active) is not int or not 1 <= active <= count:
        raise NoClosedForm(f"no closed form: {active} experts of {count} for each token")
    router = (Linear(d, count), *((Linear(d, 1),) if gate else ()))
    mlp = gated(d, shared) if shared else ()
    # Gradients of the router need the experts' outputs; the output of a shared, unweighted MLP is not needed.
    end = d + (total(mlp[-1:]) if shared and not gate else 0)
    return Layer(
        attention,
        mlp,
        2 * shared,
        (rms(d), rms(d)),
        Experts(count, active, gated(d, inner), router, 2 * inner),
        unrepeated=end,
    )


def require(c: Any, **values: Any) -> None:
    """Refuse a configuration that states something else than what the family is built with.

    Args:
        c: the configuration.
        values: by key; a key that is missing or null states nothing.

    Raises:
        OtherwiseBuilt: naming the key.
    """
    for key, value in values.items():
        if (stated := getattr(c, key, None)) is not None and stated != value:
            raise OtherwiseBuilt(key, stated, c.model_type, value)
