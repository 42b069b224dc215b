"""The workload `causal_lm`: any decoder that transformers builds from a configuration.

Input is a batch of random tokens of one length. `forward` computes the loss, as a training step does; `inference` the
logits, without gradients. `prefill` reads the prompt into a new cache and gives the logits of its last token; `decode`
makes one token more for each sequence from a cache of `sequence_length` tokens, which is put back afterwards, so that
every iteration does the same work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flopray.description import Column, Field
from flopray.errors import Unsupported
from flopray.mappings import Arguments, Values
from flopray.point import FP8_SCALING, Point, is_compiled
from flopray.records import TRAINING_PHASES, Row
from flopray.workloads import float8
from flopray.workloads.base import Built, Workload, held_at_once
from flopray.workloads.capability import ATTENTIONS, why_no_attention
from flopray.workloads.causal_lm import agreement, configuration, finetuning, models
from flopray.workloads.causal_lm.adapter import NONE, Lora, rank_of
from flopray.workloads.causal_lm.bytes import cached_elements, kept_elements, moved_elements
from flopray.workloads.causal_lm.flops import COMPONENTS, CONVENTION, PRODUCTS, components
from flopray.workloads.causal_lm.kernels import asked_of, operations
from flopray.workloads.causal_lm.layer_cache import with_own_cache
from flopray.workloads.causal_lm.sizes import NoClosedForm, Sizes
from flopray.workloads.operations import Operation

if TYPE_CHECKING:
    import torch

_CACHES = ("prefill", "decode")
_WITH_LOSS = ("forward", "backward", "forward_backward", "train_step")
_PHASE_S = {"CPU": 0.2, "GPU": 1.0}
_LAYER_S = 0.06

#: Fields of every decoder.
CHECKPOINTING = Field(
    name="checkpointing", type=bool, doc="gradient checkpointing", values=("off",), words={"off": False, "on": True}
)
BATCH_SIZE = Field(
    name="batch_size",
    letter="b",
    label="sequences",
    flag="--batch",
    doc="sequences of a batch",
    values=(2,),
    gpu_values=(8,),
)


class CausalLM(Workload):
    """Sweep language models over GPU types, precisions and lengths: FLOPs, energy and time of training and generating.

    Example:
        >>> tiny = CausalLM(model="mixtral-tiny", weights="random", attention="auto", routing="uniform",
        ...                 checkpointing=False, batch_size=2, sequence_length=32)
        >>> tiny.point(device_type="CPU").label()
        'mixtral-tiny b=2 t=32 fp32 eager'
    """

    name = "causal_lm"
    fields = (
        Field(
            name="model",
            letter="model",
            type=str,
            flag="--model",
            free=True,
            values=("llama-tiny",),
            gpu_values=("llama-3.2-1b",),
            doc="name of a built-in configuration (a wrong one lists them), config.json, folder or hub id; "
            "NAME#text_config is the language model inside of a larger one, without what sees or hears",
        ),
        Field(
            name="model_config", type=str, free=True, implied=True, doc="its configuration as JSON, where not built in"
        ),
        Field(
            name="weights", type=str, doc="weights", values=("random",), words={n: n for n in ("random", "pretrained")}
        ),
        Field(
            name="attention", type=str, doc="backend of attention", values=("auto",), words={n: n for n in ATTENTIONS}
        ),
        Field(
            name="routing",
            type=str,
            doc="tokens of experts: in equal numbers, or as the router says",
            values=("uniform",),
            words={name: name for name in ("uniform", "router")},
        ),
        CHECKPOINTING,
        Field(
            name="adapter",
            letter="adapter",
            type=str,
            flag="--adapter",
            free=True,
            optional=True,
            doc="what is trained: all weights, or adapters of this rank beside frozen ones: none, lora:16",
            values=(NONE,),
            words={NONE: None},
        ),
        BATCH_SIZE,
        Field(
            name="sequence_length",
            letter="t",
            label="tokens of a sequence",
            flag="--tokens",
            doc="tokens of a sequence (decode: of the cache)",
            values=(32, 64),
            gpu_values=(256, 512, 1024),
        ),
    )
    columns = (
        Column(name="projection_flops", type=int, doc="closed form: projections of attention"),
        Column(
            name="attention_flops",
            type=int,
            doc="closed form: scores and their products with values, full squares",
        ),
        Column(
            name="attention_causal_flops",
            type=int,
            doc="of attention_flops, what causal masks and windows leave",
        ),
        Column(name="mlp_flops", type=int, doc="closed form: products of MLPs, shared experts included"),
        Column(name="expert_flops", type=int, doc="closed form: products of the experts that tokens are sent to"),
        Column(name="router_flops", type=int, doc="closed form: products of routers and of gates of shared experts"),
        Column(name="norm_flops", type=int, doc="closed form: norms and softmax"),
        Column(name="elementwise_flops", type=int, doc="closed form: rotary embedding, functions, biases, residuals"),
        Column(name="embedding_flops", type=int, doc="closed form: gradient of the embedding"),
        Column(name="lm_head_flops", type=int, doc="closed form: output projection"),
        Column(name="loss_flops", type=int, doc="closed form: cross entropy"),
        Column(name="adapter_flops", type=int, doc="closed form: products of adapters"),
        Column(name="parameters", type=int, doc="weights of the model, a tied matrix once, without adapters"),
        Column(name="trained_parameters", type=int, doc="weights that are trained: all, or those of the adapters"),
        Column(name="active_parameters", type=int, doc="weights that a token goes through; null without a closed form"),
        Column(name="model_type", type=str, doc="family of the model, as transformers names it"),
    )
    phases = (*TRAINING_PHASES, "prefill", "decode")
    convention = CONVENTION
    default_phases = tuple(phase for phase in phases if phase != "forward_backward")
    gpu_precisions = ("bf16",)
    gpu_execution = ("eager", "as most people run it; graph leaves out the cost of launches")
    sees_attention = True
    reads_models = True
    same_count: ClassVar = {"weights": "random", "attention": "auto", "routing": "uniform"}
    figures = "comparison"
    run_name = "causal_lm"
    examples = """examples:
  flopray sweep causal_lm --model qwen3-0.6b gemma-3-1b olmo-2-1b --tokens 1024
      three families of about a billion parameters, in bf16
  flopray sweep causal_lm --model mixtral-8x7b --phases prefill decode --batch 1 8
      a mixture of experts, of which each token goes through two
  flopray sweep causal_lm --model llama-3.2-1b --adapter none lora:16 --phases train_step
      what fine-tuning with LoRA costs beside full training
  flopray sweep causal_lm --model llama-3.2-1b --precision bf16 fp8 --phases train_step
      linear layers in fp8, both compiled
  flopray sweep causal_lm --model my/config.json --phases inference
      a model of your own, with random weights: same FLOPs, no download
