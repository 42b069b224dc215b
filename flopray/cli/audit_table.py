"""Reads what is to be audited: a run, somebody else's table, or flopmetrics' results.

A table from elsewhere is read cell by cell, so that one word in a column does not turn its numbers into words. Columns
whose name says their unit (`time_ms`, `energy_kwh`) are converted, and that is said; what could mean two things is
refused by name, with the flag that settles it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from flopray.audit.findings import is_missing, is_ok, number
from flopray.audit.foreign import (
    AXIS,
    KNOWN,
    NUMBER_COLUMNS,
    counts_devices,
    device_count,
    device_count_column,
    device_spread_column,
    is_axis,
)
from flopray.errors import InputError
from flopray.report.published import is_published, load_metrics, load_published
from flopray.store.location import load_run

#: A table has to have one of these before the audit can say anything, and a number in it; a closed form is none.
JUDGEABLE = (
    *("time_s", "energy_j", "power_w", "flops_per_s", "flops_per_j", "mfu", "hfu"),
    *("executed_flops", "executed_gemm_flops"),
)
_SEPARATORS = {".csv": (";", "\t", "|"), ".tsv": ("\t",)}
#: What a row covers where a table counts devices: all of them together, or each of them.
PER = ("job", "device")
#: Sums over devices; a time is the same for all of them, and FLOPs per joule are a quotient of two sums.
_SUMS = ("model_flops", "energy_j", "power_w", "flops_per_s", "idle_power_w", "active_energy_j", "power_limit_w")
_COUNTED = ("executed_flops", "executed_gemm_flops", "gemm_flops", "dispatched_flops", "tokens_per_iteration")
_TIME = {"ms": 1e-3, "us": 1e-6, "ns": 1e-9, "sec": 1.0, "seconds": 1.0}
#: Case matters: mJ and MJ differ by a factor of a billion, so `energy_mj` is nobody's guess.
_ENERGY = {"mJ": 1e-3, "kJ": 1e3, "MJ": 1e6, "kj": 1e3, "wh": 3600.0, "Wh": 3600.0, "kwh": 3.6e6, "kWh": 3.6e6}
_POWER = {"W": 1.0, "mW": 1e-3, "MW": 1e6, "kW": 1e3, "kw": 1e3, "watts": 1.0}
_UNITS = {
    **{f"time_{unit}": ("time_s", factor) for unit, factor in _TIME.items()},
    **{f"energy_{unit}": ("energy_j", factor) for unit, factor in _ENERGY.items()},
    **{"energy_J": ("energy_j", 1.0), "energy_joules": ("energy_j", 1.0)},
    **{f"power_{unit}": ("power_w", factor) for unit, factor in _POWER.items()},
}
#: Names that may be milli or mega, with what they would be.
_AMBIGUOUS = {"energy_mj": ("energy_j", "energy_mJ", "energy_MJ"), "power_mw": ("power_w", "power_mW", "power_MW")}


def load_records(
    path: Path, *, rename: Mapping[str, str] | None = None, per: str | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Records of a run's folder, a .parquet or .csv table, or flopmetrics' JSON lines, whichever PATH is.

    Args:
        path: what to read.
        rename: names of columns by the name that the table uses.
        per: of `PER`: what a row covers where a column counts devices.

    Returns:
        The rows, and lines that say how columns were read.

    Raises:
        InputError: it is none of these, is empty, has nothing that can be audited, or is ambiguous.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    frame = _renamed(path, _load(path), rename or {})
    frame, notes = _in_si(path, frame)
    notes = [f"{old} is read as {new}, which the audit does not know" for old, new in _unknown(rename or {})] + notes
    if not any(column in frame.columns for column in JUDGEABLE):
        raise InputError(
            f"{path}: has none of the columns that can be audited ({', '.join(JUDGEABLE)}); "
            f"it has {', '.join(map(str, frame.columns[:6]))}: say what they are with --rename NAME=COLUMN"
        )
    if frame.empty:
        raise InputError(f"{path}: has no rows")
    _refuse_axes(path, frame)
    if path.is_file():  # a run without a number says why in each row
        frame = _without_zero_times(path, frame, notes)
        _refuse_unreadable(path, frame)
    return _per_device(path, frame, per, notes), notes


def _unknown(rename: Mapping[str, str]) -> list[tuple[str, str]]:
    known = KNOWN | set(NUMBER_COLUMNS) | set(_UNITS) | {"gpu_count"}
    return [(old, new) for old, new in rename.items() if new not in known]


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
        "1234.5, without units, percent signs or thousands separators, or say what columns are with --rename"
    )


def _load(path: Path) -> pd.DataFrame:
    if is_published(path):
        return load_published(path)
    if path.is_dir():
        return load_run(path)
    readers = {".parquet": pd.read_parquet, ".csv": _read_csv, ".tsv": _read_csv}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: not a run's folder, a .parquet, .csv or .tsv table, or flopmetrics' .jsonl results")
    try:
        frame = readers[path.suffix.lower()](path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}: convert it first (iconv -t UTF-8)") from error
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({(str(error).splitlines() or ['?'])[0]})") from error
    return load_metrics(path) if "ncu_total_flops_fwd" in frame.columns else frame


def _read_csv(path: Path) -> pd.DataFrame:
    """All cells as text: each is read by itself, whatever the rest of its column holds."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        head = next((line for line in stream if line.strip()), "")
        marks = _SEPARATORS[path.suffix.lower()]
        separator = next((mark for mark in marks if mark in head and "," not in head), ",")
        names = [name.strip() for name in next(csv.reader([head], delimiter=separator), [])]
        stream.seek(0)
        _refuse_ragged(path, csv.reader(stream, delimiter=separator), len(names))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{path}: column {twice!r} appears twice")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, sep=separator, encoding="utf-8-sig")
    return frame.set_axis([str(name).strip() for name in frame.columns], axis="columns")


