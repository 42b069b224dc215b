"""Llama through Hugging Face transformers: seeded random weights from its configuration, or pretrained ones.

What is measured is the implementation people use: `LlamaForCausalLM` with torch's scaled dot-product attention. Input
is a batch of random tokens of one length, so no mask is needed but the causal one. `forward` computes the loss, as a
training step does; `inference` the logits, without gradients. `prefill` reads the prompt into a new cache and gives the
logits of its last token; `decode` makes one token more for each sequence from a cache of `sequence_length` tokens,
which is put back afterwards, so that every iteration does the same work.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from flopray.description import Column, Field
from flopray.point import Point
from flopray.records import TRAINING_PHASES, Row
from flopray.workloads.base import Built, Workload, copies_of_weights
from flopray.workloads.capability import ATTENTIONS, why_no_attention
from flopray.workloads.llama_bytes import cached_elements, kept_elements, moved_elements
from flopray.workloads.llama_config import LlamaConfig, config_of, find_models
from flopray.workloads.llama_flops import COMPONENTS, CONVENTION, components

if TYPE_CHECKING:
    import torch

WEIGHTS = ("random", "pretrained")
_GEMM = ("projection_flops", "mlp_flops", "lm_head_flops")
#: Without dropout there is no state of a generator to keep, which could not be read while a graph is captured.
_CHECKPOINTING = {"use_reentrant": False, "preserve_rng_state": False}
_CACHES = ("prefill", "decode")
_WITH_LOSS = ("forward", "backward", "forward_backward", "train_step")


#: What each phase takes beside its iterations.
_PHASE_S = {"CPU": 0.2, "GPU": 1.0}
_LAYER_S = 0.03


class Llama(Workload):
    """Sweep Llama over GPU types, precisions and sequence lengths: FLOPs, energy and time of training and generating.

    Example:
        >>> tiny = Llama(model="llama-tiny", weights="random", attention="auto", checkpointing=False,
        ...              batch_size=2, sequence_length=32)
        >>> tiny.point(device_type="CPU").label()
        'llama-tiny b=2 t=32 fp32 eager'
    """

    name = "llama"
    fields = (
        Field(
            name="model",
            letter="model",
            type=str,
            flag="--model",
            free=True,
            values=("llama-tiny",),
            gpu_values=("llama-3.2-1b",),
            doc="built-in name (llama-tiny, llama-3.2-1b, llama-3.2-3b, llama-3.1-8b, llama-3.1-70b), file, folder or "
            "hub id",
        ),
        Field(
            name="model_config", type=str, free=True, implied=True, doc="its sizes as JSON, where it is no built-in one"
        ),
        Field(name="weights", type=str, doc="weights", values=("random",), words={name: name for name in WEIGHTS}),
        Field(
            name="attention",
            type=str,
            doc="backend of attention",
            values=("auto",),
            words={name: name for name in ATTENTIONS},
        ),
        Field(
            name="checkpointing",
            type=bool,
            doc="gradient checkpointing",
            values=("off",),
            words={"off": False, "on": True},
        ),
        Field(
            name="batch_size",
            letter="b",
            label="sequences",
            flag="--batch",
            doc="sequences of a batch",
            values=(2,),
            gpu_values=(8,),
        ),
        Field(
            name="sequence_length",
            letter="t",
            label="tokens of a sequence",
            flag="--tokens",
            old_flags=("--configs",),
            doc="tokens of a sequence (decode: of the cache)",
            values=(32, 64),
            gpu_values=("small", "mid", "large"),
            words={"small": 256, "mid": 512, "large": 1024},
        ),
    )
    columns = (
        Column(name="projection_flops", type=int, doc="closed form: projections of attention"),
        Column(
            name="attention_flops",
            type=int,
            doc="closed form: scores and their products with values, full squares",
        ),
        Column(name="attention_causal_flops", type=int, doc="of attention_flops, what a causal mask leaves"),
        Column(name="mlp_flops", type=int, doc="closed form: products of the gated MLP"),
        Column(name="norm_flops", type=int, doc="closed form: norms and softmax"),
        Column(name="elementwise_flops", type=int, doc="closed form: rotary embedding, gating, residuals"),
        Column(name="embedding_flops", type=int, doc="closed form: gradient of the embedding"),
        Column(name="lm_head_flops", type=int, doc="closed form: output projection"),
        Column(name="loss_flops", type=int, doc="closed form: cross entropy"),
        Column(name="parameters", type=int, doc="weights of the model"),
    )
    phases = (*TRAINING_PHASES, "prefill", "decode")
    convention = CONVENTION
    default_phases = tuple(phase for phase in phases if phase != "forward_backward")
    gpu_precisions = ("fp32", "tf32", "bf16", "fp16")
    gpu_execution = ("eager", "as most people run it; graph leaves out what launching costs")
    sees_attention = True
    same_count: ClassVar = {"weights": "random", "attention": "auto"}
    figures = "comparison"
    run_name = "llama_gpu"
    examples = """examples:
  flopray sweep llama
      start Ray here: Llama 3.2 1B, batch 8, 256, 512 and 1024 tokens, in fp32, tf32, bf16 and fp16
  flopray sweep llama --address auto --accelerators H100 A100 --precision bf16 --tokens small large
      join the running cluster and compare two types of GPU
  flopray sweep llama --model llama-3.1-8b --checkpointing on --phases train_step --tokens 2048
      a larger model, whose backward pass runs the layers again to save memory
  flopray sweep llama --model my/config.json --phases inference generate
      a model of your own, with random weights: same FLOPs, no download
