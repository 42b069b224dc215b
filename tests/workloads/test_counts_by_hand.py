"""Decoders with unusual fields, counted by hand: closed form and dispatcher agree with it, or the file is refused.

The counts here are written from what each model is said to compute, and share no code with flopray's.
"""

import json

import pytest

from flopray.errors import InputError
from flopray.workloads.base import closed_columns
from flopray.workloads.causal_lm import models
from flopray.workloads.dispatch import dispatched_flops
from flopray.workloads.registry import make_point

BATCH, TOKENS = 2, 96
#: Width, layers, heads, heads of keys and values, width of a head, of an MLP; vocabulary.
H, L, Q, KV, D, F, V = 64, 3, 4, 2, 16, 160, 320
WINDOWS = ["sliding_attention", "full_attention", "sliding_attention"]


def file_of(model_type, **changes):
    """A configuration of the sizes above; a change to ... takes a key out."""
    sizes = {"hidden_size": H, "num_hidden_layers": L, "num_attention_heads": Q, "num_key_value_heads": KV}
    rest = {"intermediate_size": F, "vocab_size": V, "tie_word_embeddings": False, "max_position_embeddings": 512}
    content = {"model_type": model_type, **sizes, **rest, **changes}
    return {key: value for key, value in content.items() if value is not ...}


def of_gpt2(model_type, **changes):
    sizes = {"n_embd": H, "n_layer": L, "n_head": Q, "n_inner": F, "n_positions": 512, "vocab_size": V}
    return {"model_type": model_type, **sizes, **changes}


def projections(kv=KV, head=D):
    return H * head * (Q + 2 * kv) + Q * head * H


def experts(count=8, active=2, inner=48, shared=0, gate=0):
    return H * count + active * 3 * H * inner + 3 * H * shared + gate


def layers(mlp, kv=KV, head=D):
    """Multiply-adds of a token in three layers and the output projection."""
    return L * (projections(kv, head) + mlp) + H * V


