"""What ncu read of any program: every metric of every kernel launch, with the named ranges it was launched in.

ncu writes the ranges of a launch into two columns: those that a thread pushed and popped, the outermost first, as
`1  "<default domain>:step:none:..."  "<default domain>:forward:none:..."`, and those with a start and an end, as
`"0:flopray:forward:none:..."`. After the name come type and value of a payload, a colour, and a message.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flopray.flops.executed.classes import short_name

_PUSHED, _STARTED = "Push/Pop_Range", "Start/Stop_Range"
_NEEDED = ("ID", "Kernel Name", "Metric Name", "Metric Unit", "Metric Value")
_DEFAULT_DOMAIN = "<default domain>"
_ENTRY = re.compile(r'"([^"]*)"')
#: Name, then type and value of a payload, kind and value of a colour, kind and text of a message.
_NAME = re.compile(
    r"^(?P<name>.*?):(?:none|U?INT\d+|DOUBLE|FLOAT|unknown\w*):[^:]*"
    r"(?::(?:none|A?RGB|unknown\w*):[^:]*:(?:none|ASCII|UNICODE\w*|REGISTERED|unknown\w*):.*)?$"
)
#: How values of several launches become one, by the end of a metric's name; of all others the mean.
_TOGETHER = {"sum": "sum", "max": "max", "min": "min"}


@dataclass(frozen=True)
class Reading:
    """One metric of one launch.

    Attributes:
        launch: number of the launch, in the order of launches.
        process: id of the process that launched.
        device: number of the GPU.
        range: names of the ranges around it, joined by `/`; empty outside of ranges.
        kernel: short name.
        metric: full name.
        unit: of the value, as ncu writes it.
        value: None where ncu could not read it.
    """

    launch: int
    process: int | None
    device: int | None
    range: str
    kernel: str
    metric: str
    unit: str
    value: float | None


@dataclass(frozen=True)
class Summary:
    """All launches of a kernel in a range.

    Attributes:
        range: names of the ranges.
        kernel: short name.
        launches: how many.
        values: by metric: the sum, the largest or the smallest one where the metric's name ends so, else the mean.
    """

    range: str
    kernel: str
    launches: int
    values: dict[str, float | None]


def readings(lines: Iterable[str]) -> list[Reading]:
    """Everything in ncu's table.

    Args:
        lines: of its log file; messages are passed over, and so is a last line that was cut.

    Raises:
        ValueError: it is not a table of ncu.
    """
    found, header = [], None
    for cells in csv.reader(line for line in lines if line.startswith('"')):
        if header is None:
            header = cells
            if missing := [name for name in _NEEDED if name not in header]:
                raise ValueError(f"ncu's table lacks the column {missing[0]!r}")
        elif len(cells) == len(header):
            found.append(_reading(dict(zip(header, cells, strict=True))))
    return found


def _reading(row: dict[str, str]) -> Reading:
    columns = {kind: next((text for name, text in row.items() if kind in name), "") for kind in (_PUSHED, _STARTED)}
    return Reading(
        launch=int(row["ID"]),
        process=_whole(row.get("Process ID", "")),
        device=_whole(row.get("Device", "")),
        range="/".join([*range_names(columns[_STARTED], started=True), *range_names(columns[_PUSHED], started=False)]),
        kernel=short_name(row["Kernel Name"]),
        metric=row["Metric Name"],
        unit=row["Metric Unit"],
        value=_number(row["Metric Value"]),
    )


def range_names(text: str, *, started: bool) -> list[str]:
    """Names of the ranges in a column, the outermost first; of a domain other than the default one as `domain@name`.

    >>> range_names('1  "<default domain>:step:none:none:none:none:none:none"  "nn:a:b:none:none:none:none:none:none" ',
    ...             started=False)
    ['step', 'nn@a:b']
    """
    names = []
    for entry in _ENTRY.findall(text.replace('""', '"')):
        rest = entry.partition(":")[2] if started else entry
        domain, _, tail = rest.partition(":")
        name = matched["name"] if (matched := _NAME.match(tail)) else tail
        names.append(name if domain in ("", _DEFAULT_DOMAIN) else f"{domain}@{name}")
    return names


def summaries(found: Sequence[Reading]) -> list[Summary]:
    """By range and kernel, in the order they were first launched."""
    groups: dict[tuple[str, str], dict[str, list[float | None]]] = {}
    launches: dict[tuple[str, str], set[tuple[int | None, int]]] = {}
    for one in found:
        key = one.range, one.kernel
        groups.setdefault(key, {}).setdefault(one.metric, []).append(one.value)
        launches.setdefault(key, set()).add((one.process, one.launch))
    return [
        Summary(*key, len(launches[key]), {metric: _together(metric, values) for metric, values in metrics.items()})
        for key, metrics in groups.items()
    ]


def how_together(metric: str) -> str:
    """`sum`, `max`, `min` or `mean`: how several launches become one number.

    >>> how_together("sm__cycles_active.avg.pct_of_peak_sustained_elapsed")
    'mean'
    """
    return _TOGETHER.get(metric.rpartition(".")[2], "mean")


def _together(metric: str, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return None  # a sum without one of its parts would be partial
    how = how_together(metric)
    if how == "mean":
        return sum(known) / len(known)
    return {"sum": sum, "max": max, "min": min}[how](known)


def _whole(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
