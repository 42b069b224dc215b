"""Closed-form FLOPs of a Llama, by component: those of `flopray.workloads.causal_lm.flops`, from a Llama's sizes."""

from __future__ import annotations

from functools import lru_cache

from flopray.workloads.causal_lm import flops
from flopray.workloads.causal_lm.sizes import Attention, Layer, Linear, Sizes, rms
from flopray.workloads.llama_config import LlamaConfig

CONVENTION = (
    "2 FLOPs a multiply-add; attention as full squares (causal half apart); elementwise 1 an operation; "
    "recomputation apart; AdamW 16 a parameter"
)
COMPONENTS = tuple(name for name in flops.COMPONENTS if name not in ("expert_flops", "router_flops", "adapter_flops"))
_BESIDE = ("attention_causal_flops", "recomputed_flops")


def components(
    config: LlamaConfig, *, batch: int, tokens: int, phase: str, checkpointing: bool = False
) -> dict[str, int]:
    """FLOPs of one iteration of a phase.

    Args:
        config: the model.
        batch: sequences.
        tokens: length of each; of the prompt for `prefill`, of the cache for `decode`, which makes one token more.
        phase: one of `flopray.records.PHASES`.
        checkpointing: whether the backward pass runs the layers again.

    Returns:
        `COMPONENTS`, whose sum is the phase's model FLOPs, and beside it `attention_causal_flops` (of
        `attention_flops`, what the causal mask leaves) and `recomputed_flops` by checkpointing.
    """
    counts = flops.components(sizes_of(config), batch=batch, tokens=tokens, phase=phase, checkpointing=checkpointing)
    return {name: counts[name] for name in (*COMPONENTS, *_BESIDE)}


@lru_cache(maxsize=64)
def sizes_of(config: LlamaConfig) -> Sizes:
    """A Llama as the sizes of any decoder."""
    d, f = config.hidden_size, config.intermediate_size
    heads, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    attention = Attention(
        projections=(Linear(d, heads), Linear(d, kv), Linear(d, kv), Linear(heads, d)),
        heads=config.n_heads,
        query_width=config.head_dim,
        value_width=config.head_dim,
        cached=2 * kv,
        rotated=heads + kv,
    )
    mlp = (Linear(d, f), Linear(d, f), Linear(f, d))
    layer = Layer(attention, mlp, 2 * f, (rms(d), rms(d)), unrepeated=mlp[-1].flops + d)
    return Sizes(
        width=d, vocabulary=config.vocab_size, layers=(layer,) * config.n_layers, norm=rms(d), tied=config.tied
    )