"""

    # what is known beforehand

    def closed_form(self, point: Point, phase: str) -> dict[str, int] | None:
        """FLOPs of one iteration by component; None where `beside` has the reason why there are none."""
        sizes = _agreed(point)
        if isinstance(sizes, str):
            return None
        counts = _components(*sizes, point, phase)
        return {name: counts[name] for name in COMPONENTS}

    def beside(self, point: Point, phase: str) -> Row:
        """Columns beside the components: sums, the masked part, recomputation, sizes."""
        sizes = _agreed(point)
        batch, tokens = point.shape().values()
        known: Row = {
            "parameters": self.parameters(point),
            "trained_parameters": _trained(point),
            "model_type": models.content_of(point.model, point.model_config)["model_type"],
            "tokens_per_iteration": {"optimizer_step": None, "decode": batch}.get(phase, batch * tokens),
        }
        if isinstance(sizes, str):
            return known | {"model_flops_reason": sizes}
        counts = _components(*sizes, point, phase)
        return known | {
            "gemm_flops": sum(counts[name] for name in PRODUCTS),
            "attention_causal_flops": counts["attention_causal_flops"],
            "recomputed_flops": counts["recomputed_flops"],
            "active_parameters": sizes[0].active_parameters,
        }

    def operations(self, point: Point, phase: str) -> Sequence[Operation] | None:
        """Products with their shapes, attention, elementwise kernels; None without a closed form, and with adapters.

        Args:
            point: a point.
            phase: one of `flopray.records.PHASES`.
        """
        sizes = None if point.adapter else _stated(point)
        return None if sizes is None else operations(sizes, asked_of(point, phase))

    def dispatched(self, point: Point) -> dict[str, int | str]:
        """FLOPs at torch's dispatcher by phase: attention as full squares, experts by their grouped products."""
        return dict(_count(point).flops)

    def parameters(self, point: Point) -> int:
        """All weights of the model that transformers builds, a tied matrix once, without adapters."""
        return models.parameters_of(point.model, point.model_config)

    def least_bytes(self, point: Point, phase: str, element_bytes: int) -> int:
        """Least memory for a phase to run: weights, gradients, moments, activations, logits, cache.

        A real run takes more. Without a closed form only weights, gradients and moments are known.

        Args:
            point: a point.
            phase: one of `flopray.records.PHASES`.
            element_bytes: of the precision's type.
        """
        weights, trained = self.parameters(point), _trained(point)
        held = {
            "weights": (weights + (trained if point.adapter else 0)) * element_bytes,
            "trained": trained * element_bytes,
        }
        sizes = _stated(point)
        if sizes is None:
            return held_at_once(phase, **held, kept=0)
        elements = 0
        batch, tokens = point.shape().values()
        if phase in _CACHES:
            elements += cached_elements(sizes, batch, tokens)
        elif phase in _WITH_LOSS and not is_compiled(point.execution):
            # Compiled code may compute activations again instead of keeping them.
            again = bool(point.checkpointing)
            elements += kept_elements(sizes, batch * tokens, checkpointing=again, lora=_lora(point))
        logits = batch * tokens * sizes.vocabulary
        # The loss is computed in fp32, from a copy of the logits.
        logits *= element_bytes + 4 if phase in _WITH_LOSS else element_bytes if phase == "inference" else 0
        return held_at_once(phase, **held, kept=elements * element_bytes + logits)

    def least_moved_bytes(self, point: Point, phase: str, element_bytes: int) -> int:
        """Bytes that one iteration reads and writes at least; see `flopray.workloads.causal_lm.bytes`.

        Without a closed form, 0: how many of the weights a token goes through is not known.

        Args:
            point: a point.
            phase: one of `flopray.records.PHASES`.
            element_bytes: of the precision's type.
        """
        sizes = _stated(point)
        if sizes is None:
            return 0
        batch, tokens = point.shape().values()
        again = bool(point.checkpointing)
        shape: Arguments = {"batch": batch, "tokens": tokens, "phase": phase, "checkpointing": again}
        moved = moved_elements(sizes, **shape, lora=_lora(point))
        return element_bytes * moved

    # what is measured

    def build(self, point: Point, *, device: str, dtype: torch.dtype, seed: int) -> Built:
        """The model and its phases on a device.

        Args:
            point: a point.
            device: a torch device.
            dtype: type of the weights.
            seed: of weights and tokens.
        """
        import torch

        from flopray.workloads.causal_lm import transformer

        torch.manual_seed(seed)
        config = configuration.completed(models.content_of(point.model, point.model_config))
        batch, tokens = point.shape().values()
        sizes = agreement.agreed_sizes(point.model, point.model_config)
        windows = None if isinstance(sizes, str) else sizes.windows
        attention = transformer.implementation(config, tokens=tokens + 1, windows=windows)
        made: Arguments = {"device": device, "dtype": dtype, "attention": attention}
        if point.weights == "pretrained":
            model = transformer.pretrained_model(point.model, **made)
        else:
            model = transformer.random_model(config, **made)
        if point.routing == "uniform" and not transformer.route_uniformly(model) and transformer.has_experts(model):
            raise Unsupported(f"experts of {config.model_type} take no stated routing: use routing='router'")
        if point.adapter is not None:
            finetuning.add_adapters(model, point.adapter)
        if point.checkpointing:
            transformer.set_checkpointing(model)
        x = torch.randint(config.vocab_size, (batch, tokens), device=device)
        within = transformer.forced(point.attention or "auto")
        module = transformer.loss_module()(model, within)
        gradient = torch.ones((), device=device, dtype=torch.float32)
        return Built(module, x, gradient, transformer.other_phases(model, x, within), with_own_cache)

    def why_not(self, point: Point, capability: tuple[int, int] | None) -> str | None:
        """Kernels of attention that the device, the precision or the family does not have, and too long sequences."""
        reason = why_no_attention(point.attention, point.precision, point.device_type, capability)
        if reason:
            return reason
        from flopray.workloads.causal_lm import transformer

        if point.precision in FP8_SCALING and (reason := _why_no_fp8(point)):
            return reason
        config = configuration.completed(models.content_of(point.model, point.model_config))
        if point.attention != "auto" and not transformer.has_sdpa(config):
            return f"attention of {config.model_type} has no kernel of torch's: use attention='auto'"
        longest, tokens = getattr(config, "max_position_embeddings", None), point.sequence_length
        if longest and not getattr(config, "rope_parameters", None) and tokens + 1 > longest:
            return f"{point.model} has {longest} positions, and {tokens} tokens and one more are asked for"
        return None

    def complete(
        self, axes: Mapping[str, tuple[Any, ...]]
    ) -> tuple[Mapping[str, tuple[Any, ...]], Mapping[str, Mapping[Any, Mapping[str, Any]]]]:
        """Models are found by name, file, folder or hub id; one that is not built in brings its configuration."""
        found, configs = models.find_models(axes["model"], axes["weights"])
        implied = {name: {"model_config": config} for name, config in configs.items()}
        axes = {**axes, "model": found}
        if "adapter" in axes:
            axes["adapter"] = finetuning.checked_adapters(axes["adapter"])
        return axes, {"model": implied} if implied else {}

    def checked(self, values: Mapping[str, Any]) -> Values:
        """The values of all fields, in order; an impossible adapter is refused."""
        fields = super().checked(values)
        if (adapter := fields["adapter"]) == NONE:
            return fields | {"adapter": None}
        if adapter is not None:
            rank_of(adapter)
        return fields

    def overhead_s(self, point: Point, phase: str) -> float:
        """First calls and freeing gigabytes: on H100s and H200s about 1 s for each phase."""
        del phase
        return _PHASE_S["CPU" if point.device_type == "CPU" else "GPU"]

    def count_s(self, point: Point) -> float:
        """Building each layer and counting it twice, on the meta device."""
        config = configuration.completed(models.content_of(point.model, point.model_config))
        return int(getattr(config, "num_hidden_layers", 1)) * _LAYER_S

    def loads_weights(self, point: Point) -> bool:
        """Pretrained ones."""
        return point.weights == "pretrained"


