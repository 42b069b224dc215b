"""What the audit does not know in a table from elsewhere, and what it therefore cannot judge.

A verdict on what was not understood is worse than none. So cells that are not numbers are named, unknown columns that
tell rows apart count as part of what was measured, and rows that cover several devices are not judged by the limits of
one.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from flopray.audit.cells import are_plain_numbers, identities, names_of
from flopray.audit.findings import KNOWN, OWN_COLUMNS, OWN_FIELDS, Finding, Row, Severity, is_missing, number
from flopray.audit.likely_columns import how_to_rename

#: Columns that the audit reads as numbers.
NUMBER_COLUMNS = (
    *("model_flops", "time_s", "energy_j", "power_w", "flops_per_s", "flops_per_j", "mfu", "hfu"),
    *("time_rel_error", "energy_rel_error", "target_error", "power_limit_w", "idle_power_w", "active_energy_j"),
    *("executed_flops", "executed_gemm_flops", "gemm_flops", "executed_other_rel", "dispatched_flops"),
    *("n_layers", "width", "tokens", "batch_size", "sequence_length", "tokens_per_iteration", "energy_per_token_j"),
    *("other_processes", "sm_count", "max_sm_clock_hz", "sentinel_time_drift", "sentinel_energy_drift"),
)
#: Words in the names of what is found out by running: such fractions do not tell rows apart, and others may.
_OUTCOME = re.compile(
    r"(?<![a-z])(loss|acc|accuracy|score|f1|bleu|rouge|ppl|perplexity|error|err|grad|norm|util|utili[sz]ation|occupancy|"
    r"std|stdev|std_?dev|stddev|sem|var|variance|mean|avg|median|min|max|p\d\d?|percentile|speed_?up|eta|progress|"
    r"temp|temperature|fan|mem|memory|vram|rss|gi?b|mi?b|cost|price|usd|co2|emissions?|epoch|corr|r2|mae|rmse|mse|"
    r"hit_?rate|bandwidth|bw|gbps|tokens?_?(per|/).*|samples?_?(per|/).*|.*_per_(s|sec|second|token|j))(?![a-z])"
)
#: Settings that sound like what is measured: `power_cap`, `clock_limit`, `energy_budget`.
_LIMIT = re.compile(r"(?<![a-z])(cap|limit|budget|target|locked)(?![a-z])")
_NUMBER_TEXT = re.compile(r"[+-]?\d[\d.,' ]*(e[+-]?\d+)?\s*[a-zµ%/]*", re.IGNORECASE)
#: Words in unknown columns that sound like what the audit judges.
_SOUNDS = (
    *("time", "latency", "duration", "second", "elapsed", "energy", "joule", "power", "watt", "flop", "throughput"),
    *("kwh", "mfu", "_ms", "_us", "_ns", "(ms)", "(us)", "[ms]", "[us]"),
    *("(w)", "[w]", "(kw)", "[kw]", "(j)", "[j]", "(kj)", "[kj]", "(wh)", "[wh]"),
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
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) > sys.float_info.max


def _not_a_number(rows: Sequence[Row], column: str, places: Sequence[int]) -> Finding:
    words = Counter(f"{rows[place][column]!s:.40}" for place in places)
    some = ", ".join(repr(word) for word, _ in words.most_common(3)) + (", ..." if len(words) > 3 else "")
    which = f"row {places[0] + 1}" if len(places) == 1 else f"{len(places)} rows, the first is row {places[0] + 1}"
    sentence = f"{column} is not a number in {which}: {some}; these rows are judged by what else they have"
    numbers = {"column": column, "rows": len(places), "of": len(rows)}
    return Finding("not_a_number", Severity.NOTE, sentence, numbers=numbers, rows=tuple(places))


def telling_apart(rows: Sequence[Row], columns: Collection[str] = ()) -> list[str]:
    """Columns that the audit does not know and that tell rows apart: `kernel`, `rank`, `optimizer`, `sparsity`.

    Texts, flags and whole numbers do; so do fractions, unless their name is that of an outcome (`loss`, `gpu_util`), or
    the rows are flopray's own, whose settings are known. Fractions of any name do that come again.

    Args:
        rows: of the table.
        columns: that are known to follow from a point or to be what was found, as those that a workload states.
    """
    found = []
    own = _are_own(rows)
    known = KNOWN | set(columns) | (OWN_COLUMNS if own else set())
    for column in _columns(rows):
        if column in known or str(column).endswith(("_s", "_j", "_w", "_c", "_hz", "_bytes", "_flops", "_rel_error")):
            continue
        seen = Counter(identities(rows, column))
        seen.pop(None, None)
        if len(seen) < 2 and sum(seen.values()) in (0, len(rows)):
            continue
        values = [number(row, column) for row in rows if not is_missing(row.get(column))]
        limit = _LIMIT.search(str(column).lower()) is not None
        if not limit and sounds_measured(column) and all(map(_like_a_number, (row.get(column) for row in rows))):
            continue
        whole = all(value is None or value == int(value) for value in values)
        setting = limit or (not own and not is_outcome(column))
        if whole or min(seen.values()) > 1 or setting:
            found.append(str(column))
    return found


def _like_a_number(cell: Any) -> bool:
    """Whether a cell is a number, none, or a text that is meant as one: `1,5`, `500,000`, `350 W`, `1.2 ms`."""
    if is_missing(cell) or number({"": cell}, "") is not None or isinstance(cell, (int, float)):
        return True
    return isinstance(cell, str) and _NUMBER_TEXT.fullmatch(cell.strip()) is not None


def not_understood(
    rows: Sequence[Row], further: Sequence[str], fields: Collection[str] = (), columns: Collection[str] = ()
) -> list[Finding]:
    """Notes on unknown columns: those that tell rows apart, and those that sound like what is judged.

    Args:
        rows: of the table.
        further: columns that tell rows apart.
        fields: columns that are known to name points.
        columns: that are known to follow from a point or to be what was found.
    """
    known = KNOWN | {*fields, *columns} | (OWN_FIELDS | OWN_COLUMNS if _are_own(rows) else set())
    found, further = [], [column for column in further if column not in known]
    if further:
        them = "it" if len(further) == 1 else "them"
        sentence = f"rows are also told apart by {_listed(further)}, which the audit does not know"
        found.append(_note(f"{sentence}: only rows that agree in {them} are compared with one another"))
    strange = [str(column) for column in _columns(rows) if column not in known]
    unknown = [column for column in strange if column not in further]
    like = [column for column in unknown if sounds_measured(column)]
    if like := [column for column in like if not all(is_missing(row.get(column)) for row in rows)]:
        sentence = f"{_listed(like)}: the audit does not know what this is, so it was not judged"
        how = how_to_rename(like, KNOWN.intersection(map(str, _columns(rows))))
        found.append(_note(f"{sentence}; if it is one of its columns, say so with {how}"))
    return found


def sounds_measured(column: object) -> bool:
    """Whether a column's name sounds like a quantity that the audit judges."""
    return any(word in str(column).lower() for word in _SOUNDS)


def is_outcome(column: object) -> bool:
    """Whether a column's name sounds like what is found out by running: `sparsity_loss`, `gpu_util`."""
    return _OUTCOME.search(str(column).lower()) is not None


def _note(sentence: str) -> Finding:
    return Finding("not_understood", Severity.NOTE, sentence)


def _are_own(rows: Sequence[Row]) -> bool:
    """Whether flopray wrote the table."""
    return any("schema_version" in row for row in rows)


def _columns(rows: Sequence[Row]) -> Iterable[Any]:
    return names_of(rows)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
