"""The sizes of a Llama that decide its FLOPs, for models known by name and for configurations from files.

A point carries its model as a name, and where the name is not a built-in one also as a canonical JSON text of these
sizes, so that a node needs no file of the machine that started the sweep.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from flopray.errors import InputError, SettingError, SpecError
from flopray.workloads import hub
from flopray.workloads.llama_keys import check_keys

#: No layer, head or vocabulary is larger.
LARGEST = 2**24
#: The deepest published one has 126 layers; each layer is a module, also where its operations are only counted.
_LARGEST_OF = {"n_layers": 2**12}
#: A number in single precision, which is what angles and norms are computed with.
_MOST = 3e38
#: Names of fields in a file, where they differ.
_FILE_NAMES = {
    **{"n_layers": "num_hidden_layers", "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads"},
    "tied": "tie_word_embeddings",
}
#: Names of the weights of one file and of several: https://huggingface.co/docs/safetensors
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes of a decoder of the Llama family.

    Attributes:
        hidden_size: width of the residual stream.
        n_layers: decoder layers.
        n_heads: query heads.
        n_kv_heads: key and value heads.
        head_dim: width of a head.
        intermediate_size: width of the gated MLP.
        vocab_size: tokens of the vocabulary.
        tied: whether input embedding and output projection are one matrix.
        rope_theta: base of the rotary embedding.
        rms_norm_eps: epsilon of the norms.

    Raises:
        SpecError: a size that cannot be.
    """

    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied: bool
    rope_theta: float = 500_000.0
    rms_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            name, largest = _FILE_NAMES.get(field.name, field.name), _LARGEST_OF.get(field.name, LARGEST)
            if field.type == "int" and not (type(value) is int and 1 <= value <= largest):
                raise SpecError(f"{name} must be a whole number of 1 to {largest}, got {value!r:.60}")
            if field.type == "bool" and type(value) is not bool:
                raise SpecError(f"{name} must be true or false, got {value!r:.60}")
            if field.type == "float" and not (type(value) in (int, float) and 0 < value < _MOST):
                raise SpecError(f"{name} must be a positive number, got {value!r:.60}")
        if self.hidden_size % self.n_heads:
            raise SpecError(f"hidden_size {self.hidden_size} is not a multiple of {self.n_heads} num_attention_heads")
        if self.n_heads % self.n_kv_heads:
            raise SpecError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key and value heads evenly")
        if self.head_dim % 2:
            raise SpecError(f"head_dim must be even for rotary embeddings, got {self.head_dim}")

    @property
    def projected_parameters(self) -> int:
        """Weights of all matrix products of a forward pass, `N_lin`: attention, MLP and the output projection."""
        d, heads, kv = self.hidden_size, self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return self.n_layers * (2 * d * heads + 2 * d * kv + 3 * d * self.intermediate_size) + d * self.vocab_size

    @property
    def parameters(self) -> int:
        """All weights: the above, norms, and the input embedding where it is a matrix of its own."""
        norms = (2 * self.n_layers + 1) * self.hidden_size
        return self.projected_parameters + norms + (0 if self.tied else self.hidden_size * self.vocab_size)

    def to_json(self) -> str:
        """Canonical text; equal configurations have equal texts."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> LlamaConfig:
        """The inverse of `to_json`.

        Raises:
            SpecError: the text is not a configuration.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise SpecError(f"the model's configuration cannot be read: {error}") from error


