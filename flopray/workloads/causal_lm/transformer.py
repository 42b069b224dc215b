"""Builds a causal language model of transformers, and the phases that are measured on it.

Weights are drawn from the seed, or loaded from safetensors. Attention is torch's scaled dot-product attention where the
family can have it, else the family's own. Where no window is shorter than the sequence, a causal flag stands for the
mask. Routed experts get tokens by a stated rule, since their cost depends on it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from flopray.errors import Unsupported
from flopray.mappings import Arguments

if TYPE_CHECKING:
    import torch

Within = Callable[[], AbstractContextManager[object]]
#: Without dropout there is no generator state to keep; while a graph is captured it could not be read.
_CHECKPOINTING = {"use_reentrant": False, "preserve_rng_state": False}
#: Routed tokens are drawn from this seed, so that every point of a model has the same ones.
_ROUTING_SEED = 0
#: Argument by which experts get the choice of their router.
_CHOICES = ("top_k_index", "router_indices")


def random_model(config: Any, *, device: str, dtype: torch.dtype, attention: str) -> Any:
    """A model with weights of torch's generator, all of one type.

    Args:
        config: of transformers.
        device: a torch device; `meta` makes shapes without memory.
        dtype: of all weights, also of those that the family keeps in another type.
        attention: implementation, as transformers names it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )
    return _with_its_loss(model).to(dtype)


def pretrained_model(name: str, *, device: str, dtype: torch.dtype, attention: str) -> Any:
    """A model with weights from safetensors, which are data; a pickled checkpoint would run its author's code."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        name, dtype=dtype, attn_implementation=attention, use_safetensors=True, trust_remote_code=False
    )
    return _with_its_loss(model).to(device=device, dtype=dtype)


def _with_its_loss(model: Any) -> Any:
    """Name the loss of a class that names none, such as GPT-2's: transformers takes this one, but warns of it."""
    if model.loss_type is None:
        model.loss_type = "ForCausalLM"
    return model


@cache
def causal_sdpa() -> str:
    """transformers' own call of torch's attention, under a name for which it builds no mask.

    A batch of full sequences needs no mask, and with one attention would run without its flash kernels. transformers
    would build one while a CUDA graph is captured (it takes the capture for a trace), and in every eager forward pass
    it would wait for the device to find out that none is needed.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("flopray_sdpa", sdpa_attention_forward)
    return "flopray_sdpa"


def has_sdpa(config: Any) -> bool:
    """Whether the family can have torch's attention; sinks and capped scores have no kernel there."""
    from transformers import AutoModelForCausalLM

    return bool(getattr(AutoModelForCausalLM._model_mapping[type(config)], "_supports_sdpa", False))  # type: ignore[index]


def calls_attention_by_name(config: Any) -> bool:
    """Whether the family takes any attention that is registered; others have one of their own for each name."""
    from transformers import AutoModelForCausalLM

    own = AutoModelForCausalLM._model_mapping[type(config)]  # type: ignore[index]
    return bool(getattr(own, "_supports_attention_backend", False))


def implementation(config: Any, *, tokens: int, windows: tuple[int | None, ...] | None) -> str:
    """The implementation of attention for sequences of a length.

    Args:
        config: of transformers.
        tokens: of a sequence at its longest.
        windows: of the layers; None where they are not known.
    """
    if not has_sdpa(config):
        return "eager"
    masked = windows is None or any(window is not None and window < tokens for window in windows)
    masked = masked or not calls_attention_by_name(config)  # it knows torch's attention by its first name alone
    return "sdpa" if masked else causal_sdpa()


def forced(name: str) -> Within:
    """Makes the context in which attention is forced to a backend; `auto` leaves the choice to torch."""
    if name == "auto":
        return nullcontext
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backend = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }[name]
    return lambda: sdpa_kernel([backend])


def set_checkpointing(model: Any) -> None:
    """Have the backward pass run the layers again, and nothing else.

    transformers also has embedded tokens require a gradient, for checkpoints that are reentrant. These are not: where
    all but adapters is frozen, the first layer would get gradients of its input that no weight needs.

    Raises:
        Unsupported: the family cannot.
    """
    enable = getattr(model, "activation_checkpointing_enable", None)
    try:
        if enable is not None:
            enable(_CHECKPOINTING)
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=_CHECKPOINTING)
    except ValueError as error:
        raise Unsupported(f"gradient checkpointing: {str(error).splitlines()[0]}") from error
    model.disable_input_require_grads()


# routing


def route_uniformly(model: Any) -> int:
    """Send tokens to experts in equal numbers, whatever the router says; its products and weights stay as they are.

    Args:
        model: whose experts take the choice of a router as an argument, as those of transformers do.

    Returns:
        Number of layers with such experts.
    """
    found = 0
    for module in model.modules():
        names = list(inspect.signature(module.forward).parameters)
        choice = next((name for name in _CHOICES if name in names), None)
        if choice is not None and isinstance(getattr(module, "num_experts", None), int):
            module.register_forward_pre_hook(
                _rerouted(choice, names.index(choice), module.num_experts), with_kwargs=True
            )
            found += 1
    return found


def has_experts(model: Any) -> bool:
    """Whether some layer of a model has experts; a configuration may state experts that no layer has."""
    return any("experts" in name.split(".") for name, _ in model.named_parameters())


