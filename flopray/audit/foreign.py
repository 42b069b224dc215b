"""What the audit does not know in a table from elsewhere, and what it therefore cannot judge.

A verdict on what was not understood is worse than none. So cells that are not numbers are named, unknown columns that
tell rows apart count as part of what was measured, and rows that cover several devices are not judged by the limits of
one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from flopray.audit.cells import are_plain_numbers, identities, names_of
from flopray.audit.findings import KEY_COLUMNS, Finding, Row, Severity, is_missing, number
from flopray.audit.hardware import find_gpu
from flopray.audit.likely_columns import how_to_rename
from flopray.records import COLUMN_NAMES, FORMER_NAMES

#: Columns that the audit reads as numbers.
NUMBER_COLUMNS = (
    *("model_flops", "time_s", "energy_j", "power_w", "flops_per_s", "flops_per_j", "mfu", "hfu"),
    *("time_rel_error", "energy_rel_error", "target_error", "power_limit_w", "idle_power_w", "active_energy_j"),
    *("executed_flops", "executed_gemm_flops", "gemm_flops", "executed_other_rel", "dispatched_flops"),
    *("n_layers", "width", "tokens", "batch_size", "sequence_length", "tokens_per_iteration", "energy_per_token_j"),
    *("other_processes", "sm_count", "max_sm_clock_hz", "sentinel_time_drift", "sentinel_energy_drift"),
)
#: What devices are called where they are counted; `gpu` or `rank` alone says which one it is, `gpus` how many.
_DEVICES = ("gpu", "device", "accelerator", "chip", "card", "board", "rank", "worker", "process", "proc", "tpu", "gcd")
_HOSTS = ("node", "host", "machine", "server", "instance")
#: What a job consists of, each of which has devices of its own.
_GROUPS = ("replica", "task", "pod", "job", "shard")
#: Settings that are rarely whole numbers, and that measured values are never called.
_SETTINGS = re.compile(
    r"(?:.*_)?(lr|learning_rate|dropout|momentum|weight_decay|sparsity|density|keep_ratio|capacity_factor|warmup|top_p)"
)


def _counts_of(nouns: Iterable[str], ends: Iterable[str] = ("",)) -> set[str]:
    """Names of a number of things, without case, blanks, hyphens and underscores: `numgpus`, `gpucount`, `gpus`."""
    several = [f"{noun}{plural}{end}" for noun in nouns for plural in ("", "s", "es") for end in ends]
    before = ("num", "n", "no", "numberof", "numof", "noof", "total", "totalnum", "countof")
    after = ("count", "cnt", "num", "number", "total", "used", "intotal")
    alone = {name for name in several if name not in nouns}
    return alone | {f"{word}{name}" for word in before for name in several} | {n + w for n in several for w in after}


#: Names under which tables say how many devices a row covers; `a#` is how MLPerf's results call accelerators.
_DEVICE_COUNTS = _counts_of(_DEVICES) | {"worldsize", "mpisize", "commsize", "anum"}
#: The same behind any word: `ddp_world_size`, `system_accelerators`, `cuda_devices`.
_COUNT_ENDS = ("worldsize", "gpus", "gpucount", "accelerators", "cudadevices", "jaxdevices", "localdevices")
#: Names of one factor of that number, or of a list of devices: several are meant, but not how many.
_DEVICE_SPREADS = (
    _counts_of(_HOSTS)
    | _counts_of(_DEVICES, [f"per{whole}" for whole in (*_HOSTS, *_GROUPS)])
    | _counts_of(_GROUPS)
    | {f"{kind}p{end}" for kind in (*"tpdecs", "fsd") for end in ("", "size", "degree")}
    | {"pipelinestages", "numpipelinestages", "meshshape", "devicemesh", "meshsize", "slurmntasks", "numshards"}
    | {
        f"{kind}{middle}parallel{end}"
        for kind in ("tensor", "pipeline", "data", "context", "expert", "sequence", "model", "fullysharded")
        for middle in ("", "model")
        for end in ("", "ism", "size", "degree")
    }
    | {"gpuids", "deviceids", "cudavisibledevices", "visibledevices", "gpulist", "devicelist", "gpuindices"}
)
#: A list of devices in a cell: `0,1,2`, `[0, 1]`, `0 1`; and a number with a noun: `8x H100`, `8 GPUs`.
_LIST = re.compile(r"[\[(]?\s*\d+(\s*[,; |]\s*\d+)+\s*[\])]?")
_TIMES = re.compile(r"(\d+)\s*([x*×]|gpus?\b|devices?\b|cards?\b|accelerators?\b)", re.IGNORECASE)
#: The same behind a name: `H100 x8`, `H100 (8 GPUs)`.
_TIMES_AFTER = re.compile(
    r"(.*)((?<![a-z])[x*×]\s*(\d{1,4})|[(\[,]\s*(\d+)\s*(x|gpus?|devices?|cards?)[)\]]?)\s*", re.IGNORECASE
)
#: Numbers beside a name that is a device's without them: `2 NVIDIA H100`, `8 H100s`, `HGX H100 8-GPU`, `gpu:h100:4`.
_COUNTED = (
    re.compile(r"(?P<count>\d{1,4})[\s-]+(?P<name>.+)"),
    re.compile(r"(?:[DH]GX\s+)?(?P<name>.+?)[\s_-]+(?P<count>\d{1,4})[\s-]*(?:gpus?|devices?|cards?)", re.IGNORECASE),
    re.compile(r"(?:gpu:)?(?P<name>[^:]+):(?P<count>\d{1,4})", re.IGNORECASE),
    re.compile(r"(?P<name>.+?)\s*\((?P<count>\d{1,4})\)"),
    re.compile(r"(?P<name>.+?\d)[x*\u00d7](?P<count>\d{1,4})"),
    re.compile(r"(?P<name>.+?gb)[x*\u00d7](?P<count>\d{1,4})", re.IGNORECASE),
)
#: What stands between the names of several devices in one cell.
_BETWEEN = re.compile(r"\s*[,;|+&\n]\s*")
#: Columns that name a device, which may also say how many: `8 x NVIDIA H100`.
DEVICE_NAMES = ("device_name", "device_type")
#: Columns whose meaning the audit knows: those of records, of the MLP's and Llama's runs, and other people's keys.
KNOWN = COLUMN_NAMES | FORMER_NAMES | set(KEY_COLUMNS)
_NUMBER_TEXT = re.compile(r"[+-]?\d[\d.,' ]*(e[+-]?\d+)?\s*[a-zµ%/]*", re.IGNORECASE)
#: Words in unknown columns that sound like what the audit judges.
_SOUNDS = (
    *("time", "latency", "duration", "second", "elapsed", "energy", "joule", "power", "watt", "flop", "throughput"),
    *("kwh", "mfu", "_ms", "_us", "_ns", "(ms)", "(us)", "[ms]", "[us]"),
)


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
    """Whether a cell is a number or empty, which needs no further check; most cells are, so this is quick."""
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
    plain = _plain(column)
    if str(column) in KNOWN:
        return plain in _DEVICE_COUNTS
    return plain in _DEVICE_COUNTS or plain.endswith(_COUNT_ENDS) or (not in_all and plain in _DEVICE_SPREADS)


def _plain(column: object) -> str:
    return "".join(letter for letter in str(column).lower().replace("#", "num") if letter.isalnum())


def device_count_column(rows: Sequence[Row]) -> str | None:
    """The column that says that a row covers more than one device; None where none does."""
    for column in _columns(rows):
        if counts_devices(column) or column in DEVICE_NAMES:
            cells = _distinct([row.get(column) for row in rows])
            if any(covers_several({column: cell}, column) for cell in cells):
                return str(column)
    return None


def _distinct(cells: Sequence[Any]) -> Iterable[Any]:
    """Each distinct cell once, where they can be hashed: a column has few devices."""
    return set(cells) if set(map(type, cells)) <= {str, int, float, type(None)} else cells


def device_spread_column(rows: Sequence[Row]) -> str | None:
    """A column such as `nodes` or `tensor_parallel`, which says that rows cover several devices, and not how many."""
    for column in _columns(rows):
        if _plain(column) in _DEVICE_SPREADS and any(covers_several(row, column) for row in rows):
            return str(column)
    return None


def device_count(row: Row, column: str) -> int | None:
    """How many devices a row covers; None where its cell has no whole number of at least one."""
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
    times, _ = times_device(cell)
    if times is None and (column in DEVICE_NAMES or find_gpu(cell)):
        return 1
    return times


def times_device(cell: str) -> tuple[int | None, str]:
    """How many devices a text such as `8 x NVIDIA H100`, `H100 (8 GPUs)` or `['H100', 'H100']` says, and which one.

    Returns:
        The number, or None where the text says none; and the text without it. Devices that differ keep the whole text.
    """
    words = cell.strip()
    if before := _TIMES.match(words):
        return int(before[1]) or None, words[before.end() :].strip()
    if after := _TIMES_AFTER.fullmatch(words):
        return int(after[3] or after[4]) or None, after[1].strip(" _-")
    if find_gpu(words):
        return None, cell
    parts = [part.strip(" '\"") for part in _BETWEEN.split(words.strip(" []()"))]
    if all(map(find_gpu, parts)):  # a list of one, `['NVIDIA H100']`, is one device
        return len(parts), parts[0] if len(set(parts)) == 1 else cell
    for pattern in _COUNTED:
        found = pattern.fullmatch(words)
        for name in (found["name"], found["name"].removesuffix("s")) if found else ():
            if find_gpu(name):
                return int(found["count"]) or None, name  # type: ignore[index]
    return None, cell


def covers_several(row: Row, column: str | None) -> bool:
    """Whether a row covers more than one device, or a number that its cell does not give."""
    if column is None or is_missing(row.get(column)):
        return False
    count = device_count(row, column)
    return count is None or count > 1


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
        if sounds_measured(column) and all(map(_like_a_number, (row.get(column) for row in rows))):
            continue
        whole = all(value is None or value == int(value) for value in values)
        if whole or min(seen.values()) > 1 or _SETTINGS.fullmatch(str(column).lower()):
            found.append(str(column))
    return found


def _like_a_number(cell: Any) -> bool:
    """Whether a cell is a number, none, or a text that is meant as one: `1,5`, `500,000`, `350 W`, `1.2 ms`."""
    if is_missing(cell) or number({"": cell}, "") is not None or isinstance(cell, (int, float)):
        return True
    return isinstance(cell, str) and _NUMBER_TEXT.fullmatch(cell.strip()) is not None


def not_understood(rows: Sequence[Row], further: Sequence[str]) -> list[Finding]:
    """Notes on unknown columns: those that tell rows apart, and those that sound like what is judged."""
    found = []
    if further:
        them = "it" if len(further) == 1 else "them"
        sentence = f"rows are also told apart by {_listed(further)}, which the audit does not know"
        found.append(_note(f"{sentence}: only rows that agree in {them} are compared with one another"))
    unknown = [str(column) for column in _columns(rows) if column not in KNOWN and str(column) not in further]
    like = [column for column in unknown if sounds_measured(column)]
    if like := [column for column in like if not all(is_missing(row.get(column)) for row in rows)]:
        sentence = f"{_listed(like)}: the audit does not know what this is, so it was not judged"
        how = how_to_rename(like, KNOWN.intersection(map(str, _columns(rows))))
        found.append(_note(f"{sentence}; if it is one of its columns, say so with {how}"))
    return found


def sounds_measured(column: object) -> bool:
    """Whether a column's name sounds like a quantity that the audit judges."""
    return any(word in str(column).lower() for word in _SOUNDS)


def _note(sentence: str) -> Finding:
    return Finding("not_understood", Severity.NOTE, sentence)


def _columns(rows: Sequence[Row]) -> Iterable[Any]:
    return names_of(rows)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
