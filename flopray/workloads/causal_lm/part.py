"""The language model inside of a larger model, which a name asks for: `NAME#text_config`.

The configuration of a model that also sees or hears holds one of its language model. It is never taken by itself: who
reads a count must know that nothing else is counted, so the name says it, here and in every record. Whether the output
projection is the embedding is a choice of the whole model in some files and of the part in others; where they do not
say the same, neither is taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from flopray.errors import SpecError
from flopray.mappings import Json
from flopray.workloads.llama_keys import short

#: Between the name of a whole model and the key of its part.
MARK = "#"
_TIED = "tie_word_embeddings"
#: Sizes that some files state for the whole model too.
_OF_BOTH = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def names(content: Mapping[str, Any]) -> list[str]:
    """Keys of the models inside of a configuration."""
    return [
        key
        for key, part in content.items()
        if isinstance(part, Mapping) and (part.get("model_type") or key in ("text_config", "vision_config"))
    ]


def part_of(content: Mapping[str, Any], key: str) -> Json:
    """The configuration of a part, to be read like a file of its own.

    Args:
        content: of the whole model's file.
        key: of the part.

    Raises:
        SpecError: there is no such part, or the file says two things of it.
    """
    part = content.get(key)
    if not isinstance(part, Mapping):
        raise SpecError(f"it has no {short(key)}; its parts are {', '.join(names(content)) or 'none'}")
    for size in _OF_BOTH:
        whole, own = content.get(size), part.get(size)
        if whole is not None and own is not None and whole != own:
            raise SpecError(f"{size} is {short(whole)}, and that of its {key} {short(own)}")
    kind = part.get("model_type") or _kind(content, key)
    if not isinstance(kind, str):
        raise SpecError(f"model_type of its {key} is {short(kind)}, and must be a name")
    found = {**part, "model_type": kind}
    return found | {_TIED: _tied(content, part, kind, key)} if _is_decoder(kind) else found


def _kind(content: Mapping[str, Any], key: str) -> str:
    """The model_type of a part whose configuration lacks it, by the class of the whole model."""
    kind = getattr(_sub_configs(content.get("model_type")).get(key), "model_type", "")
    if not kind:
        raise SpecError(f"its {key} lacks model_type")
    return kind


def _tied(content: Mapping[str, Any], part: Mapping[str, Any], kind: str, key: str) -> bool:
    stated = [one[_TIED] for one in (content, part) if one.get(_TIED) is not None]
    stated = stated or [_default(content.get("model_type")), _default(kind)]
    if not all(isinstance(one, bool) for one in stated) or len(set(stated)) > 1:
        raise SpecError(
            f"whether its {key} has tied embeddings is not clear: state {_TIED} in the file and in its {key}"
        )
    return stated[0]


def _is_decoder(kind: Any) -> bool:
    """Whether there is a causal language model of a model_type; what is none is refused later, with its reason."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _default(kind: Any) -> bool | None:
    """Whether the class of a model_type ties embeddings where a file says nothing; None if it says nothing itself."""
    from transformers import CONFIG_MAPPING

    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None
    parameter = inspect.signature(CONFIG_MAPPING[kind]).parameters.get(_TIED)
    return None if parameter is None or not isinstance(parameter.default, bool) else parameter.default


def _sub_configs(kind: Any) -> Mapping[str, Any]:
    from transformers import CONFIG_MAPPING

    return (
        dict(getattr(CONFIG_MAPPING[kind], "sub_configs", {}))
        if isinstance(kind, str) and kind in CONFIG_MAPPING
        else {}
    )
