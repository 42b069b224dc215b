"""Reads what is to be audited: a run, another tool's table, or flopmetrics' results.

What is ambiguous in a table from elsewhere is refused by name, with the flag that decides it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from flopray.audit.axes import AXIS, axes_of
from flopray.audit.column_rules import EXECUTED_CLASSES, PARTS_OF_FLOPS
from flopray.audit.device_columns import OF_THE_ROW, column_of_a_further_device
from flopray.audit.device_counts import (
    DEVICE_NAMES,
    ONE_OF,
    columns_of_several,
    counts_devices,
    device_count,
    device_count_column,
    device_spread_column,
    has_words,
    is_per_device,
    one_device,
)
from flopray.audit.findings import JUDGEABLE, KNOWN, device_name, has_numbers, is_missing, is_ok, number, precision_of
from flopray.audit.foreign import NUMBER_COLUMNS, sounds_measured
from flopray.audit.hardware import find_gpu
from flopray.audit.likely_columns import how_to_rename
from flopray.audit.limit_rules import SENSOR_TOLERANCE
from flopray.cli.table_columns import MEASURED_COLUMNS, in_own_columns, meaning, scaled
from flopray.errors import InputError
from flopray.point import PRECISIONS
from flopray.report.published import is_published, load_metrics, load_published
from flopray.report.table_reader import read_table, without_spreads, without_sums
from flopray.store.location import load_run
from flopray.store.manifests import meant_run

#: What a row covers where a table counts devices: all of them together, or each of them.
PER = ("job", "device")
#: Sums over devices; a time is the same for all of them, and FLOPs per joule are a quotient of two sums.
_SUMS = (
    *("model_flops", "energy_j", "power_w", "flops_per_s", "idle_power_w", "active_energy_j", "power_limit_w"),
    *(
        "energy_at_reference_j",
        "awake_idle_power_w",
        "measured_peak_flops_per_s",
        "tokens_per_iteration",
        "tokens_per_s",
    ),
    *("dispatched_flops", "recomputed_flops", "least_moved_bytes", *PARTS_OF_FLOPS),
    *("executed_flops", "executed_tensor_flops", "executed_cuda_flops", *EXECUTED_CLASSES),
)


#: Of a device that is not known: no board of 2026 has a higher limit.
_HIGHEST_LIMIT_W = 1500.0


def load_records(
    path: Path, *, rename: Mapping[str, str] | None = None, per: str | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Records of a run's folder, a .parquet or .csv table, or flopmetrics' JSON lines, whichever PATH is.

    Args:
        path: what to read.
        rename: names of columns by the name that the table uses.
        per: one of `PER`: what a row covers where a column counts devices.

    Returns:
        The rows, and lines that say how columns were read.

    Raises:
        InputError: it is something else, is empty, has nothing that can be audited, or is ambiguous.
    """
    if not path.exists():
        hint = meant_run(path)
        raise InputError(f"{path}: no such file or folder" + (f": {hint}" if hint else ""))
    frame = _renamed(path, _load(path), rename or {})
    notes: list[str] = []
    if path.is_file() or rename:
        frame, notes = in_own_columns(path, frame)
        for without in (without_spreads, without_sums):
            frame, left_out = without(frame)
            notes += left_out
    notes = [f"{old} is read as {new}, which the audit does not know" for old, new in _unknown(rename or {})] + notes
    if not len(frame.columns):
        raise InputError(f"{path}: has no rows")
    if not any(column in frame.columns for column in JUDGEABLE):
        raise InputError(
            f"{path}: has none of the columns that can be audited ({', '.join(JUDGEABLE)}); it has "
            f"{_most_alike(frame)}: say what they are with {how_to_rename(map(str, frame.columns))}"
        )
    if frame.empty:
        raise InputError(f"{path}: has no rows")
    _refuse_axes(path, frame)
    if path.is_file():  # a run without a number says why in each row
        frame = _without_zero_times(path, frame, notes)
        _refuse_unreadable(path, frame)
        notes += _unnamed_identities(frame)
        frame = _with_numbers(frame)
    return _per_device(path, frame, per, notes, _of_each_device(rename or {})), notes


def _with_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose measured quantities are numbers where a cell is one as a text; rules read each cell often."""
    for name in [name for name in MEASURED_COLUMNS if name in frame.columns]:
        known = [number({"": cell}, "") if isinstance(cell, str) else None for cell in frame[name]]
        cells = [cell if value is None else value for cell, value in zip(frame[name], known, strict=True)]
        frame = frame.assign(**{name: pd.Series(cells, index=frame.index, dtype=object)})
    return frame


def _of_each_device(rename: Mapping[str, str]) -> dict[str, str]:
    """The audit's columns that were renamed from a name which says that they are of each device, with that name."""
    found = {}
    for old, new in rename.items():
        meant = meaning(new)
        if is_per_device(old):
            found[meant.column if meant else new] = old
    return found