def _rerouted(name: str, place: int, experts: int) -> Callable[..., Any]:
    """A hook that replaces the router's choice (tokens, active); tables are made once a shape, outside of graphs."""
    tables: dict[tuple[int, int, str], torch.Tensor] = {}

    def hook(module: Any, args: tuple[Any, ...], kwargs: Arguments) -> tuple[tuple[Any, ...], Arguments] | None:
        del module
        chosen = kwargs[name] if name in kwargs else args[place]
        if chosen.dim() != 2 or chosen.is_floating_point():
            return None
        tokens, active = chosen.shape
        key = (tokens, active, str(chosen.device))
        if key not in tables:
            tables[key] = uniform_routing(tokens, active, experts).to(device=chosen.device, dtype=chosen.dtype)
        if name in kwargs:
            return args, kwargs | {name: tables[key]}
        return (*args[:place], tables[key], *args[place + 1 :]), kwargs

    return hook


def uniform_routing(tokens: int, active: int, experts: int) -> torch.Tensor:
    """Experts of each token (tokens, active): all different, and each expert equally often, or once more.

    Example:
        >>> uniform_routing(4, 2, 8).flatten().bincount().tolist()
        [1, 1, 1, 1, 1, 1, 1, 1]
    """
    import torch

    generator = torch.Generator().manual_seed(_ROUTING_SEED)
    order = torch.randperm(experts, generator=generator)
    chosen = order[torch.arange(tokens * active).remainder(experts)].view(tokens, active)
    return chosen[torch.randperm(tokens, generator=generator)]


# phases


@cache
def loss_module() -> type[torch.nn.Module]:
    """Made once, when torch is needed."""
    import torch

    class CausalLoss(torch.nn.Module):
        """Tokens (B, T) -> the mean cross entropy of predicting each from those before it, a scalar in fp32."""

        def __init__(self, model: torch.nn.Module, within: Within) -> None:
            super().__init__()
            self.model, self._within = model, within

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with self._within():
                return self.model(input_ids=x, labels=x, use_cache=False).loss

    return CausalLoss


def new_cache(model: Any) -> Arguments:
    """An empty cache of keys and values, as the argument of a call, by the name that this release gives it.

    Raises:
        Unsupported: the model keeps something else.
    """
    from transformers import DynamicCache

    names = inspect.signature(model.forward).parameters
    name = next((name for name in ("cache", "past_key_values") if name in names), None)
    if name is None or "logits_to_keep" not in names:
        raise Unsupported(
            f"{type(model).__name__} has no cache of keys and values: prefill and decode are not measured"
        )
    try:
        past = DynamicCache(config=model.config)
    except Exception as error:  # of configurations that have a cache of their own
        raise Unsupported(f"no cache of keys and values: {str(error).splitlines()[0]}") from error
    if any(not hasattr(layer, "keys") or hasattr(layer, "conv_states") for layer in past.layers):
        raise Unsupported("its cache is not of keys and values alone: prefill and decode are not measured")
    return {name: past}


def other_phases(model: Any, x: torch.Tensor, within: Within) -> dict[str, Callable[[], object]]:
    """Phases without gradients: `inference`, `prefill` and `decode`.

    Args:
        model: of transformers.
        x: tokens (B, T).
        within: makes the context of attention.
    """
    import torch

    def inference() -> torch.Tensor:
        with torch.no_grad(), within():
            return model(input_ids=x, use_cache=False).logits

    def prefill() -> torch.Tensor:
        with torch.no_grad(), within():
            return model(input_ids=x, use_cache=True, logits_to_keep=1, **new_cache(model)).logits

    return {"inference": inference, "prefill": prefill, "decode": Decode(model, x, within)}


class Decode:
    """One token more for each sequence, on a cache of all of them; every call starts from the same cache.

    Args:
        model: of transformers.
        x: tokens (B, T).
        within: makes the context of attention.
    """

    def __init__(self, model: Any, x: torch.Tensor, within: Within) -> None:
        self._model, self._x, self._within = model, x, within
        self._past: Arguments | None = None
        self._states: list[list[Mapping[str, Any]]] = []

    def __call__(self) -> torch.Tensor:
        """The logits (B, 1, vocabulary)."""
        self.prepare()
        return self.step()

    def prepare(self) -> None:
        """Fills the cache; a second call does nothing."""
        import torch

        if self._past is not None:
            return
        past = new_cache(self._model)
        with torch.no_grad(), self._within():
            self._model(input_ids=self._x, use_cache=True, logits_to_keep=1, **past)
        self._states = [_remembered(filled) for filled in past.values()]
        self._past = past

    def step(self) -> torch.Tensor:
        """The same, on a cache that has been filled."""
        import torch

        past = self._past or {}
        with torch.no_grad(), self._within():
            logits = self._model(input_ids=self._x[:, :1], use_cache=True, **past).logits
        for filled, before in zip(past.values(), self._states, strict=True):
            _put_back(filled, before)
        return logits


def _remembered(past: Any) -> list[Mapping[str, Any]]:
    """The state of a cache, whose tensors are replaced and never overwritten."""
    return [dict(vars(layer)) for layer in past.layers]


def _put_back(past: Any, before: list[Mapping[str, Any]]) -> None:
    """Take a cache back to a state, so that every iteration does the same work."""
    for layer, state in zip(past.layers, before, strict=True):
        vars(layer).update(state)
