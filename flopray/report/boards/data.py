"""Rows of runs as values by board: which rows are compared, what a board is, and what was measured twice.

A board is a GPU by its UUID, in whatever run and machine it was measured; on a CPU it is the node. Rows that do not say
where they were measured count as one board if all rows of a type are such; otherwise they are left out, so that no
board counts twice. Energy is compared at the reference temperature where every board of a row has it at the same one,
and as it was measured elsewhere: the two are never mixed in one fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from flopray.point import point_of
from flopray.report.boards.effects import BoardFit, Floats, Prior, fit_boards
from flopray.report.boards.priors import prior_of

#: A pandas DataFrame, whose stubs do not know whether a selection of it is one.
Frame = Any
TIME, AT_REFERENCE, AS_MEASURED = "time", "energy at reference", "energy as measured"
#: Of rows whose board has a factor by standard loads: what they would cost on the typical board of the type.
TYPICAL = "energy of the typical board"
#: Value and relative error of what is compared.
COLUMNS = {
    TIME: ("time_s", "time_rel_error"),
    AT_REFERENCE: ("energy_at_reference_j", "energy_at_reference_rel_error"),
    AS_MEASURED: ("energy_j", "energy_rel_error"),
    TYPICAL: ("energy_typical_board_j", "energy_typical_board_rel_error"),
}
UNKNOWN_BOARD = "unknown"
#: What else may differ between boards that were measured at different times and places.
_SOFTWARE = ("driver_version", "torch_version", "cuda_version")
#: Columns of records by which boards are identified and compared.
NEEDED = (
    *("run", "trial_id", "phase", "status", "device_type", "device_name", "device_uuid", "node"),
    *("started_unix_s", "ended_unix_s", "temperature_end_c", "temperature_mean_c", "power_w", "power_limit_w"),
    *("reference_temperature_c", "energy_at_reference_reason", "throttle_end", "power_limit_end_w", *_SOFTWARE),
    *(column for columns in COLUMNS.values() for column in columns),
)
_TYPE = ["device_type", "device_name"]


@dataclass(frozen=True, eq=False)
class BoardValues:
    """One quantity of the rows of one type of device.

    Attributes:
        quantity: a key of `COLUMNS`.
        keys: of the R rows.
        boards: names of the B boards.
        values: mean over the measurements on a board, shape (R, B); NaN where there is none.
        errors: relative half widths of their 95 % intervals, shape (R, B).
    """

    quantity: str
    keys: Sequence[Any]
    boards: tuple[str, ...]
    values: Floats
    errors: Floats

    def of_boards(self, chosen: Sequence[bool]) -> BoardValues:
        """Some of the boards."""
        kept = np.asarray(chosen, bool)
        names = tuple(name for name, keep in zip(self.boards, kept, strict=True) if keep)
        return BoardValues(self.quantity, self.keys, names, self.values[:, kept], self.errors[:, kept])

    def shared(self) -> int:
        """Rows that more than one board has."""
        return int((np.isfinite(self.values).sum(axis=1) > 1).sum())


@dataclass(frozen=True, eq=False)
class DeviceBoards:
    """The boards of one type of device.

    Attributes:
        name: of the type.
        device_name: full name of the device.
        rows: of the type that are ok, with `board` and `key`.
        parts: values by board of each quantity that has any.
        unknown_rows: rows that do not say which board they are of. They are left out since others do: it may be one of
            these.
    """

    name: str
    device_name: str
    rows: Frame
    parts: dict[str, BoardValues]
    unknown_rows: int = 0

    @cached_property
    def boards(self) -> tuple[str, ...]:
        """Names of all boards, sorted."""
        return tuple(sorted(self.rows["board"].unique()))

    @cached_property
    def fits(self) -> dict[str, BoardFit | None]:
        """The model of each quantity; None where boards share no row, or there is one without a prior."""
        return {name: self.fit(part) for name, part in self.parts.items()}

    def fit(self, part: BoardValues) -> BoardFit | None:
        """The model of some values, with what is known of the type."""
        return fit_boards(part.values, part.errors, self.prior(part.quantity))

    def prior(self, quantity: str) -> Prior | None:
        """What is known of the type's other boards; None for energy at the temperatures of the boards."""
        return prior_of(self.device_name, quantity, self.boards)

    @cached_property
    def as_measured(self) -> BoardValues | None:
        """Energy of all rows at the temperatures of their boards, besides that at a reference temperature."""
        return values_of(self.rows, AS_MEASURED)

    def compared_parts(self) -> dict[str, BoardValues]:
        """The parts, and beside energy at a reference temperature that as measured and that of the typical board.

        The latter has the rows whose boards have a factor by standard loads, if any two boards share one.
        """
        parts = dict(self.parts)
        if AT_REFERENCE in parts:
            typical = values_of(self.rows[self.rows["key"].isin(list(parts[AT_REFERENCE].keys))], TYPICAL)
            parts |= {TYPICAL: typical} if typical is not None and typical.shared() else {}
            parts |= {AS_MEASURED: self.as_measured} if self.as_measured is not None else {}
        return parts

    def label(self, quantity: str) -> str:
        """A quantity in words, with the reference temperature."""
        celsius = ", ".join(f"{degrees:g}" for degrees in self.reference_temperatures())
        if celsius and quantity == AT_REFERENCE:
            return f"energy at {celsius} °C"
        return f"{quantity} at {celsius} °C" if celsius and quantity == TYPICAL else quantity

    def reference_temperatures(self) -> list[float]:
        """Reference temperatures of the rows that are compared at one, rising."""
        if AT_REFERENCE not in self.parts or "reference_temperature_c" not in self.rows:
            return []
        used = self.rows[self.rows["key"].isin(list(self.parts[AT_REFERENCE].keys))]
        return sorted(used["reference_temperature_c"].dropna().unique())

    def software(self) -> list[str]:
        """Software that is not the same in all rows, such as `torch_version 2.10, 2.11`."""
        there = [name for name in _SOFTWARE if name in self.rows]
        values = {name: sorted(map(str, self.rows[name].dropna().unique())) for name in there}
        return [f"{name} {', '.join(found)}" for name, found in values.items() if len(found) > 1]


