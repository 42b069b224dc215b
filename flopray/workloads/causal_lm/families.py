"""Families of models: how the sizes of a configuration are read, and which keys are understood.

A family is a `model_type`. What is stated here was read in the family's `modeling_*.py` of transformers
(https://github.com/huggingface/transformers/tree/main/src/transformers/models), and is checked against the model that
is built: numbers of weights, products, and windows must agree (`agreement`). A model_type that is not here has no
closed form, not even that of a family that it resembles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flopray.workloads.causal_lm import class_keys, dense, mixtures, plain
from flopray.workloads.causal_lm.keys import check_keys, is_harmless
from flopray.workloads.causal_lm.size_names import says_the_same
from flopray.workloads.causal_lm.sizes import NoClosedForm, Sizes
from flopray.workloads.llama_keys import short, words

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


#: What else there is to say of a family without a closed form.
_WHY_NONE = {
    "llama4_text": "has none: transformers sends every token through all experts, and all of them are dispatched",
}


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
        why = _WHY_NONE.get(config.model_type, "has none")
        raise NoClosedForm(f"no closed form: the model_type {config.model_type} {why}{_ignored(content, config)}")
    # Some releases write a size by the name to which the class maps that of the files, or once more.
    understood = family.keys | {name for key, name in config.attribute_map.items() if key in family.keys}
    check_keys(content, understood.union(key for key, value in content.items() if says_the_same(key, value, config)))
    return family.read(config)


def _ignored(content: Mapping[str, Any], config: Any) -> str:
    """Of a family without a closed form, keys that its code does not read, and may be built without."""
    unread = [key for key in class_keys.unread(content, config) if content[key] is not None and not is_harmless(key)]
    named = ", ".join(map(short, unread[:5])) + ", ..." * (len(unread) > 5)
    return f"; transformers may ignore {named}" if unread else ""


_NO_HEAD_DIM = _BASIC - words("head_dim")
_MULTIPLIERS = words("attention_multiplier embedding_multiplier logits_scaling residual_multiplier")
_WINDOWS = words("sliding_window use_sliding_window max_window_layers layer_types")
_DEEPSEEK = words(
    "kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim n_routed_experts n_shared_experts "
    "num_experts_per_tok moe_intermediate_size first_k_dense_replace n_group topk_group topk_method norm_topk_prob "
    "routed_scaling_factor scoring_func attention_bias qk_head_dim num_nextn_predict_layers num_mtp_layers"
)
_QWEN_MOE = words(
    "decoder_sparse_step moe_intermediate_size num_experts_per_tok num_experts norm_topk_prob mlp_only_layers"
)
_PLAIN = words("hidden_size num_hidden_layers num_attention_heads vocab_size tie_word_embeddings")
_GPT = words("n_embd n_head n_layer n_inner n_positions vocab_size tie_word_embeddings")
_HUNYUAN = words(
    "use_qk_norm use_cla cla_share_factor attention_head_dim use_rotary_pos_emb norm_type use_mixed_mlp_moe "
    "add_classification_head pool_type class_num mask_init_id enable_lm_head_fp32 sep_token_id im_end_id im_start_id "
    "im_newline_id image_token_id text_start_id text_end_id eod_token_id org_vocab_size dense_list pad_id"
)
_GEMMA2 = words(
    "attention_bias sliding_window sliding_window_size layer_types final_logit_softcapping attn_logit_softcapping "
    "sliding_window_pattern _sliding_window_pattern rope_local_base_freq"
)
FAMILIES: Mapping[str, Family] = {
    "llama": Family(dense.llama, _BASIC | words("attention_bias mlp_bias")),
    "mistral": Family(dense.mistral, _BASIC | words("sliding_window")),
    "phi3": Family(dense.mistral, _BASIC | words("sliding_window partial_rotary_factor")),
    "qwen2": Family(dense.qwen2, _BASIC | _WINDOWS | words("attention_bias qkv_bias")),
    "qwen3": Family(dense.qwen3, _BASIC | _WINDOWS | words("attention_bias use_qk_norm")),
    "gemma": Family(dense.gemma, _BASIC | words("attention_bias")),
    "gemma2": Family(dense.gemma2, _BASIC | _GEMMA2),
    "gemma3_text": Family(dense.gemma2, _BASIC | _GEMMA2),
    "smollm3": Family(
        dense.smollm3, _BASIC | _WINDOWS | words("attention_bias mlp_bias no_rope_layers no_rope_layer_interval")
    ),
    "granite": Family(dense.granite, _BASIC | _MULTIPLIERS | words("attention_bias mlp_bias")),
    "phi": Family(dense.phi, _NO_HEAD_DIM | words("partial_rotary_factor qk_layernorm attention_bias mlp_bias")),
    "starcoder2": Family(dense.starcoder2, _NO_HEAD_DIM | words("use_bias sliding_window norm_type mlp_type")),
    "cohere": Family(dense.cohere, _NO_HEAD_DIM | words("attention_bias logit_scale use_qk_norm")),
    "cohere2": Family(
        dense.cohere,
        _BASIC | words("attention_bias logit_scale sliding_window layer_types sliding_window_pattern"),
    ),
    "glm": Family(dense.glm4, _BASIC | words("attention_bias partial_rotary_factor")),
    "glm4": Family(dense.glm4, _BASIC | words("attention_bias partial_rotary_factor")),
    "olmo": Family(dense.olmo, _NO_HEAD_DIM | words("attention_bias clip_qkv")),
    "olmo3": Family(dense.olmo2, _BASIC | words("attention_bias sliding_window layer_types")),
    "olmo2": Family(dense.olmo2, _BASIC | words("attention_bias")),
    "gpt2": Family(dense.gpt2, _GPT),
    "gpt_neox": Family(
        dense.gpt_neox,
        (_BASIC - words("num_key_value_heads head_dim"))
        | words("attention_bias rotary_pct rotary_emb_base partial_rotary_factor"),
    ),
    "seed_oss": Family(dense.seed_oss, _BASIC | words("attention_bias attention_out_bias mlp_bias")),
    "ernie4_5": Family(dense.ernie4_5, _BASIC | words("use_bias compression_ratio")),
    "helium": Family(dense.helium, _BASIC | words("attention_bias mlp_bias")),
    "exaone4": Family(dense.exaone4, _BASIC | words("sliding_window sliding_window_pattern layer_types")),
    "hunyuan_v1_dense": Family(
        dense.hunyuan, _BASIC | _HUNYUAN | words("attention_bias mlp_bias num_experts moe_topk num_shared_expert")
    ),
    "ministral3": Family(dense.ministral3, _BASIC | words("sliding_window")),
    "cwm": Family(dense.cwm, _BASIC | words("sliding_window layer_types")),
    "bitnet": Family(dense.bitnet, _NO_HEAD_DIM | words("attention_bias")),
    "stablelm": Family(
        dense.stablelm,
        _NO_HEAD_DIM | words("use_qkv_bias qk_layernorm use_parallel_residual partial_rotary_factor rope_pct"),
    ),
    "arcee": Family(plain.arcee, _BASIC | words("attention_bias mlp_bias")),
    "apertus": Family(plain.apertus, _BASIC | words("attention_bias mlp_bias qk_norm post_norm")),
    "nemotron": Family(
        plain.nemotron,
        _BASIC | words("attention_bias mlp_bias partial_rotary_factor rope_percent norm_eps kv_channels"),
    ),
    "persimmon": Family(plain.persimmon, _PLAIN | words("intermediate_size qk_layernorm partial_rotary_factor")),
    "gptj": Family(plain.gptj, _GPT | words("rotary_dim rotary")),
    "codegen": Family(plain.gptj, _GPT | words("rotary_dim")),
    "gpt_bigcode": Family(
        plain.gpt_bigcode,
        _GPT
        | words(
            "multi_query pad_key_length inference_runner validate_runner_input pre_allocate_kv_cache max_batch_size"
        ),
    ),
    "opt": Family(
        plain.opt,
        _PLAIN
        | words(
            "ffn_dim word_embed_proj_dim do_layer_norm_before enable_bias layer_norm_elementwise_affine "
            "_remove_final_layer_norm layerdrop activation_dropout init_std"
        ),
    ),
    "falcon": Family(
        plain.falcon,
        _PLAIN
        | words(
            "alibi bias multi_query new_decoder_architecture parallel_attn num_kv_heads n_head n_layer n_head_kv "
            "ffn_hidden_size num_ln_in_parallel_attn apply_residual_connection_post_layernorm activation ff_factor"
        ),
    ),
    "bloom": Family(
        plain.bloom,
        _PLAIN
        | words(
            "n_embed n_layer n_head apply_residual_connection_post_layernorm skip_bias_add skip_bias_add_qkv "
            "slow_but_exact masked_softmax_fusion bias_dropout_fusion offset_alibi unk_token_id"
        ),
    ),
    "mpt": Family(
        plain.mpt,
        words(
            "d_model n_heads n_layers vocab_size expansion_ratio max_seq_len no_bias norm_type learned_pos_emb "
            "attn_config init_config init_device emb_pdrop resid_pdrop logit_scale verbose embedding_fraction "
            "tie_word_embeddings"
        ),
    ),
    "granitemoehybrid": Family(
        mixtures.granitemoehybrid,
        _BASIC
        | _MULTIPLIERS
        | words("attention_bias num_local_experts num_experts_per_tok shared_intermediate_size layer_types")
        | words("position_embedding_type mamba_chunk_size mamba_conv_bias mamba_d_conv mamba_d_head mamba_d_state")
        | words("mamba_expand mamba_n_groups mamba_n_heads mamba_proj_bias normalization_function init_method"),
    ),
    "ernie4_5_moe": Family(
        mixtures.ernie4_5_moe,
        _BASIC
        | words(
            "use_bias moe_num_experts moe_k moe_intermediate_size moe_num_shared_experts moe_layer_start_index "
            "moe_layer_end_index moe_layer_interval moe_use_aux_free moe_gate moe_capacity moe_norm_min "
            "num_nextn_predict_layers"
        ),
    ),
    "dots1": Family(
        mixtures.dots1,
        _BASIC
        | _WINDOWS
        | words(
            "attention_bias n_routed_experts n_shared_experts num_experts_per_tok moe_intermediate_size n_group "
            "first_k_dense_replace topk_group norm_topk_prob routed_scaling_factor"
        ),
    ),
    "minimax_m2": Family(
        mixtures.minimax_m2,
        _BASIC
        | words(
            "num_local_experts num_experts_per_tok attn_type_list use_qk_norm qk_norm_type rotary_dim scoring_func "
            "use_routing_bias use_mtp num_mtp_modules mtp_transformer_layers shared_intermediate_size "
            "partial_rotary_factor"
        ),
    ),
    "hunyuan_v1_moe": Family(
        mixtures.hunyuan_moe,
        _BASIC
        | _HUNYUAN
        | words(
            "attention_bias mlp_bias num_experts moe_topk moe_intermediate_size num_shared_expert "
            "moe_layer_num_skipped use_mixed_mlp_moe group_limited_greedy norm_topk_prob routed_scaling_factor "
            "moe_drop_tokens moe_random_routing_dropped_token capacity_factor"
        ),
    ),
    "mixtral": Family(mixtures.mixtral, _BASIC | words("sliding_window num_experts_per_tok num_local_experts")),
    "qwen2_moe": Family(
        mixtures.qwen2_moe, _BASIC | _WINDOWS | _QWEN_MOE | words("qkv_bias shared_expert_intermediate_size")
    ),
    "qwen3_moe": Family(
        mixtures.qwen3_moe,
        _BASIC | _QWEN_MOE | words("attention_bias sliding_window use_sliding_window max_window_layers use_qk_norm"),
    ),
    "olmoe": Family(mixtures.olmoe, _BASIC | words("attention_bias num_experts_per_tok num_experts norm_topk_prob")),
    "granitemoe": Family(
        mixtures.granitemoe,
        _NO_HEAD_DIM | _MULTIPLIERS | words("attention_bias num_local_experts num_experts_per_tok"),
    ),
    "glm4_moe": Family(
        mixtures.glm4_moe,
        _BASIC
        | words(
            "attention_bias partial_rotary_factor use_qk_norm n_routed_experts n_shared_experts num_experts_per_tok "
            "moe_intermediate_size first_k_dense_replace n_group topk_group norm_topk_prob routed_scaling_factor "
            "num_nextn_predict_layers"
        ),
    ),
    "gpt_oss": Family(
        mixtures.gpt_oss,
        _BASIC
        | words(
            "attention_bias sliding_window layer_types num_experts_per_tok num_local_experts swiglu_limit "
            "swiglu_alpha experts_per_token"
        ),
    ),
    "deepseek_v2": Family(mixtures.deepseek, _BASIC | _DEEPSEEK),
    "deepseek_v3": Family(mixtures.deepseek, _BASIC | _DEEPSEEK),
}
