"""A configuration as transformers completes it, or why transformers cannot build a causal language model from it.

Where a file does not state a size, a class of transformers takes its own default, that of its first model, and it
ignores keys that it does not know. Then another model would be counted and measured than the file's. So the file must
state the sizes that make the model, and a key that is nearly the name of a missing one is pointed out.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from flopray.errors import SpecError, brief
from flopray.workloads import float8
from flopray.workloads.causal_lm import class_keys, layer_patterns, part, size_names
from flopray.workloads.causal_lm.families import FAMILIES
from flopray.workloads.causal_lm.keys import changes_nothing, is_switch
from flopray.workloads.llama_config import LARGEST
from flopray.workloads.llama_keys import HARMLESS, labels_of_a_classifier, short, short_key, words

#: Keys that no operation depends on, or that the point decides; the others make the model and the point's id.
LEFT_OUT = HARMLESS | {"quantization_config", "compression_config", "quantization"}
#: Some families have a table of this many positions, or scale their angles by it.
KEPT = frozenset({"max_position_embeddings", "original_max_position_embeddings"})
#: What a family's class keeps and its model does not have, by the value that is built.
_ALWAYS_BUILT: Mapping[str, Mapping[str, Any]] = {
    "mpt": {"expansion_ratio": 4, "attn_config.attn_type": "multihead_attention", "attn_config.kv_n_heads": None},
}
_MOST_LAYERS = 2000
#: Classes that have `is_decoder` too, and are decoders whatever it says.
_DECODERS = ("gpt_neox", "gpt_neox_japanese")
#: Families whose first releases named code of their own, which transformers has since taken over as it was.
_TAKEN_OVER = words("deepseek_v2 deepseek_v3 falcon mpt phi phi3 phimoe stablelm ernie4_5 ernie4_5_moe glm4_moe dots1")
#: Keys under which files have the language model of a larger one.
_OF_TEXT = ("text_config", "language_config", "llm_config")
#: What angles of a rotary embedding are made of.
_ANGLES = words("rope_theta rope_local_base_freq rotary_emb_base factor")
#: How names of what norms add to a variance end.
_EPSILON = re.compile(r"(?:^|_)(?:eps|epsilon)$")
#: How similar an unknown key must be to a missing one to be taken for it.
_NEAR = 0.87


def completed(content: Mapping[str, Any]) -> Any:
    """The configuration as transformers completes it; dropout is taken out, and so are the numbers of special tokens.

    Args:
        content: of the file.

    Raises:
        SpecError: transformers has no such model_type, or refuses a value.
    """
    float8.load_quietly()
    from transformers import AutoConfig

    given = {key: value for key, value in content.items() if key not in ("model_type", "auto_map", *LEFT_OUT)}
    given |= {key: content[key] for key in KEPT if key in content}
    try:
        with _silent():
            config = AutoConfig.for_model(content["model_type"], **given)
            _without_dropout(config)
    except Exception as error:  # a class of transformers may raise anything at a value
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
    """Rates of what is dropped at random become 0: elements, and whole layers, which a pass would skip."""
    for name, value in vars(config).items():
        is_rate = name.endswith("pdrop") or any(word in name for word in ("dropout", "layerdrop", "drop_path"))
        if is_rate and isinstance(value, int | float) and not isinstance(value, bool) and value:
            setattr(config, name, 0.0)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(config, name, None) is not None:
            with contextlib.suppress(Exception):  # some classes insist on a number
                setattr(config, name, None)


def why_not(content: Mapping[str, Any]) -> str | None:
    """Why transformers' own code cannot build a causal language model from a configuration; None where it can."""
    from transformers import CONFIG_MAPPING

    kind = content.get("model_type")
    if not isinstance(kind, str) or not kind:
        return _why_no_type(content)
    if content.get("auto_map") and kind in CONFIG_MAPPING and not _names_own_class(content["auto_map"], kind):
        return (
            "auto_map names code of the model's own, which is never run; without that key transformers' own "
            f"{short(kind)} is built, if it has one"
        )
    if inside := part.names(content):
        of_text = next((key for key in inside if key in _OF_TEXT), "")
        mended = (
            f"NAME#{of_text} counts that part alone" if of_text else "write its language model to a file of its own"
        )
        return (
            f"its {of_text or inside[0]} is a model inside of a larger one, which is not counted as a whole: {mended}"
        )
    return _why_no_class(content, kind) or _why_no_configuration(content)


