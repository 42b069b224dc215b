"""The keys that transformers' code of a family reads, and what a file has besides.

A class keeps any key that it is given, and builds the same model without it. So the sources of the family's
configuration and model are searched: a key is read where it is an attribute of a configuration or a text. A variable of
that name says nothing: GPT-2's code computes a `head_dim`, and reads none.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

#: An attribute of a configuration, or a text; a class of configurations calls itself `self`, and sets what it derives.
_IN_MODEL = re.compile(r"config\.(\w+)|[\"'](\w+)[\"']")
_FURTHER = re.compile(r"kwargs\.(?:pop|get)\(\s*\"(\w+)\",\s*(\d+)\)")
#: Sizes that are further keys of some class, and the keys that say the same in their place.
IN_PLACE_OF = {"global_head_dim": "per_layer_config", "first_k_dense_replace": "mlp_layer_types"}
_IN_CONFIGURATION = re.compile(r"(?:config|self)\.(\w+)\b(?!\s*=[^=])|[\"'](\w+)[\"']")


def parameters(kind: str) -> Mapping[str, Any]:
    """Keys of a class of transformers, each with the value that it takes where a file has none.

    Args:
        kind: a model_type that transformers knows.
    """
    from transformers import CONFIG_MAPPING

    found = inspect.signature(CONFIG_MAPPING[kind]).parameters
    return {name: one.default for name, one in found.items()}


def further(config: Any) -> Mapping[str, str]:
    """Sizes that a class takes from further keys of a file, each with what it takes where the file has none."""
    source = inspect.getsource(type(config))
    return {name: taken for name, taken in _FURTHER.findall(source) if name in IN_PLACE_OF}


def kept(config: Any, name: str, default: Any = None) -> Any:
    """What a completed configuration has under a name.

    Where layers differ, a class raises at the name; it then has what holds for the layers that state nothing.

    Args:
        config: of transformers.
        name: of the key.
        default: of a key that it does not have.
    """
    try:
        return getattr(config, name, default)
    except RuntimeError:
        return vars(config).get(config.attribute_map.get(name, name), default)


def unread(content: Mapping[str, Any], config: Any) -> list[str]:
    """Keys of a file that transformers' code of its family does not read, in the order of the file.

    Args:
        content: of the file.
        config: the same as transformers completes it.
    """
    known = {
        *parameters(content["model_type"]),
        *config.attribute_map,
        *config.attribute_map.values(),
        *_of_every_class(),
        *_read_by(type(config).__module__, _module_of_model(config)),
        "auto_map",
    }
    return [key for key in content if key not in known]


@lru_cache(maxsize=1)
def _of_every_class() -> frozenset[str]:
    from transformers import PreTrainedConfig

    return frozenset(PreTrainedConfig().to_dict())


def _module_of_model(config: Any) -> str:
    """The module of the model that is built: some families have a configuration of their own, and another's model."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM._model_mapping[type(config)].__module__  # type: ignore[index]


@lru_cache(maxsize=64)
def _read_by(configuration: str, model: str) -> frozenset[str]:
    """What the modules of a family's configuration and model read."""
    found = set()
    for name, pattern in ((configuration, _IN_CONFIGURATION), (model, _IN_MODEL)):
        matches = pattern.finditer(inspect.getsource(import_module(name)))
        found |= {match[1] or match[2] for match in matches}
    return frozenset(found)
