"""What adapters change: LoRA, by its closed form.

LoRA (https://arxiv.org/abs/2106.09685) freezes all weights `W` of a model and adds to linear layers a product of two
narrow matrices, `y = x W^T + s (x A^T) B^T`, of which `A` (rank x inputs) and `B` (outputs x rank) are trained. Adapted
are all linear layers of attention and of MLPs, shared experts included; routed experts, routers and the output
projection have no adapter and are frozen. The differences from full training, for one token:

    forward     2 rank (inputs + outputs) more for each adapted layer; elementwise 2 an output (scale, sum)
    backward    twice that for the adapters (gradients of A and B, and of their inputs); of frozen products only the
                gradient of their input, as much as forward; attention as before
    optimizer   AdamW on A and B alone

The first layer reads embeddings that are not trained: what comes before any adapter needs no gradient of its input. So
its queries, keys and values have no backward pass except for their adapters' weights, and `A` gets no gradient of its
input. Norms and elementwise operations count twice forward as in full training, though frozen norms have no gradients
of weights; embeddings have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flopray.errors import SpecError
from flopray.workloads.causal_lm.sizes import Attention, Layer, Linear, Sizes, total

#: The word for no adapter: all weights are trained.
NONE = "none"
#: Name of an adapter, such as `lora:16`.
_WORD = re.compile(r"lora:([1-9]\d{0,4})")
#: Families that write queries, keys and values as one matrix, and gate and value, where their sizes tell them apart.
_FUSED_ATTENTION = frozenset({"phi3"})
_FUSED_MLP = frozenset({"phi3", "glm", "glm4", "granitemoehybrid"})
#: Families whose MLP reads what attention reads, whatever their configuration says.
_PARALLEL = frozenset({"phi", "cohere", "cohere2", "gptj", "codegen"})


def rank_of(word: str) -> int:
    """The rank of an adapter's name.

    Example:
        >>> rank_of("lora:16")
        16

    Raises:
        SpecError: it names none.
    """
    found = _WORD.fullmatch(word)
    if found is None:
        raise SpecError(f"unknown adapter {word!r:.60}: write none or lora:RANK, such as lora:16")
    return int(found[1])


@dataclass(frozen=True)
class Lora:
    """Adapters of a rank, and how the family writes the layers that have them.

    Attributes:
        rank: columns of `B` and rows of `A`.
        fused_attention: whether queries, keys and values are one matrix.
        fused_mlp: whether gate and value are one matrix.
        parallel: whether the MLP reads what attention reads.
    """

    rank: int
    fused_attention: bool = False
    fused_mlp: bool = False
    parallel: bool = False

    @classmethod
    def of(cls, word: str, config: Any) -> Lora:
        """The adapters of a name in a model.

        Args:
            word: such as `lora:16`.
            config: of transformers.

        Raises:
            SpecError: it names none.
        """
        kind = config.model_type
        parallel = kind in _PARALLEL or any(
            getattr(config, key, False) for key in ("use_parallel_residual", "parallel_attn")
        )
        return cls(rank_of(word), kind in _FUSED_ATTENTION, kind in _FUSED_MLP, parallel)

    # sizes

    def parameters(self, sizes: Sizes) -> int:
        """Weights of all adapters: those that are trained."""
        return self._over_layers(sizes, lambda layer: sum(self._weights(one) for one in self._adapted(layer)))

    def frozen_input_gradients(self, sizes: Sizes, counts: dict[str, int], tokens: int) -> dict[str, int]:
        """FLOPs of the backward pass by component of products that are frozen: gradients of their inputs.

        Args:
            sizes: of the model.
            counts: of the forward pass, by component.
            tokens: that go through each layer.
        """
        first = sizes.layers[0]
        return counts | {
            "projection_flops": counts["projection_flops"] - tokens * total(_readers(first.attention)),
            "mlp_flops": counts["mlp_flops"] - tokens * total(first.mlp[:-1] if self.parallel else ()),
        }

    def unread(self, sizes: Sizes) -> int:
        """Weights that a backward pass does not read: the gradient of what they multiply is not needed."""
        first = sizes.layers[0]
        ungraded = (*_readers(first.attention), *(first.mlp[:-1] if self.parallel else ()))
        frozen = sum(one.inputs * one.outputs for one in ungraded)
        return frozen + self.rank * sum(one.inputs for one in self._ungraded(first))

    def forward_flops(self, layer: Layer, tokens: int, cached: int) -> int:
        """FLOPs of the adapters' products in a layer.

        Args:
            layer: the layer.
            tokens: that go through it.
            cached: further tokens whose keys and values are made again, where a cache keeps latent vectors.
        """
        again = layer.attention.expanded
        return 2 * tokens * sum(map(self._weights, self._adapted(layer))) + (
            2 * cached * self._weights(again) if again else 0
        )

    def backward_flops(self, sizes: Sizes, tokens: int) -> int:
        """FLOPs of the adapters' products in a backward pass."""
        both = 2 * self._over_layers(sizes, lambda layer: self.forward_flops(layer, tokens, 0))
        return both - 2 * tokens * self.rank * sum(one.inputs for one in self._ungraded(sizes.layers[0]))

    def elements(self, layer: Layer) -> int:
        """Elementwise FLOPs of the adapters of a layer for one token: they are scaled and added."""
        return 2 * sum(one.outputs for one in self._adapted(layer))

    def unrepeated(self, layer: Layer) -> int:
        """FLOPs of one token at a layer's end that checkpointing does not run again.

        Where a layer ends with a product that is adapted, this product comes first and is run again; of its adapter the
        second product and what follows are not.
        """
        last = layer.mlp[-1] if layer.mlp else None
        if last is None or layer.unrepeated < last.flops:
            return layer.unrepeated
        return layer.unrepeated - last.flops - last.elements + 2 * self.rank * last.outputs + 2 * last.outputs

    def _adapted(self, layer: Layer) -> Iterator[Linear]:
        projections = layer.attention.projections
        yield from self._fused(projections[:-1], self.fused_attention)
        yield projections[-1]
        yield from self._fused(layer.mlp[:-1], self.fused_mlp)
        yield from layer.mlp[-1:]

    def _ungraded(self, first: Layer) -> Iterator[Linear]:
        """Adapted layers of the first layer whose input needs no gradient."""
        yield from self._fused(_readers(first.attention), self.fused_attention)
        if self.parallel:
            yield from self._fused(first.mlp[:-1], self.fused_mlp)

    def _fused(self, linears: tuple[Linear, ...], fused: bool) -> tuple[Linear, ...]:
        if not fused or not linears:
            return linears
        return (Linear(linears[0].inputs, sum(one.outputs for one in linears)),)

    def _weights(self, one: Linear) -> int:
        return self.rank * (one.inputs + one.outputs)

    def _over_layers(self, sizes: Sizes, of: Callable[[Layer], int]) -> int:
        return sum(number * of(layer) for layer, number in sizes.kinds)


def _readers(attention: Attention) -> tuple[Linear, ...]:
    """Projections that read what attention reads: not the last one, nor those of latent vectors."""
    projections = attention.projections
    if attention.expanded is None:
        return projections[:-1]
    return projections[0], projections[projections.index(attention.expanded) - 1]
