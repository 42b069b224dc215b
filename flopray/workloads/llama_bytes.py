"""What a Llama keeps and moves at least, in elements of its precision's type, beside the closed form of its FLOPs.

All are lower bounds. Letters as in `llama_flops`: B T tokens, L layers, width d, H heads of width h, key
and value heads of width kv in all, MLP width f, vocabulary V.

    kept for a backward pass    B T L (2 d + 2 H h + 2 kv + 4 f): inputs of the products (d before attention and MLP,
                                H h after attention, f before the last one), queries, keys and values, and what the gate
                                is made of (3 f). With checkpointing the input of each layer, B T L d
    a cache                     2 B T L kv
    forward                     weights of the products once, what is kept, logits
    backward                    weights and what is kept once, logits; gradients of all weights are written
    AdamW                       7 a weight: it, its gradient and two moments are read, all but the gradient written

Work that fits into a chip's caches moves less through its memory.
"""

from __future__ import annotations

from flopray.workloads.llama_config import LlamaConfig


def cached_elements(config: LlamaConfig, tokens: int) -> int:
    """Keys and values of so many tokens, in all layers."""
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * tokens


def kept_elements(config: LlamaConfig, tokens: int, *, checkpointing: bool) -> int:
    """Activations that a forward pass over so many tokens keeps for its backward pass, at least."""
    if checkpointing:
        return config.n_layers * config.hidden_size * tokens
    heads, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    return config.n_layers * tokens * (2 * config.hidden_size + 2 * heads + 2 * kv + 4 * config.intermediate_size)


def moved_elements(config: LlamaConfig, *, batch: int, tokens: int, phase: str, checkpointing: bool) -> int:
    """Elements that one iteration reads and writes at least.

    Args:
        config: the model.
        batch: sequences.
        tokens: length of each; of the cache for `decode`, which makes one token more.
        phase: one of `flopray.records.PHASES`.
        checkpointing: whether the backward pass runs the layers again.
    """
    new = batch if phase == "decode" else batch * tokens
    weights, logits = config.projected_parameters, new * config.vocab_size
    kept = kept_elements(config, new, checkpointing=checkpointing)
    forward = weights + kept + logits
    backward = weights * (2 if checkpointing else 1) + kept + logits + config.parameters
    optimizer = 7 * config.parameters
    cached = cached_elements(config, batch * tokens)
    return {
        "inference": weights + logits,
        "prefill": weights + cached + batch * config.vocab_size,
        "decode": weights + cached + logits,
        "forward": forward,
        "backward": backward,
        "forward_backward": forward + backward,
        "optimizer_step": optimizer,
        "train_step": forward + backward + optimizer,
    }[phase]
