"""Families with a plain MLP in place of a gated one: OPT, BLOOM, MPT, Falcon, GPT-J, StarCoder, Nemotron, ..."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flopray.workloads.causal_lm.parts import attention_of, fused_attention, head_dim, model_of, plain_layer, require
from flopray.workloads.causal_lm.sizes import LAYER_FLOPS, NoClosedForm, Norm, Sizes, layer_norm, rms


def arcee(c: Any) -> Sizes:
    """Arcee: a Llama with a plain MLP."""
    bias = bool(c.attention_bias)
    layer = plain_layer(
        c,
        attention_of(c, bias=bias, out_bias=bias),
        c.intermediate_size,
        rms(c.hidden_size),
        bias=bool(c.mlp_bias),
    )
    return model_of(c, [layer] * c.num_hidden_layers)


def apertus(c: Any) -> Sizes:
    """Apertus: norms over each head of queries and keys; the function of the MLP has two weights of its own."""
    require(c, qk_norm=True, post_norm=False, mlp_bias=False)
    bias = bool(c.attention_bias)
    attention = attention_of(c, bias=bias, out_bias=bias, norms="head")
    layer = plain_layer(c, attention, c.intermediate_size, rms(c.hidden_size), bias=False)
    return model_of(c, [replace(layer, learned=2 * (c.hidden_act == "xielu"))] * c.num_hidden_layers)


def nemotron(c: Any) -> Sizes:
    """Nemotron and Minitron: layer norms; half of each head is rotated."""
    require(c, kv_channels=head_dim(c))
    bias, norm = bool(c.attention_bias), layer_norm(c.hidden_size)
    attention = attention_of(c, bias=bias, out_bias=bias, partial=True)
    layer = plain_layer(c, attention, c.intermediate_size, norm, bias=bool(c.mlp_bias))
    return model_of(c, [layer] * c.num_hidden_layers, norm)


def persimmon(c: Any) -> Sizes:
    """Persimmon: biases everywhere; layer norms over each head of queries and keys."""
    norm, heads = layer_norm(c.hidden_size), c.num_attention_heads
    norms = "head_layer" if c.qk_layernorm else ""
    attention = fused_attention(c, bias=True, out_bias=True, norms=norms, partial=True, kv=heads)
    layer = plain_layer(c, attention, c.intermediate_size, norm)
    return model_of(c, [layer] * c.num_hidden_layers, norm)


def gptj(c: Any) -> Sizes:
    """GPT-J and CodeGen: attention and MLP side by side; a part of each head is rotated."""
    require(c, rotary=True)
    norm, heads = layer_norm(c.hidden_size), c.num_attention_heads
    make = attention_of if c.model_type == "gptj" else fused_attention
    attention = make(c, bias=False, out_bias=False, kv=heads)
    width = attention.query_width if c.rotary_dim is None else c.rotary_dim
    inner = c.n_inner if c.n_inner is not None else 4 * c.hidden_size
    layer = plain_layer(c, replace(attention, rotated=2 * heads * width), inner, norm, parallel=True)
    return model_of(c, [layer] * c.num_hidden_layers, norm, head_bias=True)


def gpt_bigcode(c: Any) -> Sizes:
    """StarCoder and SantaCoder: learned positions; all heads of queries share one of keys and values."""
    norm = layer_norm(c.hidden_size)
    kv = 1 if c.multi_query else c.num_attention_heads
    attention = replace(fused_attention(c, bias=True, out_bias=True, kv=kv), rotated=0)
    inner = c.n_inner if c.n_inner is not None else 4 * c.hidden_size
    layer = plain_layer(c, attention, inner, norm)
    return model_of(c, [layer] * c.num_hidden_layers, norm, positions=c.max_position_embeddings)


#: Rows of learned positions that OPT has beside those of its tokens.
_OPT_FURTHER = 2


def opt(c: Any) -> Sizes:
    """OPT: learned positions; norms before attention and MLP."""
    if c.word_embed_proj_dim != c.hidden_size:
        raise NoClosedForm(
            f"no closed form: word_embed_proj_dim {c.word_embed_proj_dim} and hidden_size {c.hidden_size}"
        )
    require(c, do_layer_norm_before=True, _remove_final_layer_norm=False)
    bias, weights = bool(c.enable_bias), 2 * bool(c.layer_norm_elementwise_affine)
    norm = Norm(c.hidden_size, weights * c.hidden_size, LAYER_FLOPS - 2 + weights)
    attention = attention_of(c, bias=bias, out_bias=bias, kv=c.num_attention_heads)
    layer = plain_layer(c, replace(attention, rotated=0), c.ffn_dim, norm, bias=bias)
    return model_of(c, [layer] * c.num_hidden_layers, norm, positions=c.max_position_embeddings + _OPT_FURTHER)


def falcon(c: Any) -> Sizes:
    """Falcon: attention and MLP side by side, after one norm or one each; few heads of keys and values."""
    new, parallel = c.new_decoder_architecture, c.parallel_attn
    if new and not parallel:
        raise NoClosedForm("no closed form: new_decoder_architecture without parallel_attn")
    both = (c.num_ln_in_parallel_attn or 2) == 2 if new else not parallel
    if not new and parallel and c.num_ln_in_parallel_attn == 2:
        raise NoClosedForm("no closed form: num_ln_in_parallel_attn 2 without new_decoder_architecture")
    kv = c.num_kv_heads if new else 1 if c.multi_query else c.num_attention_heads
    bias, norm = bool(c.bias), layer_norm(c.hidden_size)
    attention = fused_attention(c, bias=bias, out_bias=bias, kv=kv, alibi=bool(c.alibi))
    layer = plain_layer(c, attention, c.ffn_hidden_size, norm, bias=bias, parallel=not both)
    return model_of(c, [layer] * c.num_hidden_layers, norm)


def bloom(c: Any) -> Sizes:
    """BLOOM: distances are added to scores; embedded tokens have a norm."""
    norm, heads = layer_norm(c.hidden_size), c.num_attention_heads
    attention = fused_attention(c, bias=True, out_bias=True, kv=heads, alibi=True)
    layer = plain_layer(c, attention, 4 * c.hidden_size, norm)
    return model_of(c, [layer] * c.num_hidden_layers, norm, embedded_norm=norm)


#: What transformers builds of an MPT, whatever its file says.
_MPT = {"alibi": True, "qk_ln": False, "prefix_lm": False, "attn_type": "multihead_attention", "clip_qkv": None}


def mpt(c: Any) -> Sizes:
    """MPT: distances are added to scores; no biases."""
    require(c, expansion_ratio=4, no_bias=True, embedding_fraction=1.0, logit_scale=None)
    for key, built in _MPT.items():
        if (stated := getattr(c.attn_config, key, built)) not in (built, None):
            raise NoClosedForm(f"no closed form: {key} of attn_config is {stated!r:.40}")
    if getattr(c.attn_config, "kv_n_heads", None) is not None:
        raise NoClosedForm("no closed form: attn_config has kv_n_heads")
    norm = Norm(c.hidden_size, c.hidden_size, LAYER_FLOPS - 1)
    attention = fused_attention(c, bias=False, out_bias=False, kv=c.num_attention_heads, alibi=True)
    layer = plain_layer(c, attention, 4 * c.hidden_size, norm, bias=False)
    return model_of(c, [layer] * c.num_hidden_layers, norm)
