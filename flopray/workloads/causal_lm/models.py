"""What `--model` names: a configuration that is shipped, a file, a folder, or a model of the hub.

A point carries its model as a name, and where the name is not a built-in one also as the canonical JSON text of its
configuration, so that a node needs no file of the machine that started the sweep. Remote code is never run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from flopray.errors import InputError, SpecError, brief
from flopray.workloads import float8, hub
from flopray.workloads.causal_lm import families
from flopray.workloads.causal_lm.sizes import Sizes
from flopray.workloads.llama_config import check_safetensors, distinct, is_hub_id, label_of, read_json, unknown_model
from flopray.workloads.llama_keys import HARMLESS, short

#: Keys that no operation depends on, or that the point decides; the rest makes the model, and the point's id.
_LEFT_OUT = HARMLESS | {"quantization_config", "compression_config"}
#: Some families have a table of as many positions, or scale their angles by it.
_KEPT = frozenset({"max_position_embeddings", "original_max_position_embeddings"})
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_LARGEST_TEXT = 20_000


@lru_cache(maxsize=1)
def built_in() -> tuple[str, ...]:
    """Names of the configurations that are shipped."""
    folder = resources.files("flopray.workloads.causal_lm") / "configs"
    return tuple(sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")))


@lru_cache(maxsize=64)
def shipped(name: str) -> Mapping[str, Any]:
    """The file of a built-in name: `source`, `parameters`, `parameters_source` and `config`.

    Raises:
        SpecError: there is none.
    """
    if name not in built_in():
        raise SpecError(f"unknown model {name!r:.60}: choose from {', '.join(built_in())}, or name a file")
    file = resources.files("flopray.workloads.causal_lm") / "configs" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def content_of(model: str, model_config: str | None) -> dict[str, Any]:
    """The configuration of a point's model, as its file has it.

    Args:
        model: its name.
        model_config: canonical text; None for a built-in name.

    Raises:
        SpecError: neither a built-in name nor a text.
    """
    if model_config is None:
        return dict(shipped(model)["config"])
    try:
        content = json.loads(model_config)
    except ValueError as error:
        raise SpecError(f"the model's configuration cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise SpecError("the model's configuration has no model_type")
    return content


@lru_cache(maxsize=64)
def sizes_of(model: str, model_config: str | None) -> Sizes:
    """The sizes of a point's model, of which its closed form is made.

    Raises:
        SpecError: transformers refuses the configuration.
        NoClosedForm: its family or a key is not understood.
    """
    content = content_of(model, model_config)
    return families.sizes_of(content, completed(content))


def completed(content: Mapping[str, Any]) -> Any:
    """The configuration as transformers completes it; dropout is taken out, and so are the numbers of special tokens.

    Args:
        content: of the file.

    Raises:
        SpecError: transformers has no such model_type, or refuses a value.
    """
    float8.load_quietly()
    from transformers import AutoConfig

    given = {key: value for key, value in content.items() if key not in ("model_type", "auto_map", *_LEFT_OUT)}
    given |= {key: content[key] for key in _KEPT if key in content}
    try:
        with _silent():
            config = AutoConfig.for_model(content["model_type"], **given)
            _without_dropout(config)
    except Exception as error:  # whatever a class of transformers raises at a value
        raise SpecError(f"transformers refuses it: {brief(error)}") from error
    return config


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence transformers, which warns of tokens that are not used here."""
    import logging

    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _without_dropout(config: Any) -> None:
    for name in ("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout"):
        if getattr(config, name, None):
            setattr(config, name, 0.0)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(config, name, None) is not None:
            setattr(config, name, None)


def find_models(names: Sequence[str], weights: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """What several names given as `--model` mean.

    Args:
        names: as given.
        weights: values of `--weights`.

    Returns:
        Names for the records, and the canonical configurations of those that are not built in.

    Raises:
        InputError: a name means nothing, or two mean models that would go by one name.
    """
    return distinct([find_model(name, pretrained="pretrained" in weights) for name in names])


def find_model(name: str, *, pretrained: bool = False) -> tuple[str, str | None]:
    """What `--model` names: a built-in configuration, a file, a folder with a `config.json`, or a hub id.

    Args:
        name: as given.
        pretrained: whether weights are wanted too, of a hub id or a folder with safetensors.

    Returns:
        The name for the record, and the canonical configuration where the name is not a built-in one.

    Raises:
        InputError: nothing of that name, or no causal language model that transformers can build.
    """
    if name.lower() in built_in():
        if pretrained:
            raise InputError(f"--weights pretrained needs a hub id or a folder with weights, not the built-in {name}")
        return name.lower(), None
    path = Path(name)
    if path.exists():
        file = path / "config.json" if path.is_dir() else path
        if not file.exists():
            raise InputError(f"{name}: the folder has no config.json")
        text = canonical(read_json(file), name)
        if not pretrained:
            return label_of(path), text
        check_safetensors(str(file.parent))
        return str(file.parent.resolve()), text
    if pretrained or is_hub_id(name):
        text = canonical(hub.config(name), name)
        if pretrained:
            check_safetensors(name)
        return name, text
    raise unknown_model(name, built_in())


def canonical(content: Mapping[str, Any], name: str) -> str:
    """The text of a configuration that a point carries; equal models have equal texts.

    Args:
        content: of the file.
        name: as given by `--model`, for the message.

    Raises:
        InputError: transformers cannot build a causal language model from it without code of its own.
    """
    reason = why_not(content)
    if reason:
        raise InputError(f"--model {name}: {reason}")
    kept = {key: value for key, value in content.items() if key in _KEPT or key not in _LEFT_OUT}
    text = json.dumps({key: value for key, value in kept.items() if key != "architectures"}, sort_keys=True)
    if len(text) > _LARGEST_TEXT:
        raise InputError(
            f"--model {name}: the configuration has {len(text)} characters, at most {_LARGEST_TEXT} are read"
        )
    return text


def why_not(content: Mapping[str, Any]) -> str | None:
    """Why transformers' own code cannot build a causal language model from a configuration; None where it can."""
    kind = content.get("model_type")
    if not isinstance(kind, str) or not kind:
        return "its configuration lacks model_type"
    if content.get("auto_map"):
        return (
            "auto_map names code of the model's own, which is never run; without that key transformers' own "
            f"{short(kind)} is built, if it has one"
        )
    inside = [
        key
        for key, part in content.items()
        if isinstance(part, Mapping) and (part.get("model_type") or key in ("text_config", "vision_config"))
    ]
    if inside:
        return f"its {inside[0]} is a model inside of a larger one: write that part to a file of its own"
    return _why_no_class(content, kind)


def _why_no_class(content: Mapping[str, Any], kind: str) -> str | None:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if kind not in CONFIG_MAPPING:
        return (
            f"unknown model_type {short(kind)}: transformers has no model of it, and code from elsewhere is never run"
        )
    own = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if own is None:
        return f"transformers has no causal language model of the model_type {short(kind)}"
    if content.get("is_encoder_decoder") is True:
        return "is_encoder_decoder is true: an encoder is not run"
    names = content.get("architectures")
    if names and own not in (names if isinstance(names, list) else [names]) and names != ["LLaMAForCausalLM"]:
        return f"architectures is {short(names)}: of this model_type, {own} would be built"
    try:
        config = completed(content)
    except SpecError as error:
        return str(error)
    for size in _SIZES:  # a class of transformers would take those of its first model
        if content.get(size) is None and content.get(config.attribute_map.get(size, size)) is None:
            return f"its configuration lacks {size}"
    return None
