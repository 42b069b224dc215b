"""The columns of a row that tell its energy at the reference temperature; for rows of older runs, too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from flopray.energy.thermal import BoardTemperature, Condition


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
    at = board.at_reference(condition, reference_c, throttle=throttle, power_limit_w=limit_w)
    if at.factor is None or at.rel_error is None:
        return {"energy_at_reference_reason": at.reason}
    return {
        "energy_at_reference_j": energy_j * at.factor,
        "energy_at_reference_rel_error": None if error is None else math.hypot(error, at.rel_error),
        "reference_temperature_c": reference_c,
        "temperature_coefficient": at.coefficient,
        "temperature_coefficient_error": at.coefficient_error,
    }


def told_later(rows: Iterable[Mapping[str, Any]], reference_c: float) -> list[dict[str, float | str | None]]:
    """The same columns for rows that were measured before there were any, by the prior of their type alone.

    Such rows have the temperature of the end of their window. What the sentinel taught about their board is not in
    them, and what its drift put into `energy_rel_error` stays there, so that their intervals are wider.

    Args:
        rows: by the names of the record's columns; a missing value is None, NaN or pandas' NA.
        reference_c: the temperature that is asked for.

    Returns:
        New columns for each row; none for a row that has them already.
    """
    import pandas as pd  # here, since what measures needs none

    boards: dict[Any, BoardTemperature] = {}
    found: list[dict[str, float | str | None]] = []
    for row in rows:
        known = {name: None if pd.isna(value) is True else value for name, value in row.items()}
        if known.get("energy_at_reference_j") is not None:
            found.append({})
            continue
        name, limit_w = known.get("device_name"), known.get("power_limit_w")
        board = boards.setdefault(name, BoardTemperature(name, limit_w))
        found.append(reference_columns(known, board, reference_c))
    return found
