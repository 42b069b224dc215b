"""Llama through Hugging Face transformers: seeded random weights from its configuration, or pretrained ones.

What is measured is the implementation people use: `LlamaForCausalLM` with torch's scaled dot-product attention. Input
is a batch of random tokens of one length, so no mask is needed but the causal one. `forward` computes the loss, as a
training step does; `inference` the logits, without gradients. `prefill` reads the prompt into a new cache and gives the
logits of its last token; `decode` makes one token more for each sequence from a cache of `sequence_length` tokens,
which is put back afterwards, so that every iteration does the same work.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from flopray.point import Point
from flopray.workloads.built import Built
from flopray.workloads.llama_bytes import cached_elements, kept_elements, moved_elements
from flopray.workloads.llama_config import LlamaConfig, config_of
from flopray.workloads.llama_flops import COMPONENTS, CONVENTION, components

if TYPE_CHECKING:
    import torch

__all__ = ["CONVENTION", "beside", "build", "closed_form", "dispatched", "least_bytes", "least_moved_bytes"]

_GEMM = ("projection_flops", "mlp_flops", "lm_head_flops")
#: Without dropout there is no state of a generator to keep, which could not be read while a graph is captured.
_CHECKPOINTING = {"use_reentrant": False, "preserve_rng_state": False}
#: Phases that keep the gradients of all weights, and those that keep the optimizer's two moments as well.
_GRADIENTS = ("backward", "forward_backward", "optimizer_step", "train_step")
_MOMENTS = ("optimizer_step", "train_step")
_CACHES = ("prefill", "decode")
_WITH_LOSS = ("forward", "backward", "forward_backward", "train_step")


def closed_form(spec: Point, phase: str) -> dict[str, int]:
    """FLOPs of one iteration by component; see `flopray.workloads.llama_flops`."""
    counts = _components(spec, phase)
    return {name: counts[name] for name in COMPONENTS}


def beside(spec: Point, phase: str) -> dict[str, Any]:
    """Columns beside the components: sums, the causal part, recomputation, sizes."""
    counts, config = _components(spec, phase), _config(spec)
    batch, tokens = spec.shape().values()
    return {
        "gemm_flops": sum(counts[name] for name in _GEMM),
        "attention_causal_flops": counts["attention_causal_flops"],
        "recomputed_flops": counts["recomputed_flops"],
        "parameters": config.parameters,
        "tokens_per_iteration": {"optimizer_step": None, "decode": batch}.get(phase, batch * tokens),
    }


def least_bytes(spec: Point, phase: str, element_bytes: int) -> int:
    """Memory without which a phase cannot run: weights, gradients, moments, activations, logits, cache.

    What really runs takes more.

    Args:
        spec: a Llama's specification.
        phase: one of `flopray.records.PHASES`.
        element_bytes: of the precision's type.
    """
    config = _config(spec)
    batch, tokens = spec.shape().values()
    copies = 1 + (phase in _GRADIENTS) + 2 * (phase in _MOMENTS)
    elements = copies * config.parameters
    if phase in _CACHES:
        elements += cached_elements(config, batch * tokens)
    elif phase in _WITH_LOSS and spec.execution != "compile":  # compiled code may compute again instead of keeping
        elements += kept_elements(config, batch * tokens, checkpointing=bool(spec.checkpointing))
    logits = batch * tokens * config.vocab_size
    # The loss is computed in fp32, from a copy of the logits.
    logits *= element_bytes + 4 if phase in _WITH_LOSS else element_bytes if phase == "inference" else 0
    return elements * element_bytes + logits


def least_moved_bytes(spec: Point, phase: str, element_bytes: int) -> int:
    """Bytes that one iteration reads and writes at least; see `flopray.workloads.llama_bytes`.

    Args:
        spec: a Llama's specification.
        phase: one of `flopray.records.PHASES`.
        element_bytes: of the precision's type.
    """
    batch, tokens = spec.shape().values()
    again = bool(spec.checkpointing)
    return element_bytes * moved_elements(_config(spec), batch=batch, tokens=tokens, phase=phase, checkpointing=again)


def build(spec: Point, *, device: str, dtype: torch.dtype, seed: int) -> Built:
    """The model and its phases on a device.

    Args:
        spec: a Llama's specification.
        device: a torch device.
        dtype: type of the weights.
        seed: of weights and tokens.
    """
    import torch

    torch.manual_seed(seed)
    model = _pretrained(spec, device, dtype) if spec.weights == "pretrained" else _random(spec, device, dtype)
    _set_checkpointing(model, spec)
    batch, tokens = spec.shape().values()
    x = torch.randint(_config(spec).vocab_size, (batch, tokens), device=device)
    within = _attention(spec.attention or "auto")
    module = _loss_module()(model, within)
    return Built(module, x, torch.ones((), device=device, dtype=torch.float32), _others(model, x, within))


def dispatched(spec: Point) -> dict[str, int]:
    """FLOPs at torch's dispatcher by phase; attention as full squares, by the products of its mathematical form.

    The meta device has no other form. On a CPU fused attention would be counted as zero, and on CUDA torch 2.11 fails
    on grouped heads (https://github.com/pytorch/pytorch/issues/177169).
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import DynamicCache

    batch, tokens = spec.shape().values()
    model = _random(spec, "meta", torch.bfloat16)
    model.train()
    _set_checkpointing(model, spec)

    ids = torch.empty(batch, tokens, device="meta", dtype=torch.long)
    head_dim = _config(spec).head_dim
    # Some releases compute the angles of the rotary embedding by a product, which is none of the model's.
    model.model.rotary_emb.forward = lambda x, position_ids: 2 * (x.new_empty(*position_ids.shape, head_dim),)
    counter = FlopCounterMode(display=False)
    with counter:
        logits = model(ids, use_cache=False).logits
    forward = counter.get_total_flops()
    with counter:
        torch.autograd.grad(logits, list(model.parameters()), torch.empty_like(logits))
    backward = counter.get_total_flops()
    model.eval()  # layers that checkpoint take no cache while they train
    past, cache_name = DynamicCache(config=model.config), _cache_name(model)
    with torch.no_grad():
        with counter:
            model(ids, use_cache=True, logits_to_keep=1, **{cache_name: past})
        prefill = counter.get_total_flops()
        with counter:
            model(ids[:, :1], use_cache=True, **{cache_name: past})
        decode = counter.get_total_flops()
    both = forward + backward
    return {
        **{"inference": forward, "forward": forward, "backward": backward, "forward_backward": both},
        **{"train_step": both, "prefill": prefill, "decode": decode},
    }


def _others(
    model: Any, x: torch.Tensor, within: Callable[[], AbstractContextManager[object]]
) -> dict[str, Callable[[], object]]:
    import torch
    from transformers import DynamicCache

    def inference() -> torch.Tensor:
        with torch.no_grad(), within():
            return model(input_ids=x, use_cache=False).logits

    def prefill() -> torch.Tensor:
        with torch.no_grad(), within():
            past = DynamicCache(config=model.config)
            return model(input_ids=x, use_cache=True, logits_to_keep=1, **{cache_name: past}).logits

    cache_name = _cache_name(model)  # not in the phases: each of their iterations is measured
    kept: list[Any] = []

    def decode() -> torch.Tensor:
        with torch.no_grad(), within():
            if not kept:
                past: Any = DynamicCache(config=model.config)
                model(input_ids=x, use_cache=True, logits_to_keep=1, **{cache_name: past})
                kept.extend((past, [(layer.keys, layer.values) for layer in past.layers]))
            past, before = kept
            logits = model(input_ids=x[:, :1], use_cache=True, **{cache_name: past}).logits
            for layer, (keys, values) in zip(past.layers, before, strict=True):
                layer.keys, layer.values = keys, values
            return logits

    return {"inference": inference, "prefill": prefill, "decode": decode}


def _cache_name(model: Any) -> str:
    """What this release of transformers calls the cache."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _set_checkpointing(model: Any, spec: Point) -> None:
    if spec.checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None)
        if enable is not None:
            enable(_CHECKPOINTING)
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=_CHECKPOINTING)


def _random(spec: Point, device: str, dtype: torch.dtype) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    with torch.device(device):
        return LlamaForCausalLM._from_config(_hugging_face(spec), dtype=dtype, attn_implementation=_causal_sdpa())


def _pretrained(spec: Point, device: str, dtype: torch.dtype) -> Any:
    from transformers import LlamaForCausalLM

    # safetensors are data; a pickled checkpoint would run its author's code.
    model: Any = LlamaForCausalLM.from_pretrained(
        spec.model, dtype=dtype, attn_implementation=_causal_sdpa(), use_safetensors=True
    )
    return model.to(device)


@cache
def _causal_sdpa() -> str:
    """transformers' own call of torch's attention, under a name for which it builds no mask.

    A batch of full sequences needs none. With one, attention would run without its flash kernels; transformers builds
    it while a CUDA graph is captured (it takes the capture for a trace), and to find out that it need not build it, it
    waits for the device in every eager forward pass.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("flopray_sdpa", sdpa_attention_forward)
    return "flopray_sdpa"


def _hugging_face(spec: Point) -> Any:
    from transformers import LlamaConfig as HuggingFaceConfig

    config = _config(spec)
    return HuggingFaceConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        tie_word_embeddings=config.tied,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        max_position_embeddings=spec.shape()["sequence_length"] + 1,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )


def _attention(name: str) -> Callable[[], AbstractContextManager[object]]:
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


@cache
def _loss_module() -> type[torch.nn.Module]:
    """Made when torch is needed, and once."""
    import torch

    class CausalLoss(torch.nn.Module):
        """Tokens (B, T) -> the mean cross entropy of predicting each from those before it, a scalar in fp32."""

        def __init__(self, model: torch.nn.Module, within: Callable[[], AbstractContextManager[object]]) -> None:
            super().__init__()
            self.model, self._within = model, within

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with self._within():
                return self.model(input_ids=x, labels=x, use_cache=False).loss

    return CausalLoss


def _components(spec: Point, phase: str) -> dict[str, int]:
    batch, tokens = spec.shape().values()
    return components(_config(spec), batch=batch, tokens=tokens, phase=phase, checkpointing=bool(spec.checkpointing))


def _config(spec: Point) -> LlamaConfig:
    return config_of(str(spec.model), spec.model_config)
