"""Closed-form FLOPs of a decoder, by component, from its sizes.

Convention: a product of (a, b) by (b, c) is 2abc. Forward, for B sequences of T tokens:

    projections   2 x inputs x outputs of each matrix of attention, for each token; the same for the MLP, for the
                  experts that a token is sent to (and those shared by all), the router, and the output projection;
                  where a cache keeps latent vectors, decode makes keys and values of all of them
    attention     2 B T^2 heads (width of a query + width of a value), the full square of scores and of their products
                  with the values; a causal mask leaves (T + 1) / 2T of it and a window less: `attention_causal_flops`
    elementwise   norms 4 an element (square, mean, scale, weight), layer norms 7; softmax 5 a score; caps 3 an element;
                  numbers added to scores 1;
                  rotary 3 an element that is rotated; functions and gates 1 an element each; biases and residuals 1;
                  numbers that embedded tokens, residuals or logits are multiplied by 1; what an expert gives, weighted
                  and summed, 2; softmax of the router 5 an expert; loss 4 a logit
    embedding     a look-up, no product

Backward is twice forward for every component but the embedding, whose gradient is one addition a token and feature. The
formulas for products and attention are those of PaLM's appendix B (https://arxiv.org/abs/2204.02311); the optimizer is
AdamW on every weight, also of experts that no token went to; what adapters change is in `causal_lm.adapter`. What
gradient checkpointing runs again does not count as model FLOPs; `recomputed_flops` has it. Flash attention also forms
the
scores again in its backward pass: neither counts it.
"""

from __future__ import annotations

from collections import Counter

from flopray.workloads.base import ADAMW_FLOPS
from flopray.workloads.causal_lm.adapter import Lora
from flopray.workloads.causal_lm.sizes import Attention, Experts, Layer, Sizes, total

CONVENTION = (
    "2 FLOPs a multiply-add; attention as full squares (causal and windowed part apart); active experts; "
    "elementwise 1 an operation; recomputation apart; AdamW 16 a parameter"
)
#: Components that are products with weights.
PRODUCTS = ("projection_flops", "mlp_flops", "expert_flops", "router_flops", "lm_head_flops", "adapter_flops")
COMPONENTS = (
    *("projection_flops", "attention_flops", "mlp_flops", "expert_flops", "router_flops", "norm_flops"),
    *("elementwise_flops", "embedding_flops", "lm_head_flops", "loss_flops", "adapter_flops", "optimizer_flops"),
)
_NO_LOSS = ("inference", "prefill", "decode")
_AGAIN = ("backward", "forward_backward", "train_step")


def components(
    sizes: Sizes, *, batch: int, tokens: int, phase: str, checkpointing: bool = False, lora: Lora | None = None
) -> dict[str, int]:
    """FLOPs of one iteration of a phase.

    Args:
        sizes: of the model.
        batch: sequences.
        tokens: length of each; of the prompt for `prefill`, of the cache for `decode`, which makes one token more.
        phase: one of `flopray.records.PHASES`.
        checkpointing: whether the backward pass runs the layers again.
        lora: the adapters that are trained instead of the model; None where there are none.

    Returns:
        `COMPONENTS`, whose sum is the phase's model FLOPs, and beside it `attention_causal_flops` (of
        `attention_flops`, what masks leave) and `recomputed_flops` by checkpointing.
    """
    inside = _layers(sizes, batch, tokens, phase, lora)
    forward = _with_ends(sizes, inside, batch, tokens, phase)
    backward = {name: 2 * count for name, count in forward.items()}
    backward["embedding_flops"] = batch * tokens * sizes.width * (2 if sizes.positions else 1)
    trained = sizes.parameters
    if lora is not None:
        trained = lora.parameters(sizes)
        frozen = lora.frozen_input_gradients(sizes, forward, batch * tokens)
        backward |= {name: frozen[name] for name in PRODUCTS}
        backward |= {"adapter_flops": lora.backward_flops(sizes, batch * tokens), "embedding_flops": 0}
    optimizer = dict.fromkeys(forward, 0) | {"optimizer_flops": ADAMW_FLOPS * trained}
    parts = {
        "backward": (backward,),
        "forward_backward": (forward, backward),
        "optimizer_step": (optimizer,),
        "train_step": (forward, backward, optimizer),
    }.get(phase, (forward,))
    summed = {name: sum(part[name] for part in parts) for name in forward}
    again = 0
    if checkpointing and phase in _AGAIN:
        ends = {layer: lora.unrepeated(layer) if lora else layer.unrepeated for layer, _ in sizes.kinds}
        last = sum(ends[layer] * count for layer, count in sizes.kinds) * batch * tokens
        again = sum(count for name, count in inside.items() if name != "attention_causal_flops") - last
    return summed | {"recomputed_flops": again}


