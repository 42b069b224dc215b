"""Counts a model at the dispatcher, without memory, and compares its closed form with the count.

The model is built on torch's meta device from its configuration. Attention is counted as its products, full squares,
whatever kernel runs later; experts as the grouped products that transformers runs. Angles of rotary embeddings, which
some releases compute by a product, are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from flopray.errors import Unsupported, brief, one_line
from flopray.units import counted
from flopray.workloads import float8
from flopray.workloads.causal_lm import configuration, models
from flopray.workloads.causal_lm.adapter import Lora
from flopray.workloads.causal_lm.finetuning import add_adapters
from flopray.workloads.causal_lm.flops import PRODUCTS, components
from flopray.workloads.causal_lm.sizes import NoClosedForm, Sizes
from flopray.workloads.causal_lm.transformer import (
    calls_attention_by_name,
    new_cache,
    random_model,
    route_uniformly,
    set_checkpointing,
)

if TYPE_CHECKING:
    import torch

#: Sequences, their tokens at least, and how many more than a window they have.
_BATCH, _TOKENS, _BEYOND = 2, 512, 8
#: The function of transformers that finds several sequences in one row.
_PACKED = "find_packed_sequence_indices"
#: Rotary embeddings whose angles depend on the sequence's length; what they are applied to does not.
_BY_LENGTH = ("dynamic", "longrope")


@dataclass(frozen=True)
class Count:
    """What a model asks for.

    Attributes:
        flops: by phase; a text is the reason why there is no count.
        attention: FLOPs of attention in a forward pass.
        windows: of attention, layer by layer; None where the model has attention of its own.
        parameters: of the model, a tied matrix once; of adapters, those of the adapters.
        routed: layers whose experts were sent tokens in equal numbers.
    """

    flops: dict[str, int | str]
    attention: int
    windows: tuple[int | None, ...] | None
    parameters: int
    routed: int


@lru_cache(maxsize=256)
def count(
    model: str, model_config: str | None, batch: int, tokens: int, checkpointing: bool, adapter: str | None = None
) -> Count:
    """Count a model's phases at a shape.

    Args:
        model: a point's model.
        model_config: its configuration; None of a built-in name.
        batch: sequences.
        tokens: of each.
        checkpointing: whether the backward pass runs the layers again.
        adapter: that is trained instead of the model, such as `lora:16`.
    """
    config = configuration.completed(models.content_of(model, model_config))
    return count_built(config, batch=batch, tokens=tokens, checkpointing=checkpointing, adapter=adapter)


def count_built(config: Any, *, batch: int, tokens: int, checkpointing: bool, adapter: str | None = None) -> Count:
    """Count the model that transformers builds from its own configuration; otherwise as `count`."""
    import torch

    built, seen = _on_meta(config)
    parameters = sum(weight.numel() for weight in built.parameters())
    layers = route_uniformly(built)
    if adapter is not None:
        parameters = add_adapters(built, adapter)
    if checkpointing:
        set_checkpointing(built)
    ids = torch.empty(batch, tokens, device="meta", dtype=torch.long)
    built.train()
    kept: list[Any] = []
    flops = {"forward": _counted(lambda: kept.append(built(ids, use_cache=False).logits))}
    if isinstance(flops["forward"], str):  # it may build its mask from numbers, and takes a whole one as it is
        mask = torch.empty(batch, 1, tokens, tokens, device="meta", dtype=torch.bfloat16)
        again = _counted(lambda: kept.append(built(ids, use_cache=False, attention_mask=mask).logits))
        flops["forward"] = flops["forward"] if isinstance(again, str) else again
    attention, windows = sum(flops for flops, _ in seen), tuple(window for _, window in seen)
    weights = [weight for weight in built.parameters() if weight.requires_grad]
    flops["backward"] = (
        _counted(lambda: torch.autograd.grad(kept[-1], weights, torch.empty_like(kept[-1]), allow_unused=True))
        if kept
        else flops["forward"]
    )
    kept.clear()
    flops |= _generating(built, ids)
    flops["inference"] = flops["forward"]
    flops["forward_backward"] = flops["train_step"] = _sum(flops["forward"], flops["backward"])
    return Count(
        flops,
        attention,
        windows if len(windows) == getattr(config, "num_hidden_layers", None) else None,
        parameters,
        layers,
    )


@lru_cache(maxsize=64)
def why_no_fp8(model: str, model_config: str | None) -> str | None:
    """Which layer of the model that transformers builds cannot have fp8; None where all can."""
    import torch

    config = configuration.completed(models.content_of(model, model_config))
    return float8.why_not_module(random_model(config, device="meta", dtype=torch.bfloat16, attention="eager"))


@lru_cache(maxsize=64)
def trained_parameters_of(model: str, model_config: str | None, adapter: str | None) -> int:
    """Weights that are trained of the model that is built: all, or those of an adapter."""
    if adapter is None:
        return models.parameters_of(model, model_config)
    import torch

    config = configuration.completed(models.content_of(model, model_config))
    return add_adapters(random_model(config, device="meta", dtype=torch.bfloat16, attention="eager"), adapter)


def _generating(model: Any, ids: torch.Tensor) -> dict[str, int | str]:
    """Prefill, and decode from the cache that it filled."""
    import torch

    model.eval()  # layers that checkpoint take no cache while they train
    try:
        past = new_cache(model)
    except Unsupported as error:
        return dict.fromkeys(("prefill", "decode"), str(error))
    with torch.no_grad():
        prefill = _counted(lambda: model(ids, use_cache=True, logits_to_keep=1, **past))
        decode = prefill if isinstance(prefill, str) else _counted(lambda: model(ids[:, :1], use_cache=True, **past))
    return {"prefill": prefill, "decode": decode}


def _counted(work: Callable[[], object]) -> int | str:
    """FLOPs, or why there is no count: the name of an operator, or what the model cannot do without numbers."""
    from flopray.flops.dispatched import count_dispatched

    try:
        with _nothing_packed():
            found = count_dispatched(work, repeat_shapes=True)
    except Unsupported as error:
        return str(error)
    except Exception as error:  # the model needs numbers for something
        return f"the model does not run on the meta device: {brief(error, 160)}"
    return found.flops if found.flops is not None else one_line(str(found.reason))


@contextmanager
def _nothing_packed() -> Iterator[None]:
    """Have transformers not look for several sequences in one row, which would need numbers: each row here is one."""
    from transformers import masking_utils

    look = getattr(masking_utils, _PACKED, None)
    if look is None:  # a release that looks elsewhere, or nowhere
        yield
        return
    setattr(masking_utils, _PACKED, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(masking_utils, _PACKED, look)


def _sum(one: int | str, other: int | str) -> int | str:
    if isinstance(one, str):
        return one
    return other if isinstance(other, str) else one + other


def _on_meta(config: Any) -> tuple[Any, list[tuple[int, int | None]]]:
    """The model, and a list that each call of attention adds its FLOPs and its window to.

    A family that calls no attention by name has its own, whose products are counted too.
    """
    import torch

    name, seen = _products()
    attention = name if calls_attention_by_name(config) else "eager"
    model = random_model(config, device="meta", dtype=torch.bfloat16, attention=attention)
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = _uncounted(module.forward)
            _without_length(module)
    seen.clear()
    return model, seen


def _without_length(module: Any) -> None:
    """Have angles not depend on the length of a sequence, which would need numbers; some modules ask their file."""
    if getattr(module, "rope_type", None) not in _BY_LENGTH:
        return
    module.rope_type = "default"
    rope = getattr(module.config, "rope_parameters", None)
    if isinstance(rope, Mapping) and rope.get("rope_type") in _BY_LENGTH:
        module.config = copy.copy(module.config)
        module.config.rope_parameters = {**rope, "rope_type": "default"}


def _uncounted(forward: Callable[..., Any]) -> Callable[..., Any]:
    from torch.utils._python_dispatch import _disable_current_modes

    def call(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return forward(*args, **kwargs)

    return call


@cache
def _products() -> tuple[str, list[tuple[int, int | None]]]:
    """The name of an attention that forms all scores, and what it saw.

    Under a name of its own transformers builds no mask, which would need numbers.
    """
    import torch
    from torch.utils._pytree import tree_leaves
    from transformers import AttentionInterface

    seen: list[tuple[int, int | None]] = []

    def attention(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *further: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        """Of queries (b, h, t, e), keys (b, k, s, e) and values (b, k, s, v) -> (b, t, h, v).

        What else it is given and was learned, such as a mask made of values, changes no product of its own, but has
        products before it, whose backward pass it hands gradients to.
        """
        del module
        batch, heads, tokens, width = query.shape
        shared = query.reshape(batch, key.shape[1], -1, width)  # the queries of all heads that share a key
        scores = torch.matmul(shared, key.transpose(2, 3))
        seen.append((2 * scores.numel() * (width + value.shape[-1]), kwargs.get("sliding_window") or None))
        for learned in (one for one in tree_leaves((further, kwargs)) if isinstance(one, torch.Tensor)):
            if learned.requires_grad:
                scores = scores + learned.sum()
        return torch.matmul(scores, value).reshape(batch, heads, tokens, -1).transpose(1, 2).contiguous(), None

    AttentionInterface.register("flopray_products", attention)
    return "flopray_products", seen


# agreement


@lru_cache(maxsize=64)
def agreed_sizes(model: str, model_config: str | None) -> Sizes | str:
    """The sizes of a model whose closed form agrees with the model that is built; else why there is none.

    Numbers of weights, products and attention, and windows must be the same.

    Args:
        model: a point's model.
        model_config: its configuration; None of a built-in name.
    """
    try:
        sizes = models.sizes_of(model, model_config)
    except NoClosedForm as reason:
        return str(reason)
    batch, tokens = shape_of(sizes)
    seen = count(model, model_config, batch, tokens, False)
    return disagreement(sizes, seen, batch=batch, tokens=tokens) or sizes


@lru_cache(maxsize=64)
def agreed_lora(model: str, model_config: str | None, adapter: str) -> Lora | str:
    """The adapters of a model whose closed form agrees with the model that is built; else the reason there is none.

    Args:
        model: a point's model, whose own closed form agrees.
        model_config: its configuration; None of a built-in name.
        adapter: such as `lora:16`.
    """
    sizes = models.sizes_of(model, model_config)
    lora = Lora.of(adapter, configuration.completed(models.content_of(model, model_config)))
    batch, tokens = shape_of(sizes)
    seen = count(model, model_config, batch, tokens, False, adapter)
    if (stated := lora.parameters(sizes)) != seen.parameters:
        return f"no closed form with {adapter}: it trains {counted(stated, 'weight')}, and the model {seen.parameters}"
    reason = _differing_products(sizes, seen, batch=batch, tokens=tokens, lora=lora)
    return f"no closed form with {adapter}: {reason}" if reason else lora


def shape_of(sizes: Sizes) -> tuple[int, int]:
    """Sequences and tokens at which a closed form is compared with the count: longer than any window."""
    return _BATCH, max((_TOKENS, *(window + _BEYOND for window in sizes.windows if window)))


def disagreement(sizes: Sizes, seen: Count, *, batch: int, tokens: int) -> str | None:
    """Why a closed form does not fit the model; None where nothing differs.

    Args:
        sizes: of the closed form.
        seen: the count of the model, without checkpointing.
        batch: sequences of the count.
        tokens: of each.
    """
    if sizes.parameters != seen.parameters:
        return f"no closed form: it has {counted(sizes.parameters, 'weight')}, and the model {seen.parameters}"
    if isinstance(why := seen.flops["forward"], str):
        return f"no closed form: forward cannot be compared with a count: {why}"
    # Attention of a family's own tells no windows, and its products are among the others.
    untold = seen.windows is None and not seen.attention and not any(sizes.windows)
    if seen.windows != sizes.windows and not untold:
        return f"no closed form: windows are {_told(sizes.windows)}, and the model's are {_told(seen.windows)}"
    reason = _differing_products(sizes, seen, batch=batch, tokens=tokens, lora=None)
    return f"no closed form: {reason}" if reason else None


def _differing_products(sizes: Sizes, seen: Count, *, batch: int, tokens: int, lora: Lora | None) -> str | None:
    for phase in ("forward", "backward", "prefill", "decode"):
        counted = seen.flops[phase]
        if isinstance(counted, str):
            return f"{phase} cannot be compared with a count: {counted}"
        closed = components(sizes, batch=batch, tokens=tokens, phase=phase, lora=lora)
        stated = closed["attention_flops"] + sum(closed[name] for name in PRODUCTS)
        if stated != counted:
            return f"of {phase} it has {stated} FLOPs in products, and the model dispatches {counted}"
        if phase == "forward" and seen.attention and closed["attention_flops"] != seen.attention:
            return f"attention has {closed['attention_flops']} FLOPs, and the model's {seen.attention}"
    return None


def _told(windows: tuple[int | None, ...] | None) -> str:
    if windows is None:
        return "not told to its attention"
    told = ", ".join(map(str, dict.fromkeys(windows)))
    return told if len(told) < 60 else told[:57] + "..."