def _unknown(rename: Mapping[str, str]) -> list[tuple[str, str]]:
    known = KNOWN | set(NUMBER_COLUMNS) | {"gpu_count"}
    return [(old, new) for old, new in rename.items() if new not in known and meaning(new) is None]


def _most_alike(frame: pd.DataFrame) -> str:
    """Columns of a table that has none of the audit's: those that sound like a measured quantity come first."""
    names = sorted(map(str, frame.columns), key=lambda name: not sounds_measured(name))
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _unnamed_identities(frame: pd.DataFrame) -> list[str]:
    """Columns that hold devices or precisions under other names, where the table has none under the audit's."""
    found = []
    strangers = [str(name) for name in frame.columns if name not in KNOWN]
    for name in strangers:
        cells = list(dict.fromkeys(cell for cell in map(str, frame[name]) if not is_missing(cell)))
        devices = [cell for cell in cells if has_words(cell) and find_gpu(cell)]
        if devices and not {"device_name", "device_type"} & set(frame.columns):
            word = shlex.quote(f"{name}=device_name")
            found.append(f"{name} names devices ({devices[0]}): say --rename {word} to judge rows by their limits")
        known = [precision_of({"precision": cell}) in PRECISIONS for cell in cells]
        if cells and all(known) and "precision" not in frame.columns:
            word = shlex.quote(f"{name}=precision")
            found.append(f"{name} names precisions ({cells[0]}): say --rename {word} to judge rates by them")
    return found


def _refuse_unreadable(path: Path, frame: pd.DataFrame) -> None:
    """A table in which no cell can be judged gets no verdict; one whose rows all say that they failed does."""
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    if any(has_numbers(row) for row in rows) or all(not is_ok(row.get("status")) for row in rows):
        return
    present = [name for name in JUDGEABLE if name in frame.columns]
    cells = [(name, place, row[name]) for name in present for place, row in enumerate(rows, 1)]
    said = next((f"; {name} is {cell!s:.40} in row {place}" for name, place, cell in cells if not is_missing(cell)), "")
    raise InputError(
        f"{path}: nothing in it can be judged: no number in {', '.join(present)}{said}; write plain numbers such as "
        "1234.5 (or 1.2 ms, 350 W), without decimal commas or thousands separators, or say what columns are with "
        "--rename"
    )


def _load(path: Path) -> pd.DataFrame:
    if is_published(path):
        return load_published(path)
    if path.is_dir():
        return load_run(path)
    frame = read_table(path)
    return load_metrics(path) if "ncu_total_flops_fwd" in frame.columns else frame


def _renamed(path: Path, frame: pd.DataFrame, rename: Mapping[str, str]) -> pd.DataFrame:
    for name, column in rename.items():
        if name not in frame.columns:
            raise InputError(f"--rename {name}={column}: {path} has no column {name!r}")
        if column in frame.columns and column not in rename:
            raise InputError(f"--rename {name}={column}: {path} has a column {column!r} already; rename that one, too")
    return frame.rename(columns=dict(rename))


def _refuse_axes(path: Path, frame: pd.DataFrame) -> None:
    """Refuse a column `time_s` of 0, 0.1, 0.2, ...: it is a time axis, and not the time of an iteration."""
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    # one value above 0 is enough in a table from elsewhere, where a measured 0 is less likely
    for column in axes_of(rows, further=1 if path.is_file() else 2):
        raise InputError(
            f"{path}: {column} {AXIS[column]}; call it something else (--rename {column}=reading), or say what grows "
            f"along (--rename NAME={'tokens' if column.endswith('_flops') else 'model_flops'})"
        )


