"""A configuration as transformers completes it, or why transformers cannot build a causal language model from it.

Where a file does not state a size, a class of transformers takes its own default, that of its first model, and it
ignores keys that it does not know. Then another model would be counted and measured than the file's. So the file must
state the sizes that make the model, and a key that is nearly the name of a missing one is pointed out.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from flopray.errors import SpecError, brief
from flopray.workloads import float8
from flopray.workloads.causal_lm import class_keys, impossible_sizes, layer_patterns, part, size_names
from flopray.workloads.causal_lm.families import FAMILIES, sizes_of
from flopray.workloads.causal_lm.keys import changes_nothing, is_switch
from flopray.workloads.causal_lm.sizes import OtherwiseBuilt
from flopray.workloads.llama_keys import HARMLESS, is_one_of, labels_of_a_classifier, short, short_key, words

#: Keys that no operation depends on, or that the point decides; the others make the model and the point's id.
LEFT_OUT = HARMLESS | {"quantization_config", "compression_config", "quantization"}
#: Some families have a table of this many positions, or scale their angles by it.
KEPT = frozenset({"max_position_embeddings", "original_max_position_embeddings"})
#: What a family's class keeps and its model does not have, by the value that is built.
_ALWAYS_BUILT: Mapping[str, Mapping[str, Any]] = {
    "mpt": {"expansion_ratio": 4, "attn_config.attn_type": "multihead_attention", "attn_config.kv_n_heads": None},
}
#: Classes that have `is_decoder` too, and are decoders whatever it says.
_DECODERS = ("gpt_neox", "gpt_neox_japanese")
#: Families whose first releases named code of their own, which transformers has since taken over as it was.
_TAKEN_OVER = words(
    "deepseek_v2 deepseek_v3 falcon mpt phi phi3 phimoe stablelm ernie4_5 ernie4_5_moe glm4_moe dots1 jamba minimax_m2 "
    "nemotron_h exaone internlm3 minicpm3"
)
#: Keys under which files have the language model of a larger one.
_OF_TEXT = ("text_config", "language_config", "llm_config")
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

    content = copy.deepcopy(dict(content))  # a class may change a list where it lies
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
        if class_keys.kept(config, name) is not None:
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
    if names and _same_letters(names) not in [known for one in _names_of(kind) for known in ([one], one)]:
        return f"architectures is {short(names)}: for this model_type, {own} would be built"
    if labels_of_a_classifier(content):
        return "architectures is missing, and labels are of a head that classifies"
    if "is_decoder" in class_keys.parameters(kind) and kind not in _DECODERS:
        return f"of the model_type {short(kind)} transformers builds an encoder, whose attention looks at later tokens"
    return None


def _names_of(kind: str) -> list[str]:
    """Names of the class that is built: its own, and for another family's that of the configuration."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    own, configuration = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind], CONFIG_MAPPING[kind]
    borrowed = importlib.util.find_spec(configuration.__module__.replace(".configuration_", ".modeling_")) is None
    names = (own, configuration.__name__.removesuffix("Config") + "ForCausalLM") if borrowed else (own,)
    return [_same_letters(name) for name in names]


def _names_own_class(auto_map: Any, kind: str) -> bool:
    """Whether code beside a file is the first version of a class that transformers has by now."""
    named = auto_map.get("AutoModelForCausalLM") if isinstance(auto_map, Mapping) else None
    if kind not in _TAKEN_OVER or not isinstance(named, str):
        return False
    return _same_letters(named.rpartition(".")[2]) in _names_of(kind)


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
        or impossible_sizes.reason(content, config)
        or _ignored(content, config)
        or _otherwise_built(content, config)
    )


def _missing_part(content: Mapping[str, Any], config: Any) -> str | None:
    """A configuration inside of the class's own, for all of which the class would take that of its first model."""
    for name in type(config).sub_configs:
        if not isinstance(content.get(name), Mapping) and class_keys.kept(config, name) is not None:
            return f"its configuration lacks {name}, for which the class of transformers would take sizes of its own"
    return None


