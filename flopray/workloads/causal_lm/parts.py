"""Parts that several families have, read from a configuration: attention, MLPs, experts, windows, the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flopray.workloads.causal_lm.sizes import (
    Attention,
    Experts,
    Layer,
    Linear,
    NoClosedForm,
    Norm,
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
) -> Attention:
    """Queries in heads, keys and values in as many or fewer.

    Args:
        c: the configuration.
        bias: of queries, keys and values.
        out_bias: of the output projection.
        norms: of queries and keys: `head` over each head, `all` over all heads at once.
        window: of the layer.
        partial: whether the family can rotate a part of a head.
        softcapped: whether scores are capped.
        sinks: whether each head has a weight that takes part of its attention.
    """
    h, d = head_dim(c), c.hidden_size
    heads, kv = c.num_attention_heads, c.num_key_value_heads
    rotated = int(h * rotary_factor(c, partial=partial)) * (heads + kv)
    norm = {"head": (rms(h, heads=heads), rms(h, heads=kv)), "all": (rms(h * heads), rms(h * kv)), "": ()}[norms]
    # A norm over heads has the elements of all heads, and the weights of one.
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
    )


def gated(width: int, inner: int, *, bias: bool = False) -> tuple[Linear, ...]:
    """Gate, value and the way back."""
    return Linear(width, inner, bias), Linear(width, inner, bias), Linear(inner, width, bias)


def plain(width: int, inner: int, *, bias: bool = True) -> tuple[Linear, ...]:
    """The way up and the way back."""
    return Linear(width, inner, bias), Linear(inner, width, bias)


def gated_layer(
    c: Any, attention: Attention, *, bias: bool = False, norms: tuple[Norm, ...] = (), behind: bool = False
) -> Layer:
    """A layer with a gated MLP.

    Args:
        c: the configuration.
        attention: of it.
        bias: of the MLP.
        norms: of the layer; empty takes one before attention and one before the MLP.
        behind: whether a norm follows the MLP, so that a backward pass needs the result of its last product.
    """
    d, mlp = c.hidden_size, gated(c.hidden_size, c.intermediate_size, bias=bias)
    end = d if behind else total(mlp[-1:]) + mlp[-1].elements + d
    return Layer(attention, mlp, 2 * c.intermediate_size, norms or (rms(d), rms(d)), unrepeated=end)


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
        raise NoClosedForm(f"no closed form: layer_types has {len(types)} entries for {c.num_hidden_layers} layers")
    known = {"full_attention": None, "sliding_attention": window}
    for kind in types:
        if kind not in known:
            raise NoClosedForm(f"no closed form: layer_types has {kind!r:.60}")
    if "sliding_attention" in types and window is None:
        raise NoClosedForm("no closed form: layer_types has sliding_attention, and sliding_window is missing")
    return [known[kind] for kind in types]


def plain_layer(c: Any, attention: Attention, inner: int, norm: Norm, *, bias: bool = True) -> Layer:
    """A layer with a plain MLP and two norms alike."""
    mlp = plain(c.hidden_size, inner, bias=bias)
    end = total(mlp[-1:]) + mlp[-1].elements + c.hidden_size
    return Layer(attention, mlp, inner, (norm, norm), unrepeated=end)


def expert_layer(c: Any, attention: Attention, count: int, inner: int, *, shared: int = 0, gate: bool = False) -> Layer:
    """A layer with routed gated experts.

    Args:
        c: the configuration.
        attention: of the layer.
        count: of experts.
        inner: width of each.
        shared: width of the MLP that every token goes through beside them.
        gate: whether the output of that MLP is weighted by the token.
    """
    d, active = c.hidden_size, c.num_experts_per_tok
    if not 1 <= active <= count:
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


def require_query_norms(c: Any) -> None:
    """Refuse a Qwen 3 that says it has no norms of queries and keys: transformers builds them anyway.

    Raises:
        NoClosedForm: it says so.
    """
    if getattr(c, "use_qk_norm", True) is not True:
        raise NoClosedForm(f"no closed form: use_qk_norm is {c.use_qk_norm!r:.40}, and the family always has them")
