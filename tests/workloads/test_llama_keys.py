"""Keys of a Llama's configuration: those of published files are accepted; those of other models are refused by name.

The shapes are those of published files (Llama 1 to 3.2, Code Llama, Vicuna, TinyLlama, SmolLM), with small sizes.
"""

import json

import pytest
from transformers import LlamaConfig as HuggingFaceConfig

from flopray.errors import InputError, SpecError
from flopray.workloads.llama_config import LlamaConfig, find_models, from_hugging_face

SIZES = {
    **{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"intermediate_size": 96, "vocab_size": 256, "rms_norm_eps": 1e-5},
}
COMMON = {
    **{"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu"},
    **{"initializer_range": 0.02, "max_position_embeddings": 2048, "torch_dtype": "float16", "use_cache": True},
    **{"transformers_version": "4.31.0", "tie_word_embeddings": False},
}
LLAMA3_ROPE = {
    **{"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0},
    **{"original_max_position_embeddings": 8192, "rope_type": "llama3"},
}
PUBLISHED = {
    "llama 1": {"max_sequence_length": 2048, "pad_token_id": -1, "architectures": ["LLaMAForCausalLM"]},
    "llama 2": {"_name_or_path": "x", "num_key_value_heads": 4, "pretraining_tp": 1, "rope_scaling": None},
    "llama 2 in slices": {"pretraining_tp": 2, "num_key_value_heads": 2},
    "code llama": {"rope_theta": 1_000_000, "rope_scaling": None, "pad_token_id": None},
    "vicuna": {"max_sequence_length": 2048, "pad_token_id": 0, "temperature": 0.9, "top_p": 0.6, "max_length": 4096},
    "vicuna 16k": {"rope_scaling": {"factor": 4.0, "type": "linear"}},
    "tinyllama": {"num_key_value_heads": 2, "attention_bias": False, "rope_theta": 10000.0},
    "llama 3.2": {
        **{"attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "head_dim": 16},
        **{"eos_token_id": [1, 8, 9], "rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0, "tie_word_embeddings": True},
    },
    "transformers 5": {"rope_parameters": {**LLAMA3_ROPE, "rope_theta": 500000.0}, "dtype": "bfloat16", "head_dim": 16},
    "smollm": {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"kv_cache_dtype": {}}},
    "switched off": {
        **{"sliding_window": 4096, "use_sliding_window": False, "num_local_experts": 0, "quantization_config": None},
        **{"auto_map": None, "draft_vocab_size": None, "layer_types": ["full_attention"] * 2, "some_key": None},
    },
    "labels of a causal model": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
}


def sizes(**content) -> LlamaConfig:
    return from_hugging_face(SIZES | content, "x")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_understood(name):
    content = COMMON | PUBLISHED[name]
    found = sizes(**content)
    assert (found.hidden_size, found.head_dim, found.n_layers) == (64, 16, 2)
    assert found.n_kv_heads == content.get("num_key_value_heads", 4)
    assert found.tied is content["tie_word_embeddings"]


def test_whatever_transformers_writes_of_a_llama_is_understood():
    sizes_only = {key: value for key, value in SIZES.items() if key != "model_type"}
    written = json.loads(HuggingFaceConfig(**sizes_only, architectures=["LlamaForCausalLM"]).to_json_string(False))
    assert from_hugging_face(written, "x") == sizes()
    changed = HuggingFaceConfig(**sizes_only, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert from_hugging_face(json.loads(changed.to_json_string(False)), "x").rope_theta == 500_000


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"architectures": ["LlamaForCausalLMEagle3"]}, "architectures"),
        ({"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}, "architectures"),
        ({"architectures": ["LlamaForCausalLM", "LlamaModel"]}, "architectures"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"id2label": {"0": "reward"}}, "id2label"),
        ({"num_labels": 1}, "num_labels"),
        ({"problem_type": "regression"}, "problem_type"),
        ({"draft_vocab_size": 32000}, "draft_vocab_size"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [2]}}, "eagle_config"),
        ({"quantization_config": {"bits": 4, "quant_method": "gptq"}}, "quantization_config"),
        ({"quantization_config": {"quant_method": "awq", "w_bit": 4}}, "quantization_config"),
        ({"compression_config": {"format": "pack-quantized"}}, "compression_config"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"hidden_act": ["silu"]}, "hidden_act"),
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, "num_local_experts"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"layer_types": ["full_attention"]}, r"layer_types \(has 1 entry for 2"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}}, "auto_map"),
        ({"attention_bias": True}, "attention_bias"),
        ({"attention_bias": "false"}, "attention_bias"),
        ({"mlp_bias": 1}, "mlp_bias"),
        ({"bias": True}, "bias"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_scaling"),
        ({"rope_scaling": {"type": "mrope"}}, "rope_scaling"),
        ({"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, "long_factor"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "full_attention"),
        ({"rope_interleaved": True}, "rope_interleaved"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"pretraining_tp": 0}, "pretraining_tp"),
        ({"pretraining_tp": "1"}, "pretraining_tp"),
        ({"text_config": {"model_type": "llama"}}, "text_config"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"per_layer_config": {"0": {"intermediate_size": 8}}}, "per_layer_config"),
        ({"multiplier_of_mine": 2}, "multiplier_of_mine"),
        ({"use_norm_of_mine": False}, "use_norm_of_mine"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ],
)
def test_what_makes_another_model_is_refused_by_name(content, named):
    with pytest.raises(InputError, match=named) as caught:
        sizes(**content)
    assert str(caught.value).startswith("model x: ")
    assert "\n" not in str(caught.value)


