"""The sizes of a configuration, family by family: what transformers builds from it, in the words of `sizes`.

A family is a `model_type`. What is stated here was read in the family's `modeling_*.py` of transformers
(https://github.com/huggingface/transformers/tree/main/src/transformers/models), and is checked against the model that
is built: numbers of weights, products, and windows must agree (`agreement`). A model_type that is not here has no
closed form, and never that of a family which it resembles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flopray.workloads.causal_lm.keys import check_keys
from flopray.workloads.causal_lm.sizes import (
    Attention,
    Experts,
    Layer,
    Linear,
    NoClosedForm,
    Norm,
    Sizes,
    layer_norm,
    rms,
    total,
)
from flopray.workloads.llama_keys import words

#: Rotary embeddings whose angles do not depend on the tokens.
_ROPES = ("default", "linear", "llama3", "yarn", "longrope", "dynamic")
_BASIC = words(
    "hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size "
    "tie_word_embeddings"
)


@dataclass(frozen=True)
class Family:
    """How a configuration of a family is read.

    Attributes:
        read: the sizes of a configuration as transformers completes it.
        keys: that `read` understands.
    """

    read: Callable[[Any], Sizes]
    keys: frozenset[str]


def sizes_of(content: Mapping[str, Any], config: Any) -> Sizes:
    """The sizes of a model.

    Args:
        content: of the configuration's file.
        config: the same as transformers completes it.

    Raises:
        NoClosedForm: the family or a key is not understood.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise NoClosedForm(f"no closed form: the model_type {config.model_type} has none")
    check_keys(content, family.keys)
    return family.read(config)


# parts that several families have


def _head_dim(c: Any) -> int:
    return getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads


def _rotary_factor(c: Any, *, partial: bool = False) -> float:
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


