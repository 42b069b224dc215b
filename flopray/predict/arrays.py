"""Works as arrays, so that a fit goes over all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flopray.predict.device import Device
from flopray.predict.kernel_choice import CANDIDATES, Choice, KernelChoices
from flopray.predict.work import Work
from flopray.workloads.operations import GRADIENT, LAYOUTS, TRANSPOSED, Bulk, Pass, Product, Update

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
#: PyTorch's optimizers go through a tensor in blocks of this many numbers
#: (https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/cuda/MultiTensorApply.cuh, `kChunkSize`).
BLOCK_NUMBERS = 65_536
#: AdamW reads weight, gradient and two moments of a parameter, and writes all but the gradient.
MOVED_BY_UPDATE = 7
#: Bytes of a line of memory: what a GPU's caches keep, and its kernels read, as one
#: (https://docs.nvidia.com/cuda/cuda-c-best-practices-guide/, coalesced access to global memory).
LINE_BYTES = 128
_SHAPE = ("rows", "columns", "inner", "count", "each", "layout", "token_rows")


@dataclass(frozen=True, eq=False)
class Products:
    """Products with shapes, of all works. All arrays have shape (P,).

    Attributes:
        work: place of the work that each belongs to.
        rows, columns, inner: of each.
        count: how many.
        each: bytes of a number.
        tile_rows, tile_columns, splits, reduced: its kernel (`flopray.predict.kernel_choice`).
        layout: place in `LAYOUTS`.
        token_rows: 1 where each token is a row in memory, 0 where it is a column.
        known: 1 where the kernel is known, 0 where the fastest candidate stands for it.
    """

    work: Places
    rows: Floats
    columns: Floats
    inner: Floats
    count: Floats
    each: Floats
    tile_rows: Floats
    tile_columns: Floats
    splits: Floats
    reduced: Floats
    layout: Floats
    token_rows: Floats
    known: Floats

    def tried(self, places: Places, kernels: Sequence[Choice]) -> Products:
        """Some of the products, F of them, with each of C kernels: arrays of shapes (F, 1) and (1, C)."""
        work = self.work[places][:, None]
        own = {name: getattr(self, name)[places][:, None] for name in _SHAPE}
        return Products(work, **own, **_kernel_columns(kernels, 1), known=np.ones((len(places), 1)))

    def with_kernels(self, places: Places, kernels: Sequence[Choice]) -> Products:
        """The products with other kernels at some places, one for each."""
        changed = {}
        for name, values in _kernel_columns(kernels, 0).items():
            changed[name] = getattr(self, name).copy()
            changed[name][places] = values
        return replace(self, **changed)

    @property
    def blocks(self) -> Floats:
        """Tiles of the output."""
        return np.ceil(self.rows / self.tile_rows) * np.ceil(self.columns / self.tile_columns)

    @property
    def operand_bytes(self) -> Floats:
        """Of one product: both operands and the output."""
        elements = self.rows * self.inner + self.inner * self.columns + self.rows * self.columns
        return elements * self.each

    @property
    def partial_bytes(self) -> Floats:
        """Sums of parts that are written and read again, in fp32; 0 where the inner dimension is not split."""
        return self.reduced * self.rows * self.columns * 8.0 * self.splits

    @property
    def crossing_bytes(self) -> Floats:
        """Of one product: what of its operands and its output lies in rows that cross lines of memory."""
        first, second, output = self.crossing
        elements = self.rows * self.inner * first + self.inner * self.columns * second
        return (elements + self.rows * self.columns * output) * self.each

    @property
    def crossing(self) -> tuple[Floats, Floats, Floats]:
        """Of the first operand, the second one and the output: the share of pieces of rows that lie in two lines."""
        as_rows = self.token_rows > 0
        gradient = self.layout == LAYOUTS.index(GRADIENT)
        transposed = self.layout == LAYOUTS.index(TRANSPOSED)
        along_rows = transposed | (gradient & as_rows)
        first = np.where(along_rows, self.rows, self.inner)
        second = np.where(gradient != as_rows, self.inner, self.columns)
        output = np.where(~gradient & as_rows, self.rows, self.columns)
        return _crossing(first * self.each), _crossing(second * self.each), _crossing(output * self.each)


@dataclass(frozen=True, eq=False)
class Works:
    """Works, as arrays. Those of works have shape (W,), of passes (E,), updates (U,), bulks (B,).

    Attributes:
        size: number of works.
        working_bytes, flops, moved_bytes, launches, eager: of each work.
        products: products with shapes.
        pass_work, pass_bytes, pass_count: elementwise kernels: bytes of one.
        update_work, update_bytes, update_tensors, update_block: optimizer steps; the last is how much of a block of
            numbers a tensor has, at most 1.
        bulk_work, bulk_flops, bulk_bytes, bulk_count, bulk_attention: products of which only sums are known.
    """

    size: int
    working_bytes: Floats
    flops: Floats
    moved_bytes: Floats
    launches: Floats
    eager: Floats
    products: Products
    pass_work: Places
    pass_bytes: Floats
    pass_count: Floats
    update_work: Places
    update_bytes: Floats
    update_tensors: Floats
    update_block: Floats
    bulk_work: Places
    bulk_flops: Floats
    bulk_bytes: Floats
    bulk_count: Floats
    bulk_attention: Floats

    @property
    def term_work(self) -> Places:
        """Places of the works of all terms, shape (T,): products, passes, updates, bulks, in this order."""
        return np.concatenate([self.products.work, self.pass_work, self.update_work, self.bulk_work])

    def summed(self, places: Places, values: Floats) -> Floats:
        """Values of operations as sums by work."""
        found: Any = np.bincount(places, weights=values, minlength=self.size)
        return found.astype(float)


def works_as_arrays(works: Sequence[Work], device: Device, choices: KernelChoices) -> Works:
    """Works on one type of device.

    Args:
        works: W of them.
        device: whose kernels are looked up.
        choices: which kernel a product gets.
    """
    products: list[tuple[Any, ...]] = []
    passes: list[tuple[Any, ...]] = []
    updates: list[tuple[Any, ...]] = []
    bulks: list[tuple[Any, ...]] = []
    for place, work in enumerate(works):
        each = work.element_bytes
        for one in work.operations:
            if isinstance(one, Product):
                kernel = choices.of(one, device.name, work.precision)
                shape = (one.rows, one.columns, one.inner, one.count, each)
                chosen = kernel or CANDIDATES[0]
                columns = (chosen.tile_rows, chosen.tile_columns, chosen.splits, chosen.reduced)
                stored = (LAYOUTS.index(one.layout), one.token_rows)
                products.append((place, *shape, *columns, *stored, kernel is not None))
            elif isinstance(one, Pass):
                passes.append((place, one.elements * each, one.count))
            elif isinstance(one, Update):
                numbers = one.elements / MOVED_BY_UPDATE / max(one.tensors, 1)
                updates.append((place, one.elements * each, one.tensors, min(1.0, numbers / BLOCK_NUMBERS)))
            elif isinstance(one, Bulk):
                bulks.append((place, one.flops, one.elements * each, one.count, one.attention))
    parts: list[Any] = [
        np.array([float(getattr(work, name)) for work in works])
        for name in ("working_bytes", "flops", "moved_bytes", "launches")
    ]
    parts += [np.array([float(work.execution == "eager") for work in works]), Products(*_columns(products, 13))]
    return Works(len(works), *parts, *_columns(passes, 3), *_columns(updates, 4), *_columns(bulks, 5))


def _crossing(row_bytes: Floats) -> Floats:
    """The share of pieces of rows that lie in two lines of memory, in the shape of the argument.

    A kernel reads at most a line of a row at a time. Rows begin at all multiples of what their length and a line have
    in common; a row that is shorter than a line need not reach into the next one.

    Args:
        row_bytes: from the beginning of a row to that of the next one.
    """
    length = np.maximum(row_bytes, 1).astype(int)
    apart = np.gcd(length, LINE_BYTES)
    beginnings = LINE_BYTES // apart
    within = (LINE_BYTES - np.minimum(length, LINE_BYTES)) // apart + 1
    return 1 - within / beginnings


def _columns(rows: list[tuple[Any, ...]], width: int) -> list[Any]:
    table = np.array(rows, dtype=float).reshape(-1, width)
    return [table[:, 0].astype(np.intp), *(table[:, column] for column in range(1, width))]


def _kernel_columns(kernels: Sequence[Choice], axis: int) -> dict[str, Floats]:
    names = ("tile_rows", "tile_columns", "splits", "reduced")
    found = {name: np.array([getattr(one, name) for one in kernels], dtype=float) for name in names}
    return {name: values[None, :] if axis else values for name, values in found.items()}