def _why_no_type(content: Mapping[str, Any]) -> str:
    if adapter := content.get("peft_type"):
        base = content.get("base_model_name_or_path")
        of = f", {short(base)}: name that" if base else ": name its model"
        return f"it is of an adapter (peft_type {short(adapter)}), and not of its model{of}, with adapter='lora:16'"
    return "its configuration lacks model_type"


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
    if content.get("is_encoder_decoder", class_keys.parameters(kind).get("is_encoder_decoder")) is True:
        return "is_encoder_decoder is true: an encoder is not run"
    names = content.get("architectures")
    if names and _same_letters(names) not in ([_same_letters(own)], _same_letters(own)):
        return f"architectures is {short(names)}: for this model_type, {own} would be built"
    if labels_of_a_classifier(content):
        return "architectures is missing, and labels are of a head that classifies"
    if "is_decoder" in class_keys.parameters(kind) and kind not in _DECODERS:
        return f"of the model_type {short(kind)} transformers builds an encoder, whose attention looks at later tokens"
    return None


def _names_own_class(auto_map: Any, kind: str) -> bool:
    """Whether code beside a file is the first version of a class that transformers has by now."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named = auto_map.get("AutoModelForCausalLM") if isinstance(auto_map, Mapping) else None
    if kind not in _TAKEN_OVER or not isinstance(named, str):
        return False
    return _same_letters(named.rpartition(".")[2]) == _same_letters(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind))


def _same_letters(names: Any) -> Any:
    """Names of classes without what releases wrote differently: capital letters and underscores."""
    if isinstance(names, list):
        return [_same_letters(one) for one in names]
    return names.replace("_", "").lower() if isinstance(names, str) else names


def _why_no_configuration(content: Mapping[str, Any]) -> str | None:
    try:
        config = completed(content)
    except SpecError as error:
        return str(error)
    return (
        _missing_part(content, config)
        or _changed(content, config)
        or layer_patterns.contradiction(content, config)
        or _not_built(content)
        or _misspelt(content, config)
        or _missing(content, config)
        or _impossible(content, config)
        or _ignored(content, config)
    )


def _stated(content: Mapping[str, Any], config: Any, size: str) -> Any:
    """The size that a file states under one of its names; None where it states none."""
    others = [alias for alias, name in config.attribute_map.items() if name == size]
    former = set(size_names.FORMER.get(size, ())).difference(class_keys.unread(content, config))
    names = (size, config.attribute_map.get(size, size), *others, *former)
    return next((content[name] for name in names if content.get(name) is not None), None)


def _missing_part(content: Mapping[str, Any], config: Any) -> str | None:
    """A configuration inside of the class's own, for all of which the class would take that of its first model."""
    for name in type(config).sub_configs:
        if not isinstance(content.get(name), Mapping) and getattr(config, name, None) is not None:
            return f"its configuration lacks {name}, for which the class of transformers would take sizes of its own"
    return None


def _changed(content: Mapping[str, Any], config: Any) -> str | None:
    """A number or a switch of the file that the class does not keep: another one stands for the same, or it derives it.

    Windows that are switched off and rates of dropout are set on purpose.
    """
    for key, value in content.items():
        if type(value) not in (int, bool) or key in LEFT_OUT or key.endswith("_token_id"):
            continue
        kept = getattr(config, key, value)
        if value < 0 and kept == value + (getattr(config, "num_hidden_layers", None) or 0):
            continue  # -1 is the last layer
        windowless = key == "sliding_window" and not kept
        if kept != value and not windowless and "drop" not in key and isinstance(kept, (int, type(None))):
            return f"{key} is {short(value)}, and transformers makes it {short(kept)}: other keys contradict it"
    return None


def _not_built(content: Mapping[str, Any]) -> str | None:
    """A size that the model of a family has whatever the file says."""
    for name, built in _ALWAYS_BUILT.get(content["model_type"], {}).items():
        *inside, key = name.split(".")
        part: Any = content
        for step in inside:
            part = part.get(step) or {}
        if (stated := part.get(key)) not in (None, built):
            return f"{name} is {short(stated)}, and a {content['model_type']} of transformers is built with {built!r}"
    return None


def _missing(content: Mapping[str, Any], config: Any) -> str | None:
    stated = content["model_type"] in FAMILIES
    own = class_keys.parameters(content["model_type"])
    for size in size_names.SIZES if stated else (*size_names.ALWAYS, *size_names.OWN, *_further(own)):
        name = config.attribute_map.get(size, size)
        # A null in the file is a value, and so is what the class derives from other keys.
        said = _stated(content, config, size) is not None or (name in content and size not in size_names.ALWAYS)
        taken = own.get(name)
        unused = size == "sliding_window" and getattr(config, "use_sliding_window", None) is False
        if said or unused or name not in own or getattr(config, name, None) is None:
            continue
        if size in size_names.ALWAYS or (type(taken) is int and taken > 0):
            named = size if name == size else f"{size} ({name})"
            return f"its configuration lacks {named}, for which the class of transformers would take {short(taken)}"
    return None


