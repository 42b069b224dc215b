"""How numbers become places in a figure: units with SI prefixes, axes through measured values, scales of a metric.

Arrays stay in SI units; a prefix exists only in the text of a tick, a label or an annotation.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import colors, ticker
from numpy.typing import NDArray

from flopray.units import PREFIXES

#: An array of numbers; docstrings say its shape.
Array = NDArray[Any]

#: Perceptually uniform and readable with any colour vision; https://doi.org/10.1371/journal.pone.0199239
SEQUENTIAL_MAP = "viridis"
#: For values of both signs around zero; purple and orange differ with any colour vision.
DIVERGING_MAP = "PuOr_r"


@dataclass(frozen=True)
class DisplayUnit:
    """How a quantity in SI units is written: values are divided by `factor` and followed by `label`."""

    factor: float
    label: str

    def text(self, value: float, digits: int = 3) -> str:
        """The value without its unit, to `digits` significant digits, such as `1.25`."""
        scaled = value / self.factor
        if scaled == 0 or not math.isfinite(scaled):
            return "0" if scaled == 0 else "-"
        if not 1e-4 <= abs(scaled) < 1e6:
            return re.sub(r"e([+-])0*(\d+)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{scaled:.{digits}g}")
        decimals = max(digits - 1 - math.floor(math.log10(abs(scaled))), 0)
        text = f"{scaled:.{decimals}f}"
        return text.replace("-", "−")

    def tick(self, value: float) -> str:
        """The value without its unit, as short as it can be, such as `0.5` or `10`."""
        return f"{value / self.factor:.5g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def display_unit(unit: str, largest: float) -> DisplayUnit:
    """The unit with the prefix that writes `largest` as a number from 1 to 1000.

    Args:
        unit: an SI unit such as `s` or `FLOP/J`, or `%` for a ratio that is shown in percent.
        largest: the largest magnitude that will be shown, in `unit` (a ratio for `%`).
    """
    if unit == "%":
        return DisplayUnit(0.01, "%")
    factor, prefix = PREFIXES[-1]
    for factor_next, prefix_next in reversed(PREFIXES):
        if abs(largest) >= factor_next * (1 - 1e-9):
            factor, prefix = factor_next, prefix_next
    if not largest:
        factor, prefix = 1.0, ""
    return DisplayUnit(factor, f"{prefix}{unit}")


def middle_unit(unit: str, values: Array) -> DisplayUnit:
    """The unit for a logarithmic axis: that of the geometric middle, so that both ends are short numbers.

    Args:
        unit: as in `display_unit`.
        values: any shape; those that are finite and positive count.
    """
    numbers = np.asarray(values, dtype=float)
    positive = numbers[np.isfinite(numbers) & (numbers > 0)]
    return display_unit(unit, float(np.sqrt(positive.min() * positive.max())) if len(positive) else 0.0)


def cell_unit(unit: str, values: Array) -> DisplayUnit:
    """The unit in which numbers of several magnitudes are short, as in the cells of a map.

    That of the largest number, or a smaller one where this makes the longest number at least two characters shorter:
    `19.4` and `7540` µs are easier to read than `0.0194` and `7.54` ms. No number has more than four digits before the
    point.

    Args:
        unit: as in `display_unit`.
        values: any shape; those that are finite and not zero count.
    """
    sizes = np.abs(np.asarray(values, dtype=float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not len(sizes):
        return display_unit(unit, 0.0)
    ends = float(sizes.min()), float(sizes.max())
    usual = display_unit(unit, ends[1])

    def longest(shown: DisplayUnit) -> int:
        return max(len(shown.text(end)) for end in ends)

    if unit == "%":
        return usual
    smaller = [DisplayUnit(factor, f"{prefix}{unit}") for factor, prefix in PREFIXES if factor < usual.factor]
    short = [shown for shown in smaller if ends[1] / shown.factor < 9_999.5 and longest(shown) <= longest(usual) - 2]
    return min(short, key=longest, default=usual)


def spacing_of(values: Array) -> str:
    """`log` when the measured values of an axis are spread by factors, `linear` when by steps.

    Args:
        values: rising positive values of an axis, shape (k,).
    """
    if len(values) < 2 or values[0] <= 0 or values[-1] / values[0] < 4:
        return "linear"
    if len(values) == 2:
        return "log"

    def unevenness(places: Array) -> float:
        steps = np.diff(places)
        return float(np.std(steps) / np.mean(steps))

    return "log" if unevenness(np.log(values)) < unevenness(values) else "linear"


def cell_edges(values: Array, spacing: str) -> Array:
    """Borders of the cells around each measured value: midpoints, and half a step beyond the ends.

    Args:
        values: rising values of an axis, shape (k,).
        spacing: `log` for geometric midpoints, `linear` for arithmetic ones.

    Returns:
        Rising edges, shape (k + 1,).
    """
    places = np.log(values) if spacing == "log" else np.asarray(values, dtype=float)
    if len(places) == 1:
        edges = np.array([places[0] - 0.5, places[0] + 0.5])
    else:
        middle = (places[1:] + places[:-1]) / 2
        edges = np.concatenate(([2 * places[0] - middle[0]], middle, [2 * places[-1] - middle[-1]]))
    return np.exp(edges) if spacing == "log" else edges


def axis_ticks(values: Array, spacing: str, min_gap: float) -> Array:
    """The measured values that get a tick, thinned evenly from the largest down so that labels stay apart.

    Args:
        values: rising values of an axis, shape (k,).
        spacing: as in `cell_edges`.
        min_gap: least distance of two labels as a share of the axis.
    """
    if len(values) < 2:
        return values
    places = np.log(values) if spacing == "log" else np.asarray(values, dtype=float)
    places = (places - places[0]) / (places[-1] - places[0])
    for stride in (1, 2, 4, 8, 5, 10):
        chosen = np.arange(len(values))[::-1][::stride][::-1]
        if len(chosen) > 1 and np.diff(places[chosen]).min() >= min_gap:
            return values[chosen]
    kept = [len(values) - 1]
    for index in range(len(values) - 2, -1, -1):
        if places[kept[-1]] - places[index] >= min_gap:
            kept.append(index)
    return values[kept[::-1]]


@dataclass(frozen=True)
class ValueScale:
    """The scale of a metric for colours and heights: `linear`, `log`, or `asinh` (a log scale for both signs).

    Attributes:
        kind: one of the three.
        low: value at the lower end, in SI units.
        high: value at the upper end.
        width: for `asinh`, the magnitude below which the scale is linear.
    """

    kind: str
    low: float
    high: float
    width: float = 1.0

    @classmethod
    def fitting(cls, values: Array, *, log: bool, signed: bool) -> ValueScale:
        """The scale that holds all finite values; a single value gets room around it.

        Args:
            values: any shape, at least one finite value; all positive where `log` and not `signed`.
            log: a logarithmic scale instead of a linear one.
            signed: values may be negative or zero.
        """
        finite = np.asarray(values, dtype=float)
        finite = finite[np.isfinite(finite)]
        low, high = float(finite.min()), float(finite.max())
        if signed and not log:  # zero is the reference of a signed metric
            low, high = min(low, 0.0), max(high, 0.0)
        if high - low <= 1e-9 * max(abs(low), abs(high)):
            room = 0.1 * abs(high) or 0.01
            low, high = low - room, high + room
        if not log:
            return cls("linear", low, high)
        if not signed:
            return cls("log", low, high)
        magnitudes = np.abs(finite[finite != 0])
        return cls("asinh", low, high, float(magnitudes.min()) if len(magnitudes) else high)

    def within(self, low: float, high: float) -> ValueScale:
        """The part of this scale from `low` to `high`, for ticks."""
        return replace(self, low=low, high=high)

    def norm(self) -> colors.Normalize:
        """The matplotlib norm of this scale; with values of both signs zero is in its middle."""
        low, high = self.low, self.high
        if low < 0 < high:
            low, high = -max(-low, high), max(-low, high)
        if self.kind == "log":
            return colors.LogNorm(low, high)
        return colors.AsinhNorm(self.width, low, high) if self.kind == "asinh" else colors.Normalize(low, high)

    def place(self, values: Any) -> Array:
        """Values as heights: 3-D axes of matplotlib are linear only, so the scale is applied to the data."""
        array = np.asarray(values, dtype=float)
        if self.kind == "log":
            return np.log10(array)
        return np.arcsinh(array / self.width) if self.kind == "asinh" else array

    def value_at(self, places: Any) -> Array:
        """The inverse of `place`."""
        array = np.asarray(places, dtype=float)
        if self.kind == "log":
            return 10.0**array
        return np.sinh(array) * self.width if self.kind == "asinh" else array

    def ticks(self, at_most: int = 6) -> Array:
        """Round values inside the scale for ticks, in SI units."""
        if self.kind == "log":
            ticks = _log_ticks(self.low, self.high, at_most)
            return (
                ticks if len(ticks) >= 3 or self.high / self.low > 10 else _linear_ticks(self.low, self.high, at_most)
            )
        if self.kind == "asinh":
            return self._ticks_of_both_signs(at_most)
        return _linear_ticks(self.low, self.high, at_most)

    def _ticks_of_both_signs(self, at_most: int) -> Array:
        """Zero, then powers of ten, then 2 and 5 times each, as far as they do not overlap on the scale.

        Where the values are so close that fewer than two of these lie between them: as on a linear scale.
        """
        exponents = range(math.floor(math.log10(self.width)), math.ceil(math.log10(max(-self.low, self.high))) + 1)
        wanted = [0.0]
        for multiples in ((1,), (2, 5)):
            wanted += [sign * m * 10.0**k for m in multiples for k in reversed(exponents) for sign in (1, -1)]
        gap = float(np.ptp(self.place([self.low, self.high]))) / (at_most + 1)
        kept: list[float] = []
        for tick in wanted:
            apart = all(abs(float(self.place(tick) - self.place(other))) >= gap for other in kept)
            if self.low <= tick <= self.high and apart:
                kept.append(tick)
        return np.array(sorted(kept)) if len(kept) > 1 else _linear_ticks(self.low, self.high, at_most)

    def colour_map(self) -> str:
        """The diverging map when values of both signs occur, else the sequential one."""
        return DIVERGING_MAP if self.low < 0 < self.high else SEQUENTIAL_MAP


def _linear_ticks(low: float, high: float, at_most: int) -> Array:
    ticks = np.asarray(ticker.MaxNLocator(at_most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    slack = 1e-9 * (high - low)
    return ticks[(ticks >= low - slack) & (ticks <= high + slack)]


def _log_ticks(low: float, high: float, at_most: int) -> Array:
    """Powers of ten between the ends, with 2 and 5 times each where few, every second or third where many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for multiples, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 5)):
        ticks = np.array([m * 10.0**k for k in range(first, last + 1) if k % every == 0 for m in multiples])
        ticks = ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]
        if len(ticks) <= at_most:
            return ticks
    return ticks
