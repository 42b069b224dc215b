"""Configurations as releases of transformers save them, and as families with layers of several kinds publish them.

A class may take sizes of single layers, sizes inside of a mapping, or sizes under further keys; it may make another
list of the file's, and have the model of another family. What it builds as the file says is counted, and the counts are
made here by hand; all else is refused by the key.
"""

import json

import pytest
from test_causal_lm import config, point

from flopray.errors import InputError
from flopray.workloads.base import closed_columns
from flopray.workloads.causal_lm import configuration, models
from flopray.workloads.dispatch import dispatched_flops

_GEMMA4 = {
    **{"head_dim": 16, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    **{"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "num_kv_shared_layers": 0},
}
_LATENT = {
    **{"kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12},
    **{"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    **{"n_group": 1, "topk_group": 1, "num_key_value_heads": 4, "head_dim": None, "first_k_dense_replace": 1},
}
_INDEXER = {"index_topk": 8, "index_head_dim": 16, "index_n_heads": 2, "qk_head_dim": 24}
_MAMBA2 = {
    **{"num_attention_heads": None, "num_key_value_heads": None, "state_size": 16, "num_heads": 4, "head_dim": 32},
    **{"expand": 2, "n_groups": 1, "conv_kernel": 4, "intermediate_size": 128, "chunk_size": 16},
}
_MIMO = {
    **{"num_hidden_layers": 6, "v_head_dim": 12, "sliding_window": 8, "sliding_window_size": 8},
    **{"moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    **{"hybrid_layer_pattern": [0, 1, 1, 1, 1, 0], "moe_layer_freq": [0, 1, 1, 1, 1, 1]},
    **{"swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_head_dim": 24, "swa_v_head_dim": 12},
}
_NEMOTRON_H = {
    **{"hybrid_override_pattern": "M-*-", "num_hidden_layers": 4, "mamba_num_heads": 4, "mamba_head_dim": 32},
    **{"ssm_state_size": 16, "n_groups": 1, "conv_kernel": 4, "chunk_size": 16, "expand": 2},
}
_KIMI = {
    **{name: value for name, value in _LATENT.items() if not name.startswith(("n_", "num_e"))},
    **{"num_experts": 8, "num_experts_per_token": 2, "num_shared_experts": 1, "q_lora_rank": None},
    "linear_attn_config": {
        **{"head_dim": 16, "num_heads": 2, "short_conv_kernel_size": 4, "kda_layers": [1], "full_attn_layers": [2]},
    },
}
_EXAONE = {"num_hidden_layers": None, "num_layers": 2, "head_dim": 16, "hidden_act": None}
_TOKENS = 32


def _counted(content: dict) -> int | None:
    return dispatched_flops(point(content, batch=1, tokens=_TOKENS), "forward", None)["dispatched_flops"]


def test_layers_of_several_widths_by_hand():
    """Gemma 4: heads of whole attention are wider than those of windows."""
    sliding = 64 * 4 * 16 + 2 * 64 * 2 * 16 + 4 * 16 * 64  # queries, keys and values, back
    whole = 64 * 4 * 32 + 2 * 64 * 2 * 32 + 4 * 32 * 64
    products = sliding + whole + 2 * 3 * 64 * 96 + 64 * 128
    wanted = 2 * _TOKENS * products + 2 * _TOKENS**2 * 4 * (16 + 16 + 32 + 32)
    stated = config("gemma4_text", **_GEMMA4, global_head_dim=32)
    assert _counted(stated) == wanted
    # The same, as transformers saves it, and without the list that is the default.
    assert _counted(config("gemma4_text", **_GEMMA4, per_layer_config={"1": {"head_dim": 32}})) == wanted
    assert _counted(config("gemma4_text", **{**_GEMMA4, "layer_types": None}, global_head_dim=32)) == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # Layers of their own, which the class keeps and no code builds.
        (config("llama", per_layer_config={"0": {"intermediate_size": 48}}), "per_layer_config has intermediate_size"),
        (config("llama", per_layer_config={"0": {"skip": ["mlp"]}}), "per_layer_config has skip, which transformers"),
        (config("diffllama", head_dim=None, per_layer_config={"1": {"skip": ["mlp"]}}), "per_layer_config has skip"),
        (
            config("gemma4_text", **_GEMMA4, per_layer_config={"1": {"head_dim": 32, "skip": ["mlp"]}}),
            "per_layer_config has skip, which transformers does not build by layer",
        ),
        (config("gemma4_text", **_GEMMA4, per_layer_config={"1": {"head_dim": 32, "width": 3}}), "missing: ['width']"),
        (
            config("gemma4_text", **_GEMMA4, per_layer_config={"1": {"intermediate_size": 48}}),
            "transformers cannot build it: AmbiguousGlobalPerLayerAttributeError: 'intermediate_size' is a per-layer",
        ),
        # Sizes that a class takes from further keys.
        (config("gemma4_text", **_GEMMA4), "lacks global_head_dim, for which the class of transformers would take 512"),
        (
            config("kimi_linear", **{**_KIMI, "first_k_dense_replace": None}),
            "lacks first_k_dense_replace, for which the class of transformers would take 1",
        ),
        (
            config("kimi_linear", **{**_KIMI, "linear_attn_config": None}),
            "lacks linear_head_dim, for which the class of transformers would take 128",
        ),
        (
            config("kimi_linear", **{**_KIMI, "num_experts_per_token": None}),
            "lacks num_experts_per_tok (num_experts_per_token), for which the class of transformers would take 8",
        ),
        # Layers of several kinds, of which the file does not say where they are.
        (
            config("glm_moe_dsa", **{**_LATENT, **_INDEXER, "first_k_dense_replace": None}),
            "lacks first_k_dense_replace",
        ),
        (
            config("jamba", num_experts=8, num_experts_per_tok=2, mamba_d_state=8, mamba_d_conv=4, mamba_expand=2),
            "lacks expert_layer_period, for which the class of transformers would take 2",
        ),
        # Sizes that are none, and are taken by classes that do not look at them.
        (config("kimi_linear", **{**_KIMI, "first_k_dense_replace": 1.5}), "first_k_dense_replace is 1.5, and must be"),
        (config("kimi_linear", **{**_KIMI, "num_experts_per_token": "4"}), "is '4', and must be a whole number"),
        (
            config("kimi_linear", **_KIMI, routed_expert_hidden_size=32),
            "has no routed_expert_hidden_size, so it would be",
        ),
        (config("kimi_linear", **_KIMI, moe_layer_freq=2), "a kimi_linear of transformers has no moe_layer_freq"),
        (config("nemotron_h", **{**_NEMOTRON_H, "num_hidden_layers": 4.0}), "num_hidden_layers is 4.0, and must be a"),
        (config("nemotron_h", **{**_NEMOTRON_H, "ssm_state_size": -1}), "ssm_state_size is -1, and must be at least 1"),
        (config("falcon", num_kv_heads=-1), "num_kv_heads is -1, and must be at least 1"),
        (config("gemma4_text", **_GEMMA4, global_head_dim=0), "global_head_dim is 0, and must be at least 1"),
        (config("deepseek_v3", num_experts_per_tok=0), "num_experts_per_tok is 0, and n_routed_experts is 8"),
        (config("deepseek_v3", moe_intermediate_size=0), "moe_intermediate_size is 0, and n_routed_experts is 8"),
        # A list of which the class makes another.
        (
            config("gemma4_text", **{**_GEMMA4, "layer_types": ["full_attention", "sliding_attention"]})
            | {"global_head_dim": 32},
            "layer_types is ['full_attention', 'sliding_attention'], and transformers makes it ['full_attention', ",
        ),
        # A list with something of each layer, which nobody reads.
        (config("diffllama", head_dim=None, window_sizes=[8, 16]), "a diffllama of transformers has no window_sizes"),
        (
            config("mimo_v2_flash", **{**_MIMO, "hybrid_layer_pattern": [0, 1, 1, 0, 1, 0]}),
            "hybrid_layer_pattern is [0, 1, 1, 0, 1, 0], by which layers with 'full_attention' are 0, 3, 5, and by",
        ),
        (
            config("mimo_v2_flash", **{**_MIMO, "moe_layer_freq": [0, 0, 1, 1, 1, 1]}),
            "by which layers with 'dense' are 0, 1, and by mlp_layer_types they are 0",
        ),
        (config("mimo_v2_flash", **{**_MIMO, "swa_num_key_value_heads": 2}), "has no swa_num_key_value_heads"),
        (
            config("mimo_v2_flash", **{**_MIMO, "sliding_window_size": 16}),
            "sliding_window is 8, and transformers",
        ),
        # Sizes beside those of which a class derives them.
        (
            config("glm_moe_dsa", **_LATENT, index_topk=8, index_head_dim=16, index_n_heads=2) | {"head_dim": 20},
            "head_",
        ),
        (config("glm4_moe_lite", **_LATENT, qk_head_dim=32), "a glm4_moe_lite of transformers has no qk_head_dim"),
        (config("falcon", num_key_value_heads=4), "a falcon of transformers has no num_key_value_heads"),
        (config("mamba2", **{**_MAMBA2, "intermediate_size": 96}), "a mamba2 of transformers has no intermediate_size"),
        (config("nemotron_h", **{**_NEMOTRON_H, "head_dim": None}, attention_head_dim=16), "lacks head_dim, for which"),
        (
            config("nemotron_h", **{**_NEMOTRON_H, "hybrid_override_pattern": "M-*E"}),
            "lacks n_routed_experts, for which the class of transformers would take 8",
        ),
        # Of a family with another's model, the head of yet another.
        (config("exaone", **_EXAONE, architectures=["ExaoneForSequenceClassification"]), "LlamaForCausalLM would be"),
        (
            config("exaone", **_EXAONE, auto_map={"AutoModelForCausalLM": "m.ExaoneForRewards"}),
            "auto_map names code of the model's own, which is never run",
        ),
    ],
)
def test_what_transformers_builds_in_another_way_is_refused_by_its_key(content, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        models.find_models([str(tmp_path)], ["random"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_as_it_was_after_its_class_has_read_it():
    content = config("gemma4_text", **{**_GEMMA4, "layer_types": ["sliding_attention"] * 2}, global_head_dim=32)
    configuration.completed(content)
    assert content["layer_types"] == ["sliding_attention"] * 2


def test_a_family_with_the_model_of_another_counts_like_it():
    llama = config("llama", head_dim=16)
    exaone = config("exaone", **_EXAONE, architectures=["ExaoneForCausalLM"], activation_function="silu")
    exaone |= {"auto_map": {"AutoModelForCausalLM": "modeling_exaone.ExaoneForCausalLM"}}
    plain = {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False}
    assert _counted(exaone) == _counted(llama | plain)
    assert _counted(config("internlm3", head_dim=16, bias=True, qkv_bias=True)) == _counted(llama)


@pytest.mark.parametrize(
    ("kind", "changes", "also"),
    [
        ("qwen3_moe", {}, {"num_local_experts": 8, "num_experts": None}),
        ("gpt_bigcode", {}, {"num_key_value_heads": 1}),
        ("gpt_bigcode", {"multi_query": False}, {"num_key_value_heads": 4}),
        ("deepseek_v3", {}, {"qk_head_dim": 24}),
        ("minimax_m2", {}, {"auto_map": {"AutoModelForCausalLM": "modeling_minimax_m2.MiniMaxM2ForCausalLM"}}),
        ("minimax_m2", {}, {"attn_type_list": [1, 1]}),
    ],
)
def test_a_size_that_is_stated_once_more_changes_no_closed_form(kind, changes, also):
    once, again = (
        closed_columns(point(config(kind, **changes, **further)), "forward").get("model_flops")
        for further in ({}, also)
    )
    assert once == again is not None


def test_a_number_that_json_does_not_have_is_read_as_transformers_writes_it(tmp_path):
    content = config("mamba2", **_MAMBA2)
    file = tmp_path / "m.json"
    counts = []
    for limit in ({}, {"time_step_limit": [0.0, {"__float__": "Infinity"}]}):
        file.write_text(json.dumps(content | limit))
        _, configs = models.find_models([str(file)], ["random"])
        counts.append(_counted(json.loads(configs["m"])))
    assert counts[0] == counts[1] is not None
    file.write_text(json.dumps(config("llama", rope_theta={"__float__": "NaN"})))
    with pytest.raises(InputError, match="rope_theta is nan, which is no finite number"):
        models.find_models([str(file)], ["random"])


def test_latent_attention_may_call_any_of_its_widths_that_of_a_head():
    counts = {
        _counted(config("glm_moe_dsa", **{**_LATENT, **_INDEXER, "head_dim": width})) for width in (None, 8, 12, 16, 24)
    }
    assert len(counts) == 1
    assert None not in counts


def test_windows_with_heads_of_their_own_by_hand():
    """MiMo: windows of six layers have twice as many heads of keys and values; the first layer has no experts."""
    heads, query, value = 4, 24, 12
    whole = 64 * heads * query + 64 * 2 * (query + value) + heads * value * 64
    windowed = whole + 64 * 2 * (query + value)
    experts = 2 * 3 * 64 * 32 + 64 * 8
    products = 2 * whole + 4 * windowed + 3 * 64 * 96 + 5 * experts + 64 * 128
    scores = 6 * heads * (query + value)
    assert _counted(config("mimo_v2_flash", **_MIMO)) == 2 * _TOKENS * products + 2 * _TOKENS**2 * scores


def test_a_hybrid_without_experts_needs_no_sizes_of_experts():
    """Nemotron-H: a state space, an MLP, attention, an MLP; the width of a head has another name in the file."""
    content = config("nemotron_h", **{**_NEMOTRON_H, "head_dim": None}, attention_head_dim=128)
    assert configuration.why_not(content) is None
    attention = 64 * 4 * 128 + 2 * 64 * 2 * 128 + 4 * 128 * 64
    inner, states = 4 * 32, 2 * 16
    mamba = 64 * (2 * inner + states + 4) + inner * 64  # gate and values, what is written and read, steps; back
    products = 2 * _TOKENS * (attention + mamba + 2 * 2 * 64 * 96 + 64 * 128)
    scores = 2 * _TOKENS**2 * 4 * 2 * 128
    filters = 2 * (_TOKENS + 3) * (inner + states) * 4
    counted = _counted(content)
    assert counted is not None
    assert products + scores + filters <= counted <= 1.1 * (products + scores + filters)  # and the states


def test_linear_attention_whose_sizes_are_inside_of_a_mapping_is_counted_with_them():
    content = config("kimi_linear", **_KIMI)
    assert configuration.why_not(content) is None
    assert configuration.completed(content).linear_head_dim == 16
    flat = {name: value for name, value in content.items() if name != "linear_attn_config"}
    flat |= {"linear_head_dim": 16, "linear_num_heads": 2, "linear_conv_kernel_dim": 4}
    flat |= {"layer_types": ["linear_attention", "full_attention"]}
    assert _counted(content) == _counted(flat) is not None


def test_angles_that_ask_their_file_for_the_length_need_no_numbers():
    """Phi-3.5-MoE: its rotary embedding looks up its kind in the configuration, at each call."""
    rope = {"type": "longrope", "short_mscale": 1.2, "long_mscale": 1.2, "original_max_position_embeddings": 16}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    content = config("phimoe", head_dim=None, num_local_experts=8, num_experts_per_tok=2, rope_scaling=rope)
    attention = 2 * 64 * 64 + 2 * 64 * 32
    products = 2 * (attention + 64 * 8 + 2 * 3 * 64 * 96) + 64 * 128
    assert _counted(content) == 2 * _TOKENS * products + 2 * _TOKENS**2 * 2 * 2 * 64


@pytest.mark.parametrize(("second", "said"), [(True, None), (False, "by mlp_layer_types they are 0")])
def test_layers_with_experts_that_are_stated_twice_must_agree(second, said):
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_shared_experts": 1}
    content = config("exaone_moe", **experts, is_moe_layer=[False, second], sliding_window=8)
    reason = configuration.why_not(content | {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1})
    assert reason is None if said is None else said in str(reason)