def _attention(
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
        out_bias: of the projection behind.
        norms: of queries and keys: `head` over each head, `all` over all heads at once.
        window: of the layer.
        partial: whether the family can rotate a part of a head.
        softcapped: whether scores are capped.
        sinks: whether each head has a weight that takes a part of its attention.
    """
    h, d = _head_dim(c), c.hidden_size
    heads, kv = c.num_attention_heads, c.num_key_value_heads
    rotated = int(h * _rotary_factor(c, partial=partial)) * (heads + kv)
    norm = {"head": (rms(h, heads=heads), rms(h, heads=kv)), "all": (rms(h * heads), rms(h * kv)), "": ()}[norms]
    # Elements of a norm over heads are all heads', its weights those of one.
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


def _gated(width: int, inner: int, *, bias: bool = False) -> tuple[Linear, ...]:
    """Gate, value and the way back."""
    return Linear(width, inner, bias), Linear(width, inner, bias), Linear(inner, width, bias)


def _plain(width: int, inner: int, *, bias: bool = True) -> tuple[Linear, ...]:
    return Linear(width, inner, bias), Linear(inner, width, bias)


def _gated_layer(
    c: Any, attention: Attention, *, bias: bool = False, norms: tuple[Norm, ...] = (), behind: bool = False
) -> Layer:
    """A layer with a gated MLP.

    Args:
        c: the configuration.
        attention: of it.
        bias: of the MLP.
        norms: of the layer; empty takes one before attention and one before the MLP.
        behind: whether a norm stands behind the MLP, so that a backward pass needs what its last product gives.
    """
    d, mlp = c.hidden_size, _gated(c.hidden_size, c.intermediate_size, bias=bias)
    end = d if behind else total(mlp[-1:]) + mlp[-1].elements + d
    return Layer(attention, mlp, 2 * c.intermediate_size, norms or (rms(d), rms(d)), unrepeated=end)


def _model(c: Any, layers: Iterable[Layer], norm: Norm | None = None, **further: Any) -> Sizes:
    return Sizes(
        width=c.hidden_size,
        vocabulary=c.vocab_size,
        layers=tuple(layers),
        norm=norm or rms(c.hidden_size),
        tied=bool(c.tie_word_embeddings),
        **further,
    )


def _windows(c: Any) -> list[int | None]:
    """Of each layer, from the kinds that the configuration states or its class writes into it."""
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


# families


def _llama(c: Any) -> Sizes:
    bias = bool(c.attention_bias)
    layer = _gated_layer(c, _attention(c, bias=bias, out_bias=bias), bias=bool(c.mlp_bias))
    return _model(c, [layer] * c.num_hidden_layers)


def _mistral(c: Any) -> Sizes:
    """Also Phi-3, which writes queries, keys and values, and gate and value, as one matrix each."""
    partial = c.model_type == "phi3"
    layer = _gated_layer(c, _attention(c, window=c.sliding_window or None, partial=partial))
    return _model(c, [layer] * c.num_hidden_layers)


def _qwen2(c: Any) -> Sizes:
    return _model(c, [_gated_layer(c, _attention(c, bias=True, window=window)) for window in _windows(c)])


def _qwen3(c: Any) -> Sizes:
    bias = bool(c.attention_bias)
    return _model(
        c,
        [
            _gated_layer(c, _attention(c, bias=bias, out_bias=bias, norms="head", window=window))
            for window in _windows(c)
        ],
    )


def _gemma(c: Any) -> Sizes:
    bias = bool(c.attention_bias)
    layer = _gated_layer(c, _attention(c, bias=bias, out_bias=bias))
    return _model(c, [layer] * c.num_hidden_layers, scaled_embedding=True)


def _gemma2(c: Any) -> Sizes:
    """Gemma 2 and the text model of Gemma 3: norms before and behind attention and MLP; every other layer a window."""
    bias, norms = bool(c.attention_bias), (rms(c.hidden_size),) * 4
    kind = "head" if c.model_type == "gemma3_text" else ""
    capped = c.attn_logit_softcapping is not None
    layers = [
        _gated_layer(
            c,
            _attention(c, bias=bias, out_bias=bias, norms=kind, window=window, softcapped=capped),
            norms=norms,
            behind=True,
        )
        for window in _windows(c)
    ]
    return _model(c, layers, scaled_embedding=True, softcapped=c.final_logit_softcapping is not None)


def _olmo2(c: Any) -> Sizes:
    bias = bool(c.attention_bias)
    layer = _gated_layer(c, _attention(c, bias=bias, out_bias=bias, norms="all"), behind=True)
    return _model(c, [layer] * c.num_hidden_layers)


def _gpt2(c: Any) -> Sizes:
    d = c.hidden_size
    attention = Attention(
        projections=(Linear(d, 3 * d, True), Linear(d, d, True)),
        heads=c.num_attention_heads,
        query_width=d // c.num_attention_heads,
        value_width=d // c.num_attention_heads,
        cached=2 * d,
        rotated=0,
    )
    inner = c.n_inner if c.n_inner is not None else 4 * d
    layer = _plain_layer(c, attention, inner, layer_norm(d))
    return _model(c, [layer] * c.num_hidden_layers, layer_norm(d), positions=c.max_position_embeddings)


def _plain_layer(c: Any, attention: Attention, inner: int, norm: Norm, *, bias: bool = True) -> Layer:
    mlp = _plain(c.hidden_size, inner, bias=bias)
    end = total(mlp[-1:]) + mlp[-1].elements + c.hidden_size
    return Layer(attention, mlp, inner, (norm, norm), unrepeated=end)


def _gpt_neox(c: Any) -> Sizes:
    d, bias = c.hidden_size, bool(c.attention_bias)
    h = d // c.num_attention_heads
    attention = Attention(
        projections=(Linear(d, 3 * d, bias), Linear(d, d, bias)),
        heads=c.num_attention_heads,
        query_width=h,
        value_width=h,
        cached=2 * d,
        rotated=2 * c.num_attention_heads * int(h * _rotary_factor(c, partial=True)),
    )
    layer = _plain_layer(c, attention, c.intermediate_size, layer_norm(d))
    return _model(c, [layer] * c.num_hidden_layers, layer_norm(d))


def _mixtral(c: Any) -> Sizes:
    d = c.hidden_size
    layer = _expert_layer(c, _attention(c, window=c.sliding_window or None), c.num_local_experts, c.intermediate_size)
    return _model(c, [layer] * c.num_hidden_layers, rms(d))


def _expert_layer(
    c: Any, attention: Attention, count: int, inner: int, *, shared: int = 0, gate: bool = False
) -> Layer:
    """A layer with routed gated experts.

    Args:
        c: the configuration.
        attention: of the layer.
        count: of experts.
        inner: width of each.
        shared: width of the MLP that every token goes through beside them.
        gate: whether what that gives is weighted by the token.
    """
    d, active = c.hidden_size, c.num_experts_per_tok
    if not 1 <= active <= count:
        raise NoClosedForm(f"no closed form: {active} experts of {count} for each token")
    router = (Linear(d, count), *((Linear(d, 1),) if gate else ()))
    mlp = _gated(d, shared) if shared else ()
    # Weights of the router need what experts give; what is shared and not weighted is needed by nothing.
    end = d + (total(mlp[-1:]) if shared and not gate else 0)
    return Layer(
        attention,
        mlp,
        2 * shared,
        (rms(d), rms(d)),
        Experts(count, active, _gated(d, inner), router, 2 * inner),
        unrepeated=end,
    )


def _has_experts(c: Any, place: int) -> bool:
    return place not in (c.mlp_only_layers or ()) and c.num_experts > 0 and (place + 1) % c.decoder_sparse_step == 0


def _qwen2_moe(c: Any) -> Sizes:
    layers = []
    for place, window in enumerate(_windows(c)):
        attention = _attention(c, bias=bool(c.qkv_bias), window=window)
        shared = c.shared_expert_intermediate_size
        layers.append(
            _expert_layer(c, attention, c.num_experts, c.moe_intermediate_size, shared=shared, gate=True)
            if _has_experts(c, place)
            else _gated_layer(c, attention)
        )
    return _model(c, layers)


def _qwen3_moe(c: Any) -> Sizes:
    bias = bool(c.attention_bias)
    layers = []
    for place in range(c.num_hidden_layers):
        attention = _attention(c, bias=bias, out_bias=bias, norms="head", window=c.sliding_window or None)
        layers.append(
            _expert_layer(c, attention, c.num_experts, c.moe_intermediate_size)
            if _has_experts(c, place)
            else _gated_layer(c, attention)
        )
    return _model(c, layers)


def _olmoe(c: Any) -> Sizes:
    bias = bool(c.attention_bias)
    attention = _attention(c, bias=bias, out_bias=bias, norms="all")
    layer = _expert_layer(c, attention, c.num_experts, c.intermediate_size)
    return _model(c, [layer] * c.num_hidden_layers)


#: gpt-oss limits gate and value (3), and multiplies the gate by its own sigmoid of a multiple (3) and the value, plus
#: one (2).
_GPT_OSS_FUNCTION = 8


def _gpt_oss(c: Any) -> Sizes:
    d, f, bias = c.hidden_size, c.intermediate_size, bool(c.attention_bias)
    if (stated := getattr(c, "experts_per_token", c.num_experts_per_tok)) != c.num_experts_per_tok:
        raise NoClosedForm(
            f"no closed form: experts_per_token {stated} and num_experts_per_tok {c.num_experts_per_tok}"
        )
    experts = Experts(
        count=c.num_local_experts,
        active=c.num_experts_per_tok,
        each=(Linear(d, 2 * f, True), Linear(f, d, True)),
        router=(Linear(d, c.num_local_experts, True),),
        activated=_GPT_OSS_FUNCTION * f,
    )
    layers = [
        Layer(
            _attention(c, bias=bias, out_bias=bias, window=window, sinks=True),
            (),
            0,
            (rms(d), rms(d)),
            experts,
            unrepeated=d,
        )
        for window in _windows(c)
    ]
    return _model(c, layers)


def _deepseek(c: Any) -> Sizes:
    """DeepSeek V2 and V3: keys and values from one latent vector, shared experts, first layers without experts."""
    d, heads, bias = c.hidden_size, c.num_attention_heads, bool(c.attention_bias)
    _rotary_factor(c)
    if c.num_key_value_heads != heads:
        raise NoClosedForm(f"no closed form: {c.num_key_value_heads} num_key_value_heads of {heads} latent heads")
    query, value = c.qk_nope_head_dim + c.qk_rope_head_dim, c.v_head_dim
    if c.q_lora_rank is None:
        queries, norms = (Linear(d, heads * query),), ()
    else:
        queries = (Linear(d, c.q_lora_rank, bias), Linear(c.q_lora_rank, heads * query))
        norms = (rms(c.q_lora_rank),)
    latent = Linear(d, c.kv_lora_rank + c.qk_rope_head_dim, bias)
    expanded = Linear(c.kv_lora_rank, heads * (c.qk_nope_head_dim + value))
    attention = Attention(
        projections=(*queries, latent, expanded, Linear(heads * value, d, bias)),
        heads=heads,
        query_width=query,
        value_width=value,
        cached=latent.outputs,
        rotated=(heads + 1) * c.qk_rope_head_dim,
        norms=(*norms, rms(c.kv_lora_rank)),
        expanded=expanded,
    )
    shared = c.moe_intermediate_size * c.n_shared_experts
    mlp_bias = bool(getattr(c, "mlp_bias", False))
    if mlp_bias:
        raise NoClosedForm("no closed form: mlp_bias (biases of shared experts are not counted)")
    layers = [
        _expert_layer(c, attention, c.n_routed_experts, c.moe_intermediate_size, shared=shared)
        if place >= c.first_k_dense_replace
        else _gated_layer(c, attention)
        for place in range(c.num_hidden_layers)
    ]
    return _model(c, layers)


_WINDOWS = words("sliding_window use_sliding_window max_window_layers layer_types")
_DEEPSEEK = words(
    "kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim n_routed_experts n_shared_experts "
    "num_experts_per_tok moe_intermediate_size first_k_dense_replace n_group topk_group topk_method norm_topk_prob "
    "routed_scaling_factor scoring_func attention_bias qk_head_dim num_nextn_predict_layers num_mtp_layers"
)
_QWEN_MOE = words(
    "decoder_sparse_step moe_intermediate_size num_experts_per_tok num_experts norm_topk_prob mlp_only_layers"
)
_GEMMA2 = words(
    "attention_bias sliding_window layer_types final_logit_softcapping attn_logit_softcapping "
    "sliding_window_pattern _sliding_window_pattern rope_local_base_freq"
)
FAMILIES: Mapping[str, Family] = {
    "llama": Family(_llama, _BASIC | words("attention_bias mlp_bias")),
    "mistral": Family(_mistral, _BASIC | words("sliding_window")),
    "phi3": Family(_mistral, _BASIC | words("sliding_window partial_rotary_factor")),
    "qwen2": Family(_qwen2, _BASIC | _WINDOWS),
    "qwen3": Family(_qwen3, _BASIC | _WINDOWS | words("attention_bias")),
    "gemma": Family(_gemma, _BASIC | words("attention_bias")),
    "gemma2": Family(_gemma2, _BASIC | _GEMMA2),
    "gemma3_text": Family(_gemma2, _BASIC | _GEMMA2),
    "olmo2": Family(_olmo2, _BASIC | words("attention_bias")),
    "gpt2": Family(_gpt2, words("n_embd n_head n_layer n_inner n_positions vocab_size tie_word_embeddings")),
    "gpt_neox": Family(
        _gpt_neox,
        (_BASIC - words("num_key_value_heads head_dim"))
        | words("attention_bias rotary_pct rotary_emb_base partial_rotary_factor"),
    ),
    "mixtral": Family(_mixtral, _BASIC | words("sliding_window num_experts_per_tok num_local_experts")),
    "qwen2_moe": Family(_qwen2_moe, _BASIC | _WINDOWS | _QWEN_MOE | words("qkv_bias shared_expert_intermediate_size")),
    "qwen3_moe": Family(
        _qwen3_moe,
        _BASIC | _QWEN_MOE | words("attention_bias sliding_window use_sliding_window max_window_layers"),
    ),
    "olmoe": Family(_olmoe, _BASIC | words("attention_bias num_experts_per_tok num_experts norm_topk_prob")),
    "gpt_oss": Family(
        _gpt_oss,
        _BASIC
        | words(
            "attention_bias sliding_window layer_types num_experts_per_tok num_local_experts swiglu_limit "
            "swiglu_alpha experts_per_token"
        ),
    ),
    "deepseek_v2": Family(_deepseek, _BASIC | _DEEPSEEK),
    "deepseek_v3": Family(_deepseek, _BASIC | _DEEPSEEK),
}