def boards_of(frame: Frame, types: Sequence[str] = _TYPE, key: str | None = None) -> Iterator[DeviceBoards]:
    """The types of device of some rows, with their boards.

    Args:
        frame: with the columns of `flopray.records`; newer ones may be missing. types: columns that tell types apart,
            the first of which names them.
        key: column that tells rows of one type apart; by default the point and the phase.
    """
    rows = frame[frame["status"].isin(["ok", ""])].copy()
    rows["board"] = board_names(rows)
    if key is None:
        rows["key"] = rows["trial_id"].map(point_of) + " " + rows["phase"]
    else:
        rows["key"] = rows[key]
    # a measurement of a run and of a run that it was merged into is one
    same = [name for name in ("board", "key", "started_unix_s", "ended_unix_s", "time_s", "energy_j") if name in rows]
    rows = rows.drop_duplicates(same)
    for _, part in rows.groupby(list(types), dropna=False, sort=True):
        first = part.iloc[0]
        name = str(first[types[0]])
        device = str(first["device_name"]) if pd.notna(first["device_name"]) else name
        unknown = part["board"] == UNKNOWN_BOARD
        left_out = int(unknown.sum()) if not unknown.all() else 0
        known = part[~unknown] if left_out else part
        yield DeviceBoards(name, device, known, dict(_parts(known)), left_out)


def board_names(frame: Frame) -> Any:
    """The board of each row: a GPU's UUID, a CPU's node, or `unknown`."""
    uuid, node = (_texts(frame, name) for name in ("device_uuid", "node"))
    of_cpu = _texts(frame, "device_type") == "CPU"
    return uuid.where(uuid != "", node.where(of_cpu, "")).replace("", UNKNOWN_BOARD)


def noun_of(device_type: str) -> str:
    """What one device of a type is called where rows are told apart by it."""
    return "machine" if device_type == "CPU" else "board"


