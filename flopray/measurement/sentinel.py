"""A point that is measured again and again, so that drift of the device cannot pass for a property of the workload.

The sentinel is one phase of one point of the sweep. Its first value on a device, taken once a point has warmed it, is
the baseline; each later value divided by it says how far the device has drifted (temperature, clocks, somebody else's
work on the same board).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flopray.measurement.statistics import in_quadrature


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
        """Drift of time and energy against the baseline with its error, and its age; empty before the first check.

        A drift is None where the sentinel has no such number (no energy source, or the sentinel failed), and until the
        sentinel was measured a second time: a first value says nothing of drift. Its error is the half width of a 95 %
        interval, None where one of the two measurements states none.
        """
        if self._baseline is None or self._last is None:
            return {}
        age: dict[str, float | None] = {"sentinel_age_s": time.monotonic() - self._measured_at}
        if self._last is self._baseline:
            return age
        return _drift("time", "s", self._baseline, self._last) | _drift("energy", "j", self._baseline, self._last) | age


def _drift(quantity: str, unit: str, first: dict[str, Any], last: dict[str, Any]) -> dict[str, float | None]:
    value, baseline = last.get(f"{quantity}_{unit}"), first.get(f"{quantity}_{unit}")
    drift = error = None
    if value is not None and baseline:
        drift = value / baseline - 1
        errors: list[Any] = [row.get(f"{quantity}_rel_error") for row in (first, last)]
        if None not in errors:
            error = value / baseline * in_quadrature(*errors)
    return {f"sentinel_{quantity}_drift": drift, f"sentinel_{quantity}_drift_error": error}
