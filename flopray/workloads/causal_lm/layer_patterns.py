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
    "no_rope_layer_interval": _Stated("no_rope_layers", 0, _each),
    "first_k_dense_replace": _Stated("mlp_layer_types", "dense", _first),
}


def is_stated(key: str, config: Any) -> bool:
    """Whether a key states a pattern that a list of the completed configuration has, too.

    Args:
        key: of the file.
        config: as transformers completes it.
    """
    return key in _PATTERNS and isinstance(getattr(config, _PATTERNS[key].layers, None), list)


def contradiction(content: Mapping[str, Any], config: Any) -> str | None:
    """Why a file's layers are not known: a key and a list say different things; None where they agree.

    Args:
        content: of the file.
        config: the same as transformers completes it.
    """
    for key in filter(content.__contains__, _PATTERNS):
        if not is_stated(key, config):
            continue
        name, kind, places = _PATTERNS[key]
        layers = getattr(config, name)
        stated = places(content[key], len(layers), content)
        built = [place for place, one in enumerate(layers) if one == kind]
        if stated is not None and list(stated) != built:
            return (
                f"{key} is {short(content[key])}, by which layers with {short(kind)} are {_told(stated)}, and "
                f"by {name} they are {_told(built)}: take out the one that does not hold"
            )
    return _unread_list(content, config)


def _unread_list(content: Mapping[str, Any], config: Any) -> str | None:
    """A list of windows in a family that has one kind of layers only."""
    types, kind = content.get("layer_types"), content["model_type"]
    if not isinstance(types, list) or "layer_types" in (*class_keys.parameters(kind), *config.attribute_map):
        return None
    one = _WINDOWED if getattr(config, "sliding_window", None) else _WHOLE
    others = sorted({_WINDOWED, _WHOLE}.intersection(map(str, types)) - {one})
    return f"layer_types has {others[0]}, and all layers of a {kind} of transformers have {one}" if others else None


def _told(places: Sequence[int]) -> str:
    shown = ", ".join(map(str, places[:6]))
    return (shown + (", ..." if len(places) > 6 else "")) or "none"