def _with_ends(sizes: Sizes, inside: dict[str, int], batch: int, tokens: int, phase: str) -> dict[str, int]:
    """A forward pass: the layers, and what comes before and after them."""
    new = batch if phase == "decode" else batch * tokens
    logits = batch if phase in ("prefill", "decode") else new  # generating needs the logits of the last token alone
    counts = Counter(inside)
    counts["norm_flops"] += sum(norm.each * norm.elements for norm in sizes.end_norms) * new
    embedded = sizes.width * (bool(sizes.positions) + sizes.scaled_embedding)
    behind = sizes.vocabulary * (3 * sizes.softcapped + sizes.scaled_logits + sizes.head_bias)
    counts["elementwise_flops"] += embedded * new + behind * logits
    counts["lm_head_flops"] = sizes.head.flops * logits
    counts["loss_flops"] = 0 if phase in _NO_LOSS else 4 * new * sizes.vocabulary
    return {name: counts[name] for name in (*COMPONENTS, "attention_causal_flops")}


def _layers(sizes: Sizes, batch: int, tokens: int, phase: str, lora: Lora | None) -> dict[str, int]:
    """One forward pass of the layers; `decode` makes one token of each sequence and looks back on all others."""
    counts: Counter[str] = Counter()
    for layer, number in sizes.kinds:
        for name, count in _layer(layer, sizes.width, batch, tokens, phase).items():
            counts[name] += number * count
        if lora is not None:
            new, cached = (batch, batch * tokens) if phase == "decode" else (batch * tokens, 0)
            counts["adapter_flops"] += number * lora.forward_flops(layer, new, cached)
            counts["elementwise_flops"] += number * new * lora.elements(layer)
    return dict(counts)


def _layer(layer: Layer, width: int, batch: int, tokens: int, phase: str) -> dict[str, int]:
    new = batch if phase == "decode" else batch * tokens
    attention, experts = layer.attention, layer.experts
    formed, visible = pairs(attention, batch, tokens, phase)
    norms = sum(norm.each * norm.elements for norm in (*layer.norms, *attention.norms))
    biases = sum(one.elements for one in (*attention.projections, *layer.mlp))
    elements = 3 * attention.rotated + layer.activated + layer.residual * width + biases
    elements += _expert_elements(experts, width) if experts else 0
    scores = attention.heads * formed
    cached = batch * tokens * attention.expanded.flops if attention.expanded and phase == "decode" else 0
    return {
        "projection_flops": new * total(attention.projections) + cached,
        "attention_flops": formed * attention.pair_flops,
        "attention_causal_flops": visible * attention.pair_flops,
        "mlp_flops": new * total(layer.mlp),
        "expert_flops": new * experts.active * total(experts.each) if experts else 0,
        "router_flops": new * total(experts.router) if experts else 0,
        "norm_flops": new * norms + 5 * scores,
        "elementwise_flops": new * elements + scores * (3 * attention.softcapped + attention.alibi),
    }


def _expert_elements(experts: Experts, width: int) -> int:
    """Elementwise FLOPs of experts and router for one token."""
    each = experts.activated + sum(one.elements for one in experts.each) + 2 * width
    return experts.active * each + 5 * experts.count + sum(one.elements for one in experts.router)


def pairs(attention: Attention, batch: int, tokens: int, phase: str) -> tuple[int, int]:
    """Pairs of a query and a key: those that are formed, and those that masks leave.

    Args:
        attention: of a layer.
        batch: sequences.
        tokens: of each; of the cache for `decode`.
        phase: one of `flopray.records.PHASES`.
    """
    window = attention.window or tokens + 1
    if phase == "decode":  # a cache keeps the tokens of its window, and no more
        kept = batch * min(tokens + 1, window)
        return kept, kept
    # The first tokens see fewer than a window of keys.
    first = min(tokens, window)
    return batch * tokens**2, batch * (first * (first + 1) // 2 + (tokens - first) * window)