def _agreed(point: Point) -> tuple[Sizes, Lora | None] | str:
    """The sizes of a closed form that was compared with the model, and its adapters; or why there is none."""
    sizes = agreement.agreed_sizes(point.model, point.model_config)
    if isinstance(sizes, str) or point.adapter is None:
        return sizes if isinstance(sizes, str) else (sizes, None)
    lora = agreement.agreed_lora(point.model, point.model_config, point.adapter)
    return lora if isinstance(lora, str) else (sizes, lora)


def _trained(point: Point) -> int:
    """Weights that are trained: those of the model that is built."""
    return agreement.trained_parameters_of(point.model, point.model_config, point.adapter)


def _lora(point: Point) -> Lora | None:
    """The adapters that the configuration states, for bounds."""
    if point.adapter is None:
        return None
    return Lora.of(point.adapter, configuration.completed(models.content_of(point.model, point.model_config)))


def _stated(point: Point) -> Sizes | None:
    """The sizes that the configuration states, for bounds, without building the model."""
    try:
        return models.sizes_of(point.model, point.model_config)
    except NoClosedForm:
        return None


def _why_no_fp8(point: Point) -> str | None:
    """Layers that are not linear, or have widths or numbers of tokens that fp8 cannot have."""
    batch, tokens = point.shape().values()
    reason = agreement.why_no_fp8(point.model, point.model_config)
    return reason or float8.why_not_sizes("sequences x tokens", batch * tokens)


def _count(point: Point) -> agreement.Count:
    batch, tokens = point.shape().values()
    return agreement.count(point.model, point.model_config, batch, tokens, bool(point.checkpointing), point.adapter)


def _components(sizes: Sizes, lora: Lora | None, point: Point, phase: str) -> dict[str, int]:
    batch, tokens = point.shape().values()
    again = bool(point.checkpointing)
    return components(sizes, batch=batch, tokens=tokens, phase=phase, checkpointing=again, lora=lora)