def _llama(
    hidden: int, layers: int, heads: int, kv: int, intermediate: int, *, tied: bool, **other: Any
) -> LlamaConfig:
    fields = {"head_dim": hidden // heads, "vocab_size": 128_256, **other}
    return LlamaConfig(
        hidden_size=hidden,
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=kv,
        intermediate_size=intermediate,
        tied=tied,
        **fields,
    )


#: Models by name. Sizes: config.json of https://huggingface.co/meta-llama/Llama-3.2-1B, .../Llama-3.2-3B,
#: .../Llama-3.1-8B and .../Llama-3.1-70B; the tiny one is ours, for machines without a GPU.
BUILT_IN = {
    "llama-tiny": _llama(128, 2, 4, 2, 256, tied=True, vocab_size=512),
    "llama-3.2-1b": _llama(2048, 16, 32, 8, 8192, tied=True),
    "llama-3.2-3b": _llama(3072, 28, 24, 8, 8192, tied=True),
    "llama-3.1-8b": _llama(4096, 32, 32, 8, 14336, tied=False),
    "llama-3.1-70b": _llama(8192, 80, 64, 8, 28672, tied=False),
}


@lru_cache(maxsize=256)
def config_of(model: str, model_config: str | None) -> LlamaConfig:
    """The configuration of a point's model.

    Args:
        model: its name.
        model_config: canonical text; None for a built-in name.

    Raises:
        SpecError: neither a built-in name nor a text.
    """
    if model_config is not None:
        return LlamaConfig.from_json(model_config)
    if model not in BUILT_IN:
        raise SpecError(f"unknown model {model!r}: choose from {', '.join(BUILT_IN)}, or name a configuration file")
    return BUILT_IN[model]


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
    pretrained = "pretrained" in weights
    return distinct([find_model(name, weights="pretrained" if pretrained else "random") for name in names])


def distinct(found: Sequence[tuple[str, str | None]]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of models, which must differ, and the configurations of those that have one.

    Raises:
        InputError: two would have the same name.
    """
    if len({name for name, _ in found}) != len(found):
        raise SettingError("<model>: two of the models would have the same name: rename a file or folder")
    return tuple(name for name, _ in found), {name: config for name, config in found if config is not None}


def find_model(name: str, *, weights: str = "random") -> tuple[str, str | None]:
    """What a model's name stands for: a built-in model, a Hugging Face configuration file or folder, or a hub id.

    Args:
        name: as given.
        weights: `random`, or `pretrained` for a hub id or a folder with safetensors.

    Returns:
        The name for the record, and the canonical configuration where the name is not a built-in one.

    Raises:
        InputError: nothing of that name, no Llama, or sizes that cannot be.
    """
    path = Path(name)
    if name.lower() in BUILT_IN and not path.exists():
        if weights == "pretrained":
            raise SettingError(f"<weights> pretrained needs a hub id or a folder with weights, not the built-in {name}")
        return name.lower(), None
    if path.exists():
        file = path / "config.json" if path.is_dir() else path
        if not file.exists():
            raise InputError(f"{name}: the folder has no config.json")
        config = from_hugging_face(read_json(file), name)
        if weights == "random":
            label = label_of(path)
            if config == BUILT_IN.get(label.lower()):
                return label.lower(), None
            return label_beside(label, path, BUILT_IN), config.to_json()
        check_safetensors(str(file.parent))
        return str(file.parent.resolve()), config.to_json()
    if weights == "pretrained" or is_hub_id(name):
        config = from_hugging_face(hub.config(name), name)
        if weights == "pretrained":
            check_safetensors(name)
        return name, config.to_json()
    raise unknown_model(name, BUILT_IN)


def from_hugging_face(content: Mapping[str, Any], name: str) -> LlamaConfig:
    """The sizes of a Hugging Face `config.json`.

    Args:
        content: of the file.
        name: of the model as given, for the message.

    Raises:
        InputError: it is not of a Llama, a size is missing or cannot be, or a key is not understood
            (`flopray.workloads.llama_keys`).
    """
    try:
        return _from_hugging_face(content)
    except SpecError as error:
        raise SettingError(f"<model> {name}: {error}") from error


def _from_hugging_face(content: Mapping[str, Any]) -> LlamaConfig:
    if content.get("model_type") != "llama":
        inside = [
            key for key, part in content.items() if isinstance(part, Mapping) and part.get("model_type") == "llama"
        ]
        hint = f"; its {inside[0]} is one, and a file of its own would be measured" if inside else ""
        raise SpecError(f"model_type is {content.get('model_type')!r:.60}, only llama is measured{hint}")
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        if content.get(key) is None:
            raise SpecError(f"its configuration lacks {key}")
    check_keys(content)
    hidden, heads = content["hidden_size"], content["num_attention_heads"]
    whole = type(hidden) is int and type(heads) is int and heads > 0  # unknown keys are refused below, by name
    return LlamaConfig(
        hidden_size=hidden,
        n_layers=content["num_hidden_layers"],
        n_heads=heads,
        n_kv_heads=_given(content, "num_key_value_heads", heads),
        head_dim=_given(content, "head_dim", hidden // heads if whole and hidden >= heads else 2),
        intermediate_size=content["intermediate_size"],
        vocab_size=content["vocab_size"],
        tied=_given(content, "tie_word_embeddings", False),
        rope_theta=_number(_given(_rope_of(content), "rope_theta", _given(content, "rope_theta", 10_000.0))),
        rms_norm_eps=_number(_given(content, "rms_norm_eps", 1e-6)),
    )


def _given(content: Mapping[str, Any], key: str, default: Any) -> Any:
    """A value, or its default where it is absent or null; 0 is not absent, and is refused."""
    value = content.get(key)
    return default if value is None else value


def _rope_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    return content.get("rope_parameters") or content.get("rope_scaling") or {}


def _number(value: Any) -> Any:
    """Whole numbers as the field's type, so that equal configurations have equal texts; others as they are."""
    return float(value) if type(value) is int and abs(value) < _MOST else value


def read_json(file: Path) -> dict[str, object]:
    """The content of a configuration's file.

    Raises:
        InputError: it is not a configuration.
    """
    if file.exists() and not file.is_file():  # a device may have no end, and a pipe no writer
        raise SettingError(f"<model> {file}: is not a file")
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except (OSError, ValueError, RecursionError) as error:
        raise SettingError(f"<model> {file}: cannot be read as a configuration ({hub.first_line(error)})") from error
    if not isinstance(content, dict):
        raise SettingError(f"<model> {file}: not a Hugging Face configuration")
    return content


#: Numbers that JSON does not have, as transformers writes them: `{"__float__": "Infinity"}`.
_NUMBERS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, object] | float:
    if len(pairs) == 1 and pairs[0][0] == "__float__" and pairs[0][1] in _NUMBERS:
        return _NUMBERS[pairs[0][1]]
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in content if names.count(name) > 1)
        raise ValueError(f"the key {repeated[:60]!r} appears twice")
    return content


