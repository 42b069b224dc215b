"""Patterns of layers that a file states in numbers, held against the layers that transformers makes of it.

Files say twice which layers are of which kind: as a list, and as a number from which older releases made that list.
transformers takes the list, or, where there is none, a number by one name and not by another. Where both do not say the
same, it is not known which model is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flopray.workloads.causal_lm import class_keys
from flopray.workloads.llama_keys import short

_WINDOWED, _WHOLE = "sliding_attention", "full_attention"


class _Stated(NamedTuple):
    """How a key states places: of which layers in which list of the completed configuration."""

    layers: str
    kind: Any
    places: Callable[[Any, int, Mapping[str, Any]], Sequence[int] | None]


def _each(value: Any, count: int, content: Mapping[str, Any]) -> list[int] | None:
    """The last layer of each group of so many; a text such as `LLLG` names the layers of a group."""
    del content
    if isinstance(value, str) and value and set(value) <= {"L", "G"}:
        return [place for place in range(count) if value[place % len(value)] == "G"]
    if type(value) is not int or value < 1:
        return None
    return [place for place in range(count) if (place + 1) % value == 0]


def _each_window(value: Any, count: int, content: Mapping[str, Any]) -> list[int] | None:
    return _each(value, count, content) if content.get("sliding_window") else None


def _each_whole(value: Any, count: int, content: Mapping[str, Any]) -> Sequence[int] | None:
    """ModernBERT begins each group with its whole layer, others end it with that."""
    if content["model_type"] == "modernbert-decoder" and type(value) is int and value > 0:
        return range(0, count, value)
    return _each_window(value, count, content)


def _first(value: Any, count: int, content: Mapping[str, Any]) -> list[int] | None:
    del content
    return list(range(min(value, count))) if type(value) is int and value >= 0 else None


def _from(value: Any, count: int, content: Mapping[str, Any]) -> list[int] | None:
    """Layers with a window are those from a number on, if windows are switched on."""
    on = content.get("use_sliding_window") is True and content.get("sliding_window")
    return list(range(value, count)) if on and type(value) is int and value >= 0 else None


def _nowhere(value: Any, count: int, content: Mapping[str, Any]) -> list[int] | None:
    del count, content
    return [] if value is False else None


def _zeros(value: Any, count: int, content: Mapping[str, Any]) -> list[int] | None:
    """Layers at whose place a list has a 0; those that it lacks are taken for such."""
    del content
    if not isinstance(value, list):
        return None
    return [place for place in range(count) if place >= len(value) or value[place] == 0]


def _themselves(value: Any, count: int, content: Mapping[str, Any]) -> list[int] | None:
    del content
    whole = isinstance(value, list) and all(type(one) is int and 0 <= one < count for one in value)
    return sorted(set(value)) if whole else None


_PATTERNS: Mapping[str, _Stated] = {
    "sliding_window_pattern": _Stated("layer_types", _WHOLE, _each_window),
    "_sliding_window_pattern": _Stated("layer_types", _WHOLE, _each_window),
    "global_attn_every_n_layers": _Stated("layer_types", _WHOLE, _each_whole),
    "layer_switch": _Stated("layer_types", _WHOLE, _each_window),
    "full_attention_interval": _Stated("layer_types", _WHOLE, _each),
    "full_attn_idxs": _Stated("layer_types", _WHOLE, _themselves),
    "max_window_layers": _Stated("layer_types", _WINDOWED, _from),
    "use_sliding_window": _Stated("layer_types", _WINDOWED, _nowhere),
    "hybrid_layer_pattern": _Stated("layer_types", _WHOLE, _zeros),
    "is_moe_layer": _Stated("mlp_layer_types", "dense", _zeros),
    "moe_layer_freq": _Stated("mlp_layer_types", "dense", _zeros),
    "no_rope_layer_interval": _Stated("no_rope_layers", 0, _each),
    "first_k_dense_replace": _Stated("mlp_layer_types", "dense", _first),
}


def is_stated(key: str, value: Any, config: Any) -> bool:
    """Whether a key states a pattern that a list of the completed configuration has, too.

    Args:
        key: of the file.
        value: of the key.
        config: as transformers completes it.
    """
    if key not in _PATTERNS or (_PATTERNS[key].places is _zeros and not isinstance(value, list)):
        return False
    return isinstance(class_keys.kept(config, _PATTERNS[key].layers), list)


def has_no_experts(config: Any) -> bool:
    """Whether a family whose layers are of one kind each has none with experts."""
    kinds = class_keys.kept(config, "layers_block_type")
    return config.model_type == "nemotron_h" and isinstance(kinds, list) and "moe" not in kinds


def contradiction(content: Mapping[str, Any], config: Any) -> str | None:
    """Why a file's layers are not known: a key and a list say different things; None where they agree.

    Args:
        content: of the file.
        config: the same as transformers completes it.
    """
    for key in filter(content.__contains__, _PATTERNS):
        if not is_stated(key, content[key], config):
            continue
        name, kind, places = _PATTERNS[key]
        layers = class_keys.kept(config, name)
        stated = places(content[key], len(layers), content)
        built = [place for place, one in enumerate(layers) if one == kind]
        if stated is not None and list(stated) != built:
            return (
                f"{key} is {short(content[key])}, by which layers with {short(kind)} are {_told(stated)}, and "
                f"by {name} they are {_told(built)}: take out the one that does not hold"
            )
    return _unread_list(content, config) or _altered(content, config) or _unread_layers(content, config)


def _unread_list(content: Mapping[str, Any], config: Any) -> str | None:
    """A list of windows in a family that has one kind of layers only."""
    types, kind = content.get("layer_types"), content["model_type"]
    if not isinstance(types, list) or "layer_types" in (*class_keys.parameters(kind), *config.attribute_map):
        return None
    one = _WINDOWED if class_keys.kept(config, "sliding_window") else _WHOLE
    others = sorted({_WINDOWED, _WHOLE}.intersection(map(str, types)) - {one})
    return f"layer_types has {others[0]}, and all layers of a {kind} of transformers have {one}" if others else None


def _altered(content: Mapping[str, Any], config: Any) -> str | None:
    """A list of the file of which the class makes another; it may rename kinds, and leave out layers past the last."""
    for key, stated in content.items():
        built = class_keys.kept(config, key)
        if key.endswith("_token_id") or not isinstance(stated, list) or not isinstance(built, (list, tuple)):
            continue
        pairs = set(zip(map(str, stated), map(str, built), strict=False))
        one_to_one = len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
        if not one_to_one or not 0 <= len(stated) - len(built) <= (len(built) == _count(config)) * len(stated):
            return f"{key} is {short(stated)}, and transformers makes it {short(list(built))}"
    return None


def _unread_layers(content: Mapping[str, Any], config: Any) -> str | None:
    """Layers of their own that the class takes, and the family's code builds like all others."""
    layers = content.get("per_layer_config")
    if not isinstance(layers, Mapping) or not layers:
        return None
    named = {key for layer in layers.values() if isinstance(layer, Mapping) for key in layer}
    unread = class_keys.unread({**dict.fromkeys(named), **content}, config)
    ignored = sorted(named.intersection(("skip", *unread)))
    if "per_layer_config" not in unread and not ignored:
        return None
    return f"per_layer_config has {', '.join(ignored or sorted(named))}, which transformers does not build by layer"


def is_of_each_layer(value: Any, config: Any) -> bool:
    """Whether a value is a list with something for each layer."""
    return isinstance(value, list) and len(value) == _count(config) > 1


def _count(config: Any) -> int:
    return class_keys.kept(config, "num_hidden_layers") or 0


def _told(places: Sequence[int]) -> str:
    shown = ", ".join(map(str, places[:6]))
    return (shown + (", ..." if len(places) > 6 else "")) or "none"
