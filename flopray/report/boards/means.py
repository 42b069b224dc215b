"""One row from what several boards measured: the mean over boards of a type, with its interval.

There are three intervals, and a row says which one its relative errors are: of the **window** (this board, at the
temperature that it had), of this **board** at the reference temperature, and of the **type**, which needs boards that
share rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flopray.report.boards.data import (
    AS_MEASURED,
    AT_REFERENCE,
    COLUMNS,
    TIME,
    BoardValues,
    DeviceBoards,
    Frame,
    boards_of,
    numbers_of,
)
from flopray.report.boards.effects import BoardFit

OF_WINDOW, OF_BOARD, OF_TYPE = "window", "board at reference temperature", "type"
#: Columns that follow from time or energy, and their exponents.
_WITH_TIME = {"flops_per_s": -1, "mfu": -1, "hfu": -1, "tokens_per_s": -1, "power_w": -1}
_WITH_ENERGY = {"flops_per_j": -1, "energy_per_token_j": 1, "power_w": 1}


@dataclass(frozen=True)
class OnBoard:
    """What a row cost on one board: a point of a strip.

    Attributes:
        board: its UUID.
        time_s: mean of its measurements; NaN where there is none.
        energy_j: the same, at the reference temperature where the row is.
    """

    board: str
    time_s: float
    energy_j: float


def with_windows(rows: Frame) -> Frame:
    """Rows whose intervals are those of their windows, with all columns that `means_of_types` fills."""
    windows = {f"{what}_window_rel_error": numbers_of(rows, f"{what}_rel_error") for what in ("time", "energy")}
    rows = rows.assign(**windows, time_type_rel_error=np.nan, energy_type_rel_error=np.nan, energy_at=np.nan, boards=1)
    return rows.assign(time_interval=OF_WINDOW, energy_interval=OF_WINDOW, on_boards=[()] * len(rows))


def means_of_types(
    rows: Frame, point: Sequence[str], types: Sequence[str], *, at_reference: bool = True
) -> tuple[Frame, list[DeviceBoards]]:
    """One row for each point on a type of device, and the types.

    Args:
        rows: with the columns of `flopray.records`; younger ones may be missing.
        point: columns that tell the rows of one type apart.
        types: columns that tell types apart.
        at_reference: energy at the reference temperature where all boards of a row have it; else as it was measured.

    Returns:
        Of each point the row that ended last, among those that are ok if there are any. Time and energy are means over
        boards where several share rows. `time_interval` and `energy_interval` say what `time_rel_error` and
        `energy_rel_error` are intervals of, `*_window_rel_error` and `*_type_rel_error` hold both; `energy_at` is the
        reference temperature of `energy_j` (NaN: as measured), `boards` how many boards means and intervals are of,
        `on_boards` what the row cost on each board that has it, where several have; `row` is the label of the row that
        it is.
    """
    rows = rows.assign(key=rows.groupby([*point, *types], dropna=False, sort=False).ngroup(), row=rows.index)
    kept = with_windows(_latest(rows)).set_index("key", drop=False)
    strips: dict[int, dict[str, list[float]]] = {}
    left, found = rows, []
    while len(left):
        devices = list(boards_of(left, types=types, key="key"))
        found.append(devices)
        for device in devices:
            parts = dict(device.parts)
            if not at_reference:
                parts = {TIME: parts.get(TIME), AS_MEASURED: device.as_measured}
            for quantity, part in parts.items():
                if part is not None:
                    fit = device.fits[quantity] if part is device.parts.get(quantity) else device.fit(part)
                    _set_quantity(kept, quantity, part, fit)
                    _add_points(strips, quantity, part)
        # A fit is of boards that are joined by shared rows. Others, such as those of another model, have their own.
        alone = left[~left["key"].isin(kept.index[kept["time_interval"] == OF_TYPE])]
        if len(alone) == len(left):
            break
        left = alone
    points = {key: tuple(OnBoard(board, *costs) for board, costs in strip.items()) for key, strip in strips.items()}
    kept["on_boards"] = [points.get(key, ()) for key in kept.index]
    return kept.drop(columns="key").reset_index(drop=True), found[0] if found else []


def _latest(rows: Frame) -> Frame:
    ok = rows["status"].isin(["ok", ""])
    ordered = rows.assign(ok=ok).sort_values(["ok", "ended_unix_s"], kind="stable", na_position="first")
    return ordered.drop_duplicates("key", keep="last").drop(columns="ok").sort_index()


def _set_quantity(kept: Frame, quantity: str, part: BoardValues, fit: BoardFit | None) -> None:
    """Put the mean over boards and both intervals into the rows of a type; the rows are found by their keys."""
    what = "time" if quantity == TIME else "energy"
    keys = np.array(part.keys)
    if quantity == AT_REFERENCE:
        value, error = COLUMNS[AT_REFERENCE]
        _replace(kept, "energy", keys, numbers_of(kept.loc[keys], value))
        kept.loc[keys, "energy_rel_error"] = kept.loc[keys, error]
        kept.loc[keys, "energy_at"] = kept.loc[keys, "reference_temperature_c"]
        kept.loc[keys, "energy_interval"] = OF_BOARD
    if fit is None:
        return
    known = np.isfinite(fit.type_errors)
    keys, errors = keys[known], fit.type_errors[known]
    kept.loc[keys, f"{what}_type_rel_error"] = errors
    if fit.boards > 1:
        _replace(kept, what, keys, fit.means[known])
        kept.loc[keys, f"{what}_rel_error"] = errors
        kept.loc[keys, f"{what}_interval"] = OF_TYPE
        kept.loc[keys, "boards"] = fit.boards


def _replace(kept: Frame, what: str, keys: Any, values: Any) -> None:
    """Replace time or energy of some rows, and what follows from it."""
    column, following = ("time_s", _WITH_TIME) if what == "time" else ("energy_j", _WITH_ENERGY)
    ratio = values / numbers_of(kept.loc[keys], column)
    kept.loc[keys, column] = values
    for name, exponent in following.items():
        if name in kept:
            kept.loc[keys, name] = numbers_of(kept.loc[keys], name) * ratio**exponent


def _add_points(strips: dict[int, dict[str, list[float]]], quantity: str, part: BoardValues) -> None:
    """Note what rows cost on each of several boards."""
    place = 0 if quantity == TIME else 1
    for row in np.flatnonzero(np.isfinite(part.values).sum(axis=1) > 1).tolist():
        strip = strips.setdefault(part.keys[row], {})
        for board in np.flatnonzero(np.isfinite(part.values[row])).tolist():
            strip.setdefault(part.boards[board], [np.nan, np.nan])[place] = float(part.values[row, board])


def values_on_boards(row: Any, column: str, error_column: str | None) -> list[float]:
    """A column of a row on each of several boards; it is proportional to time or energy, or to the inverse.

    Args:
        row: of `means_of_types`.
        column: such as `energy_j`, `flops_per_j` or `mfu`.
        error_column: its error, which says whether it follows from time or from energy; None for neither.
    """
    if error_column is None:
        return []
    cost = "energy_j" if "energy" in error_column else "time_s"
    ratios = [getattr(each, cost) / row[cost] for each in row["on_boards"]]
    with_cost = column in (cost, "energy_per_token_j")
    return [row[column] * (ratio if with_cost else 1 / ratio) for ratio in ratios if np.isfinite(ratio)]
