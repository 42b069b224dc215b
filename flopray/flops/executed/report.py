"""Reads what ncu wrote with `--csv --page details --log-file`: messages, and a line for each counter of each kernel.

The CSV is more robust than the binary report: its columns have had the same names since 2020, reading it needs nothing
but the standard library, and it holds what was counted before a crash.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flopray.errors import MeasurementError, NoCounterPermission, Unsupported
from flopray.flops.executed.permission import REMEDY

#: NVTX domain of the ranges that are counted.
DOMAIN = "flopray"
_RANGE = re.compile(rf"\b\d+:{DOMAIN}:([^:\"]+):")

_OTHER_NCU = (
    "this Nsight Compute cannot count on this GPU: install a newer ncu (for Volta an older one: "
    "2025.3 no longer knows it)"
)
#: What ncu says, and what a person can do about it.
_PROBLEMS: tuple[tuple[str, type[MeasurementError], str], ...] = (
    (
        "ERR_NVGPUCTRPERM",
        NoCounterPermission,
        f"only administrators may read counters here: {REMEDY}",
    ),
    (
        "Cuda driver is not compatible",
        Unsupported,
        "this Nsight Compute does not fit the driver (one is too old for the other): install the release of ncu that "
        "came with the driver's CUDA version",
    ),
    (
        "driver resource was unavailable",
        MeasurementError,
        "another tool holds the GPU's counters: pause it while counting (DCGM: dcgmi profile --pause)",
    ),
    ("Failed to find metric", Unsupported, _OTHER_NCU),
    ("not supported on this device", Unsupported, _OTHER_NCU),
    ("unsupported GPU", Unsupported, _OTHER_NCU),
)


@dataclass
class Launch:
    """One counted kernel.

    Attributes:
        label: of the NVTX range it was launched in.
        kernel: demangled name.
        values: counts by the counter's full name.
    """

    label: str
    kernel: str
    values: dict[str, int] = field(default_factory=dict)


def problem_of(text: str) -> MeasurementError | None:
    """The error in ncu's messages that repeating would not cure; None where there is none."""
    for line in text.splitlines():
        if line.startswith("==ERROR=="):
            for words, kind, remedy in _PROBLEMS:
                if words.lower() in line.lower():
                    return kind(remedy)
    return None


def launches(lines: Iterable[str], *, everywhere: bool = False) -> list[Launch]:
    """The counted kernels in the order of their launch.

    Args:
        lines: of ncu's log file; messages are passed over, and so is a last line that was cut.
        everywhere: also kernels that were launched outside the ranges of flopray's domain.

    Raises:
        ValueError: a line of the table is not what ncu writes.
    """
    found: dict[str, Launch] = {}
    for row in _rows(lines):
        label = _RANGE.search(row.get("range", ""))
        if label is None and not everywhere:
            continue
        launch = found.setdefault(row["ID"], Launch(label[1] if label else "", row["Kernel Name"]))
        launch.values[row["Metric Name"]] = _count(row["Metric Value"])
    return list(found.values())


def _rows(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    header: list[str] | None = None
    for cells in csv.reader(line for line in lines if line.startswith('"')):
        if header is None:
            header = ["range" if "Start/Stop_Range" in name else name for name in cells]
            missing = {"ID", "Kernel Name", "Metric Name", "Metric Value"} - set(header)
            if missing:
                raise ValueError(f"ncu's table lacks the column {sorted(missing)[0]!r}")
        elif len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))


def _count(text: str) -> int:
    """A whole number as ncu prints it, with separators of thousands."""
    return int(text.replace(",", ""))
