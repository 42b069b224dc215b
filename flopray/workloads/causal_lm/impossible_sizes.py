"""Sizes that no model has: some would count as a smaller model, others fail at the first token."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from flopray.workloads.causal_lm import class_keys, size_names
from flopray.workloads.llama_config import LARGEST
from flopray.workloads.llama_keys import short, short_key, words

_MOST_LAYERS = 2000
#: What angles of a rotary embedding are made of.
_ANGLES = words("rope_theta rope_local_base_freq rotary_emb_base factor")
#: How names of what norms add to a variance end.
_EPSILON = re.compile(r"(?:^|_)(?:eps|epsilon)$")


def reason(content: Mapping[str, Any], config: Any) -> str | None:
    """Why no model has these sizes; None where one can.

    Args:
        content: of the file.
        config: the same as transformers completes it.
    """
    for size in size_names.SIZES:
        value = size_names.stated(content, config, size)
        if type(value) is int and value < (0 if size in size_names.MAY_BE_ZERO else 1):
            return f"{size} is {value}, and must be at least {0 if size in size_names.MAY_BE_ZERO else 1}"
        if type(value) is int and value > LARGEST:
            return f"{size} is {value:.3g}, and at most {LARGEST}"
    layers = class_keys.kept(config, "num_hidden_layers")
    if type(layers) is int and layers > _MOST_LAYERS:
        return f"num_hidden_layers is {layers}: at most {_MOST_LAYERS} are built"
    heads, kv = (size_names.stated(content, config, size) for size in ("num_attention_heads", "num_key_value_heads"))
    if type(heads) is int and type(kv) is int and heads % kv:
        return f"num_attention_heads is {heads}, which is not a multiple of num_key_value_heads, {kv}"
    return _no_count(content, config) or _impossible_numbers(content) or _impossible_experts(content, config)


def _no_count(content: Mapping[str, Any], config: Any) -> str | None:
    """A size that is no whole number: some classes take it, and compare it with the places of layers."""
    unread = set(class_keys.unread(content, config))
    for key, value in content.items():
        named = key in size_names.SIZES or size_names.ENDINGS.search(key)
        if not named or key in unread or value in (None, "auto") or isinstance(value, (list, Mapping)):
            continue
        if type(value) is not int and not key.endswith("expand"):
            return f"{key} is {short(value)}, and must be a whole number"
        least = 0 if size_names.of_experts(key) or key in size_names.MAY_BE_ZERO else 1
        if value < least:
            return f"{key} is {short(value)}, and must be at least {least}"
    return None


def _impossible_numbers(content: Mapping[str, Any]) -> str | None:
    """Refuse numbers with which activations would be no numbers: of norms, and of rotary embeddings of all layers."""
    ropes = [part for key in ("rope_parameters", "rope_scaling") if isinstance(part := content.get(key), Mapping)]
    of_layers = [part for rope in ropes for part in rope.values() if isinstance(part, Mapping)]
    for key, value in (item for part in (content, *ropes, *of_layers) for item in part.items()):
        if not isinstance(value, (int, float)):
            continue
        if not math.isfinite(value):
            return f"{short_key(key)} is {value}, which is no finite number"
        if key in _ANGLES and value <= 0:
            return f"{key} is {value}, and must be above 0: angles and all that follows would be no numbers"
        if _EPSILON.search(key) and value < 0:
            return f"{short_key(key)} is {value}, and must be at least 0: norms would be no numbers"
    return None


def _impossible_experts(content: Mapping[str, Any], config: Any) -> str | None:
    """Refuse a choice of more experts than there are: the model is built and fails at its first token."""
    counts = sorted(("num_local_experts", "num_experts", "n_routed_experts"), key=lambda n: n not in content)
    name, experts = next(((n, v) for n in counts if type(v := class_keys.kept(config, n)) is int), ("", 0))
    chosen, groups, of_groups = (
        value if type(value := class_keys.kept(config, n)) is int else None
        for n in ("num_experts_per_tok", "n_group", "topk_group")
    )
    if not experts:
        return None
    width = class_keys.kept(config, "moe_intermediate_size")
    if type(width) is int and width < 1:
        return f"moe_intermediate_size is {width}, and {name} is {experts}"
    if chosen is not None and not 0 < chosen <= experts:
        return f"num_experts_per_tok is {chosen}, and {name} is {experts}"
    if groups and experts % groups:
        return f"{name} is {experts}, which is not a multiple of n_group, {groups}"
    if groups and of_groups is not None and of_groups > groups:
        return f"topk_group is {of_groups}, and n_group is {groups}"
    if groups and of_groups and chosen is not None and chosen > of_groups * (experts // groups):
        return f"num_experts_per_tok is {chosen}, and {of_groups} of {groups} groups have fewer experts"
    return None
