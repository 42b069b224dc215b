"""Configurations as they are published: what a file states twice, states for nobody, or states under another name.

transformers takes keys that its code does not read, and builds the same model without them. Each such file is refused
by name; those that only say again what is built are counted, and their counts are made here by hand.
"""

import json

import pytest
from test_causal_lm import config, point

from flopray.errors import InputError
from flopray.workloads.base import closed_columns
from flopray.workloads.causal_lm import configuration, models
from flopray.workloads.dispatch import dispatched_flops

_SIX = {"num_hidden_layers": 6, "head_dim": 32, "hidden_size": 128}
_WINDOWED = _SIX | {"sliding_window": 8}
_WHOLE = ["full_attention"] * 6
_LATENT = {
    **{"kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12},
    **{"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    **{"n_group": 1, "topk_group": 1, "num_key_value_heads": 4, "head_dim": None, "num_hidden_layers": 4},
}
_MAMBA = {
    **{"num_attention_heads": None, "num_key_value_heads": None, "head_dim": None, "intermediate_size": 128},
    **{"state_size": 16, "conv_kernel": 4, "expand": 2, "time_step_rank": 4},
}
_SOLAR = {
    **{"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    **{"intermediate_size": None},
}
_BLOOM = dict.fromkeys(("head_dim", "num_key_value_heads", "intermediate_size"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # a list of layers, and a number from which another list follows
        (
            config("gemma3_text", **_WINDOWED, sliding_window_pattern=3, layer_types=_WHOLE),
            "sliding_window_pattern is 3, by which layers with 'full_attention' are 2, 5, and by layer_types they are",
        ),
        (
            config("gemma3_text", **_WINDOWED, sliding_window_pattern=None, _sliding_window_pattern=3),
            "are 2, 5, and by",
        ),
        (config("gemma2", **_WINDOWED, sliding_window_pattern=3), "by layer_types they are 1, 3, 5"),
        (config("cohere2", **_WINDOWED, layer_types=_WHOLE), "sliding_window_pattern is 2, by which layers with"),
        (config("exaone4", **_WINDOWED, sliding_window_pattern="LLLG", layer_types=_WHOLE), "is 'LLLG', by which"),
        (
            config("qwen2", use_sliding_window=False, layer_types=["sliding_attention", "full_attention"]),
            "use_sliding_window is False, by which layers with 'sliding_attention' are none, and by layer_types they",
        ),
        (config("qwen2", layer_types=["full_attention"] * 2), "max_window_layers is 1, by which layers with 'sliding"),
        (config("smollm3", no_rope_layer_interval=1), "no_rope_layer_interval is 1, by which layers with 0 are 0, 1"),
        (
            config("glm4_moe_lite", **_LATENT, first_k_dense_replace=3),
            "first_k_dense_replace is 3, by which layers with 'dense' are 0, 1, 2, and by mlp_layer_types they are 0",
        ),
        # layers of several kinds, where all are of one
        (
            config("mistral", layer_types=["sliding_attention", "full_attention"]),
            "layer_types has full_attention, and all layers of a mistral of transformers have sliding_attention",
        ),
        # sizes that are variables of a family's code, and no keys of it
        (config("gpt2", intermediate_size=96), "a gpt2 of transformers has no intermediate_size"),
        (config("gpt2", num_key_value_heads=2), "a gpt2 of transformers has no num_key_value_heads"),
        (config("gpt2", head_dim=24), "a gpt2 of transformers has no head_dim"),
        (config("gpt_bigcode", num_key_value_heads=2), "a gpt_bigcode of transformers has no num_key_value_heads"),
        (config("bloom", intermediate_size=96), "a bloom of transformers has no intermediate_size"),
        (config("llama", bias=True), "a llama of transformers has no bias"),
        # sizes and switches that families without a closed form do not read
        (config("solar_open", **_SOLAR, first_k_dense_replace=1), "a solar_open of transformers has no first_k_dense"),
        (config("mamba", **_MAMBA, d_inner=256), "a mamba of transformers has no d_inner"),
        (config("mamba", **_MAMBA, n_layer=3), "a mamba of transformers has no n_layer"),
        (config("biogpt", head_dim=None, num_key_value_heads=2), "a biogpt of transformers has no num_key_value_heads"),
        (
            config("biogpt", **_BLOOM | {"intermediate_size": 96}, qk_layernorm=True),
            "a biogpt of transformers has no qk_",
        ),
        # sizes that a class keeps, and its model does not have
        (config("mpt", expansion_ratio=2), "expansion_ratio is 2, and a mpt of transformers is built with 4"),
        (config("mpt", attn_config={"kv_n_heads": 2}), "attn_config.kv_n_heads is 2, and a mpt of transformers is"),
        (config("mpt", attn_config={"attn_type": "multiquery_attention"}), "attn_config.attn_type is 'multiquery_att"),
        # an encoder, although the file does not say so
        ({"model_type": "whisper", "d_model": 64, "vocab_size": 128}, "is_encoder_decoder is true"),
        # code that transformers has not taken over
        ({"model_type": "chatglm", "auto_map": {"AutoModel": "m.M"}}, "unknown model_type 'chatglm'"),
        # adapters beside a model
        (
            {"peft_type": "LORA", "base_model_name_or_path": "meta-llama/Llama-3.1-8B", "r": 16},
            "it is of an adapter (peft_type 'LORA'), and not of its model, 'meta-llama/Llama-3.1-8B': name that",
        ),
        ({"peft_type": "LORA", "r": 16}, "and not of its model: name its model, with adapter='lora:16'"),
        # what a family's code does not read, and is built without: layers that share, or that are skipped
        (config("hunyuan_v1_dense", use_cla=True), "use_cla is True, and a hunyuan_v1_dense of transformers is built"),
        (config("hunyuan_v1_moe", moe_layer_num_skipped=1), "moe_layer_num_skipped is 1, and a hunyuan_v1_moe of"),
        (config("nemotron", kv_channels=12), "kv_channels is 12, and a nemotron of transformers is built with 24"),
        (config("qwen2", attention_bias=False), "attention_bias is False, and a qwen2 of transformers is built with"),
    ],
)
def test_another_model_than_the_one_that_is_built_is_refused_by_its_key(content, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        models.find_models([str(tmp_path)], ["random"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        config(
            "gemma3_text",
            **_WINDOWED,
            sliding_window_pattern=3,
            layer_types=(["sliding_attention"] * 2 + _WHOLE[:1]) * 2,
        ),
        config("gemma3_text", **_WINDOWED, sliding_window_pattern=None, _sliding_window_pattern=6),
        config(
            "exaone4",
            num_hidden_layers=4,
            sliding_window_pattern="LG",
            layer_types=["sliding_attention", "full_attention"] * 2,
        ),
        config("exaone4", sliding_window_pattern="LLLG", layer_types=["full_attention"] * 2) | {"sliding_window": None},
        config("qwen3", use_sliding_window=False, max_window_layers=1, layer_types=["full_attention"] * 2),
        config("smollm3", no_rope_layer_interval=2),
        config("llama", sliding_window=4096, use_sliding_window=False),
        config("gpt2", _num_labels=1),
        config("modernbert-decoder", head_dim=None, num_key_value_heads=None, global_attn_every_n_layers=2),
        config("mistral", layer_types=["sliding_attention"] * 2),
        config("gpt2", head_dim=16, num_key_value_heads=4, intermediate_size=80),
        config("glm4_moe_lite", **_LATENT, first_k_dense_replace=1),
        config("mamba", **_MAMBA, d_inner=128, d_model=64, n_layer=2),
    ],
)
def test_what_a_file_says_twice_alike_is_one_model(content):
    assert configuration.why_not(content) is None


def test_a_folder_with_an_adapter_alone_says_so(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(InputError, match="it is of an adapter"):
        models.find_models([str(tmp_path)], ["random"])


def _counted(content: dict, tokens: int) -> int | None:
    return dispatched_flops(point(content, batch=1, tokens=tokens), "forward", None)["dispatched_flops"]


def test_a_last_layer_that_is_counted_from_the_end_is_the_last():
    ends = [config("ernie4_5_moe", moe_layer_end_index=end) for end in (1, -1)]
    flops = [closed_columns(point(content), "forward")["model_flops"] for content in ends]
    assert flops[0] == flops[1] is not None


def test_sizes_by_the_names_of_first_releases():
    """BLOOM's first files, and those of LFM2, whose class makes the MLP of another width than they state."""
    bloom = config("bloom", hidden_size=None, n_embed=64)
    assert closed_columns(point(bloom), "forward") == closed_columns(point(config("bloom")), "forward")
    contradicting = configuration.why_not(config("bloom", hidden_size=32, n_embed=64))
    assert "hidden_size is 32, and transformers makes it 64" in str(contradicting)
    tokens, inner = 32, 2 * 192 // 3
    lfm2 = config(
        "lfm2",
        **{"head_dim": None, "intermediate_size": None, "block_ff_dim": 192, "block_auto_adjust_ff_dim": True},
        **{"block_ffn_dim_multiplier": 1.0, "block_multiple_of": 32, "conv_L_cache": 3, "full_attn_idxs": [1]},
    )
    attention, convolution = 2 * 64 * 64 + 2 * 64 * 32, 4 * 64 * 64
    products = 2 * tokens * (attention + convolution + 2 * 3 * 64 * inner + 64 * 128)
    scores, filters = 2 * tokens**2 * 2 * 64, 2 * (tokens + 2) * 64 * 3  # padded by a filter less one
    assert _counted(lfm2, tokens) == products + scores + filters


def test_first_layers_without_experts_by_hand():
    tokens, heads, query, value = 32, 4, 16 + 8, 12
    attention = 64 * 24 + 24 * heads * query + 64 * (16 + 8) + 16 * heads * (16 + value) + heads * value * 64
    experts = 3 * 64 * 32 * (2 + 1) + 64 * 8  # active, shared, router
    products = 4 * attention + 3 * 64 * 96 + 3 * experts + 64 * 128
    scores = 4 * heads * (query + value)
    content = config("glm4_moe_lite", **_LATENT, first_k_dense_replace=1)
    assert _counted(content, tokens) == 2 * tokens * products + 2 * tokens**2 * scores


def test_a_mamba_by_hand():
    tokens, inner = 32, 128
    products = 64 * 2 * inner + inner * (4 + 2 * 16) + 4 * inner + inner * 64
    layer = 2 * tokens * products + 2 * (tokens + 3) * inner * 4 + 2 * tokens * inner * 16  # convolution, states
    content = config("mamba", **_MAMBA, d_inner=inner, d_model=64)
    assert _counted(content, tokens) == 2 * layer + 2 * tokens * 64 * 128


def test_keys_of_quantised_weights_as_mlx_writes_them_are_left_out_with_a_word(tmp_path):
    file = tmp_path / "mlx.json"
    file.write_text(json.dumps(config("llama", quantization={"group_size": 64, "bits": 4})))
    with pytest.warns(UserWarning, match="mlx.json: quantization is left out"):
        _, configs = models.find_models([str(file)], ["random"])
    assert configs["mlx"] == models.canonical(config("llama"), "mlx")


@pytest.mark.parametrize(
    ("kind", "keys", "other"),
    [
        ("opt", {"learned_embeddings": True, "scale_embeddings": False}, {"scale_embeddings": True}),
        ("stablelm", {"parallel_residual": False, "rotary_scaling_factor": 1.0}, {"parallel_residual": True}),
        ("stablelm", {"norm_eps": 1e-5, "num_heads": 4}, {"num_heads": 8}),
        (
            "hunyuan_v1_dense",
            {"group_limited_greedy": False, "position_embedding_xdrope": False, "skip_cls_token": False},
            {"position_embedding_xdrope": True},
        ),
    ],
)
def test_keys_that_say_what_a_family_is_built_with_change_nothing(kind, keys, other):
    content = config(kind) | ({"use_parallel_residual": False} if kind == "stablelm" else {})
    plain = closed_columns(point(content), "forward")
    assert configuration.why_not(content | keys) is None
    assert closed_columns(point(content | keys), "forward")["model_flops"] == plain["model_flops"] is not None
    assert f"has no {next(iter(other))}" in str(configuration.why_not(content | keys | other))
