"""A point that is measured repeatedly, so that drift of the device is not mistaken for a property of the workload.

The sentinel is one phase of one point of the sweep. Its first value on a device, taken once a point has warmed it, is
the baseline; each later value divided by it shows the drift of the device (temperature, clocks, other work on the same
board).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flopray.energy.thermal import BoardTemperature, Condition, is_limited
from flopray.measurement.result import PhaseResult
from flopray.measurement.statistics import in_quadrature


class Sentinel:
    """Measures again when it is due and keeps the last drift.

    Args:
        measure: gives the result of the sentinel's phase, or None when it could not be measured.
        every_s: seconds between measurements; 0 switches the sentinel off.
        board: learns from the sentinel how power follows temperature, and says what of a drift that explains.
    """

    def __init__(
        self, measure: Callable[[], PhaseResult | None], *, every_s: float, board: BoardTemperature | None = None
    ) -> None:
        self._measure, self._every_s, self._board = measure, every_s, board
        self._baseline: PhaseResult | None = None
        self._last: PhaseResult | None = None
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
        if self._board is not None and self._last is not None and (condition := condition_of(self._last)):
            self._board.learn("sentinel", condition)

    def columns(self) -> dict[str, float | None]:
        """Drift of time and energy against the baseline with its error, and its age; empty before the first check.

        A drift is None where the sentinel has no such number (no energy source, or the sentinel failed), until the
        sentinel was measured a second time (a first value shows no drift), and where its error is 100 % or more and
        larger than the drift. Its error is the half width of a 95 % interval, None where one of the two measurements
        states none.
        """
        if self._baseline is None or self._last is None:
            return {}
        age: dict[str, float | None] = {"sentinel_age_s": time.monotonic() - self._measured_at}
        if self._last is self._baseline:
            return age
        first, last = self._baseline, self._last
        of_time = _drift(first.timing.time_s, first.timing.rel_error, last.timing.time_s, last.timing.rel_error)
        of_energy = _drift(first.energy.energy_j, first.energy.rel_error, last.energy.energy_j, last.energy.rel_error)
        return {
            **{"sentinel_time_drift": of_time[0], "sentinel_time_drift_error": of_time[1]},
            **{"sentinel_energy_drift": of_energy[0], "sentinel_energy_drift_error": of_energy[1]},
            **self._unexplained(of_energy),
            **age,
        }

    def _unexplained(self, drift: tuple[float | None, float | None]) -> dict[str, float | None]:
        """The part of a drift of energy that temperature does not explain; empty where that is unknown."""
        if self._board is None or self._baseline is None or self._last is None or drift[0] is None:
            return {}
        first, last = condition_of(self._baseline), condition_of(self._last)
        if first is None or last is None or (explained := self._board.change(first, last)) is None:
            return {}
        left = (1 + drift[0]) / (1 + explained[0]) - 1
        error = None if drift[1] is None else in_quadrature(drift[1], explained[1])
        name = "sentinel_energy_drift_unexplained"
        return {name: left, f"{name}_error": error}


def condition_of(result: PhaseResult, *, limited: bool = False) -> Condition | None:
    """Temperature and power of a measured window; None without a power, or where clocks were held down.

    Args:
        result: of the window.
        limited: also give that of a window whose clocks were held down.
    """
    energy, end = result.energy, result.state.end
    if energy.power_w is None or (not limited and end is not None and is_limited(end.throttle)):
        return None
    return Condition(energy.temperature_c, energy.power_w, energy.power_rel_error)


def _drift(
    first: float | None, first_error: float | None, last: float | None, last_error: float | None
) -> tuple[float | None, float | None]:
    """Last over first - 1, and its error; neither where both scatter too much to show a drift."""
    if last is None or not first:
        return None, None
    drift = last / first - 1
    if first_error is None or last_error is None:
        return drift, None
    error = last / first * in_quadrature(first_error, last_error)
    return (drift, error) if error < max(1.0, abs(drift)) else (None, None)
