"""Model 3, of time: a roofline with launch, kernel by kernel, with the tiles that products are cut into.

A product of (rows, inner) by (inner, columns) is `blocks` tiles, each cut into `splits` parts of the inner dimension.
A processor takes `waves = ceil(blocks x splits / processors)` of them, one after the other:

    compute   inner / splits x hypot(step, waves x tile / rate) x (1 + crossing rows x factor)
              + waves x (start + tile bytes x store)
    memory    bytes of operands and output / bandwidth
    product   launch + hypot(compute, memory) [+ reduction + bytes of partial sums / bandwidth of the cache]

    pass      launch of a pass + bytes / bandwidth
    update    launch + tensors x launch of each + share of a block x block + bytes / bandwidth of an update
    bulk      count x launch + hypot(FLOPs / (rate of all processors x efficiency), bytes / bandwidth)

Where the kernel of a product is not known, it is the fastest of some candidates, by these formulas: a library is taken
to choose well. A tensor of an optimizer is gone through in blocks of 65,536 numbers, side by side, so that small
tensors take as long as what they have of a block.

Rows of an operand whose length is no multiple of a line of memory begin inside of one, so that what a tile reads of
such a row lies in two lines. Crossing rows are their share, added up over both operands.

The bandwidth is that of the cache where what an iteration goes through fits into it, else that of the memory, with a
smooth step between. Eager work also takes the host a time for each launch, in parallel: the longer of both counts,
smoothly. Constants are positive, are fitted on relative errors, and stay near their datasheet values as far as rows do
not show better ones. The hypotenuse instead of the maximum is the smooth roofline of two resources that overlap in
part.

The roofline is Williams, Waterman and Patterson's (https://doi.org/10.1145/1498765.1498785); cutting a product into
tiles and waves is explained at https://docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from flopray.predict.arrays import Floats, Places, Products, Works
from flopray.predict.device import Device
from flopray.predict.kernel_choice import CANDIDATES, LEAST_PART


@dataclass(frozen=True)
class Constant:
    """One constant of the model.

    Attributes:
        name: of it.
        unit: SI.
        spread: standard deviation of its logarithm about its start.
    """

    name: str
    unit: str
    spread: float


CONSTANTS = (
    Constant("product_launch_s", "s", 0.3),
    Constant("processor_macs_per_s", "MAC/s", 0.3),
    Constant("step_s", "s", 0.7),
    Constant("reduction_launch_s", "s", 0.4),
    Constant("cache_bytes_per_s", "B/s", 0.4),
    Constant("memory_bytes_per_s", "B/s", 0.3),
    Constant("cache_bytes", "B", 0.3),
    Constant("pass_launch_s", "s", 0.3),
    Constant("update_launch_s", "s", 0.4),
    Constant("update_tensor_s", "s", 0.5),
    Constant("update_block_s", "s", 0.5),
    Constant("update_bytes_per_s", "B/s", 0.5),
    Constant("tile_start_s", "s", 0.7),
    Constant("tile_store_s_per_byte", "s/B", 0.7),
    Constant("transposed_factor", "1", 0.3),
    Constant("gradient_factor", "1", 0.3),
    Constant("crossing_factor", "1", 1.0),
    Constant("bulk_efficiency", "1", 0.3),
    Constant("attention_efficiency", "1", 0.5),
    Constant("host_launch_s", "s", 0.5),
)
NAMES = tuple(constant.name for constant in CONSTANTS)
_SPREADS = np.array([constant.spread for constant in CONSTANTS])
#: Weight of a constant's distance from its start beside a row's relative error.
_HELD = 0.03
#: Errors beyond this count less than their square: a few kernels that a library chose badly do not move constants.
_ROBUST = 0.05
#: Spread of a device's constants about those of all devices, as a share of their own.
_NEAR = 0.3
_STEEP = 4
_TENSOR_STEP_S, _PLAIN_STEP_S = 1.5e-9, 13e-9


def start_of(device: Device, precision: str) -> Floats:
    """Logarithms of the constants where a fit starts, by the device's datasheet.

    A step of the inner dimension takes about 25 cycles on CUDA cores and, on tensor cores, 128 cycles for 64 steps.
    """
    peak = device.flops_per_s.get(precision) or max(device.flops_per_s.values(), default=1e12)
    gpu = device.name != "CPU"
    starts = {
        "product_launch_s": 2e-6,
        "processor_macs_per_s": peak / device.processors / 2,
        "step_s": (_PLAIN_STEP_S if precision == "fp32" else _TENSOR_STEP_S) if gpu else 1e-10,
        "reduction_launch_s": 2e-6,
        "cache_bytes_per_s": 1.5 * device.memory_bytes_per_s,
        "memory_bytes_per_s": 0.75 * device.memory_bytes_per_s,
        "cache_bytes": 0.5 * device.cache_bytes,
        "pass_launch_s": 2e-6,
        "update_launch_s": 22e-6,
        "update_tensor_s": 4e-6,
        "update_block_s": 58e-6 if gpu else 1e-6,
        "update_bytes_per_s": 0.3 * device.memory_bytes_per_s,
        "tile_start_s": 3e-7,
        "tile_store_s_per_byte": 1e-11,
        "transposed_factor": 1.0,
        "gradient_factor": 1.0,
        "crossing_factor": 0.1,
        "bulk_efficiency": 0.6,
        "attention_efficiency": 0.4,
        "host_launch_s": 6e-6,
    }
    return np.log([starts[name] for name in NAMES])


class TimeModel:
    """Time of works on one type of device at one precision.

    Args:
        device: the type.
        logs: logarithms of the constants, in the order of `CONSTANTS`.
    """

    def __init__(self, device: Device, logs: Floats) -> None:
        self.device, self.logs = device, np.asarray(logs, float)

    @property
    def constants(self) -> dict[str, float]:
        """Constants by name, in SI units."""
        return dict(zip(NAMES, np.exp(self.logs).tolist(), strict=True))

    @classmethod
    def of_constants(cls, device: Device, constants: Mapping[str, float]) -> TimeModel:
        """The model of stored constants."""
        return cls(device, np.log([constants[name] for name in NAMES]))

    def times(self, works: Works) -> Floats:
        """Time of one iteration of each work, in seconds, shape (W,)."""
        return _times(self.logs, works, self.device.processors)

    def waiting_times(self, works: Works) -> Floats:
        """Of each entry of `works.update_work`, what many small kernels take besides bytes, in seconds, shape (U,)."""
        value = self.constants
        return _waiting(value, works)

    def term_times(self, works: Works) -> Floats:
        """Of each term of works, by `Works.term_work`, in seconds on the device, shape (T,)."""
        value = dict(zip(NAMES, np.exp(self.logs), strict=True))
        return _term_times(value, works, self.device.processors)

    def with_kernels(self, works: Works) -> Works:
        """The works with the fastest kernel for each product whose kernel is not known."""
        places = np.flatnonzero(works.products.known == 0)
        if not places.size:
            return works
        value = dict(zip(NAMES, np.exp(self.logs), strict=True))
        best = _tried(value, works, places, self.device.processors).argmin(axis=1)
        return replace(works, products=works.products.with_kernels(places, [CANDIDATES[one] for one in best]))

    def missing(self, works: Works) -> Floats:
        """Share of the bytes of each work that come from memory and not from the cache, shape (W,)."""
        return _missing(np.exp(self.logs[NAMES.index("cache_bytes")]), works.working_bytes)


def fit_time(device: Device, works: Works, times_s: Floats, centre: Floats, *, near: bool = False) -> TimeModel:
    """Constants of one type of device.

    Args:
        device: the type.
        works: W of them.
        times_s: measured, shape (W,).
        centre: logarithms that constants are pulled towards.
        near: whether `centre` was fitted to all devices.
    """
    spreads = _SPREADS * (_NEAR if near else 1.0)

    def residuals(logs: Floats) -> Floats:
        errors = np.log(_times(logs, works, device.processors) / times_s)
        return np.concatenate([errors, _HELD * (logs - centre) / spreads])

    found = least_squares(residuals, centre, loss="soft_l1", f_scale=_ROBUST, diff_step=1e-3, max_nfev=60)
    return TimeModel(device, found.x)


def _missing(cache_bytes: float, working_bytes: Floats) -> Floats:
    return 1 / (1 + (cache_bytes / np.maximum(working_bytes, 1.0)) ** _STEEP)


def _times(logs: Floats, works: Works, processors: int) -> Floats:
    value = dict(zip(NAMES, np.exp(logs), strict=True))
    times = works.summed(works.term_work, _term_times(value, works, processors))
    host = works.eager * works.launches * value["host_launch_s"]
    return (times**_STEEP + host**_STEEP) ** (1 / _STEEP)


def _term_times(value: Mapping[str, float], works: Works, processors: int) -> Floats:
    missing = _missing(value["cache_bytes"], works.working_bytes)
    slow = missing / value["memory_bytes_per_s"] + (1 - missing) / value["cache_bytes_per_s"]
    products = _products(value, works, processors) * works.products.count
    passes = (value["pass_launch_s"] + works.pass_bytes * slow[works.pass_work]) * works.pass_count
    updates = _waiting(value, works) + works.update_bytes / value["update_bytes_per_s"]
    efficiency = np.where(works.bulk_attention > 0, value["attention_efficiency"], value["bulk_efficiency"])
    computed = works.bulk_flops / (2 * processors * value["processor_macs_per_s"] * efficiency)
    moved = works.bulk_bytes * slow[works.bulk_work]
    bulks = works.bulk_count * value["product_launch_s"] + np.hypot(computed, moved)
    return np.concatenate([products, passes, updates, bulks])


def _waiting(value: Mapping[str, float], works: Works) -> Floats:
    """Of each update: what launching its kernels and going through a block takes, shape (U,)."""
    each = value["update_tensor_s"] * works.update_tensors + value["update_block_s"] * works.update_block
    return value["update_launch_s"] + each


def _products(value: Mapping[str, float], works: Works, processors: int) -> Floats:
    """Time of one product of each entry, shape (P,)."""
    times = _kernel_times(value, works, works.products, processors)
    places = np.flatnonzero(works.products.known == 0)
    if places.size:
        times[places] = _tried(value, works, places, processors).min(axis=1)
    return times


def _tried(value: Mapping[str, float], works: Works, places: Places, processors: int) -> Floats:
    """Time of one product of some entries with each candidate, shape (F, C); infinite where it cannot be split so."""
    tried = works.products.tried(places, CANDIDATES)
    times = _kernel_times(value, works, tried, processors)
    return np.where((tried.splits > 1) & (tried.inner < LEAST_PART * tried.splits), np.inf, times)


def _kernel_times(value: Mapping[str, float], works: Works, p: Products, processors: int) -> Floats:
    """Time of one product of each entry with its kernel, in the shape of the entries."""
    missing = _missing(value["cache_bytes"], works.working_bytes)[p.work]
    waves = np.ceil(p.blocks * p.splits / processors)
    tile = p.tile_rows * p.tile_columns
    factor = np.choose(p.layout.astype(int), [1.0, value["transposed_factor"], value["gradient_factor"]])
    steps = np.ceil(p.inner / p.splits) * np.hypot(value["step_s"], waves * tile / value["processor_macs_per_s"])
    first, second, _ = p.crossing
    steps = steps * (1 + value["crossing_factor"] * (first + second))
    stored = waves * (value["tile_start_s"] + value["tile_store_s_per_byte"] * tile * p.each)
    moved = p.operand_bytes * (missing / value["memory_bytes_per_s"] + (1 - missing) / value["cache_bytes_per_s"])
    reduced = p.reduced * value["reduction_launch_s"] + p.partial_bytes / value["cache_bytes_per_s"]
    return value["product_launch_s"] + np.hypot(factor * steps + stored, moved) + reduced
