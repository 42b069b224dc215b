"""The keys of a Hugging Face `config.json` of a Llama: understood, known to be harmless, or refused by name.

A key that is ignored may change the model: a draft head has another vocabulary, a reward head has none, experts are
several MLPs, biases are further weights. Closed form and dispatcher would agree on the wrong number, since both are
made from the same sizes. So every known key is listed here, and any other one is refused.

Sources: `LlamaConfig` and `PreTrainedConfig` of transformers
(https://github.com/huggingface/transformers/blob/main/src/transformers/models/llama/configuration_llama.py and
https://github.com/huggingface/transformers/blob/main/src/transformers/configuration_utils.py), and what published
configurations of Llama 1 to 3.3, Code Llama, Vicuna, TinyLlama and SmolLM have besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from flopray.errors import SpecError
from flopray.units import counted


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


#: Sizes and switches that `flopray.workloads.llama_config.from_hugging_face` reads, and what `check_keys` looks into.
_READ = words(
    "model_type hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size "
    "vocab_size tie_word_embeddings rope_theta rms_norm_eps rope_parameters rope_scaling architectures hidden_act "
    "layer_types sliding_window use_sliding_window attention_dropout pretraining_tp id2label label2id "
    "num_labels"
)

#: Keys that say how text is made from logits, how tokens are named, or who wrote the file: no computation uses them.
#: They include the lengths that a model was trained for, since a point states its own, and the type of the weights,
#: since a point has its precision.
HARMLESS = words(
    # Tokens
    "bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id unk_token_id decoder_start_token_id "
    "image_token_id tokenizer_class tokenizer_name padding_side model_max_length max_position_embeddings "
    "max_sequence_length original_max_position_embeddings "
    # Generating
    "use_cache bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping "
    "encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id "
    "length_penalty max_length max_new_tokens min_length min_new_tokens no_repeat_ngram_size num_beam_groups num_beams "
    "num_return_sequences output_scores remove_invalid_values repetition_penalty return_dict_in_generate "
    "suppress_tokens temperature top_k top_p typical_p min_p epsilon_cutoff eta_cutoff prefix task_specific_params "
    # Initial values, where the file comes from, what a framework keeps for itself
    "initializer_range torch_dtype dtype transformers_version _name_or_path name_or_path _commit_hash finetuning_task "
    "base_model_name_or_path return_dict is_decoder is_llama_config tf_legacy_loss "
    "_attn_implementation attn_implementation _attn_implementation_autoset _attn_implementation_internal "
    "_flash_attn_2_enabled _experts_implementation_internal unsloth_version unsloth_fixed transformers.js_config "
    "trl_version license model_name"
)

#: Keys that may change what is computed: the values at which they do not, and what other values change.
_OFF: dict[str, tuple[tuple[Any, ...], str]] = {
    **dict.fromkeys(("attention_bias", "mlp_bias", "bias", "qkv_bias"), ((False,), "biases are not counted")),
    **dict.fromkeys(("use_bias", "use_qkv_bias", "lm_head_bias"), ((False,), "biases are not counted")),
    **dict.fromkeys(
        ("quantization_config", "compression_config", "quantization"),
        (({},), "quantised weights run other kernels; a point's precision states its type"),
    ),
    "auto_map": (({},), "the model is code of its own, which is not run"),
    "draft_vocab_size": ((), "a draft head computes fewer logits"),
    **dict.fromkeys(
        ("num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok", "n_shared_experts"),
        ((0,), "experts are not counted"),
    ),
    "partial_rotary_factor": ((1, 1.0), "rotary embeddings of a part of a head are not built"),
    "rope_interleaved": ((False,), "transformers' Llama rotates halves, not neighbours"),
    "text_config": ((), "the language model is a part of a larger one: write its part to a file of its own"),
    "is_encoder_decoder": ((False,), "a Llama has no encoder"),
    "add_cross_attention": ((False,), "a Llama has no cross attention"),
    "tie_encoder_decoder": ((False,), "a Llama has no encoder"),
    "chunk_size_feed_forward": ((0,), "the MLP is measured in one piece"),
    "output_attentions": ((False,), "scores that are returned need another attention"),
    "output_hidden_states": ((False,), "hidden states are not returned"),
    "use_bfloat16": ((False,), "precision is a choice of the sweep: precision='bf16'"),
    "torchscript": ((False,), "the model is not traced"),
    "pruned_heads": (({},), "heads that were taken out are not left out here"),
    "problem_type": ((), "a head that classifies has no logits of tokens"),
    **dict.fromkeys(
        ("hidden_dropout", "dropout", "resid_pdrop", "embd_pdrop", "residual_dropout", "classifier_dropout"),
        ((0, 0.0), "dropout is not measured"),
    ),
}

#: Rotary embeddings whose angles are computed once, so that they cost what the plain ones cost.
_ROPE_KINDS = ("default", "linear", "llama3", "yarn")
_ROPE_KEYS = words(
    "type rope_type rope_theta factor low_freq_factor high_freq_factor original_max_position_embeddings "
    "attention_factor beta_fast beta_slow mscale mscale_all_dim truncate finetuned partial_rotary_factor"
)
#: transformers writes this where a configuration does not state it.
_DEFAULT_LABELS = 2


def check_keys(content: Mapping[str, Any]) -> None:
    """Refuse keys that would make another model than the sizes say.

    Args:
        content: of the file, with `model_type` `llama`.

    Raises:
        SpecError: naming every key that is not understood, with the reason where it is known.
    """
    refused = [f"{key} ({why})" for key, why in _refusals(content)]
    if refused:
        raise SpecError(f"not measured: {'; '.join(refused)}. Take out what the model does not need")


def _refusals(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(short_key(key), why) for key in content if (why := why_not(key, content))]


def why_not(key: str, content: Mapping[str, Any]) -> str | None:
    """Why a key of a file makes another model than a Llama of its sizes; None where it changes nothing.

    Args:
        key: of `content`.
        content: of the file.
    """
    value, look = content[key], _LOOKS.get(key)
    if value is None or key in HARMLESS:
        return None
    if look is not None:
        return look(content)
    if key in _OFF:
        return None if is_one_of(value, _OFF[key][0]) else f"is {short(value)}: {_OFF[key][1]}"
    return None if key in _READ else "unknown key"


def is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Equality that tells True from 1 and `"false"` from False."""
    return any(type(value) is type(one) and value == one for one in allowed)


