"""Quantities of `flopray ask`: read from words with a unit, and written with a prefix and their range."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

from flopray.errors import InputError
from flopray.footprint.assumptions import Ranged
from flopray.units import prefixed

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SECONDS |= {"seconds": 1.0, "minutes": 60.0, "hour": 3600.0, "hours": 3600.0, "day": 86400.0, "days": 86400.0}
_JOULES = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "Wh": 3600.0, "kWh": 3.6e6, "MWh": 3.6e9}
#: Steps or tokens of a run; nobody takes more.
_MOST = 1e18
#: What stands behind a count, in letters of either case.
_TIMES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_TIMES |= {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_COUNT = re.compile(r"([0-9.]+(?:e[+-]?[0-9]{1,3})?)\s*([a-z]*?)", re.IGNORECASE)
#: Digits in groups of three, as `1,000,000`.
_GROUPED = re.compile(r"[0-9]{1,3}(?:[, ][0-9]{3})+(?![0-9])")
_QUANTITY = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z]+)\s*", re.IGNORECASE)


def seconds(text: str) -> float:
    """Seconds of a text such as `24h`. Raises as `_quantity`."""
    return _quantity(text, _SECONDS, "24h, 90min or 7d")


def joules(text: str) -> float:
    """Joules of a text such as `5kWh`. Raises as `_quantity`."""
    return _quantity(text, _JOULES, "5kWh, 300Wh or 2MJ")


def _quantity(text: str, units: Mapping[str, float], such_as: str) -> float:
    """A positive number with a unit.

    Raises:
        InputError: it is not a positive number with a unit.
    """
    match = _QUANTITY.fullmatch(text)
    unit = next((value for name, value in units.items() if match and name.lower() == match[2].lower()), None)
    # mJ and MJ are not the same
    if match and match[2] in ("mJ", "mWh"):
        unit = None
    try:
        value = float(match[1]) * unit if match and unit else math.nan
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"{text!r:.40}: write a positive number with its unit, such as {such_as}")
    return value


def steps(text: str) -> int:
    """A number of steps, such as `1e6`, `3.5M` or `10k steps`. Raises as `_count`."""
    return _count(text, "step")


def tokens(text: str) -> int:
    """A number of tokens. Raises as `_count`.

    Example:
        >>> tokens("3.5M"), tokens("1B tokens"), tokens("1,000,000")
        (3500000, 1000000000, 1000000)
    """
    return _count(text, "token")


def gpus(text: str) -> int:
    """A number of GPUs. Raises as `_count`."""
    return _count(text, "GPU")


def _count(text: str, noun: str) -> int:
    """A positive whole number, with what it counts or without.

    Raises:
        InputError: it is not a positive whole number, or counts something else.
    """
    plain = re.sub(rf"{noun}s?$", "", text.replace("_", "").strip(), flags=re.IGNORECASE).strip()
    plain = _GROUPED.sub(lambda found: re.sub("[, ]", "", found[0]), plain, count=1)
    match = _COUNT.fullmatch(plain)
    times = _TIMES.get(match[2].lower()) if match else None
    try:
        value = Decimal(match[1]) * times if match and times else Decimal(0)
    except ArithmeticError:  # more than one point
        value = Decimal(0)
    if not (1 <= value <= _MOST and value == int(value)):
        raise InputError(f"{text!r:.40}: write a whole number from 1 to {_MOST:g}, such as 1000, 1e9 or 3.5M")
    return int(value)


class Words(Protocol):
    """Writes a number with its unit; with `like`, in the unit that this number has."""

    def __call__(self, value: float, /, like: float | None = None) -> str:
        """Such as `1.24 kJ`."""
        ...


def with_range(ranged: Ranged | None, words: Words) -> str:
    """A number with its range, in one unit."""
    if ranged is None:
        return "not known"
    if ranged.low is None or ranged.high is None:
        return f"{words(ranged.value)} (interval not known)"
    return f"{words(ranged.value)} ({ends_text(ranged.low, ranged.high, ranged.value, words)})"


def ends_text(low: float, high: float, value: float, words: Words) -> str:
    """The ends of a range, in the unit of its most likely value."""
    return f"{words(low, value)} to {words(high, value)}"


def time_text(value_s: float, like: float | None = None) -> str:
    """A time in days, hours, minutes, or seconds with a prefix."""
    for unit, each_s in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if (value_s if like is None else like) >= 2 * each_s:
            return f"{value_s / each_s:.3g} {unit}"
    return prefixed(value_s, "s")


def energy_text(value_j: float, like: float | None = None) -> str:
    """An energy in watt-hours, small ones in joules."""
    in_hours = (value_j if like is None else like) >= 3600
    return prefixed(value_j / 3600, "Wh") if in_hours else prefixed(value_j, "J")


def kwh_text(value_kwh: float, like: float | None = None) -> str:
    """An energy in kilowatt-hours as `energy_text` writes it."""
    return energy_text(value_kwh * 3.6e6, None if like is None else like * 3.6e6)


def co2e_text(value_kg: float, like: float | None = None) -> str:
    """A mass in kilograms, in grams with a prefix."""
    del like
    return prefixed(value_kg * 1000, "g")


def price_text(value: float, like: float | None = None) -> str:
    """A price without its currency."""
    del like
    return f"{value:,.3g}"


def time_range(ranged: Ranged | None) -> str:
    """A time in seconds with its range."""
    return with_range(ranged, time_text)


def energy_range(ranged: Ranged | None) -> str:
    """An energy in joules with its range."""
    return with_range(ranged, energy_text)
