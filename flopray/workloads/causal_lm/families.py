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

from flopray.workloads.causal_lm import dense, mixtures
from flopray.workloads.causal_lm.keys import check_keys
from flopray.workloads.causal_lm.sizes import NoClosedForm, Sizes
from flopray.workloads.llama_keys import words

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
_GEMMA2 = words(
    "attention_bias sliding_window sliding_window_size layer_types final_logit_softcapping attn_logit_softcapping "
    "sliding_window_pattern _sliding_window_pattern rope_local_base_freq"
)
FAMILIES: Mapping[str, Family] = {
    "llama": Family(dense.llama, _BASIC | words("attention_bias mlp_bias")),
    "mistral": Family(dense.mistral, _BASIC | words("sliding_window")),
    "phi3": Family(dense.mistral, _BASIC | words("sliding_window partial_rotary_factor")),
    "qwen2": Family(dense.qwen2, _BASIC | _WINDOWS),
    "qwen3": Family(dense.qwen3, _BASIC | _WINDOWS | words("attention_bias use_qk_norm")),
    "gemma": Family(dense.gemma, _BASIC | words("attention_bias")),
    "gemma2": Family(dense.gemma2, _BASIC | _GEMMA2),
    "gemma3_text": Family(dense.gemma2, _BASIC | _GEMMA2),
    "smollm3": Family(
        dense.smollm3, _BASIC | _WINDOWS | words("attention_bias mlp_bias no_rope_layers no_rope_layer_interval")
    ),
    "granite": Family(dense.granite, _BASIC | _MULTIPLIERS | words("attention_bias mlp_bias")),
    "phi": Family(dense.phi, _NO_HEAD_DIM | words("partial_rotary_factor")),
    "starcoder2": Family(dense.starcoder2, _NO_HEAD_DIM | words("use_bias sliding_window")),
    "cohere": Family(dense.cohere, _NO_HEAD_DIM | words("attention_bias logit_scale")),
    "cohere2": Family(
        dense.cohere,
        _BASIC | words("attention_bias logit_scale sliding_window layer_types sliding_window_pattern"),
    ),
    "glm4": Family(dense.glm4, _BASIC | words("attention_bias partial_rotary_factor")),
    "olmo": Family(dense.olmo, _NO_HEAD_DIM | words("attention_bias")),
    "olmo3": Family(dense.olmo2, _BASIC | words("attention_bias sliding_window layer_types")),
    "olmo2": Family(dense.olmo2, _BASIC | words("attention_bias")),
    "gpt2": Family(dense.gpt2, words("n_embd n_head n_layer n_inner n_positions vocab_size tie_word_embeddings")),
    "gpt_neox": Family(
        dense.gpt_neox,
        (_BASIC - words("num_key_value_heads head_dim"))
        | words("attention_bias rotary_pct rotary_emb_base partial_rotary_factor"),
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
