"""Llama through Hugging Face transformers: seeded random weights from its configuration, or pretrained ones.

What is measured is the implementation people use: `LlamaForCausalLM` with torch's scaled dot-product attention. Input
is a batch of random tokens of one length, so no mask is needed but the causal one. `forward` computes the loss, as a
training step does; `inference` the logits, without gradients. `prefill` reads the prompt into a new cache and gives the
logits of its last token; `decode` makes one token more for each sequence from a cache of `sequence_length` tokens,
which is put back afterwards, so that every iteration does the same work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from flopray.description import Column, Field
from flopray.point import FP8_SCALING, Point, is_compiled
from flopray.records import TRAINING_PHASES, Row
from flopray.workloads import float8
from flopray.workloads.base import Built, Workload, held_at_once
from flopray.workloads.capability import ATTENTIONS, why_no_attention
from flopray.workloads.causal_lm.agreement import count_built
from flopray.workloads.causal_lm.bytes import cached_elements, kept_elements, moved_elements
from flopray.workloads.causal_lm.kernels import asked_of, operations
from flopray.workloads.causal_lm.layer_cache import with_own_cache
from flopray.workloads.causal_lm.workload import BATCH_SIZE, CHECKPOINTING
from flopray.workloads.llama_config import LlamaConfig, config_of, find_models
from flopray.workloads.llama_flops import COMPONENTS, CONVENTION, components, sizes_of
from flopray.workloads.operations import Operation

if TYPE_CHECKING:
    import torch

WEIGHTS = ("random", "pretrained")
_GEMM = ("projection_flops", "mlp_flops", "lm_head_flops")
_CACHES = ("prefill", "decode")
_WITH_LOSS = ("forward", "backward", "forward_backward", "train_step")


#: Seconds of each phase besides its iterations.
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
            name="model_config", type=str, free=True, implied=True, doc="its sizes as JSON, where it is not built in"
        ),
        Field(name="weights", type=str, doc="weights", values=("random",), words={name: name for name in WEIGHTS}),
        Field(
            name="attention",
            type=str,
            doc="backend of attention",
            values=("auto",),
            words={name: name for name in ATTENTIONS},
        ),
        CHECKPOINTING,
        BATCH_SIZE,
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
    gpu_execution = ("eager", "as most people run it; graph leaves out the cost of launches")
    sees_attention = True
    family = "causal_lm"
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
        """Least memory for a phase to run: weights, gradients, moments, activations, logits, cache.

        A real run takes more.

        Args:
            point: a Llama's point.
            phase: one of `flopray.records.PHASES`.
            element_bytes: of the precision's type.
        """
        config = _config(point)
        batch, tokens = point.shape().values()
        elements = 0
        if phase in _CACHES:
            elements = cached_elements(sizes_of(config), batch, tokens)
        elif phase in _WITH_LOSS and not is_compiled(point.execution):  # compiled code may compute again, not keep
            elements = kept_elements(sizes_of(config), batch * tokens, checkpointing=bool(point.checkpointing))
        logits = batch * tokens * config.vocab_size
        # The loss is computed in fp32, from a copy of the logits.
        logits *= element_bytes + 4 if phase in _WITH_LOSS else element_bytes if phase == "inference" else 0
        weights = config.parameters * element_bytes
        return held_at_once(phase, weights=weights, trained=weights, kept=elements * element_bytes + logits)

    def least_moved_bytes(self, point: Point, phase: str, element_bytes: int) -> int:
        """Bytes that one iteration reads and writes at least; see `flopray.workloads.causal_lm.bytes`.

        Args:
            point: a Llama's point.
            phase: one of `flopray.records.PHASES`.
            element_bytes: of the precision's type.
        """
        batch, tokens = point.shape().values()
        again = bool(point.checkpointing)
        moved = moved_elements(sizes_of(_config(point)), batch=batch, tokens=tokens, phase=phase, checkpointing=again)
        return element_bytes * moved

    def operations(self, point: Point, phase: str) -> tuple[Operation, ...]:
        """Products with their shapes, attention, elementwise kernels; see `flopray.workloads.causal_lm.kernels`.

        Args:
            point: a Llama's point.
            phase: one of `flopray.records.PHASES`.
        """
        return operations(sizes_of(_config(point)), asked_of(point, phase))

    def build(self, point: Point, *, device: str, dtype: torch.dtype, seed: int) -> Built:
        """The model and its phases on a device.

        Args:
            point: a Llama's point.
            device: a torch device.
            dtype: type of the weights.
            seed: of weights and tokens.
        """
        import torch

        from flopray.workloads.causal_lm import transformer

        torch.manual_seed(seed)
        model = _pretrained(point, device, dtype) if point.weights == "pretrained" else _random(point, device, dtype)
        if point.checkpointing:
            transformer.set_checkpointing(model)
        batch, tokens = point.shape().values()
        x = torch.randint(_config(point).vocab_size, (batch, tokens), device=device)
        within = transformer.forced(point.attention or "auto")
        module = transformer.loss_module()(model, within)
        gradient = torch.ones((), device=device, dtype=torch.float32)
        return Built(module, x, gradient, transformer.other_phases(model, x, within), with_own_cache)

    def dispatched(self, point: Point) -> dict[str, int | str]:
        """FLOPs at torch's dispatcher by phase; attention as full squares, by the products of its mathematical form."""
        batch, tokens = point.shape().values()
        again = bool(point.checkpointing)
        return dict(count_built(_hugging_face(point), batch=batch, tokens=tokens, checkpointing=again).flops)

    def parameters(self, point: Point) -> int:
        """All weights of the model."""
        return _config(point).parameters

    def why_not(self, point: Point, capability: tuple[int, int] | None) -> str | None:
        """Kernels of attention that the device or the precision does not have."""
        if point.precision in FP8_SCALING and (reason := _why_no_fp8(point)):
            return reason
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


def _random(point: Point, device: str, dtype: torch.dtype) -> Any:
    from flopray.workloads.causal_lm import transformer

    attention = transformer.causal_sdpa()
    return transformer.random_model(_hugging_face(point), device=device, dtype=dtype, attention=attention)


def _pretrained(point: Point, device: str, dtype: torch.dtype) -> Any:
    from transformers import LlamaForCausalLM

    from flopray.workloads.causal_lm import transformer

    # safetensors are data; a pickled checkpoint would run its author's code.
    model: Any = LlamaForCausalLM.from_pretrained(
        point.model, dtype=dtype, attn_implementation=transformer.causal_sdpa(), use_safetensors=True
    )
    return model.to(device)


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


def _why_no_fp8(point: Point) -> str | None:
    config, head = _config(point), _config(point).head_dim
    widths = (config.hidden_size, head * config.n_heads, head * config.n_kv_heads, config.intermediate_size)
    batch, tokens = point.shape().values()
    widths_reason = float8.why_not_sizes(f"the widths of {point.model}", *widths)
    return widths_reason or float8.why_not_sizes("sequences x tokens", batch * tokens)


def _components(point: Point, phase: str) -> dict[str, int]:
    batch, tokens = point.shape().values()
    return components(_config(point), batch=batch, tokens=tokens, phase=phase, checkpointing=bool(point.checkpointing))


def _config(point: Point) -> LlamaConfig:
    return config_of(str(point.model), point.model_config)
