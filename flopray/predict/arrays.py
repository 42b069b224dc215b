"""Works as arrays, so that a fit goes over all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flopray.predict.device import Device
from flopray.predict.kernel_choice import KernelChoices
from flopray.predict.work import Work
from flopray.workloads.operations import LAYOUTS, Bulk, Pass, Product, Update

Floats = NDArray[np.float64]
Places = NDArray[np.intp]


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


@dataclass(frozen=True, eq=False)
class Works:
    """Works, as arrays. Those of works have shape (W,), of passes (E,), updates (U,), bulks (B,).

    Attributes:
        size: number of works.
        working_bytes, flops, moved_bytes, launches, eager: of each work.
        products: products with shapes.
        pass_work, pass_bytes, pass_count: elementwise kernels: bytes of one.
        update_work, update_bytes, update_tensors: optimizer steps.
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
    bulk_work: Places
    bulk_flops: Floats
    bulk_bytes: Floats
    bulk_count: Floats
    bulk_attention: Floats

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
                kernel = choices.of(one, device.name, work.precision, device.processors)
                shape = (one.rows, one.columns, one.inner, one.count, each)
                chosen = (kernel.tile_rows, kernel.tile_columns, kernel.splits, kernel.reduced)
                products.append((place, *shape, *chosen, LAYOUTS.index(one.layout)))
            elif isinstance(one, Pass):
                passes.append((place, one.elements * each, one.count))
            elif isinstance(one, Update):
                updates.append((place, one.elements * each, one.tensors))
            elif isinstance(one, Bulk):
                bulks.append((place, one.flops, one.elements * each, one.count, one.attention))
    parts: list[Any] = [
        np.array([float(getattr(work, name)) for work in works])
        for name in ("working_bytes", "flops", "moved_bytes", "launches")
    ]
    parts += [np.array([float(work.execution == "eager") for work in works]), Products(*_columns(products, 11))]
    return Works(len(works), *parts, *_columns(passes, 3), *_columns(updates, 3), *_columns(bulks, 5))


def _columns(rows: list[tuple[Any, ...]], width: int) -> list[Any]:
    table = np.array(rows, dtype=float).reshape(-1, width)
    return [table[:, 0].astype(np.intp), *(table[:, column] for column in range(1, width))]
