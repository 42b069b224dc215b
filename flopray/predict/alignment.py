"""By what the sizes of a work can be divided; which kernels a library runs for its products depends on that.

Kernels for tensor cores read 16 bytes at a time, and where a row of a matrix does not begin at a multiple of them, a
library runs others, which may take a multiple of the time
(https://docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication/index.html). Rows of another size
than multiples of 64 begin inside a line of memory, and fill a tile in part; in bf16 they take 2 to 6 % more time
(docs/results/prediction.md). Neither can be told from sizes that are multiples of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flopray.predict.work import Work
from flopray.workloads.operations import GRADIENT, Product

#: Bytes that kernels for tensor cores read at a time.
_READ_BYTES = 16
#: Elements of a line of memory in bf16 (128 bytes), and of a small tile's edge: from here on nothing changes.
_EVEN = 64
#: The edge of products whose tokens are rows in memory.
TOKENS = "tokens"


def divisor(size: float, largest: int) -> int:
    """The largest power of two, up to a limit, that divides a size.

    Args:
        size: a whole number from 1.
        largest: the limit, a power of two.

    Example:
        >>> [divisor(size, 64) for size in (1001, 80, 96, 4096)]
        [1, 16, 32, 64]
    """
    whole = round(size)
    return min(whole & -whole, largest) or 1


def alignment_of(works: Sequence[Work]) -> dict[str, int]:
    """By how many elements each edge of each product can be divided at least, by the edge's name.

    Up to what a kernel reads; where tokens are rows in memory, their number up to 64, as `TOKENS`.
    """
    found: dict[str, int] = {}
    for work in works:
        for edge, size, most in _edges(work):
            found[edge] = min(found.get(edge, most), divisor(size, most))
    return found


def unaligned(work: Work, alignment: Mapping[str, int]) -> str | None:
    """Which edge makes a library run other kernels than all measured ones did; None where none does."""
    if found := _less_divided(work, {edge: least for edge, least in alignment.items() if edge != TOKENS}):
        return (
            f"its products have an edge of {found[0]:,}, which is no multiple of {found[1]}, as all measured ones are"
        )
    return None


def uneven(work: Work, alignment: Mapping[str, int]) -> str | None:
    """Which number of tokens can be divided by less than all measured ones; None where none is."""
    if found := _less_divided(work, {edge: least for edge, least in alignment.items() if edge == TOKENS}):
        return f"its products are of {found[0]:,} tokens, no multiple of {found[1]}, as all measured ones are"
    return None


def _less_divided(work: Work, alignment: Mapping[str, int]) -> tuple[int, int] | None:
    for edge, size, most in _edges(work):
        least = alignment.get(edge)
        if least is not None and divisor(size, most) < least:
            return size, least
    return None


def edge_dimensions(works: Sequence[Work], names: Iterable[str]) -> list[str]:
    """The dimensions that are edges of products in each work that has products; in the order of their names."""
    sizes = [(work.shape, {size for _, size, _ in _edges(work)}) for work in works]
    there = [(shape, edges) for shape, edges in sizes if edges]
    return [name for name in names if there and all(shape.get(name) in edges for shape, edges in there)]


def between_multiples(size: float, measured: Iterable[float]) -> tuple[int, float, float] | None:
    """Whether a size can be divided by less than the measured sizes on both sides of it.

    Args:
        size: of a dimension.
        measured: sizes of it.

    Returns:
        By what both neighbours can be divided, and these; None where the size was measured, has no neighbour on one
            side, or can be divided by that, too.

    Example:
        >>> between_multiples(80, [16, 64, 128])
        (64, 64, 128)
        >>> between_multiples(192, [16, 64, 128, 256]), between_multiples(16, [16, 64])
        (None, None)
    """
    below = max((one for one in measured if one <= size), default=None)
    above = min((one for one in measured if one >= size), default=None)
    if below is None or above is None or size in (below, above):
        return None
    both = min(divisor(below, _EVEN), divisor(above, _EVEN))
    return (both, below, above) if divisor(size, _EVEN) < both else None


def _edges(work: Work) -> Iterator[tuple[str, int, int]]:
    """The edges of products: name, size, and the largest divisor that matters."""
    read = max(1, _READ_BYTES // work.element_bytes)
    for one in work.operations:
        if isinstance(one, Product):
            edges = {"rows": one.rows, "columns": one.columns, "inner": one.inner}
            if one.token_rows:
                yield TOKENS, edges.pop("inner" if one.layout == GRADIENT else "columns"), _EVEN
            yield from ((name, size, read) for name, size in edges.items())
