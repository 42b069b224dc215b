"""What a type of GPU costs, of what its boards cost: one row for each point and phase, with the interval that it has.

There are three intervals, and a row says which one its `±` is: of the **window** (this board, at the temperature that it had),
of this **board** at the reference temperature, and of the **type**, which needs runs on two boards or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flopray.report.boards.data import AT_REFERENCE, COLUMNS, TIME, BoardValues, DeviceBoards, boards_of
from flopray.report.boards.effects import BoardFit
from flopray.report.boards.statement import statement
from flopray.report.gpus.data import OF_BOARD, OF_TYPE, PUBLISHED, SETTING, Frame

#: What tells rows of one type apart.
POINT = [*SETTING, "precision", "shape", "phase"]
#: Columns that follow from time or energy, and how.
_WITH_TIME = {"flops_per_s": -1, "mfu": -1, "hfu": -1, "tokens_per_s": -1, "power_w": -1}
_WITH_ENERGY = {"flops_per_j": -1, "energy_per_token_j": 1, "power_w": 1}


@dataclass(frozen=True)
class OnBoard:
    """What a row cost on one board: the point of a strip.

    Attributes:
        board: its UUID.
        time_s: mean of its measurements; NaN where there is none.
        energy_j: the same, at the reference temperature where the row is.
    """

    board: str
    time_s: float
    energy_j: float


def rows_of_types(rows: Frame) -> tuple[Frame, list[str]]:
    """One row for each point and phase on a type of GPU.

    Args:
        rows: as `flopray.report.gpus.data.load_runs` gives them.

    Returns:
        The rows, with time and energy as means over boards where several share rows, and lines on the boards of each type.
        `time_interval` and `energy_interval` say what `time_rel_error` and `energy_rel_error` are intervals of, the columns
        `*_window_rel_error` and `*_type_rel_error` hold both; `energy_at` is the reference temperature of `energy_j` (NaN:
        as measured), `boards` how many boards the means and intervals are of, and `on_boards` what the
        row cost on each board that has it, where several have.
    """
    rows = rows.assign(key=rows.groupby([*POINT, "gpu"], dropna=False, sort=False).ngroup())
    latest = _latest(rows)
    kept = latest.set_index("key", drop=False)
    strips: dict[int, dict[str, list[float]]] = {}
    notes = []
    for device in boards_of(rows, types=["gpu"], key="key"):
        notes += statement(device)
        for quantity, part in device.parts.items():
            _set_quantity(kept, device, quantity, part, device.fits[quantity])
            _add_points(strips, quantity, part)
    points = {key: tuple(OnBoard(board, *costs) for board, costs in strip.items()) for key, strip in strips.items()}
    kept["on_boards"] = [points.get(key, ()) for key in kept.index]
    alone = set(kept.index[kept["boards"] == 1])
    left_out = rows[rows["key"].isin(alone) & ~rows.index.isin(latest.index)]
    if len(left_out):
        counts = ", ".join(f"{count} of {run or 'a run'}" for run, count in left_out["run"].value_counts().items())
        notes.append(f"measured more than once on one board: the latest rows are kept, left out are {counts}")
    return kept.drop(columns="key").reset_index(drop=True), notes


def _latest(rows: Frame) -> Frame:
    """One row for each point and phase on a type of GPU: the one that ended last, of those that are ok if any is."""
    ok = rows["status"] == "ok"
    ordered = rows.assign(ok=ok).sort_values(["ok", "ended_unix_s"], kind="stable", na_position="first")
    return ordered.drop_duplicates("key", keep="last").drop(columns="ok").sort_index()


def _set_quantity(kept: Frame, device: DeviceBoards, quantity: str, part: BoardValues, fit: BoardFit | None) -> None:
    """Put the mean over boards and both intervals into the rows of a type; the rows are found by their keys."""
    what = "time" if quantity == TIME else "energy"
    keys = np.array(part.keys)
    if quantity == AT_REFERENCE:
        value, error = COLUMNS[AT_REFERENCE]
        _replace(kept, "energy", keys, kept.loc[keys, value].to_numpy(float))
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
    ratio = values / kept.loc[keys, column].to_numpy(float)
    kept.loc[keys, column] = values
    for name, power in following.items():
        kept.loc[keys, name] = kept.loc[keys, name].to_numpy(float) * ratio**power


def _add_points(strips: dict[int, dict[str, list[float]]], quantity: str, part: BoardValues) -> None:
    """Note what rows cost on each of several boards."""
    place = 0 if quantity == TIME else 1
    for row in np.flatnonzero(np.isfinite(part.values).sum(axis=1) > 1):
        strip = strips.setdefault(part.keys[row], {})
        for board in np.flatnonzero(np.isfinite(part.values[row])):
            strip.setdefault(part.boards[board], [np.nan, np.nan])[place] = float(part.values[row, board])


def intervals_said(rows: Frame, what: str) -> str:
    """What the bars of some rows are intervals of, such as `the type (3 boards); of the window (H200: one board)`.

    Args:
        rows: that are shown; published ones have intervals of their own and are not told.
        what: `time` or `energy`.
    """
    ours = rows[(rows["source"] != PUBLISHED) & (rows["status"] == "ok")]
    said = []
    for interval, part in ours.groupby(f"{what}_interval", sort=True):
        boards = {gpu: int(group["boards"].max()) for gpu, group in part.groupby("gpu")}
        words = ", ".join(f"{gpu}: {_boards(count)}" for gpu, count in boards.items())
        said.append(f"of the {interval} ({words})")
    return "; ".join(said)


def bars_said(rows: Frame, *whats: str) -> str:
    """What the bars of a figure are, such as `bars: 95 % intervals of the type (H100: 3 boards)`.

    Args:
        rows: that are drawn.
        whats: `time`, `energy` or both.
    """
    said = list(dict.fromkeys(words for what in whats if (words := intervals_said(rows, what))))
    return f"bars: 95 % intervals {'; '.join(said)}".rstrip()


def temperatures_said(rows: Frame) -> str:
    """At which temperature the energy of some rows is, such as `energy at 50 C`; empty where all are as measured."""
    ours = rows[(rows["source"] != PUBLISHED) & np.isfinite(rows["energy_j"])]
    at = sorted(ours["energy_at"].dropna().unique())
    if not at:
        return ""
    said = f"energy at {', '.join(f'{degrees:g}' for degrees in at)} C"
    raw = int(ours["energy_at"].isna().sum())
    return f"{said}, of {raw} rows as measured" if raw else said


def _boards(count: int) -> str:
    return "one board" if count == 1 else f"{count} boards"