GATED, PLAIN = 3 * H * F, 2 * H * F
_ROUTED = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "n_shared_experts": 1}
_LATENT = {"kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12}
_GROUPS = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_OF_QWEN = {"num_experts": 8, "moe_intermediate_size": 48, "num_experts_per_tok": 2, "mlp_only_layers": []}
_LATENT_PRODUCTS = H * (16 + 8) + 16 * Q * (16 + 12) + Q * 12 * H

#: Files, multiply-adds of a token in products, and the widths of queries' and values' heads.
COUNTED = {
    "a part of each head turns, and queries, keys and values have biases": (
        file_of("stablelm", partial_rotary_factor=0.25, use_qkv_bias=True),
        *(layers(GATED), D, D),
    ),
    "heads wider than their share, and one of keys and values": (
        file_of("qwen3", head_dim=48, num_key_value_heads=1),
        *(layers(GATED, kv=1, head=48), 48, 48),
    ),
    "windows in some layers": (
        file_of("gemma3_text", head_dim=24, sliding_window=32, layer_types=WINDOWS, query_pre_attn_scalar=24),
        *(layers(GATED, head=24), 24, 24),
    ),
    "logits scaled, and tied": (
        file_of("cohere2", sliding_window=16, layer_types=WINDOWS, logit_scale=0.25, tie_word_embeddings=True),
        *(layers(GATED), D, D),
    ),
    "four multipliers": (
        file_of("granite", logits_scaling=8.0, embedding_multiplier=12.0, residual_multiplier=0.2),
        *(layers(GATED), D, D),
    ),
    "layers without rotary embedding": (
        file_of("smollm3", no_rope_layers=[1, 1, 0], no_rope_layer_interval=3),
        *(layers(GATED), D, D),
    ),
    "no gate": (file_of("nemotron", partial_rotary_factor=0.5, head_dim=D), layers(PLAIN), D, D),
    "biases on everything": (file_of("starcoder2", use_bias=True, sliding_window=None), layers(PLAIN), D, D),
    "one head of keys and values": (of_gpt2("gpt_bigcode", multi_query=True), layers(PLAIN, kv=1), D, D),
    "a part of each head turns, with one norm for attention and MLP": (
        {**of_gpt2("codegen"), "rotary_dim": 8, "n_ctx": 512},
        *(layers(PLAIN, kv=Q), D, D),
    ),
    "sinks of attention, and experts with biases": (
        file_of(
            "gpt_oss", head_dim=D, num_local_experts=8, num_experts_per_tok=2, sliding_window=16, layer_types=WINDOWS
        ),
        *(layers(experts(inner=F)), D, D),
    ),
    "experts in each third layer": (
        file_of("qwen3_moe", head_dim=D, decoder_sparse_step=3, **_OF_QWEN),
        *(layers(0) + 2 * GATED + experts(), D, D),
    ),
    "a first layer without experts, and a gate of the shared one": (
        file_of(
            "qwen2_moe",
            shared_expert_intermediate_size=80,
            decoder_sparse_step=1,
            **_OF_QWEN | {"mlp_only_layers": [0]},
        ),
        *(layers(0) + GATED + 2 * experts(shared=80, gate=H), D, D),
    ),
    "a layer of a draft head, which is not built": (
        file_of("glm4_moe", head_dim=D, num_nextn_predict_layers=1, use_qk_norm=True, **_ROUTED, **_GROUPS),
        *(layers(0) + GATED + 2 * experts(shared=48), D, D),
    ),
    "latent attention with low-rank queries": (
        file_of("deepseek_v3", num_key_value_heads=Q, q_lora_rank=24, **_LATENT, **_ROUTED, **_GROUPS),
        L * (H * 24 + 24 * Q * 24 + _LATENT_PRODUCTS) + GATED + 2 * experts(shared=48) + H * V,
        *(24, 12),
    ),
    "latent attention with whole queries": (
        file_of(
            "deepseek_v2",
            num_key_value_heads=Q,
            q_lora_rank=None,
            topk_method="greedy",
            **_LATENT,
            **_ROUTED,
            **_GROUPS,
        ),
        L * (H * Q * 24 + _LATENT_PRODUCTS) + GATED + 2 * experts(shared=48) + H * V,
        *(24, 12),
    ),
}


def counted(content, folder):
    """Closed form and dispatcher's count of an inference, of a model that is named as a user names it."""
    (folder / "config.json").write_text(json.dumps(content))
    name, text = models.find_model(str(folder))
    where = make_point(
        *("causal_lm",),
        **{"model": name, "model_config": text, "weights": "random", "attention": "auto", "routing": "uniform"},
        **{"batch_size": BATCH, "sequence_length": TOKENS, "device_type": "CPU", "checkpointing": False},
    )
    return closed_columns(where, "inference"), dispatched_flops(where, "inference", None)["dispatched_flops"]


@pytest.mark.parametrize("name", COUNTED)
def test_closed_form_and_dispatcher_are_the_count_by_hand(name, tmp_path):
    content, products, of_queries, of_values = COUNTED[name]
    closed, dispatched = counted(content, tmp_path)
    attention = 2 * BATCH * L * Q * TOKENS**2 * (of_queries + of_values)
    assert (closed["gemm_flops"], closed["attention_flops"]) == (2 * BATCH * TOKENS * products, attention)
    assert dispatched == 2 * BATCH * TOKENS * products + attention


#: Files of families without a closed form: the dispatcher's count stands alone, and is that of the model.
ALONE = {
    "granitemoeshared": (
        file_of("granitemoeshared", num_local_experts=8, num_experts_per_tok=2, shared_intermediate_size=96),
        layers(experts(inner=F, shared=96)),
    ),
    "flex_olmo": (
        file_of("flex_olmo", num_experts=5, num_experts_per_tok=2),
        layers(experts(count=5, inner=F)),
    ),
    "phimoe": (file_of("phimoe", num_local_experts=8, num_experts_per_tok=2), layers(experts(inner=F))),
    "nanochat": (file_of("nanochat"), layers(PLAIN)),
    "vaultgemma": (file_of("vaultgemma", head_dim=D, sliding_window=16, layer_types=WINDOWS), layers(GATED)),
    "biogpt": (file_of("biogpt", num_key_value_heads=...), layers(PLAIN, kv=Q)),
}


@pytest.mark.parametrize("kind", ALONE)
def test_without_a_closed_form_the_dispatcher_counts_the_same_by_hand(kind, tmp_path):
    content, products = ALONE[kind]
    closed, dispatched = counted(content, tmp_path)
    assert f"the model_type {kind} has none" in closed["model_flops_reason"]
    assert dispatched == 2 * BATCH * TOKENS * products + 2 * BATCH * L * Q * TOKENS**2 * 2 * D


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(
            ({"model_type": kind, "vocab_size": V}, f"no causal language model of the model_type '{kind}'")
            for kind in ("t5", "umt5", "switch_transformers", "llava", "qwen2_vl", "paligemma", "blip-2", "albert")
        ),
        *(({"model_type": kind}, "is_encoder_decoder is true") for kind in ("bart", "pegasus", "whisper", "marian")),
        ({"model_type": "mllama"}, "lacks text_config"),
        ({"model_type": "roberta"}, "of the model_type 'roberta' transformers builds an encoder"),
        (file_of("bert", is_decoder=True), "of the model_type 'bert' transformers builds an encoder"),
        # layers of several sizes, or shared ones, of code that transformers does not have
        ({"model_type": "openelm", "num_kv_heads": [1, 1, 2]}, "unknown model_type 'openelm'"),
        ({"model_type": "nemotron-nas", "block_configs": [{}]}, "unknown model_type 'nemotron-nas'"),
        (file_of("llama", skip_layers=[1]), "has no skip_layers"),
        (file_of("llama", num_nextn_predict_layers=2), "has no num_nextn_predict_layers"),
        (file_of("llama", cla_share_factor=2), "has no cla_share_factor"),
        (file_of("llama", pruned_heads={"0": [1]}), "has no pruned_heads"),
        (
            file_of("deepseek_v2", moe_layer_freq=2, q_lora_rank=None, **_LATENT, **_ROUTED, **_GROUPS),
            "has no moe_layer_freq",
        ),
    ],
)
def test_what_is_no_decoder_or_another_one_is_refused_by_name(content, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        models.find_model(str(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
