"""The parts of a decoder on which its FLOPs and bytes depend; every family of models is described by them.

A model is an embedding, layers of attention and an MLP, a last norm and an output projection. A layer may attend to a
window only, and its MLP may be one of several experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

#: FLOPs of a norm for one element. RMS: square, mean, scale, weight. Layer: mean, subtract, square, mean, scale,
#: weight, bias.
RMS_FLOPS, LAYER_FLOPS = 4, 7


class NoClosedForm(Exception):
    """A configuration without a closed form; the message is the reason, in one line."""


class OtherwiseBuilt(NoClosedForm):
    """A key has another value than the one that the family is built with.

    Attributes:
        key: of the configuration.
        said: the value that it has, and the one that is built.
    """

    def __init__(self, key: str, stated: object, kind: str, built: object) -> None:
        super().__init__(f"no closed form: {key} is {stated!r:.40}, and {kind} is built with {built!r}")
        self.key = key
        self.said = f"{key} is {stated!r:.40}, and a {kind} of transformers is built with {built!r}"


@dataclass(frozen=True)
class Linear:
    """A product of each token with a matrix.

    Attributes:
        inputs: width of a token before the product.
        outputs: width after it.
        bias: whether one is added.
    """

    inputs: int
    outputs: int
    bias: bool = False

    @property
    def flops(self) -> int:
        """Of the product, for one token."""
        return 2 * self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return (self.inputs + self.bias) * self.outputs

    @property
    def elements(self) -> int:
        """Elements that a bias is added to, for one token."""
        return self.bias * self.outputs


@dataclass(frozen=True)
class Norm:
    """A normalisation.

    Attributes:
        elements: of one token.
        weights: that it has, biases included.
        each: FLOPs for one element.
    """

    elements: int
    weights: int
    each: int = RMS_FLOPS


def rms(width: int, *, heads: int = 1) -> Norm:
    """Over a width, with one weight an element; over several heads that share their weights."""
    return Norm(width * heads, width)


def layer_norm(width: int, *, weights: int = 2) -> Norm:
    """Over a width, with a weight and a bias an element, or fewer."""
    return Norm(width, weights * width, LAYER_FLOPS)


@dataclass(frozen=True)
class Attention:
    """Attention of one layer.

    Attributes:
        projections: products with weights, in all.
        heads: query heads.
        query_width: of a head's queries and keys.
        value_width: of a head's values.
        cached: elements of keys and values that one token leaves in the cache.
        rotated: elements of queries and keys that are rotated, for one token.
        norms: of queries, keys or latent vectors.
        expanded: of the projections, the product that every cached token goes through too, since the cache keeps its
            input.
        window: tokens that a token attends to, itself included; None where it attends to all before it.
        sinks: further weights, one a head.
        softcapped: whether scores are capped by a tanh.
        alibi: whether a number by distance is added to each score.
    """

    projections: tuple[Linear, ...]
    heads: int
    query_width: int
    value_width: int
    cached: int
    rotated: int
    norms: tuple[Norm, ...] = ()
    expanded: Linear | None = None
    window: int | None = None
    sinks: int = 0
    softcapped: bool = False
    alibi: bool = False

    @property
    def pair_flops(self) -> int:
        """Products of one query with one key, and of the score with the value, in all heads."""
        return 2 * self.heads * (self.query_width + self.value_width)


@dataclass(frozen=True)
class Experts:
    """MLPs, some of which a router chooses for each token.

    Attributes:
        count: of experts.
        active: experts that a token goes through.
        each: products of one of them.
        router: products that choose, gates of shared experts included.
        activated: operations of functions and gates of one expert for one token.
    """

    count: int
    active: int
    each: tuple[Linear, ...]
    router: tuple[Linear, ...]
    activated: int


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        attention: of it.
        mlp: products that every token goes through, shared experts included.
        activated: operations of functions and gates of `mlp` for one token.
        experts: None where there are none.
        norms: of the layer, those of attention apart.
        residual: operations for an element of a token: outputs of attention and MLP are added, in some families after a
            multiplication.
        unrepeated: FLOPs of one token at the layer's end whose result no backward pass needs, so that checkpointing
            does not run them again.
        learned: further weights, such as those of a function that is learned.
    """

    attention: Attention
    mlp: tuple[Linear, ...]
    activated: int
    norms: tuple[Norm, ...]
    experts: Experts | None = None
    residual: int = 2
    unrepeated: int = 0
    learned: int = 0

    @property
    def linears(self) -> tuple[Linear, ...]:
        """All products with weights, each expert's once."""
        experts = self.experts
        routed = (*experts.router, *experts.each * experts.count) if experts else ()
        return (*self.attention.projections, *self.mlp, *routed)

    @cached_property
    def parameters(self) -> int:
        """Weights."""
        norms = sum(norm.weights for norm in (*self.norms, *self.attention.norms))
        return sum(one.parameters for one in self.linears) + norms + self.attention.sinks + self.learned

    @property
    def inactive_parameters(self) -> int:
        """Weights of the experts that a token does not go through."""
        experts = self.experts
        return (experts.count - experts.active) * sum(one.parameters for one in experts.each) if experts else 0


@dataclass(frozen=True)
class Sizes:
    """A decoder.

    Attributes:
        width: of a token between layers.
        vocabulary: tokens.
        layers: in order.
        norm: the last one.
        tied: whether the embedding is the output projection.
        positions: rows of learned positions; 0 where there are none.
        head_bias: whether the output projection has one.
        scaled_embedding: whether embedded tokens are multiplied by a number.
        softcapped: whether logits are capped by a tanh.
        scaled_logits: whether logits are multiplied by a number.
        embedded_norm: of embedded tokens; None where there is none.
        wide: whether queries and keys are rotated, and norms multiplied by their weights, in fp32 at any precision.
    """

    width: int
    vocabulary: int
    layers: tuple[Layer, ...]
    norm: Norm
    tied: bool
    positions: int = 0
    head_bias: bool = False
    scaled_embedding: bool = False
    softcapped: bool = False
    scaled_logits: bool = False
    embedded_norm: Norm | None = None
    wide: bool = False

    @property
    def end_norms(self) -> tuple[Norm, ...]:
        """Norms outside of the layers."""
        return (self.norm, self.embedded_norm) if self.embedded_norm else (self.norm,)

    @cached_property
    def kinds(self) -> tuple[tuple[Layer, int], ...]:
        """Layers that differ, with their numbers."""
        return tuple(Counter(self.layers).items())

    @property
    def head(self) -> Linear:
        """The output projection."""
        return Linear(self.width, self.vocabulary, self.head_bias)

    @property
    def embedded(self) -> int:
        """Weights of embeddings that are no output projection."""
        return self.width * (self.positions + (0 if self.tied else self.vocabulary))

    @cached_property
    def parameters(self) -> int:
        """All weights, a tied matrix once."""
        layers = sum(layer.parameters * count for layer, count in self.kinds)
        return layers + sum(norm.weights for norm in self.end_norms) + self.head.parameters + self.embedded

    @cached_property
    def active_parameters(self) -> int:
        """Weights that one token goes through: of the experts, those chosen for it."""
        return self.parameters - sum(layer.inactive_parameters * count for layer, count in self.kinds)

    @cached_property
    def windows(self) -> tuple[int | None, ...]:
        """Of each layer."""
        return tuple(layer.attention.window for layer in self.layers)


def total(linears: Iterable[Linear]) -> int:
    """FLOPs of several products for one token."""
    return sum(one.flops for one in linears)
