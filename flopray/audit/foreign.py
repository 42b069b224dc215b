"""What a table from elsewhere has that the audit does not know, and what that keeps it from judging.

A verdict on what was not understood is worse than no verdict. So cells that are not numbers are named, unknown columns
that tell rows apart are taken as part of what was measured, and rows that cover several devices are not held against
the limits of one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from flopray.audit.cells import are_plain_numbers, identities, names_of
from flopray.audit.findings import KEY_COLUMNS, Finding, Severity, is_missing, number
from flopray.records import COLUMN_NAMES, FORMER_NAMES

Row = Mapping[str, Any]

#: Columns that the audit reads as numbers.
NUMBER_COLUMNS = (
    *("model_flops", "time_s", "energy_j", "power_w", "flops_per_s", "flops_per_j", "mfu", "hfu"),
    *("time_rel_error", "energy_rel_error", "target_error", "power_limit_w", "idle_power_w", "active_energy_j"),
    *("executed_flops", "executed_gemm_flops", "gemm_flops", "executed_other_rel", "dispatched_flops"),
    *("n_layers", "width", "tokens", "batch_size", "sequence_length", "tokens_per_iteration", "energy_per_token_j"),
    *("other_processes", "sm_count", "max_sm_clock_hz", "sentinel_time_drift", "sentinel_energy_drift"),
)
#: Names under which tables say how many devices a row covers; compared without case, blanks, hyphens and underscores.
_DEVICE_COUNTS = {
    *("gpucount", "numgpus", "ngpus", "ngpu", "gpus", "gpunum", "numgpu", "nogpus", "devicecount", "numdevices"),
    *("ndevices", "devices", "worldsize", "nprocs", "numaccelerators", "naccelerators", "acceleratorcount"),
    *("numranks", "nranks", "ranks", "totalgpus", "gputotal", "gpucnt", "numprocesses", "nproc"),
    *("numworkers", "nworkers", "numprocs", "devicesused", "gpusused", "numcards", "cards"),
}
#: Names of one factor of that number, or of a list of devices: several are meant, but not how many.
_DEVICE_SPREADS = {
    *("nodes", "nnodes", "numnodes", "nodecount", "gpuspernode", "ngpuspernode", "nprocpernode", "devicespernode"),
    *("tp", "pp", "dp", "ep", "cp", "tpsize", "ppsize", "dpsize", "epsize", "cpsize", "tpdegree", "ppdegree"),
    *("dpdegree", "tensorparallel", "tensorparallelsize", "pipelineparallel", "pipelineparallelsize"),
    *("dataparallel", "dataparallelsize", "contextparallelsize", "expertparallelsize", "tensormodelparallelsize"),
    *("pipelinemodelparallelsize", "gpuids", "deviceids", "cudavisibledevices", "visibledevices", "gpulist"),
}
#: A list of devices in a cell: `0,1,2`, `[0, 1]`, `0 1`; and a number with a noun: `8x H100`, `8 GPUs`.
_LIST = re.compile(r"[\[(]?\s*\d+(\s*[,; |]\s*\d+)+\s*[\])]?")
_TIMES = re.compile(r"(\d+)\s*([x*×]|gpus?\b|devices?\b|cards?\b)", re.IGNORECASE)
#: Columns whose meaning the audit knows: those of records, of the MLP's and Llama's runs, and other people's keys.
KNOWN = COLUMN_NAMES | FORMER_NAMES | set(KEY_COLUMNS)
#: Words in unknown columns that sound like what the audit judges.
_SOUNDS = (
    *("time", "latency", "duration", "second", "elapsed", "energy", "joule", "power", "watt", "flop", "throughput"),
    *("kwh", "mfu", "_ms", "_us", "_ns", "(ms)", "(us)", "[ms]", "[us]"),
)
#: Seconds since 1970 from here on (1999), which nothing that is measured takes.
_UNIX_TIME_S = 9.0e8


def not_numbers(rows: Sequence[Row]) -> list[Finding]:
    """A note for each column of numbers that has texts (or infinities) in it; `rows` are positions."""
    found: dict[str, list[int]] = {}
    for column in NUMBER_COLUMNS:
        if are_plain_numbers([row.get(column) for row in rows]):
            continue
        suspects = [place for place, row in enumerate(rows) if not _is_plain(row.get(column))]
        places = [p for p in suspects if not is_missing(rows[p].get(column)) and number(rows[p], column) is None]
        if places:
            found[column] = places
    return [_not_a_number(rows, column, places) for column, places in found.items()]


def _is_plain(value: Any) -> bool:
    """A number or nothing, for which no further look is needed; most cells are, so this is quick."""
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) != math.inf


def _not_a_number(rows: Sequence[Row], column: str, places: Sequence[int]) -> Finding:
    words = Counter(f"{rows[place][column]!s:.40}" for place in places)
    some = ", ".join(repr(word) for word, _ in words.most_common(3)) + (", ..." if len(words) > 3 else "")
    which = f"row {places[0] + 1}" if len(places) == 1 else f"{len(places)} rows, the first is row {places[0] + 1}"
    sentence = f"{column} is not a number in {which}: {some}; these rows are judged by what else they have"
    numbers = {"column": column, "rows": len(places), "of": len(rows)}
    return Finding("not_a_number", Severity.NOTE, sentence, numbers=numbers, rows=tuple(places))


def counts_devices(column: object, *, in_all: bool = True) -> bool:
    """Whether a column's name says that it counts the devices of a row; without `in_all`, also by one factor."""
    return _plain(column) in _DEVICE_COUNTS or (not in_all and _plain(column) in _DEVICE_SPREADS)


