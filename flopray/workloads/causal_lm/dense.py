"""Families whose tokens all go through the same MLP: Llama, Mistral, Qwen, Gemma, OLMo, GPT-2, GPT-NeoX, ..."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flopray.units import counted
from flopray.workloads.causal_lm.parts import (
    attention_of,
    gated_layer,
    model_of,
    plain_layer,
    require,
    rotary_factor,
    windows_of,
)
from flopray.workloads.causal_lm.sizes import LAYER_FLOPS, Attention, Linear, NoClosedForm, Norm, Sizes, layer_norm, rms


def llama(c: Any) -> Sizes:
    """Llama: one layer, repeated."""
    bias = bool(c.attention_bias)
    layer = gated_layer(c, attention_of(c, bias=bias, out_bias=bias), bias=bool(c.mlp_bias))
    return model_of(c, [layer] * c.num_hidden_layers)


def smollm3(c: Any) -> Sizes:
    """SmolLM 3: layers without rotary embedding among the others."""
    bias, rotated = bool(c.attention_bias), c.no_rope_layers
    if len(rotated) < c.num_hidden_layers:
        raise NoClosedForm(
            f"no closed form: no_rope_layers has {counted(len(rotated), 'entry', 'entries')} for "
            + counted(c.num_hidden_layers, "layer")
        )
    attentions = [attention_of(c, bias=bias, out_bias=bias, window=window) for window in windows_of(c)]
    return model_of(
        c,
        [
            gated_layer(c, attention if has_rope else replace(attention, rotated=0), bias=bool(c.mlp_bias))
            for attention, has_rope in zip(attentions, rotated, strict=False)
        ],
    )


def granite(c: Any) -> Sizes:
    """Granite: a Llama whose embedded tokens, residuals and logits are multiplied by numbers."""
    bias = bool(c.attention_bias)
    layer = gated_layer(c, attention_of(c, bias=bias, out_bias=bias), bias=bool(c.mlp_bias))
    layer = replace(layer, residual=4, unrepeated=layer.unrepeated + c.hidden_size)
    return model_of(c, [layer] * c.num_hidden_layers, scaled_embedding=True, scaled_logits=True)


def mistral(c: Any) -> Sizes:
    """Also Phi-3, which writes queries, keys and values, and gate and value, as one matrix each."""
    partial = c.model_type == "phi3"
    layer = gated_layer(c, attention_of(c, window=c.sliding_window or None, partial=partial))
    return model_of(c, [layer] * c.num_hidden_layers)


def qwen2(c: Any) -> Sizes:
    """Qwen 2 and 2.5: biases of queries, keys and values, whatever the file says."""
    require(c, attention_bias=True, qkv_bias=True)
    return model_of(c, [gated_layer(c, attention_of(c, bias=True, window=window)) for window in windows_of(c)])


def qwen3(c: Any) -> Sizes:
    """Qwen 3: norms over each head of queries and keys."""
    require(c, use_qk_norm=True)
    bias = bool(c.attention_bias)
    return model_of(
        c,
        [
            gated_layer(c, attention_of(c, bias=bias, out_bias=bias, norms="head", window=window))
            for window in windows_of(c)
        ],
    )


def gemma(c: Any) -> Sizes:
    """Gemma: embedded tokens are scaled."""
    bias = bool(c.attention_bias)
    layer = gated_layer(c, attention_of(c, bias=bias, out_bias=bias))
    return model_of(c, [layer] * c.num_hidden_layers, scaled_embedding=True)


def gemma2(c: Any) -> Sizes:
    """Gemma 2 and the text model of Gemma 3: norms before and behind attention and MLP; every other layer a window."""
    bias, norms = bool(c.attention_bias), (rms(c.hidden_size),) * 4
    if (stated := getattr(c, "sliding_window_size", None)) not in (None, c.sliding_window):
        raise NoClosedForm(f"no closed form: sliding_window {c.sliding_window} and sliding_window_size {stated}")
    kind = "head" if c.model_type == "gemma3_text" else ""
    capped = c.attn_logit_softcapping is not None
    layers = [
        gated_layer(
            c,
            attention_of(c, bias=bias, out_bias=bias, norms=kind, window=window, softcapped=capped),
            norms=norms,
            behind=True,
        )
        for window in windows_of(c)
    ]
    return model_of(c, layers, scaled_embedding=True, softcapped=c.final_logit_softcapping is not None)


def olmo(c: Any) -> Sizes:
    """OLMo: norms without weights."""
    bias, norm = bool(c.attention_bias), Norm(c.hidden_size, 0, LAYER_FLOPS - 2)
    attention = attention_of(c, bias=bias, out_bias=bias)
    layer = gated_layer(c, attention, norms=(norm, norm))
    if c.clip_qkv is not None:  # queries, keys and values are clamped from both sides
        layer = replace(layer, activated=layer.activated + 2 * sum(one.outputs for one in attention.projections[:-1]))
    return model_of(c, [layer] * c.num_hidden_layers, norm, wide=True)


def olmo2(c: Any) -> Sizes:
    """OLMo 2 and 3: norms behind attention and MLP, and over all heads of queries and of keys at once."""
    bias = bool(c.attention_bias)
    windows = windows_of(c) if c.model_type == "olmo3" else [None] * c.num_hidden_layers
    attentions = [attention_of(c, bias=bias, out_bias=bias, norms="all", window=window) for window in windows]
    return model_of(c, [gated_layer(c, attention, behind=True) for attention in attentions], wide=True)


def gpt2(c: Any) -> Sizes:
    """GPT-2: learned positions, one matrix for queries, keys and values, layer norms."""
    d = c.hidden_size
    if (stated := getattr(c, "n_ctx", None) or c.n_positions) != c.n_positions:  # transformers reads n_positions
        raise NoClosedForm(f"no closed form: n_ctx {stated} and n_positions {c.n_positions}")
    attention = Attention(
        projections=(Linear(d, 3 * d, True), Linear(d, d, True)),
        heads=c.num_attention_heads,
        query_width=d // c.num_attention_heads,
        value_width=d // c.num_attention_heads,
        cached=2 * d,
        rotated=0,
    )
    inner = c.n_inner if c.n_inner is not None else 4 * d
    layer = plain_layer(c, attention, inner, layer_norm(d))
    return model_of(c, [layer] * c.num_hidden_layers, layer_norm(d), positions=c.max_position_embeddings)


def gpt_neox(c: Any) -> Sizes:
    """GPT-NeoX and Pythia: a part of each head is rotated."""
    d, bias = c.hidden_size, bool(c.attention_bias)
    h = d // c.num_attention_heads
    attention = Attention(
        projections=(Linear(d, 3 * d, bias), Linear(d, d, bias)),
        heads=c.num_attention_heads,
        query_width=h,
        value_width=h,
        cached=2 * d,
        rotated=2 * c.num_attention_heads * int(h * rotary_factor(c, partial=True)),
    )
    layer = plain_layer(c, attention, c.intermediate_size, layer_norm(d))
    return model_of(c, [layer] * c.num_hidden_layers, layer_norm(d))


def phi(c: Any) -> Sizes:
    """Phi 1, 1.5 and 2: attention and MLP side by side after one norm; biases everywhere."""
    require(c, attention_bias=True, mlp_bias=True)
    norm = layer_norm(c.hidden_size)
    attention = attention_of(c, bias=True, out_bias=True, partial=True, norms="head_layer" if c.qk_layernorm else "")
    layer = plain_layer(c, attention, c.intermediate_size, norm, parallel=True)
    return model_of(c, [layer] * c.num_hidden_layers, norm, head_bias=True)


def starcoder2(c: Any) -> Sizes:
    """StarCoder 2: a plain MLP."""
    require(c, norm_type="layer_norm", mlp_type="default")
    bias, norm = bool(c.use_bias), layer_norm(c.hidden_size)
    attention = attention_of(c, bias=bias, out_bias=bias, window=c.sliding_window or None)
    layer = plain_layer(c, attention, c.intermediate_size, norm, bias=bias)
    return model_of(c, [layer] * c.num_hidden_layers, norm)


def cohere(c: Any) -> Sizes:
    """Command R and R7B: attention and MLP side by side; the second rotates in layers with a window alone."""
    bias, norm = bool(c.attention_bias), Norm(c.hidden_size, c.hidden_size, LAYER_FLOPS - 1)
    alternate = c.model_type == "cohere2"
    norms = "own_layer" if not alternate and c.use_qk_norm else ""
    layers = []
    for window in windows_of(c) if alternate else [None] * c.num_hidden_layers:
        attention = attention_of(c, bias=bias, out_bias=bias, window=window, norms=norms)
        if alternate and window is None:
            attention = replace(attention, rotated=0)
        layers.append(gated_layer(c, attention, norms=(norm,)))
    return model_of(c, layers, norm, scaled_logits=True)


def glm4(c: Any) -> Sizes:
    """GLM 4: half of each head is rotated; that of 2025 has norms before and behind attention and MLP."""
    attention, both = attention_of(c, bias=bool(c.attention_bias), partial=True), c.model_type == "glm4"
    layer = gated_layer(c, attention, norms=(rms(c.hidden_size),) * (4 if both else 2), behind=both)
    return model_of(c, [layer] * c.num_hidden_layers)


def seed_oss(c: Any) -> Sizes:
    """Seed-OSS: biases of queries, keys and values, and of the output projection where another key says so."""
    attention = attention_of(c, bias=bool(c.attention_bias), out_bias=bool(c.attention_out_bias))
    return model_of(c, [gated_layer(c, attention, bias=bool(c.mlp_bias))] * c.num_hidden_layers)


def ernie4_5(c: Any) -> Sizes:
    """ERNIE 4.5: biases everywhere or nowhere."""
    bias = bool(c.use_bias)
    return model_of(c, [gated_layer(c, attention_of(c, bias=bias, out_bias=bias), bias=bias)] * c.num_hidden_layers)


def helium(c: Any) -> Sizes:
    """Helium: the output projection has no bias."""
    layer = gated_layer(c, attention_of(c, bias=bool(c.attention_bias)), bias=bool(c.mlp_bias))
    return model_of(c, [layer] * c.num_hidden_layers)


def exaone4(c: Any) -> Sizes:
    """EXAONE 4: norms behind attention and MLP and over heads; where some layers have windows, only they rotate."""
    layers = []
    for window in windows_of(c):
        attention = attention_of(c, norms="head", window=window)
        if c.sliding_window is not None and window is None:
            attention = replace(attention, rotated=0)
        layers.append(gated_layer(c, attention, behind=True))
    return model_of(c, layers)


def hunyuan(c: Any) -> Sizes:
    """Hunyuan: norms over each head of queries and keys, after the rotation."""
    require(c, use_qk_norm=True, use_cla=False, use_rotary_pos_emb=True, num_experts=1)
    require(c, mlp_bias=False, attention_head_dim=c.head_dim, norm_type="rms")
    bias = bool(c.attention_bias)
    return model_of(c, [gated_layer(c, attention_of(c, bias=bias, out_bias=bias, norms="head"))] * c.num_hidden_layers)


def ministral3(c: Any) -> Sizes:
    """Ministral 3: queries are multiplied by a number that grows with their place."""
    layer = gated_layer(c, attention_of(c, window=c.sliding_window or None))
    queries = c.num_attention_heads * c.head_dim
    return model_of(c, [replace(layer, activated=layer.activated + queries)] * c.num_hidden_layers)


def cwm(c: Any) -> Sizes:
    """Code World Model: a Llama most of whose layers have a window."""
    return model_of(c, [gated_layer(c, attention_of(c, window=window)) for window in windows_of(c)])


def bitnet(c: Any) -> Sizes:
    """BitNet: norms before the last products of attention and of the MLP."""
    bias = bool(c.attention_bias)
    attention = attention_of(c, bias=bias, out_bias=bias)
    layer = gated_layer(c, attention, norms=(*(rms(c.hidden_size),) * 3, rms(c.intermediate_size)))
    return model_of(c, [layer] * c.num_hidden_layers)


def stablelm(c: Any) -> Sizes:
    """StableLM: layer norms; attention and MLP side by side in some; a part of each head is rotated."""
    attention = attention_of(c, bias=bool(c.use_qkv_bias), partial=True, norms="own_layer" if c.qk_layernorm else "")
    norm = layer_norm(c.hidden_size)
    layer = gated_layer(c, attention, norms=(norm,) * (1 if c.use_parallel_residual else 2))
    return model_of(c, [layer] * c.num_hidden_layers, norm)
