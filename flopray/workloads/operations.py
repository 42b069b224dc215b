"""What one iteration of a phase asks of a device, operation by operation, for models of time and energy.

Closed forms and least bytes are sums; how long work takes also depends on the shapes of its products and on how many
kernels there are. A workload that knows them states them (`Workload.operations`). Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: How a product reads its operands: as they are stored; the first one transposed; or summed over tokens, as the
#: gradient of weights is. A library has kernels of their own for each.
PLAIN, TRANSPOSED, GRADIENT = "plain", "transposed", "gradient"
LAYOUTS = (PLAIN, TRANSPOSED, GRADIENT)


@dataclass(frozen=True)
class Product:
    """Products of matrices of one shape, (rows, inner) by (inner, columns), each by itself.

    Attributes:
        layout: one of `LAYOUTS`.
        rows, columns, inner: of the matrices.
        count: how many, one after the other.
        token_rows: each token is a row in memory, as `torch.nn.Linear` has it, and not a column. Tokens are the
            columns, or what a gradient is summed over; as rows, they may be as many as they like: a kernel reads along
            rows.
    """

    layout: str
    rows: int
    columns: int
    inner: int
    count: int = 1
    token_rows: bool = False

    @property
    def flops(self) -> int:
        """Of all of them, 2 a multiply-add."""
        return 2 * self.rows * self.columns * self.inner * self.count


@dataclass(frozen=True)
class Pass:
    """Elementwise work.

    Attributes:
        elements: read and written by each.
        count: kernels.
    """

    elements: int
    count: int = 1


@dataclass(frozen=True)
class Update:
    """An optimizer's step.

    Attributes:
        elements: that it reads and writes at least.
        tensors: weights that it goes through.
    """

    elements: int
    tensors: int


@dataclass(frozen=True)
class Bulk:
    """Products of which only their FLOPs are known.

    Attributes:
        flops: of all.
        elements: that they read and write at least.
        count: kernels, about.
        attention: whether they are scores and their products with values.
    """

    flops: int
    elements: int
    count: int = 1
    attention: bool = False


Operation = Product | Pass | Update | Bulk


def with_casts(products: Iterable[Product]) -> Iterator[Operation]:
    """Products in fp8 whose scales are found anew (`flopray.workloads.float8`), with the kernels that this takes.

    For each operand, one reads it in bf16 for its largest number, and another one reads it again and writes it in half
    the bytes. Elements are those of bf16.
    """
    for one in products:
        yield one
        for operand in (one.rows * one.inner, one.inner * one.columns):
            yield Pass(operand, one.count)
            yield Pass(operand * 3 // 2, one.count)
