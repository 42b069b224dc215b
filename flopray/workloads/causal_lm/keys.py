"""The keys of a configuration: understood by its family, harmless, or the reason why no closed form is stated.

A key that is ignored may change the model: a draft head has another vocabulary, experts are several MLPs, biases are
further weights. The model that transformers builds is measured all the same; its closed form would be a guess. So every
key of the file must be known, and those that change what is computed must have the value that the closed form is of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from flopray.workloads.causal_lm.sizes import NoClosedForm
from flopray.workloads.llama_keys import HARMLESS, is_one_of, short, short_key, why_not, words

#: Keys of any family on which no product and no counted operation depends, or that a point decides. Dropout is taken
#: out of every model, and weights are of the point's precision, whatever the file says of their quantisation.
_HARMLESS = HARMLESS | words(
    "model_type architectures initializer_factor quantization_config compression_config quantization pretraining_tp "
    "rope_theta rope_scaling rope_parameters attention_dropout hidden_dropout dropout resid_pdrop embd_pdrop "
    "attn_pdrop residual_dropout classifier_dropout summary_activation summary_first_dropout summary_proj_to_labels "
    "summary_type summary_use_proj n_ctx n_positions id2label label2id num_labels query_pre_attn_scalar seq_length "
    "_num_labels "
    "router_aux_loss_coef aux_loss_alpha seq_aux initial_context_length cache_implementation gradient_checkpointing "
    "use_parallel_residual rope_interleave ep_size scale_attn_weights hidden_act hidden_activation activation_function "
    "moe_router_dtype topk_method scoring_func hidden_dropout_prob embedding_dropout "
    "n_special predict_special_tokens attention_softmax_in_fp32 "
    "scale_attention_softmax_in_fp32 position_embedding_type order_of_interleaved_layers use_embedding_sharing "
    "use_parallel_embedding rms_norm_eps layer_norm_eps layer_norm_epsilon norm_epsilon norm_eps "
    "attention_probs_dropout_prob"
)
#: Keys of any family that may change what is computed: the values at which they do not, and what other values change.
_OFF: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "is_encoder_decoder": ((False,), "an encoder is not counted"),
    "add_cross_attention": ((False,), "cross attention is not counted"),
    "tie_encoder_decoder": ((False,), "an encoder is not counted"),
    "chunk_size_feed_forward": ((0,), "an MLP in pieces is not counted"),
    "output_attentions": ((False,), "scores that are returned need another attention"),
    "output_hidden_states": ((False,), "hidden states are not returned"),
    "output_router_logits": ((False,), "the loss of a router is not counted"),
    "router_jitter_noise": ((0, 0.0), "noise of a router is not counted"),
    "use_bfloat16": ((False,), "a point has its precision"),
    "torchscript": ((False,), "the model is not traced"),
    "pruned_heads": (({},), "heads that were taken out are not left out"),
    "problem_type": ((), "a head that classifies has no logits of tokens"),
    "use_bidirectional_attention": ((False,), "attention to later tokens is not counted"),
    "partial_rotary_factor": ((1, 1.0), "this family rotates whole heads"),
    "attention_bias": ((False,), "this family has no such biases"),
    "mlp_bias": ((False,), "this family has no such biases"),
    "bias": ((False,), "biases of this name are not counted"),
    "qkv_bias": ((False,), "biases of this name are not counted"),
    "use_qkv_bias": ((False,), "biases of this name are not counted"),
    "lm_head_bias": ((False,), "a bias of the output projection is not counted"),
    "use_sliding_window": ((False,), "windows of this family are not counted"),
    "activation": (("swiglu", "silu"), "another function is not counted"),
    "clip_qkv": ((), "clipped queries and keys are not counted"),
    "moe_layer_freq": ((1,), "layers without experts among others are not counted"),
    "scale_attn_by_inverse_layer_idx": ((False,), "scores scaled by the layer are not counted"),
    "reorder_and_upcast_attn": ((False,), "attention in another order is not counted"),
    "use_mrope": ((False,), "rotary embedding of several axes is not counted"),
    "use_qk_norm": ((False,), "norms of queries and keys are not counted"),
    "qk_layernorm": ((False,), "norms of queries and keys are not counted"),
    "shared_expert_intermediate_size": ((0,), "shared experts of this family are not counted"),
    "full_attn_mod": ((1,), "layers without full attention are not counted"),
    "interpolate_factor": ((1,), "interpolated positions are not counted"),
    "use_gated_activation": ((True,), "this family has a gated MLP"),
    "use_parallel_block": ((True,), "this family has attention and MLP side by side"),
    "decoder_sparse_step": ((1,), "layers without experts among others are not counted"),
    "layer_switch": ((4,), "layers in another order are not counted"),
    "rotary_pct": ((1, 1.0), "this family rotates whole heads"),
}


#: Keys in files of one family that its code does not read, by the values that it is built with anyway; a key stands for
#: the value of that key.
_AS_BUILT: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    # modeling_opt.py: self.embed_positions = OPTLearnedPositionalEmbedding(config.max_position_embeddings, ...), and
    # inputs_embeds = self.embed_tokens(input_ids), which nothing multiplies (Galactica)
    "opt": {"learned_embeddings": (True,), "scale_embeddings": (False,)},
    # modeling_stablelm.py: self.use_parallel_residual = config.use_parallel_residual, self.num_heads =
    # config.num_attention_heads, and no factor of its rotary embedding (stable-code-instruct-3b)
    "stablelm": {
        "parallel_residual": ("use_parallel_residual",),
        "num_heads": ("num_attention_heads",),
        "rotary_scaling_factor": (1, 1.0),
    },
    # modeling_hunyuan_v1_dense.py has no experts to group, no other rotary embedding, and no token that it skips
    "hunyuan_v1_dense": {
        "group_limited_greedy": (False,),
        "position_embedding_xdrope": (False,),
        "skip_cls_token": (False,),
    },
}


def _is_as_built(key: str, content: Mapping[str, Any]) -> bool:
    """Whether a key that a family's code does not read says what the family is built with."""
    values = _AS_BUILT.get(str(content.get("model_type")), {}).get(key, ())
    return is_one_of(content[key], tuple(content.get(v, False) if isinstance(v, str) else v for v in values))


