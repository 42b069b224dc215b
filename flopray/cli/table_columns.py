"""The meaning of column names in tables from elsewhere: units in names, other spellings, shares in per cent.

`Time (ms)`, `time [us]`, `energy_kWh`, `GFLOPS/W` and `MFU %` say all that is needed, so they are read, and a line says
how. A name that may be milli or mega is refused, since the two differ by a factor of a billion.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from flopray.audit.column_rules import DERIVED_TOLERANCE
from flopray.audit.findings import KEY_COLUMNS, KNOWN, is_missing, number
from flopray.audit.foreign import NUMBER_COLUMNS
from flopray.errors import InputError
from flopray.report.table_reader import SEPARATOR
from flopray.units import counted

_TIME = {
    **{"s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "us": 1e-6},
    **{"milliseconds": 1e-3, "usec": 1e-6, "microseconds": 1e-6, "ns": 1e-9, "nanoseconds": 1e-9},
    **{"minutes": 60.0, "h": 3600.0, "hours": 3600.0},  # `time_min` may be the least of several
}
_ENERGY = {
    **{"j": 1.0, "joule": 1.0, "joules": 1.0, "uj": 1e-6, "kj": 1e3, "gj": 1e9, "mJ": 1e-3, "MJ": 1e6},
    **{"wh": 3.6e3, "kwh": 3.6e6, "mWh": 3.6, "MWh": 3.6e9, "millijoules": 1e-3, "megajoules": 1e6},
}
_POWER = {"w": 1.0, "watt": 1.0, "watts": 1.0, "kw": 1e3, "mW": 1e-3, "MW": 1e6, "milliwatts": 1e-3}
_SHARE = {"%": 1e-2, "pct": 1e-2, "percent": 1e-2}
_HERTZ = {"hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}
#: Units whose case decides between milli and mega, so that another case is ambiguous.
_MILLI_OR_MEGA = {"mj": ("mJ", "MJ"), "mw": ("mW", "MW"), "mwh": ("mWh", "MWh")}
#: Columns that hold shares, in which `51%` can only be 0.51.
_SHARES = ("mfu", "hfu", "time_rel_error", "energy_rel_error", "target_error")
#: Quantities by the name that is left without its unit: their column, and what each unit is worth.
_QUANTITIES: dict[str, tuple[str, Mapping[str, float]]] = {
    "time": ("time_s", _TIME),
    "energy": ("energy_j", _ENERGY),
    "active_energy": ("active_energy_j", _ENERGY),
    "energy_per_token": ("energy_per_token_j", _ENERGY),
    "power": ("power_w", _POWER),
    "power_limit": ("power_limit_w", _POWER),
    "idle_power": ("idle_power_w", _POWER),
    "max_sm_clock": ("max_sm_clock_hz", _HERTZ),
    **{name: (name, _SHARE) for name in _SHARES},
}
#: `Time (ms)`, `Energy [J]`, `Power, W`, `time / ms`, `power in W`, `time_ms`, `MFU%`.
_WITH_UNIT = re.compile(
    r"(?P<name>.+?)\s*(?:[(\[{<]\s*(?P<inside>[^)\]}>]+?)\s*[)\]}>]"
    r"|(?:[,/]\s*|\bin\s+|[\s_.-])(?P<after>[^\s,/_.-]+)|(?P<percent>%))"
)
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}
_COUNT = {f"{prefix}{noun}": factor for prefix, factor in _PREFIXES.items() for noun in ("flop", "flops")}
_RATE = {f"{prefix}{noun}": factor for prefix, factor in _PREFIXES.items() for noun in ("flop/s", "flops/s")}
#: Counts, rates and efficiencies of FLOPs; a FLOP/s for each watt is a FLOP for each joule.
_PER_S, _PER_J = r"(?:/|_per_|per)_?(?:s|sec|second)", r"(?:/|_per_|per)_?(?:j|joule|w|watt)"
_FLOPS = (
    (
        re.compile(rf"(?:flops?_per_s_|rate_|throughput_|achieved_|measured_)?([kmgtpe]?)flops?_?{_PER_S}"),
        "flops_per_s",
    ),
    (re.compile(rf"(?:flops?_per_j_|efficiency_)?([kmgtpe]?)flops?_?(?:{_PER_S})?_?{_PER_J}"), "flops_per_j"),
    (re.compile(r"model_(?:flops_)?([kmgtpe]?)flops?"), "model_flops"),
)
_PLAIN_NAMES = {*NUMBER_COLUMNS, *KEY_COLUMNS, "device_name", "status", "energy_status"}
#: Columns of which fractions are usual; in others, `1,2` may be a list.
MEASURED_COLUMNS = {
    *("model_flops", "flops_per_s", "flops_per_j", "executed_flops", "executed_gemm_flops", "gemm_flops"),
    *(column for column, _ in _QUANTITIES.values()),
}
#: What is judged is the mean of several repeats anyway.
_MEAN = re.compile(
    r"^(mean|avg|average)[\s_-]+(of[\s_-]+)?|[\s_-]+(mean|avg|average)$|[\s_-]*\((mean|avg|average)\)$", re.IGNORECASE
)
_PERCENT = re.compile(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*%")
#: `698.12 W`; and time spans as pandas, Python (`1 day, 0:00:01.5`) and Slurm (`1-00:00:00`) write them.
_CELL_UNIT = re.compile(r"([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*([A-Za-z\u00b5\u03bc/]+)")
_SPAN = re.compile(r"(?:(\d+)(?: days?,? |-))?(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)")
#: Whole numbers with two marks of thousands or more, all the same: `5,000,000`, `5.000.000`, `5 000 000`.
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}([,.'_ \u00a0\u202f])\d{3}(\1\d{3})+")
#: Both marks at once say which is which: `1,698.12`, `1.698,12`, `5 000 000,5`.
_GROUPED_FRACTION = re.compile(r"([+-]?[1-9]\d{0,2}(?:([,.'_ \u00a0\u202f])\d{3})(?:\2\d{3})*)(?!\2)[.,](\d+)")
#: A decimal point, or a mark of thousands.
_POINT_OF_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")
#: `1,5` and `0,001`; and those of them that may be whole thousands.
_COMMA, _THOUSANDS = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?"), re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


class Meaning(NamedTuple):
    """The column that a name stands for, and what its values are to be multiplied by."""

    column: str
    factor: float


def meaning(name: str) -> Meaning | None:
    """The meaning of a column's name; None for one of the audit's own, and for an unknown one.

    Raises:
        InputError: the unit may be milli or mega.
    """
    if name in KNOWN or name in NUMBER_COLUMNS:
        return None
    spelled = _MEAN.sub("", name.strip().replace("\u00b5", "u").replace("\u03bc", "u"))
    plain = re.sub(r"[^\w/%]+", "_", spelled.lower()).strip("_")
    if plain in _PLAIN_NAMES:
        return Meaning(plain, 1.0)
    for pattern, column in _FLOPS:
        if match := pattern.fullmatch(plain):
            return Meaning(column, _PREFIXES[match[1]])
    match = _WITH_UNIT.fullmatch(spelled)
    if match is None:
        return None
    quantity = re.sub(r"[^a-z0-9]+", "_", match["name"].lower()).strip("_")
    unit = match["inside"] or match["after"] or match["percent"]
    column, units = _QUANTITIES.get(quantity, ("", {}))
    if unit in units:
        return Meaning(column, units[unit])
    if (choices := _MILLI_OR_MEGA.get(unit.lower())) and choices[0] in units:
        small, large = (shlex.quote(f"{name}={quantity}_{choice}") for choice in choices)
        raise InputError(f"{name} may be milli or mega: write --rename {small} or {large}")
    factor = units.get(unit.lower())
    return None if factor is None else Meaning(column, factor)


def in_own_columns(path: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A table with the audit's own columns in SI units, and lines that say how others were read.

    Raises:
        InputError: a name may be milli or mega, or two columns say different things of one quantity.
    """
    notes: list[str] = []
    frame = _without_units_row(path, frame, notes)
    _note_points_of_thousands(frame, notes)
    frame = _without_thousands(_with_decimal_points(frame, notes), notes)
    for name in map(str, frame.columns):
        try:
            meant = meaning(name)
        except InputError as error:
            if any(_column_of(name) == str(column) for column in frame.columns):
                continue  # the table has the value in SI units already
            raise InputError(f"{path}: {error}") from error
        if meant is None:
            continue
        column, factor = meant
        values = [scaled(cell, factor) for cell in frame[name]]
        if column in frame.columns:
            frame = _without_second(path, frame, name, column, values, notes)
            continue
        series = pd.Series(values, index=frame.index, dtype=object)
        frame = frame.assign(**{column: series}).drop(columns=name)
        notes.append(f"{name} is read as {column}" + ("" if factor == 1 else f" x {factor:g}"))
    frame = _without_cell_units(frame, notes)
    return _without_percent(frame, notes), notes


