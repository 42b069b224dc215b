"""Adds adapters to a model that transformers built, by peft (https://huggingface.co/docs/peft)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from flopray.errors import SettingError, SpecError, Unsupported
from flopray.workloads.causal_lm.adapter import NONE, rank_of

NO_PACKAGE = "needs peft: pip install 'flopray[peft]'"
#: Linear layers that choose experts.
_ROUTERS = ("gate", "router", "shared_expert_gate", "wg")


def has_peft() -> bool:
    """Whether peft is installed."""
    return find_spec("peft") is not None


def checked_adapters(words: Sequence[str | None]) -> tuple[str | None, ...]:
    """Adapters as points have them; impossible ones are refused before anything starts.

    Args:
        words: such as `lora:16`; `none`, or None, trains all weights.

    Raises:
        InputError: one is not an adapter, is named twice, or needs a package that is not installed.
    """
    adapters = tuple(None if word == NONE else word for word in words)
    for word in adapters:
        if word is None:
            continue
        if adapters.count(word) > 1:
            raise SettingError(f"<adapter>: {word} is named twice")
        try:
            rank_of(word)
        except SpecError as error:
            raise SettingError(f"<adapter>: {error}") from None
        if not has_peft():
            raise SettingError(f"<adapter> {word} {NO_PACKAGE}")
    if adapters.count(None) > 1:
        raise SettingError(f"<adapter>: {NONE} is named twice")
    return adapters


def add_adapters(model: Any, word: str) -> int:
    """Add adapters to the linear layers of attention and MLPs, in place, and freeze all other weights.

    `A` and `B` are random, since chips draw less power on zeros; they have the type of the layer that they adapt, and
    no dropout.

    Args:
        model: of transformers; on `meta`, so are the adapters.
        word: such as `lora:16`.

    Returns:
        Number of weights that are trained.

    Raises:
        Unsupported: peft is not installed, or the model has no such layers.
    """
    import torch

    rank = rank_of(word)
    if not has_peft():
        raise Unsupported(f"adapter {word} {NO_PACKAGE}")
    names = adapted_layers(model)
    if not names:
        raise Unsupported(f"adapter {word}: {type(model).__name__} has no linear layers of attention and MLPs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of transposed layers, which it handles
        from peft import LoraConfig, inject_adapter_in_model

        # Wrapped in a module of no family: by a family's name peft would choose other layers of mixtures of experts.
        of_no_family = torch.nn.ModuleDict({"model": model})
        targets = [f"model.{name}" for name in names]
        config = LoraConfig(
            r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets, init_lora_weights=False, bias="none"
        )
        inject_adapter_in_model(config, of_no_family)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return sum(weight.numel() for weight in trained)


def adapted_layers(model: Any) -> list[str]:
    """Names of the linear layers that have adapters: all but the output projection and those that choose experts."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and layer is not head and name.rpartition(".")[2] not in _ROUTERS
    ]