def is_hub_id(name: str) -> bool:
    """Whether a name that is not a file has the form of a hub id: `owner/name`, and not that of a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith((".json", "/"))


def unknown_model(name: str, known: Iterable[str]) -> InputError:
    """The error of a name that stands for nothing; it names the nearest built-in one."""
    known = sorted(known)
    if name.endswith(".json") or name.startswith((".", "/", "~")):
        return SettingError(f"<model> {name}: there is no such file or folder")
    near = difflib.get_close_matches(name.lower(), known, n=1)
    meant = f"did you mean {near[0]}? There is " if near else ""
    return SettingError(
        f"<model> {name}: {meant}no built-in model ({', '.join(known)}), no file or folder, and no hub id of that name"
    )


def check_safetensors(name: str) -> None:
    """Refuse a hub id or folder without them before anything is started: other formats run their author's code."""
    if not hub.has_any(name, _SAFETENSORS):
        raise SettingError(f"<weights> pretrained: {name} has no safetensors, and no other format is loaded")


def label_beside(label: str, path: Path, known: Iterable[str]) -> str:
    """A file's label, or a longer one where a built-in model has it: tables and figures compare models by name."""
    if label.lower() not in known:
        return label
    return path.name if path.is_file() and path.stem != "config" else f"{label}/config.json"


def label_of(path: Path) -> str:
    """A readable name for a file's model: the folder's, unless the file has a name of its own."""
    file = path if path.is_file() else path / "config.json"
    return file.resolve().parent.name if file.stem == "config" else file.stem
