"""Closed-form FLOPs of a Llama, by component.

Convention: a product of (a, b) by (b, c) is 2abc. B sequences of T tokens, L layers, width d, H heads of width h, key
and value heads of width kv in all, MLP width f, vocabulary V. Forward:

    projections   2 B T L (2 d H h + 2 d kv)        MLP  2 B T L 3 d f        output projection  2 B T d V
    attention     4 L B H h T^2, the full square of scores and of their products with the values; a causal mask leaves
                  (T + 1) / 2T of it, which `attention_causal_flops` is
    elementwise   norms 4 d a token (square, mean, scale, weight) and softmax 5 a score, rotary 3 an element of queries
                  and keys, SwiGLU 2 f and residuals 2 d a token and layer, loss 4 a logit

Backward is twice forward for every component but the embedding, whose gradient is one addition a token and feature. The
formulas for products and attention are those of PaLM's appendix B (https://arxiv.org/abs/2204.02311); the optimizer is
AdamW as in `flopray.workloads.mlp`. What gradient checkpointing runs again is no model FLOP and stands in
`recomputed_flops` (torch ends a layer's second run at the last number that is needed). Flash attention also forms the
scores again in its backward pass, 2 L B H h T^2: neither counts it.
"""

from __future__ import annotations

from flopray.workloads.base import ADAMW_FLOPS
from flopray.workloads.llama_config import LlamaConfig

CONVENTION = (
    "2 FLOPs a multiply-add; attention as full squares (causal half apart); elementwise 1 an operation; "
    "recomputation apart; AdamW 16 a parameter"
)
COMPONENTS = (
    *("projection_flops", "attention_flops", "mlp_flops", "norm_flops", "elementwise_flops"),
    *("embedding_flops", "lm_head_flops", "loss_flops", "optimizer_flops"),
)
_NO_LOSS = ("inference", "prefill", "decode")


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
    forward = _forward(config, batch, tokens, phase)
    backward = {name: 2 * count for name, count in forward.items()}
    backward["embedding_flops"] = batch * tokens * config.hidden_size
    optimizer = dict.fromkeys(forward, 0) | {"optimizer_flops": ADAMW_FLOPS * config.parameters}
    parts = {
        "backward": (backward,),
        "forward_backward": (forward, backward),
        "optimizer_step": (optimizer,),
        "train_step": (forward, backward, optimizer),
    }.get(phase, (forward,))
    total = {name: sum(part[name] for part in parts) for name in forward}
    again = checkpointing and phase in ("backward", "forward_backward", "train_step")
    return total | {"recomputed_flops": _again(config, forward, batch * tokens) if again else 0}


def _again(config: LlamaConfig, forward: dict[str, int], new: int) -> int:
    """A layer runs again up to the last number that its backward pass needs: all but its last product and addition."""
    layers = ("projection_flops", "attention_flops", "mlp_flops", "norm_flops", "elementwise_flops")
    last = config.n_layers * new * (2 * config.intermediate_size * config.hidden_size + config.hidden_size)
    return sum(forward[name] for name in layers) - last


def _forward(config: LlamaConfig, batch: int, tokens: int, phase: str) -> dict[str, int]:
    """One forward pass; `decode` makes one token of each sequence and looks back on all others."""
    new = batch if phase == "decode" else batch * tokens
    # For each new token the keys it could see, and those a causal mask lets it see.
    seen = tokens + 1 if phase == "decode" else tokens
    pairs = new * seen
    visible = pairs if phase == "decode" else batch * tokens * (tokens + 1) // 2
    logits = batch if phase in ("prefill", "decode") else new  # generating needs those of the last token alone
    d, layers, f = config.hidden_size, config.n_layers, config.intermediate_size
    heads, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    softmax = 5 * layers * config.n_heads * pairs
    return {
        "projection_flops": 2 * new * layers * (2 * d * heads + 2 * d * kv),
        "attention_flops": 4 * layers * heads * pairs,
        "mlp_flops": 2 * new * layers * 3 * d * f,
        "norm_flops": 4 * d * (2 * layers + 1) * new + softmax,
        "elementwise_flops": new * layers * (3 * (heads + kv) + 2 * f + 2 * d),
        "embedding_flops": 0,
        "lm_head_flops": 2 * logits * d * config.vocab_size,
        "loss_flops": 0 if phase in _NO_LOSS else 4 * new * config.vocab_size,
        "optimizer_flops": 0,
        "attention_causal_flops": 4 * layers * heads * visible,
    }
