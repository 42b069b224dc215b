"""Names of sizes in configurations: those that a file must state, and others by which files call the same sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flopray.workloads.causal_lm import class_keys
from flopray.workloads.llama_keys import words

#: Sizes that the file must state for every class that has them.
ALWAYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
#: Sizes that the file must state where the class would otherwise take a number of its own.
OWN = ("intermediate_size", "num_key_value_heads")
#: The same of a family that has a closed form.
SIZES = (
    *(*ALWAYS, *OWN, "head_dim", "sliding_window", "num_local_experts", "num_experts", "n_routed_experts"),
    *("num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size"),
    *("n_shared_experts", "first_k_dense_replace", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim"),
    *("qk_rope_head_dim", "v_head_dim", "ffn_dim", "word_embed_proj_dim", "shared_intermediate_size", "rotary_dim"),
    *("moe_num_shared_experts", "moe_topk"),
)
#: Sizes that may be 0: a model without experts, or without shared ones.
MAY_BE_ZERO = words(
    "num_local_experts num_experts n_routed_experts num_experts_per_tok shared_expert_intermediate_size "
    "n_shared_experts first_k_dense_replace sliding_window moe_intermediate_size shared_intermediate_size rotary_dim "
    "moe_num_shared_experts"
)
#: How names of sizes end in families without a closed form, which are measured as transformers builds them.
ENDINGS = re.compile(
    r"(?:^|_)(?:ffn_dim|ffn_hidden_size|dff|dim_ff|d_inner|d_head|dim_head|head_dim|rank|state_size|d_state|d_conv|"
    r"expand|hidden_size|latent_size|latent_dim|heads|n_head|experts|per_tok|per_token|topk|moe_k|intermediate_size|"
    r"lru_width|conv_kernel|conv_kernel_size)$"
)
#: Names without such an ending: which layers are of which kind, and widths of filters, groups and further embeddings.
#: They may be 0 in a file.
LAYOUT = words(
    "first_k_dense_replace num_dense_layers attn_layer_offset attn_layer_period expert_layer_offset "
    "expert_layer_period interleave_moe_layer_step intermediate_size_mlp conv_L_cache conv1d_width "
    "linear_conv_kernel_dim mamba_d_ssm mamba_n_groups mamba_ngroups n_groups num_kv_shared_layers "
    "hidden_size_per_layer_input vocab_size_per_layer_input layer_group_size hc_mult o_groups kv_channels "
    "num_mem_blocks intermediate_multiple_size"
)
#: Names of sizes in files of first releases, which some classes still read.
FORMER: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embed",),
    "intermediate_size": ("block_ff_dim",),
    "head_dim": ("attention_head_dim",),
}
#: Sizes that some files state inside of a mapping, which the class reads.
_INSIDE: Mapping[str, tuple[str, str]] = {
    "linear_head_dim": ("linear_attn_config", "head_dim"),
    "linear_num_heads": ("linear_attn_config", "num_heads"),
    "linear_conv_kernel_dim": ("linear_attn_config", "short_conv_kernel_size"),
}
#: Names of sizes that some files have besides those that their class reads.
_ALSO: Mapping[str, tuple[str, ...]] = {
    "attention_head_dim": ("head_dim",),
    "swa_head_dim": ("head_dim",),
    "swa_v_head_dim": ("v_head_dim",),
    "swa_num_attention_heads": ("num_attention_heads",),
    "d_inner": ("intermediate_size",),
    "d_model": ("hidden_size",),
    "ffn_hidden_size": ("intermediate_size",),
    "intermediate_size": ("n_inner", "ffn_dim"),
    "state_size": ("mamba_d_state",),
    "moe_num_experts": ("num_local_experts", "num_experts"),
    "moe_top_k": ("num_experts_per_tok",),
    "num_heads": ("num_attention_heads",),
    **dict.fromkeys(("n_layer", "num_layers"), ("num_hidden_layers",)),
}


def stated(content: Mapping[str, Any], config: Any, size: str) -> Any:
    """The size that a file states under one of its names; None where it states none."""
    if found := inside(size, content):
        return found
    others = [alias for alias, name in config.attribute_map.items() if name == size]
    former = set(FORMER.get(size, ())).difference(class_keys.unread(content, config))
    names = (size, config.attribute_map.get(size, size), *others, *former)
    return next((content[name] for name in names if content.get(name) is not None), None)


def of_experts(size: str) -> bool:
    """Whether a size is of experts, which some models of a family do not have."""
    return "expert" in size or size.startswith("moe_")


def inside(size: str, content: Mapping[str, Any]) -> Any:
    """The size where a file states it inside of a mapping; None elsewhere."""
    whole, key = _INSIDE.get(size, ("", ""))
    part = content.get(whole)
    return part.get(key) if isinstance(part, Mapping) else None


def says_the_same(key: str, value: Any, config: Any) -> bool:
    """Whether a size that the family does not read is what it is built with."""
    heads, width = (class_keys.kept(config, name) for name in ("num_attention_heads", "hidden_size"))
    if key.endswith("_hidden_size") and value == width:
        return True
    if key == "head_dim":
        return type(heads) is int and type(width) is int and value == width // heads
    if key == "num_key_value_heads" and not class_keys.kept(config, "new_decoder_architecture", False):
        return value == (1 if class_keys.kept(config, "multi_query", False) else heads)
    if key == "swa_num_key_value_heads" and config.model_type == "mimo_v2_flash":  # whose windows have twice as many
        return value == 2 * config.num_key_value_heads
    if key == "intermediate_size" and type(width) is int and value == class_keys.kept(config, "expand", 0) * width:
        return True  # the inner width of a state space
    names = _ALSO.get(key, ())
    return any(type(built := class_keys.kept(config, name)) is int and built == value for name in names)


def is_size(key: str, value: Any) -> bool:
    """Whether a key with this value says how large some part of a model is."""
    return bool(value) and value is not True and (key in SIZES or key in _ALSO or ENDINGS.search(key) is not None)