def _plain(column: object) -> str:
    return "".join(letter for letter in str(column).lower() if letter.isalnum())


def device_count_column(rows: Sequence[Row]) -> str | None:
    """The column that says that a row covers more than one device; None where none does."""
    for column in _columns(rows):
        if counts_devices(column) and any(covers_several(row, column) for row in rows):
            return str(column)
    return None


def device_spread_column(rows: Sequence[Row]) -> str | None:
    """A column such as `nodes` or `tensor_parallel`, which says that rows cover several devices, and not how many."""
    for column in _columns(rows):
        if _plain(column) in _DEVICE_SPREADS and any(covers_several(row, column) for row in rows):
            return str(column)
    return None


def device_count(row: Row, column: str) -> int | None:
    """How many devices a row covers; None where its cell does not tell a whole number of at least one."""
    value = number(row, column)
    if value is not None:
        return int(value) if value >= 1 and value == int(value) else None
    cell = row.get(column)
    if isinstance(cell, (list, tuple)):
        return len(cell) or None
    if not isinstance(cell, str):
        return None
    if _LIST.fullmatch(cell.strip()):
        return len(re.findall(r"\d+", cell))
    times = _TIMES.match(cell.strip())
    return int(times[1]) or None if times else None


def covers_several(row: Row, column: str | None) -> bool:
    """Whether a row covers more than one device, or has a cell there that does not tell how many."""
    if column is None or is_missing(row.get(column)):
        return False
    count = device_count(row, column)
    return count is None or count > 1


def is_axis(rows: Sequence[Row], column: str, further: int = 2) -> bool:
    """Whether a column is when something was seen, or a counter that was read: `0, 0.1, 0.2` or seconds since 1970.

    A trace starts at 0, never falls but back to 0 (the next trace of a table), and has further values; rows that share
    a moment (one for each GPU) and cells that are not numbers do not change that.

    Args:
        rows: of the table.
        column: which one.
        further: how many values above 0 it takes at least.
    """
    values = [value for row in rows if (value := number(row, column)) is not None]
    if not values:
        return False
    if column == "time_s" and min(values) > _UNIX_TIME_S:
        return True
    rises = all(after >= before or after == 0 for before, after in pairwise(values))
    return values[0] == 0 and rises and len(set(values)) > further


def without_axes(rows: Sequence[Row]) -> tuple[Sequence[Row], list[Finding]]:
    """Rows without columns that are axes of a trace, and notes that say so."""
    axes = [column for column in ("time_s", "energy_j") if is_axis(rows, column)]
    if not axes:
        return rows, []
    notes = [_note(f"{column} {AXIS[column]}: it was not judged") for column in axes]
    return [{name: value for name, value in row.items() if name not in axes} for row in rows], notes


#: What an axis is, in words.
AXIS = {
    "time_s": "is a time axis, and not the time of an iteration",
    "energy_j": "starts at 0 and only rises: that is a counter, and not the energy of an iteration",
}


def telling_apart(rows: Sequence[Row]) -> list[str]:
    """Columns that the audit does not know and that tell rows apart: `kernel`, `rank`, `optimizer`, `sparsity`.

    Texts, flags and whole numbers do; so do other numbers that come again, since a measured one hardly does.
    """
    found = []
    for column in _columns(rows):
        if column in KNOWN or str(column).endswith(("_s", "_j", "_w", "_c", "_hz", "_bytes", "_flops", "_rel_error")):
            continue
        seen = Counter(identities(rows, column))
        seen.pop(None, None)
        if len(seen) < 2 and sum(seen.values()) in (0, len(rows)):
            continue
        values = [number(row, column) for row in rows if not is_missing(row.get(column))]
        if _sounds_measured(column) and None not in values:
            continue
        whole = all(value is None or value == int(value) for value in values)
        if whole or min(seen.values()) > 1:
            found.append(str(column))
    return found


def not_understood(rows: Sequence[Row], further: Sequence[str]) -> list[Finding]:
    """Notes on unknown columns: those that tell rows apart, and those that sound like what is judged."""
    found = []
    if further:
        them = "it" if len(further) == 1 else "them"
        sentence = f"rows are also told apart by {_listed(further)}, which the audit does not know"
        found.append(_note(f"{sentence}: only rows that agree in {them} are compared with one another"))
    unknown = [str(column) for column in _columns(rows) if column not in KNOWN and str(column) not in further]
    like = [column for column in unknown if _sounds_measured(column)]
    if like := [column for column in like if not all(is_missing(row.get(column)) for row in rows)]:
        sentence = f"{_listed(like)}: the audit does not know what this is, so it was not judged"
        found.append(_note(f"{sentence}; if it is one of its columns, say so with --rename {like[0]}=COLUMN"))
    return found


def _sounds_measured(column: object) -> bool:
    return any(word in str(column).lower() for word in _SOUNDS)


def _note(sentence: str) -> Finding:
    return Finding("not_understood", Severity.NOTE, sentence)


def _columns(rows: Sequence[Row]) -> Iterable[Any]:
    return names_of(rows)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
