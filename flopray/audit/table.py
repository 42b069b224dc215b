"""The rules applied to rows and tables, and how much could be judged."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from flopray.audit.axes import without_axes
from flopray.audit.cells import identities, rows_of
from flopray.audit.column_rules import COLUMN_RULES
from flopray.audit.condition_rules import CONDITION_RULES
from flopray.audit.counter_rules import COUNTER_RULES
from flopray.audit.device_columns import has_a_further_device
from flopray.audit.device_counts import covers_several, device_count_column, device_spread_column
from flopray.audit.findings import (
    CONDITIONS,
    Finding,
    Row,
    Severity,
    Unjudged,
    device_name,
    is_hole,
    is_missing,
    keys_of,
    text,
)
from flopray.audit.foreign import not_numbers, not_understood, telling_apart
from flopray.audit.limit_rules import (
    LIMIT_RULES,
    efficiency_above_peak,
    executed_rate_above_limit,
    power_above_limit,
    power_below_idle,
    rate_above_limit,
)
from flopray.audit.point_rules import judge_point
from flopray.audit.screening import alike
from flopray.audit.series_rules import judge_series
from flopray.units import counted

if TYPE_CHECKING:
    import pandas as pd

#: Every rule by name, with what it compares.
RULES: dict[str, str] = {
    "not_positive": "time, energy or power of zero or less, or a count or rate below zero",
    "error_not_usable": "a stated error of 100 % or more, or below zero: it excuses nothing",
    "inconsistent_columns": "a derived column that differs from what its parts give by more than 5 %",
    "not_a_number": "a text in a column of numbers; the row is judged by what else it has",
    "not_understood": "columns whose meaning the audit does not know and that change what others mean",
    "rate_above_limit": "FLOP/s above SMs x FLOP per clock x highest clock (else the datasheet) at that precision",
    "executed_rate_above_limit": "executed FLOPs per s above the fastest units and CUDA cores together",
    "mfu_above_one": "mfu or hfu above 1.1, which clocks above the datasheet's do not explain",
    "power_above_limit": "mean power above the board's limit, beyond the errors and 5 % of the sensor",
    "efficiency_above_peak": "FLOPs per joule above datasheet peak / board power",
    "power_below_idle": "mean power below idle power, beyond the errors and 5 % of the sensor",
    "launch_window": "energy or time that does not rise with FLOPs although the device would be near its best",
    "executed_below_closed_form": "fewer FLOPs executed in matrix products than their closed form has",
    "additivity": "phases measured apart that do not add up to the whole, beyond the errors, 5 to 10 % and any cache",
    "phases_interact": "phases that cost more or less together than apart, by no more than a cache explains",
    "shared_device": "other processes computed on the device",
    "throttled": "the device slowed itself down; its power cap alone is a note",
    "sentinel_drift": "the sentinel point drifted by more than 3 % (note) or 10 %, or than a larger target error",
    "target_error_missed": "the error that was asked for was not reached",
    "unclassified_kernels": "more than 1 % of executed FLOPs in kernels whose names tell no class",
    "no_limit_known": "no peak known for the device at that precision, so its rate was not judged",
    "not_judged": "a rule that lacked the columns or limits it compares",
}

#: Columns that make rows phases of one point where there is no trial_id.
_POINT = (
    ("run", "source", "trial_id", "workload", "model", "config", "device_type", "device_name", "device_uuid"),
    ("precision", "execution", "weights", "attention", "checkpointing", "adapter", "seed", *CONDITIONS),
    ("n_layers", "width", "tokens", "batch_size", "sequence_length", "parameters", "attempt"),
)
#: In the order of a report: the impossible, the unlikely, and notes.
_EACH_ROW = (*COLUMN_RULES, *LIMIT_RULES, *CONDITION_RULES, *COUNTER_RULES)
#: Rules that compare a row with the limits of one device.
_OF_ONE_DEVICE = (
    rate_above_limit,
    executed_rate_above_limit,
    power_above_limit,
    efficiency_above_peak,
    power_below_idle,
)
#: Fewer rows than this are not worth screening.
_FEW = 200
_RANK = {severity: rank for rank, severity in enumerate(Severity)}


def audit_row(row: Row) -> list[Finding]:
    """Findings of the rules that one row can break by itself.

    Args:
        row: column names to values, such as a row of a run's table; anything may be missing.

    Returns:
        Findings with `rows == (0,)`. A rule that could not judge is left out; a device without a known limit is not.
    """
    if is_hole(row):
        return []
    return [verdict for rule in _EACH_ROW if isinstance(verdict := rule(row), Finding)]


def audit_rows(
    rows: Sequence[Row],
    labels: Sequence[Hashable] | None = None,
    fields: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> list[Finding]:
    """Findings on a table: rows by themselves, points against their parts, and points along each axis.

    Args:
        rows: records; rows whose status says that they have no numbers are holes, and are not judged.
        labels: what to call the rows in `Finding.rows`; their positions by default.
        fields: columns that name points, such as those of a run's workload; others are told apart by what they hold.
        columns: those that follow from a point or are what was found, as a run's workload states them.

    Returns:
        Findings from worst to mildest. The last ones are notes that say which rule could not judge how many rows.
    """
    places = [place for place, row in enumerate(rows) if not is_hole(row)]
    solid, axes = without_axes([rows[place] for place in places])
    further = telling_apart(solid, columns)
    several = device_count_column(solid)
    spread = device_spread_column(solid) if several is None else None
    found: list[Finding] = axes + not_numbers(solid) + not_understood(solid, further, fields, columns)
    unjudged: dict[Unjudged, int] = defaultdict(int)
    _judge_rows(solid, several or spread, found, unjudged)
    for members in _points(solid, further):
        _sort(found, unjudged, judge_point([solid[place] for place in members]), members)
    found = _repeated(found)
    _sort(found, unjudged, judge_series(solid, further), range(len(solid)))
    found = [finding for finding in found if finding.rule != "no_limit_known"] + _unlimited(solid, found)
    found.sort(key=lambda finding: _RANK[finding.severity])
    found = [_with_fields(finding, solid, fields) for finding in found]
    if solid:  # of no rows, none could not be judged
        found += [_not_judged(verdict, count, len(solid)) for verdict, count in unjudged.items()]
    names = list(labels) if labels is not None else list(range(len(rows)))
    return [dataclasses.replace(f, rows=tuple(names[places[place]] for place in f.rows)) for f in found]


def audit(frame: pd.DataFrame, fields: Sequence[str] = (), columns: Sequence[str] = ()) -> list[Finding]:
    """`audit_rows` of a frame; `Finding.rows` are labels of its index."""
    return audit_rows(rows_of(frame), labels=list(frame.index), fields=fields, columns=columns)


def _with_fields(finding: Finding, rows: Sequence[Row], fields: Sequence[str]) -> Finding:
    """With the fields of its (first) row among its keys, so that it names the point."""
    if not (finding.rows and finding.keys):
        return finding
    row = rows[finding.rows[0]]
    own = {name: row[name] for name in fields if name not in finding.keys and not is_missing(row.get(name))}
    return dataclasses.replace(finding, keys={**finding.keys, **own}) if own else finding


def _sort(found: list[Finding], unjudged: dict[Unjudged, int], verdicts: Sequence[Any], places: Sequence[int]) -> None:
    """Put verdicts where they belong; a finding's positions within `places` become positions in the table."""
    for verdict in verdicts:
        if isinstance(verdict, Unjudged):
            unjudged[verdict] += len(verdict.rows or places)
        elif verdict is not None:
            found.append(dataclasses.replace(verdict, rows=tuple(places[place] for place in verdict.rows)))


