"""Terms of executed FLOPs of the MLP: one column of numbers for each term of a formula.

A matrix product of (a, k) by (k, b) is computed in tiles. A library that works in tiles of (A, B) and depth K executes

    2 ceil(a/A) A  ceil(b/B) B  ceil(k/K) K

FLOPs, even if only a part of a tile is needed
(https://docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication/, "tile quantization"). In
addition, each number of the output takes some work when a tile is written, and a product whose depth is split over the
chip takes a constant amount, because the number of parts is chosen to fill the chip.

All layers of the MLP have one shape, so a phase repeats a few kinds of products: n times forward, n - 1 times for the
gradients of inputs (the first input needs none), n times for those of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flopray.report.plot.scales import Array

#: The parts of the executed FLOPs that are fitted, each from columns of its own.
PARTS = ("gemm", "reduction", "rest")
#: Tiles of an output (d, m), those of cuBLAS among powers of two; (1, 1) is a product without padding.
_WIDE_TILES = (
    (1, 1, 1),
    (64, 32, 1),
    (64, 64, 1),
    (128, 64, 1),
    (128, 128, 1),
    (128, 256, 1),
    (256, 64, 1),
    (256, 128, 1),
)
#: Tiles of a gradient of weights, output (d, d) and depth m.
_DEEP_TILES = ((1, 1, 1), (128, 128, 8), (128, 128, 16), (128, 128, 32), (128, 128, 64), (128, 128, 128))


@dataclass(frozen=True)
class Term:
    """One term of the formula.

    Attributes:
        text: as a person reads it, such as `n 2⌈d/64⌉64⌈m/32⌉32 d`.
        values: its number for layers n, widths d and tokens m, arrays of one shape (P,), as an array (P,).
    """

    text: str
    values: Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class _Product:
    """A kind of product in a phase: how often it is done, and the names of its sides a, b and depth k."""

    less: int
    sides: tuple[str, str, str]
    tiles: tuple[tuple[int, int, int], ...]

    @property
    def times(self) -> str:
        return f"(n−{self.less})" if self.less else "n"

    def count(self, n: Array) -> Array:
        return n - self.less

    def output(self) -> str:
        return "d m" if self.sides[1] == "m" else "d²"


_FORWARD = _Product(0, ("d", "m", "d"), _WIDE_TILES)
_INPUT_GRADIENT = _Product(1, ("d", "m", "d"), _WIDE_TILES)
_WEIGHT_GRADIENT = _Product(0, ("d", "d", "m"), _DEEP_TILES)
_BOTH = (_FORWARD, _INPUT_GRADIENT, _WEIGHT_GRADIENT)
_PRODUCTS: dict[str, tuple[_Product, ...]] = {
    "inference": (_FORWARD,),
    "forward": (_FORWARD,),
    "backward": (_INPUT_GRADIENT, _WEIGHT_GRADIENT),
    "forward_backward": _BOTH,
    "train_step": _BOTH,
    "optimizer_step": (),
}


def terms(phase: str, part: str) -> list[Term]:
    """The terms of one part of a phase.

    Args:
        phase: one of `flopray.records.PHASES`.
        part: one of `PARTS`.

    Returns:
        Terms with values of zero or more; empty where the phase has no such part.
    """
    products = _PRODUCTS[phase]
    if part == "gemm":
        return [term for p in products for term in (*_tiled(p), _output(p), _constant(p))]
    if part == "reduction":
        once = [Term("d m", lambda _n, d, m: d * m)] if products else []  # a loss or a sum at the end of a pass
        return [term for p in products for term in (_output(p), _constant(p))] + once
    rest = [Term("n d m", lambda n, d, m: n * d * m)] if products else []
    if phase in ("optimizer_step", "train_step"):
        rest.append(Term("n d²", lambda n, d, _m: n * d * d))
    return rest


def rounded_up(values: Array, tile: int) -> Array:
    """Values rounded up to multiples of a tile."""
    return np.ceil(values / tile) * tile


def _tiled(product: _Product) -> list[Term]:
    return [_tile_term(product, tile) for tile in product.tiles]


def _tile_term(product: _Product, tile: tuple[int, int, int]) -> Term:
    def values(n: Array, d: Array, m: Array) -> Array:
        a, b, k = ({"d": d, "m": m}[side] for side in product.sides)
        rounded = [rounded_up(length, size) for length, size in zip((a, b, k), tile, strict=True)]
        return product.count(n) * 2.0 * rounded[0] * rounded[1] * rounded[2]

    if tile == (1, 1, 1):
        return Term(f"{product.times} 2 d² m", values)
    sides = [side if size == 1 else f"⌈{side}/{size}⌉{size}" for side, size in zip(product.sides, tile, strict=True)]
    return Term(f"{product.times} 2 {' '.join(sides)}", values)


def _output(product: _Product) -> Term:
    name = product.output()
    square = name == "d²"
    return Term(f"{product.times} {name}", lambda n, d, m: product.count(n) * d * (d if square else m))


def _constant(product: _Product) -> Term:
    return Term(product.times, lambda n, d, _m: product.count(n) * np.ones_like(d))
