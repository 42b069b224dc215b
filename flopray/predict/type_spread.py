"""How far boards of a type differ, as measured: what a fit to some boards cannot know of another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from flopray.energy.board_spread import GROUPS, of_pairs
from flopray.predict.measured import Measured

#: Taken where no boards of a type were compared: what NVIDIA's H100s showed.
_ENERGY, _TIME = 0.015, 0.004


def type_spread(rows: Measured) -> dict[str, float]:
    """Standard deviation of a board's energy and time about its type's, relative.

    Args:
        rows: of one type of device.
    """
    names = set(rows.rows["device_name"].dropna().astype(str)) if "device_name" in rows.rows else set()
    groups = [group for group in GROUPS if group.device_name in names]
    return {
        "energy": _pooled([(of_pairs(group.energy, group.boards), group.boards) for group in groups], _ENERGY),
        "time": _pooled([(of_pairs(group.time, group.boards), group.boards) for group in groups], _TIME),
    }


def _pooled(spreads: Sequence[tuple[float, int]], otherwise: float) -> float:
    if not spreads:
        return otherwise
    degrees = np.array([boards - 1 for _, boards in spreads], float)
    return math.sqrt(float(np.average([spread**2 for spread, _ in spreads], weights=degrees)))
