"""Names of sizes in configurations: those that a file must state, and others by which files call the same sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
    r"expand|heads|n_head|experts|per_tok|topk|moe_k|intermediate_size|lru_width|conv_kernel|conv_kernel_size)$"
)
#: Names of sizes in files of first releases, which some classes still read.
FORMER: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embed",),
    "intermediate_size": ("block_ff_dim",),
    "head_dim": ("attention_head_dim",),
}
#: Names of sizes that some files have besides those that their class reads.
_ALSO: Mapping[str, tuple[str, ...]] = {
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


def says_the_same(key: str, value: Any, config: Any) -> bool:
    """Whether a size that the family does not read is what it is built with."""
    heads, width = (getattr(config, name, None) for name in ("num_attention_heads", "hidden_size"))
    if key == "head_dim":
        return type(heads) is int and type(width) is int and value == width // heads
    if key == "num_key_value_heads" and not getattr(config, "multi_query", False):
        return value == heads
    names = _ALSO.get(key, ())
    return any(type(built := getattr(config, name, None)) is int and built == value for name in names)


def is_size(key: str, value: Any) -> bool:
    """Whether a key with this value says how large some part of a model is."""
    return bool(value) and value is not True and (key in SIZES or key in _ALSO or ENDINGS.search(key) is not None)
