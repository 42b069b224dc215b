"""A point that is measured again and again, so that drift of the device cannot pass for a property of the workload.

The sentinel is one phase of one point of the sweep. Its first value on a device, taken once a point has warmed it, is
the baseline; each later value divided by it says how far the device has drifted (temperature, clocks, somebody else's
work on the same board).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Sentinel:
    """Re-measures when it is due and remembers the last drift.

    Args:
        measure: gives the columns of the sentinel's phase, or None when it could not be measured.
        every_s: seconds between measurements; 0 switches the sentinel off.
    """

    def __init__(self, measure: Callable[[], dict[str, Any] | None], *, every_s: float) -> None:
        self._measure, self._every_s = measure, every_s
        self._baseline: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        self._measured_at = float("-inf")

    @property
    def due(self) -> bool:
        """Whether the last measurement is too old."""
        return self._every_s > 0 and time.monotonic() - self._measured_at >= self._every_s

    def check(self) -> None:
        """Measure now; the first success becomes the baseline."""
        self._last = self._measure()
        self._measured_at = time.monotonic()
        if self._baseline is None:
            self._baseline = self._last

    def columns(self) -> dict[str, float | None]:
        """Drift of time and energy against the baseline, and the age of that knowledge; empty before the first check.

        A drift is None where the sentinel has no such number (no energy source, or the sentinel failed), and until the
        sentinel was measured a second time: a first value says nothing of drift.
        """
        if self._baseline is None or self._last is None:
            return {}
        if self._last is self._baseline:
            return {"sentinel_age_s": time.monotonic() - self._measured_at}
        return {
            "sentinel_time_drift": _relative(self._last.get("time_s"), self._baseline.get("time_s")),
            "sentinel_energy_drift": _relative(self._last.get("energy_j"), self._baseline.get("energy_j")),
            "sentinel_age_s": time.monotonic() - self._measured_at,
        }


def _relative(value: float | None, baseline: float | None) -> float | None:
    return None if value is None or not baseline else value / baseline - 1
