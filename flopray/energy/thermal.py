"""Energy at a stated temperature: the warmer a board is, the more power the same work takes.

Its transistors leak more, while at a fixed clock the time of the work stays what it is. Within some 20 K the power of a
work follows a line in the temperature of the chip, and one rule gives the slope of all works of a board by their power:

    dP/dT = a + b P          P: power of the work, T: temperature of the chip

The two numbers of a type of GPU are known from boards that were measured (`PRIORS`), with the spread from board to
board. What a sweep measures on its own board, the sentinel and awake idle power at several temperatures, narrows them:
each work that was measured at two temperatures has a slope, which informs `a + b P` as far as single works follow the
rule. All of it is linear with normal errors, so that each step is a formula (Gelman et al., Bayesian Data Analysis,
section 14.2, http://www.stat.columbia.edu/~gelman/book/).

At a power limit a warmer board does not take more power but lowers its clocks; there is no energy at another
temperature then, and none while clocks are held down for another reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

#: Half widths of 95 % intervals over standard deviations.
_HALF_WIDTH = 1.96
#: Standard deviation of the sensor, in kelvin: it reports whole kelvin (0.29), of one place on the chip.
TEMPERATURE_SD_K = 0.5
#: Single works of a board leave the rule by this share of their slope (standard deviation). Two H100s showed 10 % each;
#: an H200 showed 29 %, over too few kelvin to tell what of that is noise (docs/method.md).
WORK_SCATTER = 0.12
#: A power that is measured again at the same temperature differs by this (standard deviation, relative): the scatter of
#: an H200's works about a line of their own (median, docs/method.md).
REPEAT_SCATTER = 0.004
#: Furthest from the reference temperature that the line was seen to hold.
MOST_DISTANCE_K = 20.0
#: A board of an unknown type must have been measured over a range of this many kelvin.
LEAST_RANGE_K = 5.0
#: From this share of its power limit on, a board may hold its clocks down now and then.
AT_LIMIT = 0.98
#: Reasons for lower clocks, as `flopray.energy.nvml` names them, under which temperature moves clocks and time.
_LIMITING = ("power", "thermal", "slowdown", "brake")


@dataclass(frozen=True)
class PowerSlope:
    """The rule `dP/dT = a + b P` of a board, with its error.

    Attributes:
        constant_w_per_k: a.
        share_per_k: b.
        covariance: of the two; (variance of a, covariance, variance of b).

    Example:
        >>> rule = PowerSlope(0.68, 0.00166, (0.01, 0.0, 0.0))
        >>> slope, deviation = rule.at(500.0)
        >>> round(slope, 2), round(deviation, 2)
        (1.51, 0.21)
    """

    constant_w_per_k: float
    share_per_k: float
    covariance: tuple[float, float, float]

    def at(self, power_w: float) -> tuple[float, float]:
        """Slope of a work of this power in W/K, and its standard deviation: of the rule and of works about it."""
        slope = self.constant_w_per_k + self.share_per_k * power_w
        return slope, math.sqrt(self._variance(power_w) + (WORK_SCATTER * slope) ** 2)

    def learned(self, power_w: float, slope_w_per_k: float, variance: float) -> PowerSlope:
        """The rule after a slope was measured.

        Args:
            power_w: of the work.
            slope_w_per_k: its measured slope.
            variance: of the measured slope, in (W/K)**2; the scatter of works about the rule is added here.
        """
        aa, ab, bb = self.covariance
        expected = self.constant_w_per_k + self.share_per_k * power_w
        total = self._variance(power_w) + variance + (WORK_SCATTER * expected) ** 2
        gain = ((aa + ab * power_w) / total, (ab + bb * power_w) / total)
        miss = slope_w_per_k - expected
        return PowerSlope(
            self.constant_w_per_k + gain[0] * miss,
            self.share_per_k + gain[1] * miss,
            (
                aa - gain[0] * gain[0] * total,
                ab - gain[0] * gain[1] * total,
                bb - gain[1] * gain[1] * total,
            ),
        )

    def _variance(self, power_w: float) -> float:
        aa, ab, bb = self.covariance
        return max(0.0, aa + 2 * ab * power_w + bb * power_w**2)


@dataclass(frozen=True)
class Prior:
    """What is known of a type of GPU before a board of it was measured.

    Attributes:
        name: the type, in words.
        pattern: regular expression that is found in the device's name.
        slope: the rule; its covariance is the spread from board to board.
        boards: how many boards it was measured on.
        source: where the figures stand.
    """

    name: str
    pattern: str
    slope: PowerSlope
    boards: int
    source: str


_SOURCE = "docs/method.md, Energy at a reference temperature, driver 580.159, 2026-11"
#: The spread of the H100 is that of its two boards, of which one has slopes that are a quarter lower; that of the H200
#: is the error of its one board and as much again.
PRIORS = (
    Prior("H100 SXM", r"H100 80GB HBM3", PowerSlope(0.60, 0.00145, (0.11**2, 0.0, 0.0003**2)), 2, _SOURCE),
    Prior("H200 SXM", r"H200", PowerSlope(0.40, 0.0019, (0.18**2, 0.0, 0.0006**2)), 1, _SOURCE),
)
#: Of a board of 700 W, of whatever type: scaled by the power limit of the board, and hardly more than a guess.
_UNKNOWN = PowerSlope(0.68, 0.00166, (0.5**2, 0.0, 0.0012**2))


def prior_of(device_name: str | None) -> Prior | None:
    """What is known of a type of GPU; None for one that was not measured."""
    return next((prior for prior in PRIORS if device_name and re.search(prior.pattern, device_name)), None)


def is_limited(throttle: str | None) -> str:
    """Those of the reasons for lower clocks, joined with `|`, under which temperature moves clocks; empty if none."""
    words = dict.fromkeys((throttle or "").split("|"))
    return ", ".join(word for word in words if any(kind in word for kind in _LIMITING))


@dataclass(frozen=True)
class Condition:
    """Temperature and power of one window.

    Attributes:
        temperature_c: of the chip, mean over the window; None where there is no sensor.
        power_w: mean over the window.
        power_rel_error: half width of its 95 % interval over `power_w`.
    """

    temperature_c: float | None
    power_w: float
    power_rel_error: float | None


@dataclass(frozen=True)
class AtReference:
    """Power at the reference temperature, as a share of the power that was measured.

    Attributes:
        factor: power at the reference temperature over measured power.
        rel_error: half width of its 95 % interval: of the coefficient and of the temperature, not of the window.
        coefficient: slope over power at the reference temperature, per kelvin.
        coefficient_error: half width of its 95 % interval.
        reason: why these are missing; None where they are not.
    """

    factor: float | None = None
    rel_error: float | None = None
    coefficient: float | None = None
    coefficient_error: float | None = None
    reason: str | None = None


class BoardTemperature:
    """How the power of one board follows its temperature: the prior of its type, updated by what the board showed.

    Args:
        device_name: as NVML says it; chooses the prior.
        power_limit_w: of the board; scales the guess for a type that was not measured.

    Example:
        >>> board = BoardTemperature("NVIDIA H100 80GB HBM3")
        >>> at = board.at_reference(Condition(60.0, 500.0, 0.01), 50.0)
        >>> round(at.factor, 3), round(at.coefficient, 4)
        (0.974, 0.0027)
    """

    def __init__(self, device_name: str | None, power_limit_w: float | None = None) -> None:
        self.prior = prior_of(device_name)
        self._name = device_name or "this device"
        scale = (power_limit_w or 700.0) / 700.0
        aa, ab, bb = _UNKNOWN.covariance
        guess = PowerSlope(_UNKNOWN.constant_w_per_k * scale, _UNKNOWN.share_per_k, (aa * scale**2, ab * scale, bb))
        self._start = self.prior.slope if self.prior else guess
        self._works: dict[Hashable, list[tuple[float, float, float]]] = {}
        self._slope: PowerSlope | None = None

    @property
    def slope(self) -> PowerSlope:
        """The rule as it is known now."""
        if self._slope is None:
            self._slope = self._start
            for met in self._works.values():
                if (measured := _slope_of(met)) is not None:
                    self._slope = self._slope.learned(*measured)
        return self._slope

    @property
    def range_k(self) -> float:
        """Width of the range of temperatures of repeated works."""
        return max((max(t) - min(t) for met in self._works.values() if (t := [m[0] for m in met])), default=0.0)

    def slope_w_per_k(self, power_w: float) -> float:
        """Slope of a work of this power, as far as it is known; 0 for a board of which nothing is known."""
        if self.prior is None and self.range_k < LEAST_RANGE_K:
            return 0.0
        return self.slope.at(power_w)[0]

    def learn(self, work: Hashable, condition: Condition) -> None:
        """Take in a window of a work that comes again, such as the sentinel or awake idleness.

        Args:
            work: what names the work; windows of the same work are compared with each other.
            condition: its window. One without a temperature or an error says nothing.
        """
        if condition.temperature_c is None or not condition.power_w > 0 or condition.power_rel_error is None:
            return
        deviation_w = condition.power_w * math.hypot(condition.power_rel_error / _HALF_WIDTH, REPEAT_SCATTER)
        self._works.setdefault(work, []).append((condition.temperature_c, condition.power_w, deviation_w))
        self._slope = None

    def at_reference(
        self,
        condition: Condition,
        reference_c: float,
        *,
        throttle: str | None = None,
        power_limit_w: float | None = None,
        near_k: float = 0.0,
    ) -> AtReference:
        """Power at the reference temperature over the power of a window.

        Args:
            condition: of the window.
            reference_c: the temperature that is asked for.
            throttle: reasons for lower clocks at the end of the window, joined with `|`.
            power_limit_w: enforced at that time.
            near_k: this near to the reference a guess is used for a type that was not measured; its error says so.
        """
        if (reason := self._why_not(condition, reference_c, throttle, power_limit_w, near_k)) is not None:
            return AtReference(reason=reason)
        assert condition.temperature_c is not None
        slope, deviation = self.slope.at(condition.power_w)
        distance_k = reference_c - condition.temperature_c
        power_w = condition.power_w + slope * distance_k
        spread_w = math.hypot(deviation * distance_k, slope * TEMPERATURE_SD_K)
        return AtReference(
            factor=power_w / condition.power_w,
            rel_error=_HALF_WIDTH * spread_w / power_w,
            coefficient=slope / power_w,
            coefficient_error=_HALF_WIDTH * deviation / power_w,
        )

    def change(self, first: Condition, last: Condition) -> tuple[float, float] | None:
        """Relative change of a work's power between two windows by temperature alone; None without both.

        Returns:
            The relative change and the half width of its 95 % interval.
        """
        if first.temperature_c is None or last.temperature_c is None or not first.power_w > 0:
            return None
        if self.prior is None and self.range_k < LEAST_RANGE_K:
            return None
        slope, deviation = self.slope.at(first.power_w)
        kelvin = last.temperature_c - first.temperature_c
        spread_w = math.hypot(deviation * kelvin, slope * math.sqrt(2) * _READING_SD_K)
        return slope * kelvin / first.power_w, _HALF_WIDTH * spread_w / first.power_w

    def _why_not(
        self,
        condition: Condition,
        reference_c: float,
        throttle: str | None,
        power_limit_w: float | None,
        near_k: float,
    ) -> str | None:
        if condition.temperature_c is None:
            return "the device reports no temperature"
        if limits := is_limited(throttle):
            return f"clocks were held down ({limits}): there, temperature moves clocks and time, and not power"
        if power_limit_w and condition.power_w >= AT_LIMIT * power_limit_w:
            return (
                f"the board took {condition.power_w:.0f} W and may take {power_limit_w:.0f} W: at its limit, "
                "temperature moves clocks and time, and not power"
            )
        distance_k = abs(condition.temperature_c - reference_c)
        if distance_k > MOST_DISTANCE_K:
            return (
                f"measured at {condition.temperature_c:.0f} °C, {distance_k:.0f} K from the reference of "
                f"{reference_c:g} °C; the line in temperature is known for {MOST_DISTANCE_K:g} K"
            )
        if self.prior is None and self.range_k < LEAST_RANGE_K and not distance_k < near_k:
            return (
                f"it was not measured how the power of {self._name} follows temperature, and this board covered "
                f"{self.range_k:.0f} K so far; {LEAST_RANGE_K:g} K are needed to learn it"
            )
        return None


#: Only what rounding adds to the difference of two readings of one sensor on one work.
_READING_SD_K = 0.29


def _slope_of(met: list[tuple[float, float, float]]) -> tuple[float, float, float] | None:
    """Mean power, slope in W/K and its variance, of one work; None where all temperatures are the same.

    Each window gets the variance of its power and that of its reading of the temperature, which the slope turns into
    power; weighed least squares.
    """
    temperature, power, deviation = np.array(met).T
    if np.ptp(temperature) == 0:
        return None
    rough = abs(float(np.polyfit(temperature, power, 1)[0]))
    weight = 1 / (deviation**2 + (rough * _READING_SD_K) ** 2)
    weight /= weight.sum()
    centre, mean_w = float(weight @ temperature), float(weight @ power)
    spread = float(weight @ (temperature - centre) ** 2)
    slope = float(weight @ ((temperature - centre) * (power - mean_w))) / spread
    variance = deviation**2 + (rough * _READING_SD_K) ** 2
    return mean_w, slope, float(weight**2 @ ((temperature - centre) ** 2 * variance)) / spread**2