def _further(own: Mapping[str, Any]) -> Iterator[str]:
    """Names of a class's sizes that are told by their endings; a head that is rotated in part has two of its own."""
    for name in own:
        if (
            size_names.ENDINGS.search(name)
            and not name.startswith("encoder_")
            and not (name == "head_dim" and "qk_rope_head_dim" in own)
        ):
            yield name


def _misspelt(content: Mapping[str, Any], config: Any) -> str | None:
    """A key that the class does not have, but that is nearly one that it has and the file lacks."""
    own = {*class_keys.parameters(content["model_type"]), *config.attribute_map}
    missing = [name for name in own if name not in content and not name.startswith("_")]
    for key in content:
        if key in own or key in LEFT_OUT or key.startswith("_"):
            continue
        near = difflib.get_close_matches(key, missing, n=1, cutoff=_NEAR)
        if near and f"_{key}" not in own:
            return f"its configuration has the unknown key {short(key)}: did you mean {near[0]}?"
    return None


def _ignored(content: Mapping[str, Any], config: Any) -> str | None:
    """Keys of another model than the one that is built: transformers' code of the family does not read them.

    A draft head, several heads or experts in a file of a plain model would all be left out without a word. Of a family
    without a closed form, whose files have much that nobody reads, sizes and switches must be read.
    """
    kind = content["model_type"]
    family = FAMILIES.get(kind)
    unknown = [
        key
        for key in class_keys.unread(content, config)
        if not (key == "sliding_window" and content.get("use_sliding_window") is False)
        and not (size_names.says_the_same(key, content[key], config) or layer_patterns.is_stated(key, config))
        and (size_names.is_size(key, content[key]) or not changes_nothing(key, content))
    ]
    if family is None:
        unknown = [key for key in unknown if size_names.is_size(key, content[key]) or is_switch(key)]
    else:
        unknown = [key for key in unknown if key not in family.keys]
    if not unknown:
        return None
    return (
        f"a {kind} of transformers has no {', '.join(map(short_key, unknown))}, so it would be another model than the "
        "file describes. Take out what the model does not need"
    )


def _impossible(content: Mapping[str, Any], config: Any) -> str | None:
    """Refuse sizes that no model has, some of which would count as a smaller model."""
    for size in size_names.SIZES:
        value = _stated(content, config, size)
        if type(value) is int and value < (0 if size in size_names.MAY_BE_ZERO else 1):
            return f"{size} is {value}, and must be at least {0 if size in size_names.MAY_BE_ZERO else 1}"
        if type(value) is int and value > LARGEST:
            return f"{size} is {value:.3g}, and at most {LARGEST}"
    layers = getattr(config, "num_hidden_layers", None)
    if type(layers) is int and layers > _MOST_LAYERS:
        return f"num_hidden_layers is {layers}: at most {_MOST_LAYERS} are built"
    heads, kv = (_stated(content, config, size) for size in ("num_attention_heads", "num_key_value_heads"))
    if type(heads) is int and type(kv) is int and heads % kv:
        return f"num_attention_heads is {heads}, which is not a multiple of num_key_value_heads, {kv}"
    return _impossible_numbers(content) or _impossible_experts(content, config)


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
    name, experts = next(((n, v) for n in counts if type(v := getattr(config, n, None)) is int), ("", 0))
    chosen, groups, of_groups = (
        value if type(value := getattr(config, n, None)) is int else None
        for n in ("num_experts_per_tok", "n_group", "topk_group")
    )
    if not experts:
        return None
    if chosen is not None and chosen > experts:
        return f"num_experts_per_tok is {chosen}, and {name} is {experts}"
    if groups and experts % groups:
        return f"{name} is {experts}, which is not a multiple of n_group, {groups}"
    if groups and of_groups is not None and of_groups > groups:
        return f"topk_group is {of_groups}, and n_group is {groups}"
    if groups and of_groups and chosen is not None and chosen > of_groups * (experts // groups):
        return f"num_experts_per_tok is {chosen}, and {of_groups} of {groups} groups have fewer experts"
    return None


@lru_cache(maxsize=64)
def parameters_of(text: str) -> int:
    """Weights of the model that transformers builds from a configuration, a tied matrix once.

    Args:
        text: the configuration as JSON.

    Raises:
        SpecError: it cannot be built.
    """
    import torch

    from flopray.workloads.causal_lm.transformer import random_model

    config = completed(json.loads(text))
    try:
        built = random_model(config, device="meta", dtype=torch.bfloat16, attention="eager")
    except Exception as error:  # a model of transformers may raise anything at a value
        raise SpecError(f"transformers cannot build it: {brief(error)}") from error
    return sum(weight.numel() for weight in built.parameters())