def short_names(boards: Sequence[str]) -> dict[str, str]:
    """Shortest names that differ, such as `e6c9bc22` of a UUID."""
    bare = {board: board.removeprefix("GPU-") for board in boards}
    for length in (8, 13, 23):
        short = {board: name[:length] for board, name in bare.items()}
        if len(set(short.values())) == len(boards):
            return short
    return bare


def _parts(rows: Frame) -> Iterator[tuple[str, BoardValues]]:
    referred = _referred_keys(rows)
    at_reference = rows["key"].isin(referred)
    for quantity, part in ((TIME, rows), (AT_REFERENCE, rows[at_reference]), (AS_MEASURED, rows[~at_reference])):
        if (values := values_of(part, quantity)) is not None:
            yield quantity, values


def _referred_keys(rows: Frame) -> set[Any]:
    """Rows all of whose measurements have an energy at one and the same reference temperature."""
    if COLUMNS[AT_REFERENCE][0] not in rows:
        return set()
    measured = rows[numbers_of(rows, "energy_j") > 0]
    has = pd.Series(numbers_of(measured, COLUMNS[AT_REFERENCE][0]) > 0, index=measured.index)
    temperatures: Any = pd.Series(numbers_of(measured, "reference_temperature_c"), index=measured.index)
    complete: Any = has.groupby(measured["key"]).all()
    one: Any = temperatures.groupby(measured["key"]).nunique() <= 1
    return set(complete.index[complete & one])


def values_of(rows: Frame, quantity: str) -> BoardValues | None:
    """A quantity of rows by board; None where there is no value.

    Args:
        rows: of one type, with `board` and `key`.
        quantity: a key of `COLUMNS`.
    """
    column, error_column = COLUMNS[quantity]
    values, errors = numbers_of(rows, column), numbers_of(rows, error_column)
    good = np.isfinite(values) & (values > 0)
    if not good.any():
        return None
    key_codes, keys = pd.factorize(rows["key"].to_numpy()[good])
    board_codes, boards = pd.factorize(rows["board"].to_numpy()[good], sort=True)
    shape = (len(keys), len(boards))
    means, widths = _combined(np.log(values[good]), errors[good], key_codes * len(boards) + board_codes, shape)
    return BoardValues(quantity, list(keys), tuple(boards), means, widths)


def _combined(logs: Floats, errors: Floats, cells: Any, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Measurements of one row on one board as one: weighted mean and its error, widened where they disagree.

    The error is that of the weighted mean times the Birge ratio (root of chi-squared by its degrees of freedom), where
    this is above 1. Without an error a measurement weighs as one with the widest of all.
    """
    known = np.isfinite(errors) & (errors > 0)
    weights = 1 / np.where(known, errors, errors[known].max() if known.any() else 1.0) ** 2
    size = shape[0] * shape[1]

    def sums(what: Floats) -> Any:
        return np.bincount(cells, what, minlength=size)

    counts, total = np.bincount(cells, minlength=size), sums(weights)
    means = np.divide(sums(weights * logs), total, out=np.full(size, np.nan), where=total > 0)
    # 95 % half widths: chi-squared is of standard deviations
    squares = sums(weights * (logs - means[cells]) ** 2) * 1.96**2
    birge = np.sqrt(np.maximum(squares / np.maximum(counts - 1, 1), 1.0))
    widths = np.where(sums(known.astype(float)) > 0, birge / np.sqrt(np.where(total > 0, total, 1.0)), np.nan)
    return np.exp(means).reshape(shape), np.where(counts > 0, widths, np.nan).reshape(shape)


def numbers_of(frame: Frame, name: str) -> Floats:
    """A column as numbers, NaN where there is none."""
    if name not in frame:
        return np.full(len(frame), np.nan)
    numbers: Any = pd.to_numeric(frame[name], errors="coerce")
    return numbers.to_numpy(dtype=float, na_value=np.nan)


def _texts(frame: Frame, name: str) -> Any:
    column: Any = frame[name] if name in frame else pd.Series("", index=frame.index, dtype=object)
    return column.astype(object).where(column.notna(), "").astype(str)