def _changed(content: Mapping[str, Any], config: Any) -> str | None:
    """A number or a switch of the file that the class does not keep: another one stands for the same, or it derives it.

    Windows that are switched off and rates of dropout are set on purpose.
    """
    for key, value in content.items():
        if type(value) not in (int, bool) or key in LEFT_OUT or key.endswith("_token_id"):
            continue
        kept = class_keys.kept(config, key, value)
        if value < 0 and kept == value + (class_keys.kept(config, "num_hidden_layers") or 0):
            continue  # -1 is the last layer
        windowless = key == "sliding_window" and not kept
        if key == "head_dim" and value in _latent(config):
            continue  # each of these widths is called so in some file; the class says so of one
        if key == "sliding_window" and value == content.get("sliding_window_size") and kept == value + 1:
            continue  # the token itself, which MiMo counts besides
        if kept != value and not windowless and "drop" not in key and isinstance(kept, (int, type(None))):
            return f"{key} is {short(value)}, and transformers makes it {short(kept)}: other keys contradict it"
    return None


def _latent(config: Any) -> tuple[int, ...]:
    """Widths of a head whose keys and values come from a latent vector; none of another head."""
    found = [class_keys.kept(config, name) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")]
    return (*found, found[0] + found[1]) if all(type(one) is int for one in found) else ()


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
        said = size_names.stated(content, config, size) is not None or (
            name in content and size not in size_names.ALWAYS
        )
        default = name if name in own else size  # some classes map a name of their own to another
        taken = own.get(default)
        said = said or taken in [content[former] for former in size_names.FORMER.get(size, ()) if former in content]
        said = said or class_keys.IN_PLACE_OF.get(size) in content
        unused = size == "sliding_window" and class_keys.kept(config, "use_sliding_window") is False
        unused = unused or (size_names.of_experts(name) and layer_patterns.has_no_experts(config))
        if said or unused or default not in own or class_keys.kept(config, name) is None:
            continue
        if size in size_names.ALWAYS or (type(taken) is int and taken > 0):
            named = size if name == size else f"{size} ({name})"
            return f"its configuration lacks {named}, for which the class of transformers would take {short(taken)}"
    for name, taken in class_keys.further(config).items():
        if not {name, class_keys.IN_PLACE_OF[name]} & content.keys():
            return f"its configuration lacks {name}, for which the class of transformers would take {taken}"
    return None


def _further(own: Mapping[str, Any]) -> Iterator[str]:
    """Names of a class's sizes that are told by their endings; a head that is rotated in part has two of its own."""
    for name in own:
        if (
            (name in size_names.LAYOUT or size_names.ENDINGS.search(name))
            and not name.startswith("encoder_")
            and not (name == "head_dim" and "qk_rope_head_dim" in own)
        ):
            yield name


def _misspelt(content: Mapping[str, Any], config: Any) -> str | None:
    """A key that the class does not have, but that is nearly one that it has and the file lacks."""
    own = {*class_keys.parameters(content["model_type"]), *config.attribute_map}
    missing = [name for name in own if name not in content and not name.startswith("_")]
    for key in class_keys.unread(content, config):
        if key in LEFT_OUT or key.startswith("_"):
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
        and not (
            size_names.says_the_same(key, content[key], config) or layer_patterns.is_stated(key, content[key], config)
        )
        and (size_names.is_size(key, content[key]) or not changes_nothing(key, content))
    ]
    if family is None:
        unknown = [
            key
            for key in unknown
            if size_names.is_size(key, content[key])
            or is_switch(key)
            or layer_patterns.is_of_each_layer(content[key], config)
        ]
    else:
        unknown = [key for key in unknown if key not in family.keys]
    if unknown:  # what a class derives by itself, and writes into its files
        derived = completed({key: value for key, value in content.items() if key not in unknown})
        unknown = [key for key in unknown if not is_one_of(content[key], (class_keys.kept(derived, key),))]
    if not unknown:
        return None
    return (
        f"a {kind} of transformers has no {', '.join(map(short_key, unknown))}, so it would be another model than the "
        "file describes. Take out what the model does not need"
    )


def _otherwise_built(content: Mapping[str, Any], config: Any) -> str | None:
    """A key that the family's code does not read, with another value than what the family is built with.

    Layers that share keys and values, or layers that are skipped, would be built and counted as if they did not.
    """
    try:
        if content["model_type"] in FAMILIES:
            sizes_of(content, config)
    except OtherwiseBuilt as otherwise:
        if otherwise.key in class_keys.unread(content, config):
            return f"{otherwise.said}, so it would be another model than the file describes"
    except Exception:
        pass  # no closed form, or sizes that make no model: what can be built is counted by the dispatcher
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
