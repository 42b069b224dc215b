"""The rate that matrix products reach on this CPU: measured, since no datasheet states it.

It is the denominator of a CPU's `mfu`, as a datasheet's peak is that of a GPU's. As a measured value it can be
exceeded, by other shapes or because the machine was busy meanwhile, so no rate is called impossible by it.
"""

from __future__ import annotations

import time

import torch

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Widths of square matrices, tried up to the first whose product takes longer than `_LONG_S`: a CPU without units for
#: bf16 takes a second for the largest.
_WIDTHS = (256, 512, 1024)
_LONG_S = 0.05
#: How long each width is repeated. The fastest call counts: other programs can only make a product slower.
_REPEAT_S = 0.1


def measured_peak_flops_per_s(precision: str) -> float | None:
    """The highest rate of square matrix products with the threads that torch computes with now; takes 0.3 s.

    Args:
        precision: one of `flopray.point.PRECISIONS`.

    Returns:
        FLOP/s, 2 w^3 for each product of width w; None where the CPU cannot multiply at this precision.
    """
    dtype = _DTYPES.get(precision)
    if dtype is None:
        return None
    highest = 0.0
    try:
        for width in _WIDTHS:
            each_s = _fastest_s(width, dtype)
            highest = max(highest, 2 * width**3 / each_s)
            if each_s > _LONG_S:
                break
    except RuntimeError:  # torch has no kernel, or there is no memory for it
        return highest or None
    return highest


def _fastest_s(width: int, dtype: torch.dtype) -> float:
    """Seconds of the fastest of some products, the first one left out: it may choose a kernel."""
    left, right = (torch.ones(width, width).to(dtype) for _ in range(2))
    first_s = _seconds(left, right)
    if first_s > 10 * _LONG_S:
        return first_s
    fastest, until = float("inf"), time.perf_counter() + _REPEAT_S
    while fastest == float("inf") or time.perf_counter() < until:
        fastest = min(fastest, _seconds(left, right))
    return fastest


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    begin = time.perf_counter()
    torch.mm(left, right)
    return max(time.perf_counter() - begin, 1e-9)