def is_harmless(key: str) -> bool:
    """Whether no product of any family depends on a key."""
    return key in _HARMLESS


def is_switch(key: str) -> bool:
    """Whether a key may change what is computed in some family, whatever it is set to in others."""
    return key in _OFF


def changes_nothing(key: str, content: Mapping[str, Any]) -> bool:
    """Whether a key that a family does not have leaves its model as it is: harmless, or what it adds is turned off.

    Args:
        key: of `content`.
        content: of the file.
    """
    value = content[key]
    off = key in _OFF and is_one_of(value, _OFF[key][0])
    harmless = value is None or key in _HARMLESS or _is_as_built(key, content)
    return harmless or off or why_not(key, content) is None


def check_keys(content: Mapping[str, Any], understood: Collection[str]) -> None:
    """Refuse a closed form for keys that are not understood.

    Args:
        content: of the file.
        understood: keys that the family's closed form reads.

    Raises:
        NoClosedForm: naming every such key.
    """
    unknown = []
    for key, value in content.items():
        if value is None or key in understood or key in _HARMLESS or _is_as_built(key, content):
            continue
        if key not in _OFF:
            unknown.append(f"{short_key(key)} (unknown key)")
        elif not is_one_of(value, _OFF[key][0]):
            unknown.append(f"{key} (is {short(value)}: {_OFF[key][1]})")
    if unknown:
        raise NoClosedForm(f"no closed form: {content.get('model_type')} with {'; '.join(unknown)}")
