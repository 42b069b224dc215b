"""What a decoder keeps and moves at least, in elements of its precision's type, beside the closed form of its FLOPs.

All are lower bounds, for one token unless a number of tokens is said:

    kept for a backward pass    what products with weights and attention take in, and what gates are made of; with
                                checkpointing the input of each layer
    a cache                     keys and values; of a layer with a window, those of the window
    forward                     weights of the products once (of experts, those that get a token), what is kept, logits
    backward                    weights and what is kept once, logits; gradients of all weights are written
    AdamW                       7 a weight: it, its gradient and two moments are read, all but the gradient written

With adapters, gradients and moments are of the adapters alone.

Work that fits into a chip's caches moves less through its memory.
"""

from __future__ import annotations

from flopray.workloads.causal_lm.adapter import Lora
from flopray.workloads.causal_lm.sizes import Layer, Linear, Sizes


def cached_elements(sizes: Sizes, batch: int, tokens: int) -> int:
    """Keys and values of sequences of this many tokens, in all layers."""
    held = 0
    for layer, number in sizes.kinds:
        window = layer.attention.window
        held += number * layer.attention.cached * (tokens if window is None else min(tokens, window - 1))
    return batch * held


def kept_elements(sizes: Sizes, tokens: int, *, checkpointing: bool, lora: Lora | None = None) -> int:
    """Activations that a forward pass over this many tokens keeps for its backward pass, at least."""
    if checkpointing:
        return len(sizes.layers) * sizes.width * tokens
    kept = sum(number * _kept(layer, sizes.width) for layer, number in sizes.kinds)
    if lora is not None:  # a frozen product needs no input again, unless an adapter reads it
        routed = ((layer.experts, number) for layer, number in sizes.kinds if layer.experts)
        kept -= sum(number * experts.active * experts.each[-1].inputs for experts, number in routed)
    return tokens * kept


def _kept(layer: Layer, width: int) -> int:
    """Inputs of attention and MLP, queries, keys, values, the output of attention, and the inside of the MLP."""
    attention, experts = layer.attention, layer.experts
    queries = attention.heads * (attention.query_width + attention.value_width)
    routed = experts.active * _inside(experts.each) if experts else 0
    return 2 * width + queries + attention.cached + _inside(layer.mlp) + routed


def _inside(mlp: tuple[Linear, ...]) -> int:
    """What an MLP keeps besides its input: results of its first products, functions of them, the last one's input."""
    if not mlp:
        return 0
    gated = mlp[-1].inputs if len(mlp) == 3 else 0
    return sum(one.outputs for one in mlp[:-1]) + gated + mlp[-1].inputs


def projected_parameters(sizes: Sizes, tokens: int) -> int:
    """Weights of all products with weights; of the experts, as many as this many tokens reach when routed uniformly."""
    weights = sizes.head.inputs * sizes.head.outputs
    for layer, number in sizes.kinds:
        experts = layer.experts
        outside = (*layer.attention.projections, *layer.mlp, *(experts.router if experts else ()))
        weights += number * sum(one.inputs * one.outputs for one in outside)
        if experts:
            reached = min(experts.count, tokens * experts.active)
            weights += number * reached * sum(one.inputs * one.outputs for one in experts.each)
    return weights


def moved_elements(
    sizes: Sizes, *, batch: int, tokens: int, phase: str, checkpointing: bool, lora: Lora | None = None
) -> int:
    """Elements that one iteration reads and writes at least.

    Args:
        sizes: of the model.
        batch: sequences.
        tokens: length of each; of the cache for `decode`, which makes one token more.
        phase: one of `flopray.records.PHASES`.
        checkpointing: whether the backward pass runs the layers again.
        lora: the adapters that are trained instead of the model; None where there are none.
    """
    new = batch if phase == "decode" else batch * tokens
    weights, logits = projected_parameters(sizes, new), new * sizes.vocabulary
    kept = kept_elements(sizes, new, checkpointing=checkpointing, lora=lora)
    trained, unread = sizes.parameters, 0
    if lora is not None:
        trained, unread = lora.parameters(sizes), lora.unread(sizes)
        weights += trained
    forward = weights + kept + logits
    backward = weights * (2 if checkpointing else 1) - unread + kept + logits + trained
    optimizer = 7 * trained
    cached = cached_elements(sizes, batch, tokens)
    return {
        "inference": weights + logits,
        "prefill": weights + cached + batch * sizes.vocabulary,
        "decode": weights + cached + logits,
        "forward": forward,
        "backward": backward,
        "forward_backward": forward + backward,
        "optimizer_step": optimizer,
        "train_step": forward + backward + optimizer,
    }[phase]