def _judge_rows(rows: Sequence[Row], several: str | None, found: list[Finding], unjudged: dict[Unjudged, int]) -> None:
    """Judge every row by itself; of rows that the rules cannot tell apart, one for all.

    Args:
        rows: records with numbers.
        several: the column that says how many devices a row covers, if there is one.
        found: gets the findings.
        unjudged: gets what could not be judged, with how many rows.
    """
    covers = [covers_several(row, several) or has_a_further_device(row, several) for row in rows]
    groups = alike(rows, covers) if len(rows) >= _FEW else [[place] for place in range(len(rows))]
    one_device = f"{several} says that the row covers several devices; say per='job' or per='device'"
    by_place: list[Finding] = []
    for places in groups:
        row, rules, verdicts = rows[places[0]], _EACH_ROW, []
        if covers[places[0]]:
            rules = tuple(rule for rule in _EACH_ROW if rule not in _OF_ONE_DEVICE)
            verdicts = [Unjudged(rule.__name__, one_device) for rule in _OF_ONE_DEVICE]
        for verdict in (*verdicts, *(rule(row) for rule in rules)):
            if isinstance(verdict, Finding):
                by_place += [dataclasses.replace(verdict, rows=(p,), keys=keys_of(rows[p])) for p in places]
            else:
                _sort(found, unjudged, [verdict], places)
    found += sorted(by_place, key=lambda finding: finding.rows)


def _points(rows: Sequence[Row], further: Sequence[str]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    named = [identities(rows, column) for column in (*chain.from_iterable(_POINT), *further)]
    for place, key in enumerate(zip(*named, strict=True)):
        groups[key].append(place)
    return list(groups.values())


def _repeated(found: Sequence[Finding]) -> list[Finding]:
    """Tells of interacting phases in how many measurements of the point they interact the same way."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, finding in enumerate(found):
        if finding.rule == "phases_interact":
            point = tuple(item for item in finding.keys.items() if item[0] not in ("run", "source"))
            more = finding.numbers.get("whole_time_s", 0) > finding.numbers.get("parts_time_s", 0)
            for name, whole in finding.numbers.items():
                if name.startswith("whole_energy"):
                    more = whole > finding.numbers[name.replace("whole", "parts")]
            groups[(*point, len(finding.rows), more)].append(place)
    told = list(found)
    for places in groups.values():
        for place in places if len(places) > 1 else ():
            sentence = f"{told[place].sentence}; it did so in {len(places)} measurements of this point"
            numbers = {**told[place].numbers, "measurements": len(places)}
            told[place] = dataclasses.replace(told[place], sentence=sentence, numbers=numbers)
    return told


def _unlimited(rows: Sequence[Row], found: Sequence[Finding]) -> list[Finding]:
    """One note for each device and precision without a known limit, instead of one for each row."""
    groups: dict[tuple[str | None, str | None], list[Finding]] = defaultdict(list)
    for finding in found:
        if finding.rule == "no_limit_known":
            row = rows[finding.rows[0]]
            groups[device_name(row), text(row, "precision")].append(finding)
    shared = ("device_type", "precision")
    return [
        dataclasses.replace(
            group[0],
            rows=tuple(finding.rows[0] for finding in group),
            numbers={"rows": len(group)},
            keys={name: value for name, value in group[0].keys.items() if name in shared},
        )
        for group in groups.values()
    ]


def _not_judged(verdict: Unjudged, count: int, total: int) -> Finding:
    sentence = f"{verdict.rule} could not be judged in {count} of {counted(total, 'row')}: {verdict.reason}"
    compared = {"rule": verdict.rule, "reason": verdict.reason, "rows": count, "of": total}
    return Finding("not_judged", Severity.NOTE, sentence, numbers=compared)
