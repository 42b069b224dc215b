"""Which kernel a library runs for a product: tile, split of the inner dimension, and whether a reduction follows.

A library does not always choose the fastest kernel, and its choice decides whether a product takes 4 or 8 us. Hardware
counters (`--instruments counters`) show it, once for a shape and for any number of layers; they give no time and no
energy. For a shape that was not counted, a library is taken to choose well: the kernel of `CANDIDATES` that is the
fastest by the model of time (`flopray.predict.roofline`), whose constants are fitted with that choice. The kernel of
the nearest counted shape is no better guess (docs/results/prediction.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from flopray.predict.work import NoWork, work_of_row
from flopray.workloads.operations import Product

#: Tile of the output in the names of cuBLAS' kernels. The library's matrices are column-major, so it computes our
#: product transposed, and most names have its rows first, which are our columns. Those of xmma have our rows first:
#: where a tile does not divide an edge, what counted kernels executed is the FLOPs of whole tiles in that order alone.
_TILES = tuple(
    re.compile(pattern)
    for pattern in (
        r"xmma_gemm_\w*tilesize(?P<rows>\d+)x(?P<columns>\d+)x",
        r"gemm_(?P<columns>\d+)x(?P<rows>\d+)_",
        r"nvjet_sm\d+_\w*?_(?P<columns>\d+)x(?P<rows>\d+)_",
    )
)
#: Precisions that share kernels: what is not counted at one is taken from another.
_ALIKE = {"fp16": "bf16", "bf16": "fp16"}


class Choice(msgspec.Struct, frozen=True, array_like=True):
    """One kernel, as a product runs it.

    Attributes:
        tile_rows, tile_columns: of the output that a block computes.
        splits: parts of the inner dimension that blocks compute apart; a mean, where blocks take parts of two outputs.
        reduced: whether a kernel of its own adds the parts.
    """

    tile_rows: int
    tile_columns: int
    splits: float = 1
    reduced: bool = False


#: Kernels that a product may get where none was counted: tiles that were counted in bf16 and fp32, and splits.
CANDIDATES = tuple(
    Choice(rows, columns, splits, splits > 1)
    for rows, columns in (
        *((64, 32), (64, 64), (128, 64), (64, 128), (128, 128), (128, 256)),
        *((256, 128), (32, 64), (64, 16), (16, 64), (32, 32)),
    )
    for splits in (1, 2, 4, 8, 16)
)
#: A part of a split inner dimension has at least this length.
LEAST_PART = 64


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """A product whose kernel was counted.

    Attributes:
        device_type, precision, layout, rows, columns, inner: the product.
        choice: its kernel.
    """

    device_type: str
    precision: str
    layout: str
    rows: int
    columns: int
    inner: int
    choice: Choice


class KernelChoices:
    """The kernels of products.

    Args:
        counted: known kernels; the first of equal products counts.
    """

    def __init__(self, counted: Sequence[Counted] = ()) -> None:
        self.counted = tuple(counted)
        self._known: dict[tuple[str, str, str], dict[tuple[int, int, int], Choice]] = {}
        for one in counted:
            shapes = self._known.setdefault((one.device_type, one.precision, one.layout), {})
            shapes.setdefault((one.rows, one.columns, one.inner), one.choice)
        self._found: dict[Any, Choice | None] = {}

    def of(self, product: Product, device_type: str, precision: str) -> Choice | None:
        """The kernel of a product; None where it is not known.

        Args:
            product: the product.
            device_type: it runs on.
            precision: of its operands.
        """
        key = (product.layout, product.rows, product.columns, product.inner, device_type, precision)
        if key not in self._found:
            self._found[key] = self._look_up(product, device_type, precision)
        return self._found[key]

    def _look_up(self, product: Product, device_type: str, precision: str) -> Choice | None:
        shape = (product.rows, product.columns, product.inner)
        sources = self._sources(product.layout, device_type, precision)
        return next((shapes[shape] for shapes in sources if shape in shapes), None)

    def _sources(
        self, layout: str, device_type: str, precision: str
    ) -> Iterable[Mapping[tuple[int, int, int], Choice]]:
        """Of this type and precision, of one that shares its kernels, then of other types."""
        for name in filter(None, (precision, _ALIKE.get(precision))):
            if found := self._known.get((device_type, name, layout)):
                yield found
        for (other, name, kind), found in self._known.items():
            if kind == layout and other != device_type and name in (precision, _ALIKE.get(precision)):
                yield found


def counted_products(kernels: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]) -> list[Counted]:
    """A library's choices, from counters.

    A kernel belongs to the product that has as many launches and as many FLOPs, or a few more: a block computes whole
        tiles. Two products of a phase that cannot be told apart are left out.

    Args:
        kernels: rows of `flopray.store.kernel_table`.
        rows: of the records, for the shapes of their points.
    """
    by_row: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for kernel in kernels:
        by_row.setdefault((str(kernel["trial_id"]), str(kernel["phase"])), []).append(kernel)
    found: dict[tuple[Any, ...], Counted] = {}
    for row in rows:
        own = by_row.get((str(row["trial_id"]), str(row["phase"])))
        if not own:
            continue
        try:
            work = work_of_row(row)
        except NoWork:
            continue
        products = [one for one in work.operations if isinstance(one, Product)]
        for product in products:
            key = (row["device_type"], row["precision"], product.layout, product.rows, product.columns, product.inner)
            choice = None if key in found else _choice(product, products, own)
            if choice is not None:
                found[key] = Counted(*key, choice)
    return list(found.values())


def _choice(product: Product, products: Sequence[Product], kernels: Sequence[Mapping[str, Any]]) -> Choice | None:
    if sum(other.count == product.count for other in products) > 1:
        return None
    own = [kernel for kernel in kernels if kernel["launches"] == product.count]
    main = [kernel for kernel in own if kernel["kernel_class"] == "gemm" and _flops(kernel) > 0.5 * product.flops]
    tile = _tile(str(main[0]["kernel"])) if len(main) == 1 else None
    if tile is None:
        return None
    for kernel in own:
        name = str(kernel["kernel"])
        if kernel["kernel_class"] == "gemm" and "split_k" in name and kernel is not main[0]:
            return Choice(*tile, _splits_of_xmma(_flops(kernel) / product.count, product, tile), True)
        if kernel["kernel_class"] == "reduction" and "splitK" in name and "xmma" not in str(main[0]["kernel"]):
            share = _flops(kernel) / (product.rows * product.columns * product.count)
            return Choice(*tile, max(2, round(share - 1)), True)  # one a part, and one to scale
    return Choice(*tile)


def _splits_of_xmma(flops: float, product: Product, tile: tuple[int, int]) -> float:
    """Parts of the inner dimension from what the kernel that adds them computes.

    For each output of whole tiles that is two FLOPs a part, and two to scale: with this, tiles times parts are 128 of
    the 132 processors of an H200, or twice as many, for many counted products. Halves are real: such kernels share the
    steps of all outputs out among as many blocks as there are processors.
    """
    rows, columns = (
        math.ceil(size / side) * side for size, side in zip((product.rows, product.columns), tile, strict=True)
    )
    return max(2.0, round(flops / (rows * columns)) / 2 - 1)


def _flops(kernel: Mapping[str, Any]) -> float:
    return float(kernel["tensor_flops"] or 0) + float(kernel["cuda_flops"] or 0)


def _tile(name: str) -> tuple[int, int] | None:
    """Rows and columns of our output that a block computes; None where the name does not say it."""
    for pattern in _TILES:
        if found := pattern.search(name):
            return int(found["rows"]), int(found["columns"])
    return None


def distinct(counted: Sequence[Counted]) -> list[Counted]:
    """Without those that an earlier type of device has too: they are found there."""
    known: dict[tuple[str, str, int, int, int], Choice] = {}
    kept = []
    for one in counted:
        key = (one.precision, one.layout, one.rows, one.columns, one.inner)
        if known.get(key) != one.choice:
            known.setdefault(key, one.choice)
            kept.append(one)
    return kept