def _refuse_ragged(path: Path, lines: Any, columns: int) -> None:
    """Refuse a line with too many or too few cells: they would come under the wrong names."""
    for cells in lines:
        if cells and len(cells) != columns and any(cells):
            raise InputError(
                f"{path}, line {lines.line_num}: {len(cells)} cells under {columns} column names: quote cells that "
                "have a separator in them, and leave a missing cell empty"
            )


def _renamed(path: Path, frame: pd.DataFrame, rename: Mapping[str, str]) -> pd.DataFrame:
    for name, column in rename.items():
        if name not in frame.columns:
            raise InputError(f"--rename {name}={column}: {path} has no column {name!r}")
        if column in frame.columns and column not in rename:
            raise InputError(f"--rename {name}={column}: {path} has a column {column!r} already; rename that one, too")
    return frame.rename(columns=dict(rename))


def _in_si(path: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Columns whose name says their unit, in SI units."""
    notes = []
    for name in [str(column) for column in frame.columns if str(column) in _UNITS]:
        column, factor = _UNITS[name]
        if column in frame.columns:
            continue  # the table has the value in SI units already
        values = [_scaled({name: cell}, name, factor) for cell in frame[name]]
        frame = frame.assign(**{column: pd.Series(values, index=frame.index, dtype=object)}).drop(columns=name)
        notes.append(f"{name} is read as {column}" + ("" if factor == 1 else f" x {factor:g}"))
    for name, (column, small, large) in _AMBIGUOUS.items():
        if name in frame.columns and column not in frame.columns:
            raise InputError(f"{path}: {name} may be milli or mega: write --rename {name}={small} or {name}={large}")
    return frame, notes


def _scaled(row: Mapping[Any, Any], name: str, factor: float) -> Any:
    """A number times a factor; what is not a number stays as it is, so that it can be named."""
    value = number(row, name)
    return row[name] if value is None else value * factor


def _refuse_axes(path: Path, frame: pd.DataFrame) -> None:
    """Refuse a column `time_s` of 0, 0.1, 0.2, ...: it is a time axis, and not the time of an iteration."""
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    for column, meaning in AXIS.items():
        # one value above 0 is enough in a table of somebody else's, where a measured 0 is the less likely reading
        if column in frame.columns and is_axis(rows, column, further=1 if path.is_file() else 2):
            raise InputError(
                f"{path}: {column} {meaning}; call it something else (--rename {column}=reading), or audit a table "
                "with a row for each measurement"
            )


def _without_zero_times(path: Path, frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """A table without times of 0, which nobody measured: they are rounded, missing, or the start of a time axis.

    Raises:
        InputError: nothing else in the table can be judged.
    """
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    zeros = {place for place, row in enumerate(rows) if number(row, "time_s") == 0}
    if not zeros:
        return frame
    which = f"row {min(zeros) + 1}" if len(zeros) == 1 else f"{len(zeros)} rows, the first is row {min(zeros) + 1}"
    said = f"time_s is 0 in {which}, which was not understood: no work takes no time"
    times = [None if place in zeros else row["time_s"] for place, row in enumerate(rows)]
    frame = frame.assign(time_s=pd.Series(times, index=frame.index, dtype=object))
    if not any(has_numbers(row) for row in frame.to_dict("records")):
        raise InputError(
            f"{path}: {said}; give a rounded time more digits (or --rename time_s=time_ms where that is its unit), "
            "leave a missing one empty, and call a time axis something else (--rename time_s=reading)"
        )
    notes.append(f"{said}; what else there is was judged")
    return frame


def _per_device(path: Path, frame: pd.DataFrame, per: str | None, notes: list[str]) -> pd.DataFrame:
    """Rows of one device each, where a column says that they cover several."""
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    column, spread = device_count_column(rows), device_spread_column(rows)
    if column is None and spread is None:
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
        frame = _divided(path, frame, column, notes)
    # still there to tell rows apart: one device of 8 does other work than one of 2
    return frame.rename(
        columns={name: f"{name} of the row" for name in frame.columns if counts_devices(name, in_all=False)}
    )


def _divided(path: Path, frame: pd.DataFrame, column: str, notes: list[str]) -> pd.DataFrame:
    """Turn sums over devices into the mean of one device."""
    rows: Sequence[Mapping[Any, Any]] = frame.to_dict("records")
    counts = [device_count(row, column) for row in rows]
    for place, (row, count) in enumerate(zip(rows, counts, strict=True), 1):
        if count is None and has_numbers(row):
            raise InputError(
                f"{path}: {column} is {row.get(column)!r:.40} in row {place}, which is not a count of devices"
            )
    sums = [name for name in (*_SUMS, *_COUNTED) if name in frame.columns]
    notes.append(f"{', '.join(sums)} are sums over {column} devices, and divided by it")
    for name in sums:
        values = [_scaled(row, name, 1 / (count or 1)) for row, count in zip(rows, counts, strict=True)]
        frame = frame.assign(**{name: pd.Series(values, index=frame.index, dtype=object)})
    return frame


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


def has_numbers(row: Mapping[Any, Any]) -> bool:
    """Whether a row has a number that can be judged."""
    return any(number(row, column) is not None for column in JUDGEABLE)