def _without_zero_times(path: Path, frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """A table without times of 0, which were not measured: they are rounded, missing, or the start of a time axis.

    Raises:
        InputError: nothing else in the table can be judged.
    """
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    zeros = {place for place, row in enumerate(rows) if number(row, "time_s") == 0}
    if not zeros:
        return frame
    which = f"row {min(zeros) + 1}" if len(zeros) == 1 else f"{len(zeros)} rows, the first is row {min(zeros) + 1}"
    said = f"time_s is 0 in {which}, which was not understood: work takes time"
    times = [None if place in zeros else row["time_s"] for place, row in enumerate(rows)]
    frame = frame.assign(time_s=pd.Series(times, index=frame.index, dtype=object))
    if not any(has_numbers(row) for row in frame.to_dict("records")):
        raise InputError(
            f"{path}: {said}; give a rounded time more digits (or --rename time_s=time_ms where that is its unit), "
            "leave a missing one empty, and call a time axis something else (--rename time_s=reading)"
        )
    notes.append(f"{said}; everything else was judged")
    return frame


def _per_device(
    path: Path, frame: pd.DataFrame, per: str | None, notes: list[str], of_each: Mapping[str, str]
) -> pd.DataFrame:
    """Rows of one device each, where a column says that they cover several; `of_each` has columns that are no sums."""
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    column, spread = device_count_column(rows), device_spread_column(rows)
    if column is None and spread is None:
        frame = _of_single_devices(frame)
        if per == "job" and not any(counts_devices(name) for name in frame.columns):
            raise InputError(
                f"--per job: {path} has no column that counts devices: name it with --rename COLUMN=gpu_count"
            )
        return frame
    if per is None:
        raise InputError(
            f"{path}: {column or spread} says that rows cover several devices, and not whether FLOPs, energy and power "
            "are sums: say --per job (sums over all of them) or --per device (of each)"
        )
    if per == "job":
        if column is None:
            raise InputError(
                f"--per job: {path} has {spread}, which does not say how many devices a row covers in all: add a "
                "column gpu_count, or name the one that is it (--rename COLUMN=gpu_count)"
            )
        frame = _divided(path, frame, column, notes, of_each)
    frame = _of_single_devices(frame)
    # kept to tell rows apart: one device of 8 does other work than one of 2
    several = {*columns_of_several(rows), *(name for name in frame.columns if counts_devices(name, in_all=False))}
    cells = {name: frame[name].map(lambda cell: f"{ONE_OF}{cell}") for name in several - set(DEVICE_NAMES)}
    frame = frame.assign(**cells).rename(columns={name: f"{name}{OF_THE_ROW}" for name in cells})
    while (other := column_of_a_further_device(frame.to_dict("records"))) is not None:  # type: ignore[arg-type]
        frame = frame.rename(columns={other: f"{other}{OF_THE_ROW}"})
    return frame


def _of_single_devices(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose device names do not say how many: `1 x NVIDIA H100` is an `NVIDIA H100`."""
    for name in [name for name in DEVICE_NAMES if name in frame.columns]:
        cells = [_one_of(cell) for cell in frame[name]]
        frame = frame.assign(**{name: pd.Series(cells, index=frame.index, dtype=object)})
    return frame


def _one_of(cell: Any) -> Any:
    """A device's name without how many there are; of a list, the one name that it has."""
    if isinstance(cell, (list, tuple)) and len(set(map(str, cell))) == 1:
        cell = str(cell[0])
    return one_device(cell) if isinstance(cell, str) else cell


def _divided(
    path: Path, frame: pd.DataFrame, column: str, notes: list[str], of_each: Mapping[str, str]
) -> pd.DataFrame:
    """Turn sums over devices into the mean of one device."""
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    counts = [device_count(row, column) for row in rows]
    for place, (row, count) in enumerate(zip(rows, counts, strict=True), 1):
        if count is None and has_numbers(row):
            raise InputError(
                f"{path}: {column} is {row.get(column)!r:.40} in row {place}, which is not a count of devices"
            )
    sums = [name for name in _SUMS if name in frame.columns and name not in of_each]
    notes += [f"{name} is of each device, as {of_each[name]} says" for name in _SUMS if name in of_each]
    if "power_limit_w" in sums and all(_is_of_one_board(row, count) for row, count in zip(rows, counts, strict=True)):
        sums.remove("power_limit_w")
        if any(number(row, "power_limit_w") for row in rows):
            notes.append("power_limit_w is taken for that of one board, since a sum over several would be more")
    if sums:
        are = "are sums" if len(sums) > 1 else "is a sum"
        notes.append(f"{', '.join(sums)} {are} over {column} devices, and divided by it")
    for name in sums:
        values = [scaled(row[name], 1 / (count or 1)) for row, count in zip(rows, counts, strict=True)]
        frame = frame.assign(**{name: pd.Series(values, index=frame.index, dtype=object)})
    return frame


def _is_of_one_board(row: Mapping[Any, Any], count: int | None) -> bool:
    """Whether a power limit is one that a board has, and a share of it is not: tools write it as nvidia-smi does."""
    limit_w, spec = number(row, "power_limit_w"), find_gpu(one_device(device_name(row) or ""))
    highest_w = spec.board_power_w if spec and spec.board_power_w else _HIGHEST_LIMIT_W
    return limit_w is None or count in (None, 1) or limit_w <= highest_w * (1 + SENSOR_TOLERANCE)


def parse_renames(words: Sequence[str]) -> dict[str, str]:
    """`NAME=COLUMN` as a mapping.

    Raises:
        InputError: a word without exactly one `=`, or a name that is given twice.
    """
    renames: dict[str, str] = {}
    for word in words:
        if not re.fullmatch(r"[^=]+=[^=]+", word):
            raise InputError(f"--rename {word}: write NAME=COLUMN, such as --rename latency_ms=time_ms")
        name, column = word.split("=")
        if name in renames or column in renames.values():
            raise InputError(f"--rename {word}: a column is named twice")
        renames[name] = column
    return renames