def test_every_key_that_is_refused_is_named_at_once():
    with pytest.raises(InputError, match=r"draft_vocab_size.*auto_map.*hidden_act"):
        sizes(draft_vocab_size=32, auto_map={"AutoConfig": "c.C"}, hidden_act="relu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings must be true or false, got 'false'"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings must be true or false"),
        ({"hidden_size": 66}, "hidden_size 66 is not a multiple of 4 num_attention_heads"),
        ({"hidden_size": 66, "head_dim": 16}, "hidden_size 66 is not a multiple of 4"),
        ({"num_attention_heads": 3}, "hidden_size 64 is not a multiple of 3"),
        ({"hidden_size": 4}, "head_dim must be even"),
        ({"hidden_size": -64}, "hidden_size must be a whole number"),
        ({"hidden_size": 64.0}, "hidden_size must be a whole number"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers must be a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number"),
        ({"num_attention_heads": 128}, "hidden_size 64 is not a multiple of 128"),
        ({"num_key_value_heads": 0}, "num_key_value_heads must be a whole number"),
        ({"num_key_value_heads": 3}, "cannot share 3 key and value heads"),
        ({"num_key_value_heads": 8}, "cannot share 8 key and value heads"),
        ({"num_key_value_heads": False}, "num_key_value_heads must be a whole number"),
        ({"head_dim": 0}, "head_dim must be a whole number"),
        ({"head_dim": 16.0}, "head_dim must be a whole number"),
        ({"intermediate_size": [96]}, "intermediate_size must be a whole number"),
        ({"vocab_size": 2**30}, "vocab_size must be a whole number"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps must be a positive number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number"),
        ({"rope_theta": -1}, "rope_theta must be a positive number"),
        ({"rope_theta": True}, "rope_theta must be a positive number"),
        ({"rope_parameters": {"rope_theta": "many"}}, "rope_theta must be a positive number"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"vocab_size": None}, "lacks vocab_size"),
        ({"model_type": "mixtral"}, "model_type is 'mixtral', only llama"),
        ({"model_type": "mistral"}, "model_type is 'mistral'"),
        ({"model_type": "phi3"}, "model_type is 'phi3'"),
        ({"model_type": None}, "model_type is None"),
        ({"model_type": "llava", "text_config": {"model_type": "llama"}}, "its text_config is one"),
    ],
)
def test_sizes_are_what_they_must_be_and_are_not_made_fit(content, message):
    with pytest.raises(InputError, match=message) as caught:
        sizes(**content)
    assert "\n" not in str(caught.value)


def test_a_missing_size_is_named_and_not_taken_from_another_model():
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        with pytest.raises(InputError, match=f"lacks {key}"):
            from_hugging_face({name: value for name, value in SIZES.items() if name != key}, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type": "llama", "hidden_size": 64, "hidden_size": 128}', "'hidden_size' appears twice"),
        ("[" * 100_000, "cannot be read"),
        ("\ufeff{}", "cannot be read"),
        ("", "cannot be read"),
        ("[]", "not a Hugging Face configuration"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, message):
    (tmp_path / "mine.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        find_models([str(tmp_path / "mine.json")], ["random"])


def test_what_a_manifest_has_is_held_to_the_same():
    text = sizes().to_json()
    assert LlamaConfig.from_json(text) == sizes()
    for change in ({"tied": "false"}, {"hidden_size": 66}, {"rope_theta": None}, {"n_layers": 2.0}):
        with pytest.raises(SpecError):
            LlamaConfig.from_json(json.dumps(json.loads(text) | change))
