"""Energy at the reference temperature, of one window or of a row, those of older runs included."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flopray.audit.cells import is_absent
from flopray.energy.thermal import BoardTemperature, Condition


@dataclass(frozen=True)
class EnergyAtReference:
    """Energy of one iteration as it would be at the reference temperature of this board, or why there is none.

    Attributes:
        reference_c: the temperature that was asked for, in Celsius.
        energy_j: None where there is none, with its `reason`.
        rel_error: half width of its 95 % interval over `energy_j`: of the window, the coefficient and the temperature;
            None where that of the window is unknown.
        coefficient: slope of the power over the power at the reference temperature, per kelvin.
        coefficient_error: half width of its 95 % interval.
        reason: why there is none; None where there is.
    """

    reference_c: float
    energy_j: float | None = None
    rel_error: float | None = None
    coefficient: float | None = None
    coefficient_error: float | None = None
    reason: str | None = None


def energy_at_reference(
    energy_j: float,
    rel_error: float | None,
    condition: Condition,
    board: BoardTemperature,
    reference_c: float,
    *,
    throttle: str | None = None,
    power_limit_w: float | None = None,
) -> EnergyAtReference:
    """Energy of one iteration at the reference temperature.

    Args:
        energy_j: as it was measured.
        rel_error: half width of its 95 % interval over it.
        condition: temperature and power of its window.
        board: how its power follows temperature.
        reference_c: the temperature that is asked for.
        throttle: reasons for lower clocks at the end of the window, joined with `|`.
        power_limit_w: enforced at that time.

    Example:
        >>> board = BoardTemperature("NVIDIA H100 80GB HBM3")
        >>> at = energy_at_reference(1.0, 0.01, Condition(60.0, 500.0, 0.01), board, 50.0)
        >>> round(at.energy_j, 3), round(at.rel_error, 3)
        (0.974, 0.014)
    """
    at = board.at_reference(condition, reference_c, throttle=throttle, power_limit_w=power_limit_w)
    if at.factor is None or at.rel_error is None:
        return EnergyAtReference(reference_c, reason=at.reason)
    error = None if rel_error is None else math.hypot(rel_error, at.rel_error)
    return EnergyAtReference(reference_c, energy_j * at.factor, error, at.coefficient, at.coefficient_error)


def reference_columns(
    row: Mapping[str, Any], board: BoardTemperature, reference_c: float
) -> dict[str, float | str | None]:
    """Energy at the reference temperature, or why there is none.

    Args:
        row: with its energy, power, temperature and throttle reasons; a row from before there was a mean temperature
            has that of the end of its window.
        board: see `flopray.energy.thermal`.
        reference_c: the temperature that is asked for.
    """
    energy_j, error, power_w = row.get("energy_j"), row.get("energy_rel_error"), row.get("power_w")
    if energy_j is None or not power_w:
        return {}
    temperature_c = row.get("temperature_mean_c")
    condition = Condition(row.get("temperature_end_c") if temperature_c is None else temperature_c, power_w, error)
    throttle, limit_w = row.get("throttle_end"), row.get("power_limit_end_w")
    at = energy_at_reference(energy_j, error, condition, board, reference_c, throttle=throttle, power_limit_w=limit_w)
    if at.energy_j is None:
        return {"energy_at_reference_reason": at.reason}
    return {
        "energy_at_reference_j": at.energy_j,
        "energy_at_reference_rel_error": at.rel_error,
        "reference_temperature_c": reference_c,
        "temperature_coefficient": at.coefficient,
        "temperature_coefficient_error": at.coefficient_error,
    }


def told_later(rows: Iterable[Mapping[str, Any]], reference_c: float) -> list[dict[str, float | str | None]]:
    """The same columns for rows that were measured before these columns existed, by the prior of their type alone.

    Such rows have the temperature of the end of their window. What the sentinel showed of their board is not used, and
    its drift stays in `energy_rel_error`, so that their intervals are wider.

    Args:
        rows: by the names of the record's columns; a missing value is None, NaN or pandas' NA.
        reference_c: the temperature that is asked for.

    Returns:
        New columns for each row; none for a row that has them already.
    """
    boards: dict[Any, BoardTemperature] = {}
    found: list[dict[str, float | str | None]] = []
    for row in rows:
        known = {name: None if is_absent(value) else value for name, value in row.items()}
        if known.get("energy_at_reference_j") is not None:
            found.append({})
            continue
        name, limit_w = known.get("device_name"), known.get("power_limit_w")
        board = boards.setdefault(name, BoardTemperature(name, limit_w))
        found.append(reference_columns(known, board, reference_c))
    return found
