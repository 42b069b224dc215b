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
_IN_CONFIGURATION = re.compile(r"(?:config|self)\.(\w+)\b(?!\s*=[^=])|[\"'](\w+)[\"']")


def parameters(kind: str) -> Mapping[str, Any]:
    """Keys of a class of transformers, each with the value that it takes where a file has none.

    Args:
        kind: a model_type that transformers knows.
    """
    from transformers import CONFIG_MAPPING

    found = inspect.signature(CONFIG_MAPPING[kind]).parameters
    return {name: one.default for name, one in found.items()}


def unread(content: Mapping[str, Any], config: Any) -> list[str]:
    """Keys of a file that transformers' code of its family does not read, in the order of the file.

    Args:
        content: of the file.
        config: the same as transformers completes it.
    """
    known = {
        *parameters(content["model_type"]),
        *config.attribute_map,
        *_of_every_class(),
        *_read_by(type(config).__module__),
        "auto_map",
    }
    return [key for key in content if key not in known]


@lru_cache(maxsize=1)
def _of_every_class() -> frozenset[str]:
    from transformers import PreTrainedConfig

    return frozenset(PreTrainedConfig().to_dict())


@lru_cache(maxsize=64)
def _read_by(module: str) -> frozenset[str]:
    """What the modules of a family's configuration and model read.

    Args:
        module: of the configuration.
    """
    found = set()
    sources = ((module, _IN_CONFIGURATION), (module.replace(".configuration_", ".modeling_"), _IN_MODEL))
    for name, pattern in sources:
        matches = pattern.finditer(inspect.getsource(import_module(name)))
        found |= {match[1] or match[2] for match in matches}
    return frozenset(found)
