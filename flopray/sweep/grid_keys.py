"""Points of a grid by their places on its axes, and their objectives, as searchers know them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Key = tuple[Any, ...]
#: The objectives of a point, in the sweep's order; None where one of them is missing.
Values = tuple[float, ...] | None


def key_of(fields: Mapping[str, Any], axes: Mapping[str, Any]) -> Key:
    """A point by its fields: its place on each axis."""
    return tuple(fields[name] for name in axes)


def values_of(values: Sequence[Any]) -> Values:
    """The objectives of a point, if it has all of them."""
    known = tuple(number_of(value) for value in values)
    return known if all(map(math.isfinite, known)) else None


def number_of(value: Any) -> float:
    """A number; NaN where it is missing or not finite."""
    return float(value) if value is not None and math.isfinite(value) else math.nan