"""

    def closed_form(self, point: Point, phase: str) -> dict[str, int]:
        """FLOPs of one iteration by component; see `flopray.workloads.llama_flops`."""
        counts = _components(point, phase)
        return {name: counts[name] for name in COMPONENTS}

    def beside(self, point: Point, phase: str) -> Row:
        """Columns beside the components: sums, the causal part, recomputation, sizes."""
        counts, config = _components(point, phase), _config(point)
        batch, tokens = point.shape().values()
        return {
            "gemm_flops": sum(counts[name] for name in _GEMM),
            "attention_causal_flops": counts["attention_causal_flops"],
            "recomputed_flops": counts["recomputed_flops"],
            "parameters": config.parameters,
            "tokens_per_iteration": {"optimizer_step": None, "decode": batch}.get(phase, batch * tokens),
        }

    def least_bytes(self, point: Point, phase: str, element_bytes: int) -> int:
        """Memory without which a phase cannot run: weights, gradients, moments, activations, logits, cache.

        What really runs takes more.

        Args:
            point: a Llama's point.
            phase: one of `flopray.records.PHASES`.
            element_bytes: of the precision's type.
        """
        config = _config(point)
        batch, tokens = point.shape().values()
        elements = copies_of_weights(phase) * config.parameters
        if phase in _CACHES:
            elements += cached_elements(config, batch * tokens)
        elif phase in _WITH_LOSS and point.execution != "compile":  # compiled code may compute again instead of keeping
            elements += kept_elements(config, batch * tokens, checkpointing=bool(point.checkpointing))
        logits = batch * tokens * config.vocab_size
        # The loss is computed in fp32, from a copy of the logits.
        logits *= element_bytes + 4 if phase in _WITH_LOSS else element_bytes if phase == "inference" else 0
        return elements * element_bytes + logits

    def least_moved_bytes(self, point: Point, phase: str, element_bytes: int) -> int:
        """Bytes that one iteration reads and writes at least; see `flopray.workloads.llama_bytes`.

        Args:
            point: a Llama's point.
            phase: one of `flopray.records.PHASES`.
            element_bytes: of the precision's type.
        """
        batch, tokens = point.shape().values()
        again = bool(point.checkpointing)
        moved = moved_elements(_config(point), batch=batch, tokens=tokens, phase=phase, checkpointing=again)
        return element_bytes * moved

    def build(self, point: Point, *, device: str, dtype: torch.dtype, seed: int) -> Built:
        """The model and its phases on a device.

        Args:
            point: a Llama's point.
            device: a torch device.
            dtype: type of the weights.
            seed: of weights and tokens.
        """
        import torch

        torch.manual_seed(seed)
        model = _pretrained(point, device, dtype) if point.weights == "pretrained" else _random(point, device, dtype)
        _set_checkpointing(model, point)
        batch, tokens = point.shape().values()
        x = torch.randint(_config(point).vocab_size, (batch, tokens), device=device)
        within = _attention(point.attention or "auto")
        module = _loss_module()(model, within)
        return Built(module, x, torch.ones((), device=device, dtype=torch.float32), _others(model, x, within))

    def dispatched(self, point: Point) -> dict[str, int]:
        """FLOPs at torch's dispatcher by phase; attention as full squares, by the products of its mathematical form.

        The meta device has no other form. On a CPU fused attention would be counted as zero, and on CUDA torch 2.11
        fails on grouped heads (https://github.com/pytorch/pytorch/issues/177169).
        """
        import torch
        from torch.utils.flop_counter import FlopCounterMode
        from transformers import DynamicCache

        batch, tokens = point.shape().values()
        model = _random(point, "meta", torch.bfloat16)
        model.train()
        _set_checkpointing(model, point)

        ids = torch.empty(batch, tokens, device="meta", dtype=torch.long)
        head_dim = _config(point).head_dim
        # Some releases compute the angles of the rotary embedding by a product, which is not a product of the model.
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

    def parameters(self, point: Point) -> int:
        """All weights of the model."""
        return _config(point).parameters

    def why_not(self, point: Point, capability: tuple[int, int] | None) -> str | None:
        """Kernels of attention that the device or the precision does not have."""
        return why_no_attention(point.attention, point.precision, point.device_type, capability)

    def complete(
        self, axes: Mapping[str, tuple[Any, ...]]
    ) -> tuple[Mapping[str, tuple[Any, ...]], Mapping[str, Mapping[Any, Mapping[str, Any]]]]:
        """Models are found by name, file, folder or hub id; one that is not built in brings its sizes."""
        models, configs = find_models(axes["model"], axes["weights"])
        implied = {name: {"model_config": config} for name, config in configs.items()}
        return {**axes, "model": models}, {"model": implied} if implied else {}

    def overhead_s(self, point: Point, phase: str) -> float:
        """First calls and freeing gigabytes: on H100s and H200s about 1 s for each phase."""
        del phase
        return _PHASE_S["CPU" if point.device_type == "CPU" else "GPU"]

    def count_s(self, point: Point) -> float:
        """Building each layer and counting it, on the meta device."""
        return _config(point).n_layers * _LAYER_S

    def loads_weights(self, point: Point) -> bool:
        """Pretrained ones."""
        return point.weights == "pretrained"


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


def _set_checkpointing(model: Any, point: Point) -> None:
    if point.checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None)
        if enable is not None:
            enable(_CHECKPOINTING)
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=_CHECKPOINTING)


def _random(point: Point, device: str, dtype: torch.dtype) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    with torch.device(device):
        return LlamaForCausalLM._from_config(_hugging_face(point), dtype=dtype, attn_implementation=_causal_sdpa())


def _pretrained(point: Point, device: str, dtype: torch.dtype) -> Any:
    from transformers import LlamaForCausalLM

    # safetensors are data; a pickled checkpoint would run its author's code.
    model: Any = LlamaForCausalLM.from_pretrained(
        point.model, dtype=dtype, attn_implementation=_causal_sdpa(), use_safetensors=True
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


def _hugging_face(point: Point) -> Any:
    from transformers import LlamaConfig as HuggingFaceConfig

    config = _config(point)
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
        max_position_embeddings=point.shape()["sequence_length"] + 1,
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


def _components(point: Point, phase: str) -> dict[str, int]:
    batch, tokens = point.shape().values()
    return components(_config(point), batch=batch, tokens=tokens, phase=phase, checkpointing=bool(point.checkpointing))


def _config(point: Point) -> LlamaConfig:
    return config_of(str(point.model), point.model_config)