def short(value: Any) -> str:
    """A value as a message can quote it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def short_key(key: str) -> str:
    """A key as a message can quote it: bare where it is a word, which all keys of transformers are."""
    return key if key.replace(".", "_").isidentifier() and len(key) <= 60 else short(key)


def _architectures(content: Mapping[str, Any]) -> str | None:
    names = content["architectures"]
    # The second is how the first release of transformers wrote it.
    known = names in ([], ["LlamaForCausalLM"], ["LLaMAForCausalLM"])
    return None if known else f"is {short(names)}: only LlamaForCausalLM is built"


def labels_of_a_classifier(content: Mapping[str, Any]) -> str | None:
    """Labels do not matter with a causal architecture; without one, labels mean a classifier."""
    if content.get("architectures"):
        return None
    count = content.get("num_labels", _DEFAULT_LABELS)
    sizes = [len(content[key]) for key in ("id2label", "label2id") if isinstance(content.get(key), Mapping)]
    if all(is_one_of(size, (_DEFAULT_LABELS,)) for size in (count, *sizes)):
        return None
    return "architectures is missing, and labels are of a head that classifies"


def _activation(content: Mapping[str, Any]) -> str | None:
    act = content["hidden_act"]
    # transformers knows the function by both names.
    return None if act in ("silu", "swish") else f"is {short(act)}: the MLP is built with silu"


def _layer_types(content: Mapping[str, Any]) -> str | None:
    types, layers = content["layer_types"], content.get("num_hidden_layers")
    if not isinstance(types, list) or any(kind != "full_attention" for kind in types):
        return f"is {short(types)}: only full_attention is built"
    return None if len(types) == layers else f"has {counted(len(types), 'entry', 'entries')} for {short(layers)} layers"


def _sliding_window(content: Mapping[str, Any]) -> str | None:
    if is_one_of(content.get("use_sliding_window"), (False,)) or is_one_of(content["sliding_window"], (False,)):
        return None
    return f"is {short(content['sliding_window'])}: attention is counted without a window"


def _use_sliding_window(content: Mapping[str, Any]) -> str | None:
    value = content["use_sliding_window"]
    return None if value is False else f"is {short(value)}: attention is counted without a window"


def _dropout(content: Mapping[str, Any]) -> str | None:
    value = content["attention_dropout"]
    return None if is_one_of(value, (0, 0.0)) else f"is {short(value)}: dropout is not measured"


def _pretraining_tp(content: Mapping[str, Any]) -> str | None:
    """Above 1, old releases cut products into pieces and add them up: the same FLOPs. transformers 5 does not."""
    value = content["pretraining_tp"]
    return None if type(value) is int and value >= 1 else f"is {short(value)}, and must be a whole number from 1"


def _rope(key: str) -> Callable[[Mapping[str, Any]], str | None]:
    def look(content: Mapping[str, Any]) -> str | None:
        rope = content[key]
        if not isinstance(rope, Mapping):
            return f"is {short(rope)}, and must be an object"
        unknown = [name for name in rope if name not in _ROPE_KEYS]
        if unknown:
            return f"has an unknown key {short(unknown[0])}"
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in _ROPE_KINDS:
            return f"is of the kind {short(kind)}: only {', '.join(_ROPE_KINDS)} cost what is measured"
        if not is_one_of(rope.get("partial_rotary_factor", 1.0), (1, 1.0)):
            return f"partial_rotary_factor {_OFF['partial_rotary_factor'][1]}"
        factor = rope.get("factor", 1.0)
        if type(factor) not in (int, float) or not (math.isfinite(factor) and factor > 0):
            return f"factor must be a positive number, got {short(factor)}"
        return None

    return look


_LOOKS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "architectures": _architectures,
    **dict.fromkeys(("id2label", "label2id", "num_labels"), labels_of_a_classifier),
    "hidden_act": _activation,
    "layer_types": _layer_types,
    "sliding_window": _sliding_window,
    "use_sliding_window": _use_sliding_window,
    "attention_dropout": _dropout,
    "pretraining_tp": _pretraining_tp,
    "rope_scaling": _rope("rope_scaling"),
    "rope_parameters": _rope("rope_parameters"),
}
