"""Families whose tokens are routed to experts: Mixtral, Qwen-MoE, OLMoE, gpt-oss, DeepSeek, ..."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flopray.units import counted
from flopray.workloads.causal_lm.parts import (
    attention_of,
    expert_layer,
    gated_layer,
    model_of,
    require,
    rotary_factor,
    windows_of,
)
from flopray.workloads.causal_lm.sizes import Attention, Experts, Layer, Linear, NoClosedForm, Sizes, rms


def mixtral(c: Any) -> Sizes:
    """Mixtral: experts in every layer."""
    d = c.hidden_size
    layer = expert_layer(c, attention_of(c, window=c.sliding_window or None), c.num_local_experts, c.intermediate_size)
    return model_of(c, [layer] * c.num_hidden_layers, rms(d))


def _has_experts(c: Any, place: int) -> bool:
    return place not in (c.mlp_only_layers or ()) and c.num_experts > 0 and (place + 1) % c.decoder_sparse_step == 0


def qwen2_moe(c: Any) -> Sizes:
    """Qwen 1.5 and 2 MoE: an MLP beside the experts, weighted by the token."""
    layers = []
    for place, window in enumerate(windows_of(c)):
        attention = attention_of(c, bias=bool(c.qkv_bias), window=window)
        shared = c.shared_expert_intermediate_size
        layers.append(
            expert_layer(c, attention, c.num_experts, c.moe_intermediate_size, shared=shared, gate=True)
            if _has_experts(c, place)
            else gated_layer(c, attention)
        )
    return model_of(c, layers)


def qwen3_moe(c: Any) -> Sizes:
    """Qwen 3 MoE: no shared experts; some layers may have none at all."""
    require(c, use_qk_norm=True)
    bias = bool(c.attention_bias)
    layers = []
    for place in range(c.num_hidden_layers):
        attention = attention_of(c, bias=bias, out_bias=bias, norms="head", window=c.sliding_window or None)
        layers.append(
            expert_layer(c, attention, c.num_experts, c.moe_intermediate_size)
            if _has_experts(c, place)
            else gated_layer(c, attention)
        )
    return model_of(c, layers)


def olmoe(c: Any) -> Sizes:
    """OLMoE: norms over all heads of queries and of keys at once."""
    bias = bool(c.attention_bias)
    attention = attention_of(c, bias=bias, out_bias=bias, norms="all")
    layer = expert_layer(c, attention, c.num_experts, c.intermediate_size)
    return model_of(c, [layer] * c.num_hidden_layers)


def granitemoe(c: Any) -> Sizes:
    """Granite MoE: embedded tokens, residuals and logits are multiplied by numbers."""
    bias = bool(c.attention_bias)
    attention = attention_of(c, bias=bias, out_bias=bias)
    layer = expert_layer(c, attention, c.num_local_experts, c.intermediate_size)
    layer = replace(layer, residual=4, unrepeated=layer.unrepeated + c.hidden_size)
    return model_of(c, [layer] * c.num_hidden_layers, scaled_embedding=True, scaled_logits=True)


def granitemoehybrid(c: Any) -> Sizes:
    """Granite 4 where all layers have attention: an MLP for every token, in some beside experts."""
    if any(kind == "linear_attention" for kind in c.layers_block_type):
        raise NoClosedForm("no closed form: layers of state spaces (layer_types has mamba)")
    bias, d, shared = bool(c.attention_bias), c.hidden_size, c.shared_intermediate_size
    attention = attention_of(c, bias=bias, out_bias=bias)
    if c.position_embedding_type != "rope":
        attention = replace(attention, rotated=0)
    if c.num_local_experts:
        layer = expert_layer(c, attention, c.num_local_experts, c.intermediate_size, shared=shared)
        layer = replace(layer, residual=5)  # the MLP's output and the experts' are added
    else:
        layer = replace(gated_layer(c, attention, inner=shared), residual=4)
    layer = replace(layer, unrepeated=layer.unrepeated + d)
    return model_of(c, [layer] * c.num_hidden_layers, scaled_embedding=True, scaled_logits=True)


def ernie4_5_moe(c: Any) -> Sizes:
    """ERNIE 4.5 with experts in some layers; each layer keeps a number for each expert that corrects its choice."""
    require(c, use_bias=False)
    attention = attention_of(c)
    shared = c.moe_intermediate_size * c.moe_num_shared_experts
    routed = expert_layer(c, attention, c.num_experts, c.moe_intermediate_size, shared=shared)
    # The shared MLP comes before the experts, so that checkpointing runs all of it again.
    routed = replace(routed, learned=c.num_experts, unrepeated=c.hidden_size)
    dense = gated_layer(c, attention)
    first, last, every = c.moe_layer_start_index, c.moe_layer_end_index, c.moe_layer_interval
    layers = [
        routed if first <= place <= last and (place + 1) % every == 0 else dense for place in range(c.num_hidden_layers)
    ]
    return model_of(c, layers)


def dots1(c: Any) -> Sizes:
    """dots.llm1: norms over heads, first layers without experts, shared experts in the others."""
    bias, shared = bool(c.attention_bias), c.moe_intermediate_size * c.n_shared_experts
    layers = []
    for place, window in enumerate(windows_of(c)):
        attention = attention_of(c, bias=bias, out_bias=bias, norms="head", window=window)
        layers.append(
            expert_layer(c, attention, c.n_routed_experts, c.moe_intermediate_size, shared=shared)
            if place >= c.first_k_dense_replace
            else gated_layer(c, attention)
        )
    return model_of(c, layers)


def minimax_m2(c: Any) -> Sizes:
    """MiniMax M2: norms over all heads at once, a part of each head is rotated, experts in every layer."""
    require(c, use_qk_norm=True, shared_intermediate_size=0)
    kinds = getattr(c, "attn_type_list", None) or [1]
    if not isinstance(kinds, list) or set(kinds) != {1}:
        raise NoClosedForm("no closed form: attn_type_list has layers of another attention")
    attention = attention_of(c, norms="all", partial=True)
    layer = expert_layer(c, attention, c.num_local_experts, c.intermediate_size)
    return model_of(c, [layer] * c.num_hidden_layers)


def hunyuan_moe(c: Any) -> Sizes:
    """Hunyuan A13B: norms over each head, an MLP beside the experts that is as wide as one of them."""
    require(c, use_qk_norm=True, use_cla=False, mlp_bias=False, moe_layer_num_skipped=0, attention_head_dim=c.head_dim)
    bias, inner = bool(c.attention_bias), c.intermediate_size
    attention = attention_of(c, bias=bias, out_bias=bias, norms="head")
    layers = []
    for place in range(c.num_hidden_layers):
        active, count, width, shared = (
            _of_layer(getattr(c, key, default), place)
            for key, default in (
                ("moe_topk", 1),
                ("num_experts", 1),
                ("moe_intermediate_size", inner),
                ("num_shared_expert", 1),
            )
        )
        if (width, shared) != (inner, 1):
            raise NoClosedForm(f"no closed form: moe_intermediate_size {width} and num_shared_expert {shared}")
        layer = expert_layer(c, attention, count, inner, shared=inner, active=active)
        layers.append(replace(layer, unrepeated=c.hidden_size))  # the shared MLP comes before the experts
    return model_of(c, layers)


def _of_layer(value: Any, place: int) -> Any:
    """A number of all layers, or the one of a layer in a list."""
    if not isinstance(value, list):
        return value
    if place >= len(value):
        raise NoClosedForm(
            f"no closed form: a list has {counted(len(value), 'entry', 'entries')}, and there are more layers"
        )
    return value[place]


def glm4_moe(c: Any) -> Sizes:
    """GLM 4.5: first layers without experts, shared experts in the others; half of each head is rotated."""
    norms = "head" if c.use_qk_norm else ""
    attention = attention_of(c, bias=bool(c.attention_bias), norms=norms, partial=True)
    shared = c.moe_intermediate_size * c.n_shared_experts
    layers = [
        expert_layer(c, attention, c.n_routed_experts, c.moe_intermediate_size, shared=shared)
        if place >= c.first_k_dense_replace
        else gated_layer(c, attention)
        for place in range(c.num_hidden_layers)
    ]
    return model_of(c, layers)


#: gpt-oss limits gate and value (3), and multiplies the gate by its own sigmoid of a multiple (3) and the value, plus
#: one (2).
_GPT_OSS_FUNCTION = 8


def gpt_oss(c: Any) -> Sizes:
    """gpt-oss: sinks, every other layer a window, experts with biases and a function of their own."""
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
            attention_of(c, bias=bias, out_bias=bias, window=window, sinks=True),
            (),
            0,
            (rms(d), rms(d)),
            experts,
            unrepeated=d,
        )
        for window in windows_of(c)
    ]
    return model_of(c, layers)


def deepseek(c: Any) -> Sizes:
    """DeepSeek V2 and V3: keys and values from one latent vector, shared experts, first layers without experts."""
    d, heads, bias = c.hidden_size, c.num_attention_heads, bool(c.attention_bias)
    rotary_factor(c)
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
        expert_layer(c, attention, c.n_routed_experts, c.moe_intermediate_size, shared=shared)
        if place >= c.first_k_dense_replace
        else gated_layer(c, attention)
        for place in range(c.num_hidden_layers)
    ]
    return model_of(c, layers)
