"""Whether a model can be evaluated, checked before a run begins: its configuration, its weights, its tokenizer."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from flopray.errors import InputError
from flopray.workloads import hub
from flopray.workloads.causal_lm.configuration import why_not
from flopray.workloads.llama_config import read_json

#: Other formats of weights run their author's code when they are loaded.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


@lru_cache(maxsize=64)
def find_model(name: str) -> str:
    """The name of a model for the record: a hub id as it is, a folder as an absolute path.

    Raises:
        InputError: it is not a causal language model of transformers with safetensors and a tokenizer, or cannot be
            loaded.
    """
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise InputError(f"{name}: the folder has no config.json: save a model with save_pretrained")
            content, found = read_json(path / "config.json"), str(path.resolve())
        elif path.exists():
            raise InputError(f"{name}: a file, which has no trained weights: name a folder of save_pretrained")
        else:
            content, found = hub.config(name), name
        if reason := why_not(content):
            raise InputError(f"{name}: {reason}")
        if not hub.has_any(found, _WEIGHTS):
            raise InputError(f"{name}: it has no safetensors, and no other format of weights is loaded")
        if not hub.has_any(found, _TOKENIZERS):
            raise InputError(f"{name}: it has no tokenizer: save one beside the model with save_pretrained")
    except InputError as error:
        # Errors of the hub begin with the field; here a model may be an argument without a flag.
        raise InputError(str(error).removeprefix("model ")) from error
    return found
