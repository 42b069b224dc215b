"""Families whose tokens all go through the same MLP: Llama, Mistral, Qwen, Gemma, OLMo, GPT-2, GPT-NeoX, ..."""

from __future__ import annotations

from typing import Any

from flopray.workloads.causal_lm.parts import (
    attention_of,
    gated_layer,
    model_of,
    plain_layer,
    rotary_factor,
    windows_of,
)
from flopray.workloads.causal_lm.sizes import Attention, Linear, NoClosedForm, Sizes, layer_norm, rms


def llama(c: Any) -> Sizes:
    """Llama: one layer, repeated."""
    bias = bool(c.attention_bias)
    layer = gated_layer(c, attention_of(c, bias=bias, out_bias=bias), bias=bool(c.mlp_bias))
    return model_of(c, [layer] * c.num_hidden_layers)


def mistral(c: Any) -> Sizes:
    """Also Phi-3, which writes queries, keys and values, and gate and value, as one matrix each."""
    partial = c.model_type == "phi3"
    layer = gated_layer(c, attention_of(c, window=c.sliding_window or None, partial=partial))
    return model_of(c, [layer] * c.num_hidden_layers)


def qwen2(c: Any) -> Sizes:
    """Qwen 2 and 2.5: biases of queries, keys and values."""
    return model_of(c, [gated_layer(c, attention_of(c, bias=True, window=window)) for window in windows_of(c)])


def qwen3(c: Any) -> Sizes:
    """Qwen 3: norms over each head of queries and keys."""
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


def olmo2(c: Any) -> Sizes:
    """OLMo 2: norms behind attention and MLP, and over all heads of queries and of keys at once."""
    bias = bool(c.attention_bias)
    layer = gated_layer(c, attention_of(c, bias=bias, out_bias=bias, norms="all"), behind=True)
    return model_of(c, [layer] * c.num_hidden_layers)


def gpt2(c: Any) -> Sizes:
    """GPT-2: learned positions, one matrix for queries, keys and values, layer norms."""
    d = c.hidden_size
    if (stated := getattr(c, "n_ctx", None) or c.n_positions) != c.n_positions:  # transformers reads the other one
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