def _without_units_row(path: Path, frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """A table whose first row is units, as in what `ncu --csv --page raw` writes, in these units.

    Raises:
        InputError: a unit of that row may be milli or mega.
    """
    cells = {str(name): frame[name].iloc[0] for name in frame.columns} if len(frame) > 1 else {}
    if any(number({"": cell}, "") is not None for cell in cells.values()):
        return frame
    scales: dict[str, float] = {}
    for column, units in (*_QUANTITIES.values(), ("model_flops", _COUNT), ("flops_per_s", _RATE)):
        unit = cells.get(column)
        if not isinstance(unit, str) or is_missing(unit):
            continue
        factor = _in_si(f"1 {unit.strip()}", units)
        if factor is None and unit.strip().lower() in _MILLI_OR_MEGA and units in (_ENERGY, _POWER):
            raise InputError(f"{path}: the first row has units, of which {unit} for {column} may be milli or mega")
        if factor is not None:
            scales[column] = factor
    if not scales:
        return frame
    frame = frame.iloc[1:].reset_index(drop=True)
    for column, factor in scales.items():
        values = [scaled(cell, factor) for cell in frame[column]]
        frame = frame.assign(**{column: pd.Series(values, index=frame.index, dtype=object)})
    named = ", ".join(f"{column} in {cells[column]}" for column in scales)
    notes.append(f"the first row has units and was not judged: {named}")
    return frame


def _column_of(name: str) -> str:
    match = _WITH_UNIT.fullmatch(name.strip())
    quantity = re.sub(r"[^a-z0-9]+", "_", match["name"].lower()).strip("_") if match else ""
    return _QUANTITIES.get(quantity, ("", {}))[0]


def _without_second(
    path: Path, frame: pd.DataFrame, name: str, column: str, values: list[Any], notes: list[str]
) -> pd.DataFrame:
    """A table without a column that repeats another one, or fills its gaps; texts beside texts are left."""
    gaps: set[int] = set()
    for place, (other, stated) in enumerate(zip(values, frame[column], strict=True), 1):
        known = number({"": other}, ""), number({"": stated}, "")
        if None in known:
            gaps |= {place - 1} if known[0] is not None else set()
            continue
        first, second = known
        if abs(first - second) > DERIVED_TOLERANCE * max(abs(first), abs(second)):  # type: ignore[operator,arg-type]
            raise InputError(
                f"{path}: {column} is {second:g} in row {place}, where {name} says {first:g}: remove the wrong one, "
                "or call it something else"
            )
    if any(number({"": value}, "") is not None for value in values):
        texts = sorted({f"{frame[column].iloc[p]!s:.40}" for p in gaps if not is_missing(frame[column].iloc[p])})
        rows = counted(len(gaps), "row") + " without a number in that"
        rows += f" ({', '.join(texts[:3])})" if texts else ""
        notes.append(f"{name} is read as {column} in {rows}" if gaps else f"{name} says the same as {column}")
        filled = [values[place] if place in gaps else cell for place, cell in enumerate(frame[column])]
        frame = frame.assign(**{column: pd.Series(filled, index=frame.index, dtype=object)}).drop(columns=name)
    return frame


def scaled(cell: Any, factor: float) -> Any:
    """A number times a factor; other cells are kept, so that they can be named."""
    value = number({"": cell}, "")
    return cell if value is None or factor == 1 else value * factor


def _without_cell_units(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Cells with their own units, such as `698.12 W` of nvidia-smi, `1.0 ms`, and pandas' time spans, in SI units."""
    for column, units in (*_QUANTITIES.values(), ("model_flops", _COUNT), ("flops_per_s", _RATE)):
        if column not in frame.columns or units is _SHARE:
            continue
        cells = list(frame[column])
        read = [_in_si(cell, units) for cell in cells]
        first = next((place for place, value in enumerate(read) if value is not None), None)
        if first is not None:
            values = [cell if value is None else value for cell, value in zip(cells, read, strict=True)]
            frame = frame.assign(**{column: pd.Series(values, index=frame.index, dtype=object)})
            notes.append(
                f"{column} is read in the units of its cells: {str(cells[first]).strip()} is {values[first]:g}"
            )
    return frame


def _in_si(cell: Any, units: Mapping[str, float]) -> float | None:
    """The number of a cell that states its unit; None of any other, and of a unit that may be milli or mega."""
    if units is _TIME and isinstance(cell, str) and (span := _SPAN.fullmatch(cell.strip())):
        days, hours, minutes, seconds = (float(part or 0) for part in span.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if isinstance(cell, timedelta):
        return cell.total_seconds() if units is _TIME and not pd.isna(cell) else None
    match = _CELL_UNIT.fullmatch(cell.strip()) if isinstance(cell, str) else None
    if match is None:
        return None
    unit = match[2].replace("\u00b5", "u").replace("\u03bc", "u")
    factor = units.get(unit) if unit.lower() in _MILLI_OR_MEGA else units.get(unit, units.get(unit.lower()))
    return None if factor is None else float(match[1]) * factor


def _without_percent(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    for column in [name for name in _SHARES if name in frame.columns]:
        cells = list(frame[column])
        shares = [_PERCENT.fullmatch(cell.strip()) if isinstance(cell, str) else None for cell in cells]
        if first := next((share for share in shares if share), None):
            values = [scaled(share[1], 0.01) if share else cell for share, cell in zip(shares, cells, strict=True)]
            frame = frame.assign(**{column: pd.Series(values, index=frame.index, dtype=object)})
            notes.append(f"{column} is read in per cent where it says so: {first[0]} is {values[shares.index(first)]}")
    return frame


def _with_decimal_points(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Numbers such as 0,001 with a point, if the table has no other decimal mark and they cannot be thousands."""
    names = [str(name) for name in frame.columns if _has_fractions(str(name))]
    cells = [cell.strip() for name in names for cell in frame[name] if isinstance(cell, str)]
    commas = [cell for cell in cells if _COMMA.fullmatch(cell)]
    pointed = any("." in cell and number({"": cell}, "") is not None for cell in cells)
    first = next((cell for cell in commas if not _THOUSANDS.fullmatch(cell)), None)
    if first is None or pointed:
        return frame
    notes.append(f"decimal commas are read as points: {first} is {first.replace(',', '.')}")
    changed = {name: [_with_point(cell) for cell in frame[name]] for name in names}
    return frame.assign(**{n: pd.Series(values, index=frame.index, dtype=object) for n, values in changed.items()})


def _without_thousands(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Numbers such as 500,000,000 without marks; one mark alone may be a decimal one, and is left."""
    for name in map(str, frame.columns):
        cells = [cell.strip() if isinstance(cell, str) else cell for cell in frame[name]]
        read = [_without_marks(cell) if isinstance(cell, str) else None for cell in cells]
        first = next((place for place, value in enumerate(read) if value is not None), None)
        if first is not None:
            values = [cell if value is None else value for cell, value in zip(cells, read, strict=True)]
            frame = frame.assign(**{name: pd.Series(values, index=frame.index, dtype=object)})
            notes.append(f"{name} is read without the marks of thousands: {cells[first]} is {values[first]}")
    return frame


def _without_marks(cell: str) -> int | float | None:
    """The number of a cell with marks of thousands that cannot be decimal ones; None of any other."""
    if _GROUPED.fullmatch(cell):
        return int(re.sub(r"[^\d+-]", "", cell))
    if found := _GROUPED_FRACTION.fullmatch(cell):
        return float(re.sub(r"[^\d+-]", "", found[1]) + "." + found[3])
    return None


def _note_points_of_thousands(frame: pd.DataFrame, notes: list[str]) -> None:
    """Say how `5.000` is read in a table between whose cells stand semicolons, as where commas are decimal marks."""
    if frame.attrs.get(SEPARATOR) != ";":
        return
    for name in filter(_has_fractions, map(str, frame.columns)):
        cells = [str(cell).strip() for cell in frame[name] if not is_missing(cell)]
        if cells and all(map(_POINT_OF_THOUSANDS.fullmatch, cells)):
            notes.append(
                f"{name}: {cells[0]} is read as {float(cells[0]):g}; if its point marks thousands, write "
                f"{cells[0].replace('.', '')}"
            )


def _has_fractions(name: str) -> bool:
    try:
        meant = meaning(name)
    except InputError:
        return True
    return name in MEASURED_COLUMNS or (meant is not None and meant.column in MEASURED_COLUMNS)


def _with_point(cell: Any) -> Any:
    return cell.replace(",", ".") if isinstance(cell, str) and _COMMA.fullmatch(cell.strip()) else cell
