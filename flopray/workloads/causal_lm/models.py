"""What a model's name stands for: a built-in configuration, a file, a folder, or a model of the hub.

A point carries its model as a name, and where the name is not a built-in one also as the canonical JSON text of its
configuration, so that a node needs no file of the machine that started the sweep. Remote code is never run.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from flopray.errors import InputError, SettingError, SpecError
from flopray.mappings import Json
from flopray.workloads import hub
from flopray.workloads.causal_lm import configuration, families, part
from flopray.workloads.causal_lm.sizes import NoClosedForm, Sizes
from flopray.workloads.llama_config import (
    check_safetensors,
    distinct,
    is_hub_id,
    label_beside,
    label_of,
    read_json,
    unknown_model,
)

_LARGEST_TEXT = 20_000
#: The file of an adapter, beside which there is no model.
_OF_ADAPTER = "adapter_config.json"
#: Keys under which files say how their weights are quantised.
_QUANTISED = ("quantization_config", "compression_config", "quantization")


@lru_cache(maxsize=1)
def built_in() -> tuple[str, ...]:
    """Names of the configurations that are shipped."""
    folder = resources.files("flopray.workloads.causal_lm") / "configs"
    return tuple(sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")))


@lru_cache(maxsize=64)
def shipped(name: str) -> Mapping[str, Any]:
    """The file of a built-in name: `source`, `parameters`, `parameters_source` and `config`.

    Some have a `sizes_source` too, a second page that states the same sizes.

    Raises:
        SpecError: there is no such model.
    """
    if name not in built_in():
        raise SpecError(f"unknown model {name!r:.60}: choose from {', '.join(built_in())}, or name a file")
    file = resources.files("flopray.workloads.causal_lm") / "configs" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def content_of(model: str, model_config: str | None) -> Json:
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
    return families.sizes_of(content, configuration.completed(content))


def parameters_of(model: str, model_config: str | None) -> int:
    """Weights of the model that transformers builds, a tied matrix once.

    Raises:
        SpecError: transformers cannot build it.
    """
    return configuration.parameters_of(model_config or json.dumps(shipped(model)["config"], sort_keys=True))


def find_models(names: Sequence[str], weights: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """What several names of models stand for.

    Args:
        names: as given.
        weights: values of the field `weights`.

    Returns:
        Names for the records, and the canonical configurations of those that are not built in.

    Raises:
        InputError: a name stands for nothing, or two models would have the same name.
    """
    return distinct([find_model(name, pretrained="pretrained" in weights) for name in names])


def find_model(name: str, *, pretrained: bool = False) -> tuple[str, str | None]:
    """What a model's name stands for: a built-in configuration, a file, a folder with a `config.json`, or a hub id.

    Args:
        name: as given; `NAME#KEY` is the part KEY of a larger model, such as `text_config`, and nothing else of it.
        pretrained: whether weights are wanted too, of a hub id or a folder with safetensors.

    Returns:
        The name for the record, and the canonical configuration where the name is not a built-in one.

    Raises:
        InputError: nothing of that name, or no causal language model that transformers can build.
    """
    path = Path(name)
    if name.lower() in built_in() and not path.exists():
        if pretrained:
            raise SettingError(f"<weights> pretrained needs a hub id or a folder with weights, not the built-in {name}")
        return name.lower(), None
    whole, mark, key = (name, "", "") if Path(name).exists() else name.rpartition(part.MARK)
    if mark and pretrained:
        raise SettingError(f"<weights> pretrained loads whole models, not {name}")
    return _found(name if not mark else whole, key, pretrained=pretrained)


def _found(name: str, key: str, *, pretrained: bool) -> tuple[str, str | None]:
    path = Path(name)
    if path.exists():
        file = path / "config.json" if path.is_dir() else path
        if not file.exists() and (path / _OF_ADAPTER).exists():  # which says what it is
            file = path / _OF_ADAPTER
        if not file.exists():
            raise InputError(f"{name}: the folder has no config.json")
        text = _text(read_json(file), key, name, pretrained)
        if not pretrained:
            label = label_of(path)
            if not key and label.lower() in built_in() and _same_model(text, label.lower()):
                return label.lower(), None
            return _with_part(label_beside(label, path, built_in()), key), text
        check_safetensors(str(file.parent))
        return str(file.parent.resolve()), text
    if pretrained or is_hub_id(name):
        text = _text(hub.config(name), key, name, pretrained)
        if pretrained:
            check_safetensors(name)
        return _with_part(name, key), text
    raise unknown_model(name, built_in())


def _text(content: Mapping[str, Any], key: str, name: str, pretrained: bool) -> str:
    """The canonical text of a file, or of the part that was asked for; what it says of quantised weights is told."""
    asked = _asked(content, key, name)
    text = canonical(asked, name)
    quantised = sorted({key for one in (content, asked) for key in _QUANTISED if one.get(key)})
    if quantised and pretrained:
        raise SettingError(f"<weights> {name} has quantised weights ({quantised[0]}), which are not loaded")
    if quantised:
        warnings.warn(
            f"{name}: {quantised[0]} is left out; its products are measured and counted in the precision of each "
            "point, not with quantised weights",
            stacklevel=2,
        )
    return text


def _asked(content: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    """The configuration, or the part of it that was asked for."""
    if not key:
        return content
    try:
        return part.part_of(content, key)
    except SpecError as error:
        raise SettingError(f"<model> {name}: {error}") from error


def _with_part(name: str, key: str) -> str:
    return f"{name}{part.MARK}{key}" if key else name


def _same_model(text: str, name: str) -> bool:
    """Whether a configuration has the sizes of a built-in model; other keys, such as an epsilon, cost nothing."""
    given, own = json.loads(text), dict(shipped(name)["config"])
    if given["model_type"] != own["model_type"]:
        return False
    try:
        return sizes_of(name, text) == sizes_of(name, None)
    except NoClosedForm:
        return given == own


def canonical(content: Mapping[str, Any], name: str) -> str:
    """The text of a configuration that a point carries; equal models have equal texts.

    Args:
        content: of the file.
        name: of the model as given, for the message.

    Raises:
        InputError: transformers cannot build a causal language model from it without code of its own.
    """
    reason = configuration.why_not(content)
    if reason:
        raise SettingError(f"<model> {name}: {reason}")
    kept = {
        key: value for key, value in content.items() if key in configuration.KEPT or key not in configuration.LEFT_OUT
    }
    text = json.dumps(
        {key: value for key, value in kept.items() if key not in ("architectures", "auto_map")}, sort_keys=True
    )
    if len(text) > _LARGEST_TEXT:
        raise SettingError(
            f"<model> {name}: the configuration has {len(text)} characters, at most {_LARGEST_TEXT} are read"
        )
    try:
        configuration.parameters_of(text)
    except SpecError as error:
        raise SettingError(f"<model> {name}: {error}") from error
    return text
