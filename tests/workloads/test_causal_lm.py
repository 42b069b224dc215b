"""Causal language models: closed forms that are those of the model that is built, or the reason why there is none."""

import functools
import json
import logging.handlers

import pytest
import torch
import torch._dynamo.utils
import transformers.utils.logging

from flopray.errors import InputError, Unsupported
from flopray.flops.dispatched import count_dispatched
from flopray.measurement.count import count
from flopray.workloads import llama_config
from flopray.workloads.base import closed_columns
from flopray.workloads.causal_lm import agreement, configuration, families, models
from flopray.workloads.causal_lm.flops import COMPONENTS, components
from flopray.workloads.causal_lm.sizes import NoClosedForm
from flopray.workloads.causal_lm.transformer import uniform_routing
from flopray.workloads.causal_lm.workload import CausalLM
from flopray.workloads.dispatch import dispatched_flops
from flopray.workloads.llama_flops import components as llama_components
from flopray.workloads.phases import BuiltPoint
from flopray.workloads.registry import make_point

_SHAPE = {
    **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24},
    **{"intermediate_size": 96, "vocab_size": 128},
}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT = {
    **{"kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12},
    **{"n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    **{"first_k_dense_replace": 1, "head_dim": None, "num_key_value_heads": 4, "n_group": 2, "topk_group": 1},
}
_GPT = dict.fromkeys(_SHAPE) | {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 80, "vocab_size": 128}
_UNGROUPED = {"head_dim": None, "num_key_value_heads": None, "intermediate_size": None}
#: A small configuration of each family, with what sets it apart: head_dim is nowhere hidden / heads.
FAMILIES = {
    "llama": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "mistral": {"sliding_window": 8},
    "phi3": {"sliding_window": 8, "partial_rotary_factor": 0.5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "qwen3": {"attention_bias": True},
    "gemma": {},
    "gemma2": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "sliding_window_pattern": 2},
    "olmo2": {},
    "gpt2": dict.fromkeys(_SHAPE) | {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 80, "vocab_size": 128},
    "gpt_neox": {"head_dim": None, "num_key_value_heads": None, "rotary_pct": 0.25},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 48, "mlp_only_layers": [0]},
    "qwen3_moe": {**_EXPERTS, "decoder_sparse_step": 2},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2, "head_dim": None},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    "smollm3": {"no_rope_layers": [1, 0], "attention_bias": True, "head_dim": None},
    "granite": {"mlp_bias": True, "head_dim": None, "embedding_multiplier": 12.0, "residual_multiplier": 0.22},
    "phi": {"head_dim": None, "partial_rotary_factor": 0.5},
    "starcoder2": {"head_dim": None, "sliding_window": 8, "use_bias": True},
    "cohere": {"head_dim": None, "logit_scale": 0.0625},
    "cohere2": {"sliding_window": 8, "sliding_window_pattern": 2, "attention_bias": True},
    "glm4": {"attention_bias": True, "partial_rotary_factor": 0.5},
    "olmo": {"head_dim": None, "clip_qkv": None},
    "olmo3": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"], "head_dim": None},
    "granitemoe": {"num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": None},
    "glm4_moe": {
        **{"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        **{"first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "attention_bias": True, "use_qk_norm": True},
        **{"partial_rotary_factor": 0.5},
    },
    "glm": {"attention_bias": True, "partial_rotary_factor": 0.5},
    "seed_oss": {"attention_bias": True, "attention_out_bias": False},
    "ernie4_5": {"use_bias": True},
    "helium": {"head_dim": 16, "attention_bias": True, "mlp_bias": True},
    "exaone4": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "hunyuan_v1_dense": {"attention_bias": True},
    "ministral3": {"sliding_window": 8},
    "cwm": {"sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]},
    "bitnet": {"head_dim": None},
    "stablelm": {"head_dim": None, "use_qkv_bias": True, "qk_layernorm": True, "use_parallel_residual": True},
    "arcee": {"attention_bias": True, "mlp_bias": True},
    "apertus": {"head_dim": None},
    "nemotron": {"attention_bias": True, "mlp_bias": True},
    "persimmon": {"head_dim": None, "num_key_value_heads": None, "qk_layernorm": True},
    "gptj": {**_GPT, "rotary_dim": 8},
    "codegen": {**_GPT, "rotary_dim": 8},
    "gpt_bigcode": {**_GPT, "multi_query": True},
    "opt": {**_UNGROUPED, "ffn_dim": 96, "word_embed_proj_dim": 64},
    "falcon": {**_UNGROUPED, "num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 96},
    "bloom": _UNGROUPED,
    "mpt": dict.fromkeys(_SHAPE)
    | {"d_model": 64, "n_heads": 4, "n_layers": 2, "vocab_size": 128, "attn_config": {"alibi": True}},
    "granitemoehybrid": {
        **{"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 48, "head_dim": None},
        **{"layer_types": ["attention"] * 2, "position_embedding_type": "rope", "residual_multiplier": 0.22},
        **{"mamba_d_conv": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_expand": 2, "mamba_n_heads": 4},
    },
    "ernie4_5_moe": {
        **{"moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 2},
        **{"moe_layer_start_index": 1, "moe_layer_end_index": 1, "moe_layer_interval": 1, "head_dim": None},
    },
    "dots1": {
        **{"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        **{"first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "attention_bias": True, "sliding_window": 8},
        "layer_types": ["full_attention", "sliding_attention"],
    },
    "minimax_m2": {"num_local_experts": 8, "num_experts_per_tok": 2, "rotary_dim": 12},
    "hunyuan_v1_moe": {"num_experts": 8, "moe_topk": [2, 2], "num_shared_expert": [1, 1]},
    "deepseek_v2": {**_LATENT, "q_lora_rank": None},
    "deepseek_v3": _LATENT,
}


_OPT = {"head_dim": None, "num_key_value_heads": None, "intermediate_size": None, "word_embed_proj_dim": 64}


def config(kind: str, **changes) -> dict:
    given = {**_SHAPE, **FAMILIES.get(kind, {}), **changes, "model_type": kind}
    if kind == "deepseek_v2":  # null is the value there
        return {key: value for key, value in given.items() if value is not None or key == "q_lora_rank"}
    return {key: value for key, value in given.items() if value is not None}


@functools.cache
def canonical(content: str, model: str) -> str:
    """Of a configuration as JSON; many tests take the same."""
    return models.canonical(json.loads(content), model)


def point(content: dict, *, batch=2, tokens=16, model="m", **fields):
    choices = {"weights": "random", "attention": "auto", "routing": "uniform", "checkpointing": False}
    shape = {"batch_size": batch, "sequence_length": tokens}
    text = canonical(json.dumps(content), model)
    return make_point(**{"workload": "causal_lm", "model": model, "model_config": text, **choices, **shape, **fields})


# -- closed form and dispatcher


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_products_and_attention_of_each_family_are_what_the_dispatcher_counts(kind):
    """Shorter than the windows; beyond them the closed form has been held against the model before it is given."""
    where = point(config(kind), tokens=5)
    for phase in CausalLM.phases:
        closed = closed_columns(where, phase)
        assert closed["model_flops"] == sum(closed[name] for name in COMPONENTS), closed.get("model_flops_reason")
        if phase != "optimizer_step":
            counted = dispatched_flops(where, phase, closed["model_flops"])
            assert counted["dispatched_flops"] == closed["gemm_flops"] + closed["attention_flops"], phase
    assert closed["active_parameters"] <= closed["parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_checkpointing_recomputes_what_the_dispatcher_sees_twice(kind):
    plain, again = (point(config(kind), tokens=5, checkpointing=flag) for flag in (False, True))
    seen = [CausalLM().dispatched(where)["backward"] for where in (again, plain)]
    stated = closed_columns(again, "backward")["recomputed_flops"]
    sizes = agreement.agreed_sizes(again.model, again.model_config)
    once = components(sizes, batch=2, tokens=5, phase="forward")
    elements = once["norm_flops"] + once["elementwise_flops"]  # which the dispatcher does not see
    assert seen[0] - seen[1] <= stated <= seen[0] - seen[1] + elements


def test_a_mixture_of_experts_counts_those_that_are_active():
    # 2 of 8 experts: torch's own counter sees none of them (1,343,488 instead of 4,489,216 FLOPs).
    content = config("mixtral", hidden_size=64, head_dim=16, intermediate_size=128)
    where = point(content, batch=1, tokens=16)
    closed = closed_columns(where, "forward")
    assert closed["expert_flops"] == 2 * (2 * 16 * 2) * (3 * 64 * 128)  # layers, tokens times active, three products
    assert closed["router_flops"] == 2 * 2 * 16 * 64 * 8
    assert dispatched_flops(where, "forward", 1)["dispatched_flops"] > closed["expert_flops"]


def _elements(kind: str, **changes) -> tuple[int, int]:
    """FLOPs of norms and of other elementwise work of one sequence of 16 tokens, in a pass without a loss."""
    closed = closed_columns(point(config(kind, **changes), batch=1, tokens=16), "inference")
    return closed["norm_flops"], closed["elementwise_flops"]


def test_what_families_do_to_elements_by_hand():
    plain = {"head_dim": None, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False}
    norms, others = _elements("llama", **plain)
    softmax = 5 * 2 * 4 * 16 * 16  # an element of the scores: layers, heads, pairs of tokens
    assert norms == 16 * (2 * 2 + 1) * 4 * 64 + softmax  # tokens, norms, operations, width
    rotated = 3 * (4 + 2) * 16  # operations, heads of queries and keys, width of a head
    assert others == 16 * 2 * (rotated + 2 * 96 + 2 * 64)  # tokens, layers; gate and function, residuals
    # Every other layer is not rotated.
    assert _elements("smollm3", **plain)[1] == others - 16 * rotated
    # Embedded tokens, two residuals a layer, and logits are multiplied.
    assert _elements("granite", **plain)[1] == others + 16 * (64 + 2 * 2 * 64 + 128)
    # One norm a layer and the last, of six operations; logits are multiplied.
    norms, others_of_cohere = _elements("cohere", **plain)
    assert norms == 16 * (2 + 1) * 6 * 64 + softmax
    assert others_of_cohere == others + 16 * 128
    # One norm a layer and the last, of seven; biases everywhere, half of a head rotated, no gate.
    norms, others_of_phi = _elements("phi")
    assert norms == 16 * (2 + 1) * 7 * 64 + softmax
    biases = (4 + 2 + 2) * 16 + 64 + 96 + 64
    assert others_of_phi == 16 * (2 * (rotated // 2 + 96 + 2 * 64 + biases) + 128)


def test_what_families_with_plain_mlps_do_to_elements_by_hand():
    # BLOOM: seven operations of a norm of embedded tokens, two a layer and the last; five of softmax a score.
    scores = 2 * 4 * 16 * 16  # layers, heads, pairs of tokens
    norms, others = _elements("bloom")
    assert norms == 16 * (1 + 2 * 2 + 1) * 7 * 64 + 5 * scores
    biases = 3 * 64 + 64 + 4 * 64 + 64
    assert others == 16 * 2 * (biases + 4 * 64 + 2 * 64) + scores  # a number is added to each score
    # OPT: learned positions are added to embedded tokens.
    norms, others = _elements("opt")
    assert norms == 16 * (2 * 2 + 1) * 7 * 64 + 5 * scores
    assert others == 16 * (2 * (4 * 64 + 96 + 64 + 96 + 2 * 64) + 64)
    # OLMo that clamps queries, keys and values from both sides.
    plain, clamped = (_elements("olmo", clip_qkv=limit)[1] for limit in (None, 8.0))
    assert clamped - plain == 16 * 2 * 2 * (4 + 2 + 2) * 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("falcon", {"new_decoder_architecture": False, "num_kv_heads": None, "multi_query": True}),
        ("falcon", {"new_decoder_architecture": False, "num_kv_heads": None, "multi_query": False, "bias": True}),
        ("falcon", {"num_ln_in_parallel_attn": 1}),
        ("gpt_bigcode", {"multi_query": False}),
        ("gptj", {"rotary_dim": 16, "n_inner": None}),
        ("cohere", {"use_qk_norm": True}),
        ("phi", {"qk_layernorm": True}),
        ("stablelm", {"use_parallel_residual": False, "qk_layernorm": False}),
        ("granitemoehybrid", {"num_local_experts": 0, "num_experts_per_tok": 0}),
        ("nemotron", {"attention_bias": False, "mlp_bias": False, "partial_rotary_factor": 1.0}),
        ("apertus", {"hidden_act": "silu"}),
        ("falcon", {"new_decoder_architecture": False, "parallel_attn": False, "num_kv_heads": None, "alibi": True}),
        # keys of published files that state what is built anyway
        ("llama", {"activation": "swiglu"}),
        ("nemotron", {"kv_channels": 24}),
        ("gpt_bigcode", {"pad_key_length": True}),
        ("gptj", {"rotary": True}),
    ],
)
def test_variants_of_a_family_are_what_the_dispatcher_counts(kind, changes):
    where = point(config(kind, **changes))
    for phase in ("forward", "backward", "prefill", "decode"):
        closed = closed_columns(where, phase)
        counted = dispatched_flops(where, phase, closed.get("model_flops"))["dispatched_flops"]
        assert counted == closed["gemm_flops"] + closed["attention_flops"], closed.get("model_flops_reason")


def test_a_family_that_transformers_took_over_as_it_was_may_name_its_first_code():
    named = {"auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}}
    assert models.canonical(config("phi3", **named), "m") == models.canonical(config("phi3"), "m")
    another = {"auto_map": {"AutoModelForCausalLM": "modeling_mine.Phi3LongForCausalLM"}}
    for kind, auto_map in (("qwen2", named), ("phi3", another), ("phi3", {"auto_map": {"AutoConfig": "c.C"}})):
        with pytest.raises(InputError, match="auto_map names code of the model's own"):
            models.canonical(config(kind, **auto_map), "m")


def test_letters_that_releases_wrote_differently_name_the_same_class():
    named = config("ernie4_5", architectures=["Ernie4_5_ForCausalLM"])
    assert models.canonical(named, "m") == models.canonical(config("ernie4_5"), "m")


def test_windows_leave_what_each_token_can_see():
    closed = closed_columns(point(config("gemma2"), batch=1, tokens=16), "forward")
    pair = 2 * 4 * (24 + 24)  # heads, widths of query and value
    assert closed["attention_flops"] == 2 * 16 * 16 * pair
    windowed, causal = sum(min(i + 1, 8) for i in range(16)), 16 * 17 // 2
    assert closed["attention_causal_flops"] == (windowed + causal) * pair
    decoded = closed_columns(point(config("gemma2"), batch=1, tokens=16), "decode")
    assert decoded["attention_flops"] == (8 + 17) * pair


@pytest.mark.parametrize("name", ["llama-tiny", "llama-3.2-1b", "llama-3.1-8b"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_llama_costs_what_the_workload_llama_says(name, checkpointing):
    from flopray.workloads.llama_config import BUILT_IN

    sizes = models.sizes_of(name, None)
    for phase in CausalLM.phases:
        shape = {"batch": 8, "tokens": 256, "phase": phase, "checkpointing": checkpointing}
        ours, theirs = components(sizes, **shape), llama_components(BUILT_IN[name], **shape)
        assert {key: ours[key] for key in theirs} == theirs, phase


def test_built_in_configurations_have_the_published_parameters():
    for name in models.built_in():
        published, sizes = models.shipped(name), models.sizes_of(name, None)
        if name.endswith("-tiny"):
            assert published["parameters"] is None
            continue
        assert published["source"].startswith("https://huggingface.co/")
        # Biases of the routers are published as weights, and are buffers of transformers.
        assert published["parameters"] - sizes.parameters == (14_848 if name == "deepseek-v3" else 0), name


#: Sizes of further models (kind: hidden, layers, heads, heads of keys, MLP, vocabulary, tied) and their published
#: numbers of weights, a tied matrix once.
PUBLISHED = {
    "Llama-3.1-405B": ("llama", 16384, 126, 128, 8, 53248, 128256, False, {}, 405_853_388_800),
    "TinyLlama-1.1B": ("llama", 2048, 22, 32, 4, 5632, 32000, False, {}, 1_100_048_384),
    "Mistral-Nemo": ("mistral", 5120, 40, 32, 8, 14336, 131072, False, {"head_dim": 128}, 12_247_782_400),
    "Qwen2.5-72B": ("qwen2", 8192, 80, 64, 8, 29568, 152064, False, {}, 72_706_203_648),
    "Qwen3-32B": ("qwen3", 5120, 64, 64, 8, 25600, 151936, False, {"head_dim": 128}, 32_762_123_264),
    "gemma-2b": ("gemma", 2048, 18, 8, 1, 16384, 256000, True, {"head_dim": 256}, 2_506_172_416),
    "gemma-2-27b": ("gemma2", 4608, 46, 32, 16, 36864, 256000, True, {"head_dim": 128}, 27_227_128_320),
    "phi-4": ("phi3", 5120, 40, 40, 10, 17920, 100352, False, {}, 14_659_507_200),
    "phi-2": ("phi", 2560, 32, 32, 32, 10240, 51200, False, {"partial_rotary_factor": 0.4}, 2_779_683_840),
    "OLMo-2-0325-32B": ("olmo2", 5120, 64, 40, 8, 27648, 100352, False, {}, 32_234_279_936),
    "OLMo-1B": ("olmo", 2048, 16, 16, 16, 8192, 50304, True, {}, 1_176_764_416),
    "SmolLM3-3B": ("smollm3", 2048, 36, 16, 4, 11008, 128256, True, {}, 3_075_098_624),
    "starcoder2-3b": ("starcoder2", 3072, 30, 24, 2, 12288, 49152, True, {"use_bias": True}, 3_030_371_328),
    "c4ai-command-r-v01": ("cohere", 8192, 40, 64, 64, 22528, 256000, True, {}, 34_980_831_232),
    "granite-3.1-2b": ("granite", 2048, 40, 32, 8, 8192, 49155, True, {}, 2_533_531_648),
    "gpt-neox-20b": ("gpt_neox", 6144, 44, 64, None, 24576, 50432, False, {}, 20_554_567_680),
    "granite-3.1-1b-a400m": (
        *("granitemoe", 1024, 24, 16, 8, 512, 49155, True),
        *({"num_local_experts": 32, "num_experts_per_tok": 8}, 1_334_628_352),
    ),
    "falcon-7b": (
        *("falcon", 4544, 32, 71, None, None, 65024, True),
        *({"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False}, 6_921_720_704),
    ),
    "bloom-7b1": ("bloom", 4096, 30, 32, None, None, 250880, True, {}, 7_069_016_064),
    "opt-6.7b": (
        *("opt", 4096, 32, 32, None, None, 50272, True),
        *({"ffn_dim": 16384, "word_embed_proj_dim": 4096, "max_position_embeddings": 2048}, 6_658_473_984),
    ),
    "stablelm-2-1_6b": (
        *("stablelm", 2048, 24, 32, 32, 5632, 100352, False),
        *({"use_qkv_bias": True, "partial_rotary_factor": 0.25}, 1_644_515_328),
    ),
    "glm-4-9b": (
        *("glm", 4096, 40, 32, 2, 13696, 151552, False),
        *({"head_dim": 128, "attention_bias": True}, 9_399_951_360),
    ),
    "Seed-OSS-36B": (
        *("seed_oss", 5120, 64, 80, 8, 27648, 155136, False),
        *({"head_dim": 128, "attention_bias": True, "attention_out_bias": False}, 36_151_104_512),
    ),
    "ERNIE-4.5-0.3B": ("ernie4_5", 1024, 18, 16, 2, 3072, 103424, True, {"head_dim": 128}, 360_748_032),
    "Apertus-8B": ("apertus", 4096, 32, 32, 8, 21504, 131072, False, {}, 8_053_338_176),
    "command-r-plus": ("cohere", 12288, 64, 96, 8, 33792, 256000, True, {"use_qk_norm": True}, 103_810_674_688),
    "Mixtral-8x22B": (
        *("mixtral", 6144, 56, 48, 8, 16384, 32000, False),
        *({"num_local_experts": 8, "num_experts_per_tok": 2}, 140_620_634_112),
    ),
}


_KERAS = "https://github.com/keras-team/keras-hub/blob/71453d08f59edc90d276e999319fc51e61cbf82c/keras_hub/src/models"
_HUB = "https://huggingface.co/api/models/{}?expand[]=safetensors"
#: Where each number is stated to the weight; the hub's API has it as `safetensors.total`. A page alone rounds it.
PUBLISHED_AT = {
    "Llama-3.1-405B": _HUB.format("meta-llama/Llama-3.1-405B"),
    "TinyLlama-1.1B": _HUB.format("TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"),
    "Mistral-Nemo": _HUB.format("mistralai/Mistral-Nemo-Instruct-2407"),
    "Qwen2.5-72B": f"{_KERAS}/qwen/qwen_presets.py#L57",
    "Qwen3-32B": f"{_KERAS}/qwen3/qwen3_presets.py#L68",
    "gemma-2b": f"{_KERAS}/gemma/gemma_presets.py#L8",
    "gemma-2-27b": f"{_KERAS}/gemma/gemma_presets.py#L162",
    "phi-4": _HUB.format("microsoft/phi-4"),
    "phi-2": _HUB.format("microsoft/phi-2"),
    "OLMo-2-0325-32B": _HUB.format("allenai/OLMo-2-0325-32B"),
    "OLMo-1B": _HUB.format("allenai/OLMo-1B-hf"),
    "SmolLM3-3B": _HUB.format("HuggingFaceTB/SmolLM3-3B"),
    "starcoder2-3b": "https://huggingface.co/bigcode/starcoder2-3b",  # 3.03 billion
    "c4ai-command-r-v01": "https://huggingface.co/CohereLabs/c4ai-command-r-v01",  # 35 billion
    "granite-3.1-2b": _HUB.format("ibm-granite/granite-3.1-2b-base"),
    "gpt-neox-20b": "https://huggingface.co/EleutherAI/gpt-neox-20b",  # a table of its card
    "granite-3.1-1b-a400m": _HUB.format("ibm-granite/granite-3.1-1b-a400m-base"),
    "falcon-7b": "https://huggingface.co/tiiuae/falcon-7b/tree/main",  # bytes of its files, the tied matrix twice
    "bloom-7b1": "https://huggingface.co/bigscience/bloom-7b1",  # its card
    "opt-6.7b": "https://huggingface.co/facebook/opt-6.7b/tree/main",  # bytes of its files: twice as many
    "stablelm-2-1_6b": "https://huggingface.co/stabilityai/stablelm-2-1_6b",  # a table of its card
    "glm-4-9b": _HUB.format("zai-org/glm-4-9b-hf"),
    "Seed-OSS-36B": _HUB.format("ByteDance-Seed/Seed-OSS-36B-Base"),
    "ERNIE-4.5-0.3B": _HUB.format("baidu/ERNIE-4.5-0.3B-PT"),
    "Apertus-8B": _HUB.format("swiss-ai/Apertus-8B-2509"),
    "command-r-plus": "https://huggingface.co/CohereLabs/c4ai-command-r-plus",  # 104 billion
    "Mixtral-8x22B": _HUB.format("mistralai/Mixtral-8x22B-v0.1"),
}


def test_each_published_number_says_where_it_is_stated():
    assert list(PUBLISHED_AT) == list(PUBLISHED)
    for name in models.built_in():
        published = models.shipped(name)
        assert published["parameters"] is None or published["parameters_source"].startswith("https://"), name


@pytest.mark.parametrize("name", PUBLISHED)
def test_further_models_have_the_published_parameters(name):
    kind, hidden, layers, heads, kv, inner, vocabulary, tied, further, parameters = PUBLISHED[name]
    content = {
        **{"model_type": kind, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads},
        **{"intermediate_size": inner, "vocab_size": vocabulary, "tie_word_embeddings": tied, **further},
        **({"num_key_value_heads": kv} if kv else {}),
    }
    sizes = families.sizes_of(content, configuration.completed(content))
    assert sizes.parameters == parameters


# -- what has no closed form


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (config("mistral", layer_types=["sliding_attention"] * 2), "layer_types"),
        (config("gpt2", reorder_and_upcast_attn=True), "reorder_and_upcast_attn"),
        (config("gemma2", use_bidirectional_attention=True), "use_bidirectional_attention"),
        (config("olmoe", clip_qkv=8.0), "clip_qkv"),
        (config("qwen3_moe", output_router_logits=True), "output_router_logits"),
        (config("gpt_oss", experts_per_token=3), "experts_per_token 3"),
        (config("gpt2", n_ctx=2048), "n_ctx 2048 and n_positions 1024"),
        (config("diffllama", head_dim=None), "the model_type diffllama has none"),
        (config("opt", do_layer_norm_before=False), "do_layer_norm_before is False"),
        (config("opt", word_embed_proj_dim=32), "word_embed_proj_dim 32 and hidden_size 64"),
        (config("mpt", attn_config={"alibi": False}), "alibi of attn_config is False"),
        (config("hunyuan_v1_moe", num_shared_expert=[2, 2]), "num_shared_expert 2"),
        (config("gemma2", sliding_window_size=16), "sliding_window 8 and sliding_window_size 16"),
        # keys that a class without a closed form does not name
        (config("diffllama", head_dim=None, n_mixtures=2), "has none; transformers may ignore 'n_mixtures'"),
    ],
)
def test_what_is_not_understood_is_counted_by_the_dispatcher_alone_and_says_why(content, reason):
    where = point(content)
    closed = closed_columns(where, "forward")
    assert closed.get("model_flops") is None
    assert reason in closed["model_flops_reason"]
    assert "\n" not in closed["model_flops_reason"]
    assert closed["parameters"] > 0
    counted = dispatched_flops(where, "forward", None)
    if counted["dispatched_flops"] is None:  # some releases compute the loss of a router from numbers
        assert "output_router_logits" in content
        assert "meta device" in counted["dispatched_reason"]
    else:
        assert counted["dispatched_flops"] > 0
        assert "stands alone" in counted["dispatched_reason"]


@pytest.mark.parametrize(
    ("kind", "key", "value", "reason"),
    [
        ("granitemoe", "num_experts_per_tok", None, "None experts of 8 for each token"),
        ("minimax_m2", "attn_type_list", 1, "attn_type_list has layers of another attention"),
    ],
)
def test_a_value_of_another_type_has_no_closed_form(kind, key, value, reason):
    content = config(kind) | {key: value}
    with pytest.raises(NoClosedForm, match=reason):
        families.sizes_of(content, configuration.completed(content))


def test_linear_attention_is_counted_as_its_chunks_with_their_triangular_systems():
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16}
    further = {**linear, **_EXPERTS, "linear_value_head_dim": 16, "shared_expert_intermediate_size": 48}
    content = config("qwen3_next", layer_types=["linear_attention"] * 2, linear_conv_kernel_dim=4, **further)
    counted = dispatched_flops(point(content, batch=1, tokens=64), "forward", None)
    wide, values, tokens = 2 * 2 * 16 + 4 * 16, 4 * 16, 64  # queries, keys and values; values; one chunk of tokens
    projections = 64 * (wide + values) + 64 * 2 * 4 + values * 64  # with gates, and what decays and is written
    experts = 2 * 3 * 64 * 32 + 3 * 64 * 48 + 64 * (8 + 1)  # two active, one shared, router and its gate
    chunk = 4 * (2 * 3 * tokens**2 * 16 + 2 * tokens**2 * 16 + 2 * 3 * tokens * 16 * 16)  # products, systems, states
    convolved = 2 * (tokens + 3) * wide * 4  # padded by a filter less one
    layer = 2 * tokens * (projections + experts) + chunk + convolved
    assert counted["dispatched_flops"] == 2 * layer + 2 * tokens * 64 * 128
    assert dispatched_flops(point(content), "backward", None)["dispatched_flops"] > 0


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        # Layers that are dropped at random are not dropped: otherwise the cost of a pass would be random.
        ("opt", {**_OPT, "ffn_dim": 96, "layerdrop": 0.9, "num_hidden_layers": 6}),
        # A mask that is made of values by a product has a backward pass.
        ("doge", {"head_dim": None, "num_experts": 8, "num_experts_per_tok": 2}),
    ],
)
def test_what_runs_is_what_the_dispatcher_counts_beforehand(kind, changes):
    where = point(config(kind, **changes))
    built = CausalLM().build(where, device="cpu", dtype=torch.float32, seed=0)
    weights = list(built.module.parameters())
    step = lambda: torch.autograd.grad(built.module(built.x), weights, allow_unused=True)  # noqa: E731
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # flash forms scores twice
        assert count_dispatched(step).flops == CausalLM().dispatched(where)["train_step"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_each_family_trains_and_generates_on_a_cpu(kind):
    """Its attention, too, which is another one than that of the count."""
    where = point(config(kind), device_type="CPU", precision="fp32", execution="eager")
    built = BuiltPoint(where, device="cpu", seed=0)
    for phase in ("train_step", "prefill", "decode"):
        built.phase(phase)()


def test_a_class_that_insists_on_special_tokens_keeps_them():
    assert configuration.completed(config("cwm")).bos_token_id is not None


@pytest.mark.parametrize("change", ["weights", "product", "window"])
def test_a_closed_form_that_disagrees_with_the_model_is_withdrawn(change, monkeypatch):
    from dataclasses import replace

    from flopray.workloads.causal_lm.sizes import Linear

    sizes = models.sizes_of("m", models.canonical(config("mistral"), "m"))
    layer = sizes.layers[0]
    wrong = {
        "weights": replace(layer, norms=layer.norms[:1]),
        "product": replace(layer, mlp=(Linear(64, 96), Linear(96, 64), Linear(96, 64))),
        "window": replace(layer, attention=replace(layer.attention, window=None)),
    }[change]
    seen = agreement.count("m", models.canonical(config("mistral"), "m"), 2, 16, False)
    assert agreement.disagreement(sizes, seen, batch=2, tokens=16) is None
    reason = agreement.disagreement(replace(sizes, layers=(wrong, wrong)), seen, batch=2, tokens=16)
    if change == "product":  # the same weights and products, in another order: no difference
        assert reason is None
        wrong = replace(layer, mlp=(Linear(64, 96), Linear(64, 96), Linear(64, 96)))
        reason = agreement.disagreement(
            replace(sizes, layers=(replace(wrong, attention=layer.attention),) * 2), seen, batch=1, tokens=16
        )
    assert reason is not None
    assert reason.startswith("no closed form: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            config("llama", auto_map={"AutoConfig": "code.Own"}),
            "auto_map names code of the model's own, which is never",
        ),
        ({"model_type": "nobody_knows"}, "unknown model_type 'nobody_knows'"),
        ({"hidden_size": 64}, "lacks model_type"),
        (config("llama", architectures=["LlamaForSequenceClassification"]), "LlamaForCausalLM would be built"),
        (
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
            "its text_config is a model inside of a larger one, which is not counted as a whole: NAME#text_config",
        ),
        ({"model_type": "clap", "audio_config": {"model_type": "x"}}, "write its language model to a file of its own"),
        # numbers of which a class makes others
        (
            config("longcat_flash", num_layers=2, intermediate_size=None, head_dim=None),
            "num_layers is 2, and transformers makes it 1: other keys contradict it",
        ),
        (config("gpt2", num_hidden_layers=3), "n_layer is 2, and transformers makes it 3"),
        ({"model_type": "t5"}, "no causal language model"),
        (config("llama", hidden_size=None), "lacks hidden_size"),
        (config("gpt2", n_layer=None), "lacks num_hidden_layers"),
        (config("llama", num_attention_heads=5), "transformers refuses it"),
        (config("llama", hidden_size="wide"), "transformers refuses it"),
        # sizes that a class would take from its first model
        (config("llama", intermediate_size=None), "lacks intermediate_size, for which the class of transformers"),
        (config("mistral", num_key_value_heads=None), "lacks num_key_value_heads, for which the class of"),
        (config("qwen3", head_dim=None), "lacks head_dim, for which the class of transformers would take 128"),
        (config("mistral", sliding_window=None), "lacks sliding_window, for which the class of transformers would"),
        (config("mixtral", num_local_experts=None), "lacks num_local_experts"),
        (config("mixtral", num_experts_per_tok=None), "lacks num_experts_per_tok"),
        (config("qwen3_moe", moe_intermediate_size=None), "lacks moe_intermediate_size"),
        (config("deepseek_v3", kv_lora_rank=None), "lacks kv_lora_rank"),
        (config("jamba", intermediate_size=None), "lacks intermediate_size"),
        # the same of families without a closed form, by the names of their sizes
        (config("opt", ffn_dim=None), "lacks ffn_dim, for which the class of transformers would take 3072"),
        (config("mamba"), "lacks state_size, for which the class of transformers would take 16"),
        (config("glm", head_dim=None), "lacks head_dim, for which the class of transformers would take 128"),
        # a whole model, or a part of one, that a class would take from its first
        (config("gemma3"), "lacks text_config, for which the class of transformers would take sizes of its own"),
        (config("llama4"), "lacks text_config, for which the class of transformers would"),
        (config("fuyu"), "lacks text_config, for which the class of transformers would"),
        (config("git"), "lacks vision_config, for which the class of transformers would"),
        (
            {"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2, "vocab_size": 128},
            "lacks attn_config, for which the class of transformers would",
        ),
        # keys that are nearly one which is missing
        (
            config("llama", num_key_value_heads=None, num_key_value_head=2),
            "has the unknown key 'num_key_value_head': did you mean num_key_value_heads?",
        ),
        (config("llama", intermediate_size=None, intermidiate_size=96), "did you mean intermediate_size?"),
        (config("llama", tie_word_embedding=True, tie_word_embeddings=None), "did you mean tie_word_embeddings?"),
        # sizes that no model has
        (config("llama", num_hidden_layers=0), "num_hidden_layers is 0, and must be at least 1"),
        (config("llama", intermediate_size=-96), "intermediate_size is -96, and must be at least 1"),
        (config("llama", head_dim=0), "head_dim is 0, and must be at least 1"),
        (config("mistral", sliding_window=-1), "sliding_window is -1, and must be at least 0"),
        (
            config("llama", num_key_value_heads=3),
            "num_attention_heads is 4, which is not a multiple of num_key_value_heads",
        ),
        (config("llama", num_hidden_layers=10**6), "num_hidden_layers is 1000000: at most 2000 are built"),
        # choices that fail at the first token
        (config("mixtral", num_experts_per_tok=100), "num_experts_per_tok is 100, and num_local_experts is 8"),
        (config("mixtral", num_local_experts=1), "num_experts_per_tok is 2, and num_local_experts is 1"),
        (config("deepseek_v3", n_group=3), "n_routed_experts is 8, which is not a multiple of n_group, 3"),
        (config("deepseek_v3", n_group=2, topk_group=3), "topk_group is 3, and n_group is 2"),
        (config("llama", rope_theta=-5), "rope_theta is -5, and must be above 0"),
        # numbers that make no numbers
        (config("llama", rope_theta=float("nan")), "rope_theta is nan, which is no finite number"),
        (config("qwen3", rms_norm_eps=float("inf")), "rms_norm_eps is inf, which is no finite number"),
        (config("gpt2", layer_norm_epsilon=-0.1), "layer_norm_epsilon is -0.1, and must be at least 0"),
        (config("llama", rope_scaling={"rope_type": "linear", "factor": 0.0}), "factor is 0.0, and must be above 0"),
        (config("llama", rope_parameters={"rope_type": "default", "rope_theta": 0}), "rope_theta is 0, and must be"),
        (config("llama", hidden_size=2**70), "hidden_size is 1.18e+21, and at most 16777216"),
        # keys of another model, which transformers would leave out of this one
        (config("llama", draft_vocab_size=32), "a llama of transformers has no draft_vocab_size, so it would be"),
        (config("llama", num_experts=8), "has no num_experts, so it would be another model than the file describes"),
        (config("llama", speculators_config={"algorithm": "eagle3"}), "a llama of transformers has no speculators_c"),
        (config("mistral", num_experts=8, moe_top_k=2), "a mistral of transformers has no num_experts, moe_top_k, so"),
        (config("llama", sliding_window=8), "a llama of transformers has no sliding_window"),
        (config("llama", partial_rotary_factor=0.5), "a llama of transformers has no partial_rotary_factor"),
        (config("llama", norm_type="layer_norm"), "a llama of transformers has no norm_type"),
        (config("qwen2", medusa_num_heads=4), "a qwen2 of transformers has no medusa_num_heads"),
        (config("deepseek_v3", moe_layer_freq=2), "a deepseek_v3 of transformers has no moe_layer_freq"),
        (config("qwen3_moe", shared_expert_intermediate_size=48), "has no shared_expert_intermediate_size"),
        (config("gpt2", **{"": 1, "a\nb": 2}), r"a gpt2 of transformers has no '', 'a\nb', so"),
        # values that fail when the model is built
        (config("llama", hidden_act="swiglu"), "transformers cannot build it: KeyError: 'swiglu'"),
        (config("qwen3_moe", decoder_sparse_step=0), "transformers cannot build it: ZeroDivisionError"),
        # what a class does, whatever the file says
        (config("hunyuan_v1_dense", use_cla=True), "use_cla is True"),
        (config("qwen3", use_qk_norm=False), "use_qk_norm is False"),
        (
            config("qwen2", attention_bias=False),
            "attention_bias is False, and a qwen2 of transformers is built with True",
        ),
        (config("phi", mlp_bias=False), "mlp_bias is False, and a phi of transformers is built with True"),
        (config("nemotron", kv_channels=12), "kv_channels is 12, and a nemotron of transformers is built with 24"),
        # other heads, and encoders
        (config("llama", architectures=["LlamaForCausalLM", "LlamaModel"]), "LlamaForCausalLM would be built"),
        (config("llama", num_labels=1), "labels are of a head that classifies"),
        (config("bert"), "builds an encoder, whose attention looks at later tokens"),
    ],
)
def test_what_transformers_cannot_build_without_other_code_is_refused_in_one_line(content, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        models.find_models([str(tmp_path)], ["random"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def larger(tmp_path, **changes) -> str:
    """A file of a model that sees, whose language model is a small Gemma 3."""
    content = {
        **{"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "mm_tokens_per_image": 256},
        **{"text_config": config("gemma3_text"), "vision_config": {"model_type": "siglip_vision_model"}, **changes},
    }
    file = tmp_path / "sees.json"
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return str(file)


def test_the_language_model_inside_of_a_larger_one_is_counted_where_the_name_asks_for_it(tmp_path):
    with pytest.raises(InputError, match=r"not counted as a whole: NAME#text_config counts that part alone"):
        models.find_models([larger(tmp_path)], ["random"])
    (name,), configs = models.find_models([f"{larger(tmp_path)}#text_config"], ["random"])
    assert name == "sees#text_config"  # every record says that it is the part
    assert configs[name] == models.canonical({**config("gemma3_text"), "tie_word_embeddings": True}, "m")
    assert not isinstance(agreement.agreed_sizes(name, configs[name]), str)
    # The class of the whole model says what its part is.
    unnamed = {key: value for key, value in config("gemma3_text").items() if key != "model_type"}
    _, again = models.find_models([f"{larger(tmp_path, text_config=unnamed)}#text_config"], ["random"])
    assert again == configs


@pytest.mark.parametrize(("whole", "own", "tied"), [(False, None, False), (None, False, False), (True, True, True)])
def test_a_part_is_tied_where_its_file_says_so(whole, own, tied, tmp_path):
    text = config("gemma3_text", tie_word_embeddings=own)
    file = larger(tmp_path, text_config=text, tie_word_embeddings=whole)
    _, configs = models.find_models([f"{file}#text_config"], ["random"])
    assert json.loads(configs["sees#text_config"])["tie_word_embeddings"] is tied


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({}, "llm_config", "it has no 'llm_config'; its parts are text_config, vision_config"),
        ({}, "vision_config", "no causal language model of the model_type 'siglip_vision_model'"),
        (
            {"tie_word_embeddings": False, "text_config": config("gemma3_text", tie_word_embeddings=True)},
            *("text_config", "whether its text_config has tied embeddings is not clear: state tie_word_embeddings"),
        ),
        # Classes of the whole and of the part differ in what they do where nothing is said.
        (
            {"model_type": "mistral3", "text_config": config("mistral")},
            *("text_config", "whether its text_config has tied embeddings is not clear"),
        ),
        ({"vocab_size": 256}, "text_config", "vocab_size is 256, and that of its text_config 128"),
        (
            {"model_type": "llava", "text_config": {"hidden_size": 64}},
            "text_config",
            "its text_config lacks model_type",
        ),
        ({"text_config": {"model_type": "gemma3_text"}}, "text_config", "lacks hidden_size"),
        ({"text_config": {"model_type": ["gemma3_text"]}}, "text_config", "model_type of its text_config is ['gemma3"),
        ({"tie_word_embeddings": "no"}, "text_config", "whether its text_config has tied embeddings is not clear"),
        ({"text_config": config("gemma3_text", vision_config={"a": 1})}, "text_config", "its vision_config is a model"),
    ],
)
def test_a_part_that_is_not_clear_is_refused_in_one_line(changes, key, message, tmp_path):
    with pytest.raises(InputError) as caught:
        models.find_models([f"{larger(tmp_path, **changes)}#{key}"], ["random"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_a_part_are_not_loaded(tmp_path):
    with pytest.raises(InputError, match="pretrained loads whole models, not"):
        models.find_models([f"{larger(tmp_path)}#text_config"], ["pretrained"])


@pytest.mark.parametrize(
    "off",
    [
        {"sliding_window": None, "num_experts": 0, "use_sliding_window": False, "output_router_logits": False},
        {"layer_types": ["full_attention"] * 2, "partial_rotary_factor": 1.0, "qk_layernorm": False},
        {"torch_dtype": "float16", "unsloth_version": "2024.9", "quantization_config": {"bits": 4}, "use_cache": True},
    ],
)
def test_keys_that_a_family_does_not_have_may_say_so(off):
    content = config("llama") | off
    assert configuration.why_not(content) is None
    seen = agreement.count("m", canonical(json.dumps(content), "m"), 2, 16, False)
    assert seen.parameters == agreement.count("m", canonical(json.dumps(config("llama")), "m"), 2, 16, False).parameters


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_quantised_weights_are_said_to_be_left_out_and_are_not_loaded(tmp_path, key):
    file = tmp_path / "awq.json"
    file.write_text(json.dumps(config("llama", **{key: {"bits": 4}})))
    with pytest.warns(UserWarning, match=f"awq.json: {key} is left out"):
        names, _ = models.find_models([str(file)], ["random"])
    assert names == ("awq",)
    (tmp_path / "config.json").write_text(file.read_text())
    with pytest.raises(InputError, match=rf"has quantised weights \({key}\), which are not loaded"):
        models.find_models([str(tmp_path)], ["pretrained"])


def test_names_files_and_folders_are_models(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config("qwen3", torch_dtype="float16", bos_token_id=999)))
    (tmp_path / "same.json").write_text(json.dumps(config("qwen3")))
    names, configs = models.find_models([str(tmp_path / "mine"), str(tmp_path / "same.json"), "GPT2"], ["random"])
    assert names == ("mine", "same", "gpt2")
    assert configs["mine"] == configs["same"]  # what no operation depends on makes no other model
    with pytest.raises(InputError, match=r"no built-in model .*gpt-oss-20b"):
        models.find_models(["nope"], ["random"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama-tny", "model llama-tny: did you mean llama-tiny?"),
        ("Qwen3-0.6", "did you mean qwen3-0.6b?"),
        ("cfg/missing.json", "model cfg/missing.json: there is no such file or folder"),
        ("missing.json", "there is no such file or folder"),
        ("./missing", "there is no such file or folder"),
        ("/nowhere/missing", "there is no such file or folder"),
    ],
)
def test_a_name_that_is_nearly_one_and_a_path_of_nothing_are_said_so(name, said, tmp_path, monkeypatch):
    """A path is not searched on the hub."""
    from flopray.workloads import hub, llama_config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "config", lambda name: pytest.fail(f"asked the hub for {name}"))
    with pytest.raises(InputError) as caught:
        models.find_models([name], ["random"])
    assert said in str(caught.value)
    with pytest.raises(InputError) as caught:
        llama_config.find_models([name], ["random"])
    assert ("there is no such file" in str(caught.value)) == ("there is no such file" in said)


def test_a_folder_without_a_configuration_is_said_so(tmp_path):
    from flopray.workloads import llama_config

    for find in (models.find_models, llama_config.find_models):
        with pytest.raises(InputError, match="the folder has no config"):
            find([str(tmp_path)], ["random"])


# -- counted by `flopray count`


@pytest.mark.parametrize("kind", ["llama", "gpt2", "biogpt"])
def test_counting_a_file_by_module_gives_what_a_sweep_records(kind, tmp_path):
    """Also decode, whose first call fills the cache that it looks back on."""
    content = config(kind, head_dim=None, **({"num_key_value_heads": None} if kind == "biogpt" else {}))
    path = tmp_path / f"{kind}.json"
    path.write_text(json.dumps(content))
    where = point(content)
    for phase in ("forward", "decode"):
        shape = {"model": str(path), "batch_size": 2, "sequence_length": 16}
        counted = count("causal_lm", shapes=[shape], phase=phase, executed=False)[0]
        columns = closed_columns(where, phase)
        assert counted.dispatched.flops == dispatched_flops(where, phase, None)["dispatched_flops"]
        assert counted.closed.flops == columns.get("model_flops")
        if kind == "biogpt":
            assert counted.closed.reason.startswith("no closed form: the model_type biogpt has none")


# -- what is measured


@pytest.mark.parametrize("kind", ["gemma2", "gpt2", "gpt_oss", "mixtral", "deepseek_v2", "olmo"])
def test_every_phase_runs_and_generating_agrees_with_a_whole_pass(kind):
    content = config(kind, num_experts_per_tok=4, num_local_experts=4) if kind == "mixtral" else config(kind)
    built = BuiltPoint(point(content, routing="router"), device="cpu", seed=0)
    for phase in CausalLM.phases:
        built.phase(phase)()
    logits, first = built.phase("inference")(), built.phase("prefill")()
    torch.testing.assert_close(first[:, -1], logits[:, -1], rtol=1e-3, atol=1e-3)
    decode = built.phase("decode")
    once, twice = decode(), decode()
    torch.testing.assert_close(once, twice)
    x = built._step.x
    with torch.no_grad():
        longer = built._step.module.model(input_ids=torch.cat([x, x[:, :1]], dim=1), use_cache=False).logits
    torch.testing.assert_close(once[:, 0], longer[:, -1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["gpt2", "olmo"])
def test_a_class_that_names_no_loss_has_that_of_language_models_without_a_warning(kind):
    said = logging.handlers.BufferingHandler(capacity=10_000)
    logger = logging.getLogger("transformers")
    transformers.utils.logging.warning_once.cache_clear()  # it says each only once in a process
    logger.addHandler(said)
    try:
        built = BuiltPoint(point(config(kind)), device="cpu", seed=0)
        loss = built.phase("forward")()
    finally:
        logger.removeHandler(said)
    assert [record.getMessage() for record in said.buffer if "loss" in record.getMessage()] == []
    x = built._step.x
    logits = built._step.module.model(input_ids=x, use_cache=False).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), x[:, 1:].flatten())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_tokens_go_to_experts_in_equal_numbers():
    chosen = uniform_routing(64, 4, 16)
    assert chosen.flatten().bincount().tolist() == [16] * 16
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    torch.testing.assert_close(chosen, uniform_routing(64, 4, 16))  # seeded


@pytest.mark.parametrize(
    "kind", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v2", "deepseek_v3", "jamba"]
)
def test_every_family_sends_tokens_to_its_experts_in_equal_numbers(kind):
    mamba = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "attn_layer_period": 8, "attn_layer_offset": 4}
    mamba |= {"expert_layer_period": 2, "expert_layer_offset": 1}
    changes = {**mamba, "num_experts": 8, "num_experts_per_tok": 2, "head_dim": None} if kind == "jamba" else {}
    where = point(config(kind, **changes))
    built = BuiltPoint(where, device="cpu", seed=0)
    seen = []
    for name, module in built._step.module.named_modules():
        if name.endswith(".experts"):  # its own hook, which reroutes, was there before
            module.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    phases = {"inference": 32, "train_step": 32} | ({} if kind == "jamba" else {"prefill": 32, "decode": 2})
    for phase, tokens in phases.items():
        run = built.phase(phase)
        run()  # decode fills its cache first
        seen.clear()
        run()
        assert seen
        for args, kwargs in seen:
            indices = next(x for x in (*args, *kwargs.values()) if torch.is_tensor(x) and not x.is_floating_point())
            each = indices.flatten().bincount(minlength=4 if kind == "gpt_oss" else 8)
            assert each.sum() == 2 * tokens
            assert each.max() - each.min() <= 1


def test_experts_that_take_no_stated_routing_are_said_so():
    """Llama 4 computes all experts for all tokens, and takes no choice of experts."""
    sizes = {"intermediate_size_mlp": 96, "interleave_moe_layer_step": 1, "head_dim": 16}
    content = config("llama4_text", num_local_experts=4, num_experts_per_tok=1, **sizes)
    with pytest.raises(Unsupported, match="use routing='router'"):
        BuiltPoint(point(content), device="cpu", seed=0)
    BuiltPoint(point(content, routing="router"), device="cpu", seed=0).phase("train_step")()
    # Experts that no layer has need no routing.
    BuiltPoint(point(config("deepseek_v3", first_k_dense_replace=2)), device="cpu", seed=0)


def test_what_a_family_cannot_have_is_said_before_it_is_run():
    assert "no kernel of torch's" in str(CausalLM().why_not(point(config("gpt_oss"), attention="math"), None))
    assert "has 1024 positions" in str(CausalLM().why_not(point(config("gpt2"), tokens=1024), None))
    assert CausalLM().why_not(point(config("gpt2"), tokens=1023), None) is None


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kinds_of_layers"), [("llama", 1), ("gpt2", 1), ("gemma2", 2)])
def test_generating_compiles_each_kind_of_layer_once_and_computes_the_same(kind, kinds_of_layers, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    content = config(kind, **{"n_layer" if kind == "gpt2" else "num_hidden_layers": 4})
    for phase in ("prefill", "decode"):
        eager, layered = (
            BuiltPoint(point(content, execution=execution), device="cpu", seed=0) for execution in ("eager", "compile")
        )
        wanted, work = eager.phase(phase)(), layered.phase(phase)
        torch._dynamo.reset()  # what other tests of this process compiled is not taken again
        torch._dynamo.utils.counters.clear()
        for _ in range(3):  # every call starts from the same cache
            torch.testing.assert_close(work(), wanted)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == kinds_of_layers


@pytest.mark.parametrize("find", [models.find_model, llama_config.find_model])
def test_a_file_named_as_a_built_in_model_is_that_model_or_has_another_name(find, tmp_path, monkeypatch):
    """Tables and figures compare models by name; what lies here under that name is not passed over."""
    folder, file = tmp_path / "Llama-3.2-1B", tmp_path / "llama-3.2-1b.json"
    folder.mkdir()
    shape = models.shipped("llama-3.2-1b")["config"]
    monkeypatch.chdir(tmp_path)
    for content in (shape, shape | {"initializer_range": 0.1, "torch_dtype": "bfloat16"}):
        for written in (folder / "config.json", file):
            written.write_text(json.dumps(content))
        assert find("Llama-3.2-1B") == find(str(folder)) == find(file.name) == ("llama-3.2-1b", None)
    for content in (shape | {"num_hidden_layers": 8}, shape | {"vocab_size": 32}):
        for written in (folder / "config.json", file):
            written.write_text(json.dumps(content))
        for name in ("Llama-3.2-1B", str(folder), str(folder / "config.json")):
            label, text = find(name)
            assert label == "Llama-3.2-1B/config.json"
            assert text is not None
        assert find(file.name)[0] == "llama-3.2-1b.json"
    assert find("llama-tiny") == ("llama-tiny", None)
