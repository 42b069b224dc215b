"""The standard loads of a board's factor: the same few works on every GPU, in captured graphs, seconds each.

They stay below the power limit of boards of 700 W, where temperature and board change power and not clocks, and they
load different parts: tensor cores, CUDA cores, memory, and hardly anything but launches. Their sizes are part of
`flopray.energy.calibration.LOADS_VERSION`: whoever changes one counts that up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from flopray.workloads.execution import Work, captured

#: Layers, width and rows of the products.
_BF16, _FP32 = (8, 2048, 256), (6, 1000, 200)
#: Each of the two buffers of the copy.
_COPY_BYTES = 512 * 2**20
#: Kernels of one iteration of small launches, and the elements that each goes through.
_LAUNCHES, _ELEMENTS = 100, 1024


def products(layers: int, width: int, rows: int, dtype: torch.dtype, device: str) -> Work:
    """Matrix products of layers with a ReLU after each; without a graph.

    The weights are scaled so that numbers keep their size from layer to layer: power depends on them.
    """
    draw = torch.Generator(device).manual_seed(0)
    weights = torch.randn(layers, width, width, device=device, dtype=dtype, generator=draw) * (2 / width) ** 0.5
    x = torch.randn(rows, width, device=device, dtype=dtype, generator=draw)

    def work() -> object:
        y = x
        for weight in weights.unbind():
            y = torch.relu(torch.mm(y, weight))
        return y

    return work


def copy(device: str, size_bytes: int = _COPY_BYTES) -> Work:
    """A copy in memory of random numbers, which zeros would make cheaper; without a graph."""
    draw = torch.Generator(device).manual_seed(0)
    source = torch.randn(size_bytes // 4, device=device, generator=draw)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def launches(device: str, kernels: int = _LAUNCHES) -> Work:
    """Many tiny kernels, one after the other; without a graph."""
    x = torch.ones(_ELEMENTS, device=device)

    def work() -> object:
        for _ in range(kernels):
            x.mul_(1.0)
        return x

    return work


def _products_fp32(device: str) -> Work:
    """Captured with the full mantissa, whatever this process used before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return captured(products(*_FP32, torch.float32, device))
    finally:
        torch.set_float32_matmul_precision(before)


#: What builds each load on a device, by name.
STANDARD_LOADS: Mapping[str, Callable[[str], Work]] = MappingProxyType(
    {
        "products_bf16": lambda device: captured(products(*_BF16, torch.bfloat16, device)),
        "products_fp32": _products_fp32,
        "copy": lambda device: captured(copy(device)),
        "small_launches": lambda device: captured(launches(device)),
    }
)
