"""Rates of this CPU, measured in less than a second: products at each precision, memory, and how steady they are."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import torch

from flopray.energy.source import open_cpu_meter
from flopray.errors import FloprayError
from flopray.measurement.host import cpu_threads
from flopray.measurement.statistics import batch_mean
from flopray.sweep.prediction import Rates, rates_of

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Products grow until one takes this long; larger ones would not be faster.
_LONG_S = 2e-3
_LARGEST = 1024
#: How long each is repeated, in enough laps for their error.
_REPEAT_S, _LAP_S = 0.5, 0.004
#: Whole steps are less steady than one product: the mean length of their windows where a product needs less.
_STEADY_WINDOW_S = 1.0
#: Does not fit into the caches of most CPUs, and is gone through in some 20 ms.
_STREAM_ELEMENTS = 2**24


def calibrated(precisions: Sequence[str], *, cores: int) -> tuple[Rates, bool]:
    """Rates of this CPU as a trial would use it, and whether it has an energy source.

    Args:
        precisions: of the sweep.
        cores: that a trial holds, of which one is left to everything else (`flopray.measurement.host.cpu_threads`).
    """
    try:
        open_cpu_meter().close()
    except FloprayError:
        has_energy = False
    else:
        has_energy = True
    return calibrate_cpu(precisions, threads=cpu_threads(cores)), has_energy


def calibrate_cpu(precisions: Sequence[str], *, threads: int) -> Rates:
    """Measure this machine's CPU.

    Args:
        precisions: of the products; those that a CPU lacks are left out.
        threads: that a trial computes with.

    Returns:
        Rates, and the window in which time would be known to 1 % if it scatters as the calibration's products did.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        measured = {name: _products(_DTYPES[name]) for name in precisions if name in _DTYPES}
        bytes_per_s = _stream()
    finally:
        torch.set_num_threads(before)
    rough = rates_of("CPU")
    assert rough is not None
    flops = {name: rate for name, (rate, _) in measured.items()}
    windows = [window_s for _, window_s in measured.values()] or [rough.time_window_s]
    said = f"measured here on {threads} thread{'s' if threads > 1 else ''}"
    mean_s = sum(windows) / len(windows)
    return dataclasses.replace(rough, flops_per_s=flops, bytes_per_s=bytes_per_s, time_window_s=mean_s, source=said)


def _products(dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of square matrices by ones of a quarter of their width, and the window that 1 % would need."""
    size = 128
    while (each_s := min(_seconds(_product(size, dtype)) for _ in range(2))) < _LONG_S and size < _LARGEST:
        size *= 2
    laps = _laps(_product(size, dtype), each_s)
    mean = batch_mean(laps)
    error = mean.rel_error if math.isfinite(mean.rel_error) else 0.0  # too few laps to tell
    # An error falls with the square root of the window's length, so this may be longer than any window's cap: a CPU
    # that needs half a second for 5 % would need 12 s for 1 %.
    window_s = max(_STEADY_WINDOW_S, sum(laps) * max(1, round(_LAP_S / each_s)) * (error / 0.01) ** 2)
    return 2 * size * size * (size // 4) / mean.value, window_s


def _product(size: int, dtype: torch.dtype) -> Callable[[], object]:
    weight, x = torch.randn(size, size).to(dtype), torch.randn(size, size // 4).to(dtype)
    return lambda: weight @ x


def _laps(work: Callable[[], object], each_s: float) -> list[float]:
    """Time of an iteration in laps, as a window takes them."""
    calls = max(1, round(_LAP_S / each_s))
    found: list[float] = []
    until = time.perf_counter() + _REPEAT_S
    while len(found) < 5 or time.perf_counter() < until:
        found.append(_seconds(lambda: [work() for _ in range(calls)]) / calls)
    return found


def _stream() -> float:
    """Bytes per second of an addition in place, which reads two operands and writes one."""
    x, y = torch.ones(_STREAM_ELEMENTS), torch.ones(_STREAM_ELEMENTS)
    x.add_(y)
    return 3 * 4 * _STREAM_ELEMENTS / min(_seconds(lambda: x.add_(y)) for _ in range(4))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return max(time.perf_counter() - begin, 1e-9)
