"""The runs that come with flopray: which there are, where their folders are, and what their data card says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from flopray.errors import InputError
from flopray.mappings import Json

#: Prefix of the names of these runs, wherever a command takes a run.
PREFIX = "reference:"
DATA = Path(__file__).parent / "data"
CARD = DATA / "card.json"
#: Most bytes that all runs together may take in the wheel.
LARGEST_BYTES = 3_000_000


@dataclass(frozen=True)
class Board:
    """One board that was measured.

    Attributes:
        uuid: as NVML tells it.
        rows: rows that were measured on it.
        drivers: versions of the driver.
        first, last: days of the first and the last of its rows, in UTC, such as `2026-11-25`.
    """

    uuid: str
    rows: int
    drivers: tuple[str, ...]
    first: str
    last: str


@dataclass(frozen=True)
class Entry:
    """One run of the reference data, as its card describes it.

    Attributes:
        name: behind `reference:`.
        what: what was measured, in a sentence.
        workload: name of the workload.
        device_name: product name of the GPU.
        rows: a row is a phase of a point.
        points: distinct points: shape, precision and execution.
        precisions, phases: that were measured.
        boards: each by its UUID.
        columns: rows that have a time, an energy, an energy at the reference temperature, executed FLOPs.
        reference_energy: rows by how their energy at the reference temperature was found.
        sources: of each run that it was made of: name, day, versions, command.
        missing: what is not in it, a sentence each.
        bytes: size of its files.
    """

    name: str
    what: str
    workload: str
    device_name: str
    rows: int
    points: int
    precisions: tuple[str, ...]
    phases: tuple[str, ...]
    boards: tuple[Board, ...]
    columns: Mapping[str, int]
    reference_energy: Mapping[str, int]
    sources: Sequence[Mapping[str, Any]]
    missing: tuple[str, ...]
    bytes: int

    @property
    def address(self) -> str:
        """What commands call it."""
        return PREFIX + self.name

    @property
    def days(self) -> tuple[str, str]:
        """The first and the last day of measuring."""
        return min(board.first for board in self.boards), max(board.last for board in self.boards)

    @property
    def drivers(self) -> tuple[str, ...]:
        """Versions of the driver, over all boards."""
        return tuple(sorted({driver for board in self.boards for driver in board.drivers}))


@cache
def card() -> Json:
    """The data card: `limits`, `published` (what the audit says of flopmetrics' results) and `entries`."""
    return json.loads(CARD.read_text(encoding="utf-8"))


@cache
def entries() -> tuple[Entry, ...]:
    """All runs that come with flopray, sorted by name."""
    return tuple(_entry(fields) for fields in card()["entries"])


def _entry(fields: Mapping[str, Any]) -> Entry:
    boards = tuple(Board(**{**board, "drivers": tuple(board["drivers"])}) for board in fields["boards"])
    texts = {name: tuple(fields[name]) for name in ("precisions", "phases", "missing")}
    return Entry(**{**fields, **texts, "boards": boards})


def is_reference(address: str) -> bool:
    """Whether an address names a run that comes with flopray."""
    return address.startswith(PREFIX)


def entry_of(address: str) -> Entry:
    """The run that an address names.

    Args:
        address: such as `reference:h100-mlp`.

    Raises:
        InputError: there is no run of that name.
    """
    name = address.removeprefix(PREFIX)
    known = {entry.name: entry for entry in entries()}
    if name in known:
        return known[name]
    near = get_close_matches(re.sub(r"[^a-z0-9]+", "-", name.lower()), known, n=1)
    hint = f"did you mean {PREFIX}{near[0]}? " if near and name else ""
    raise InputError(f"there is no reference data {name!r:.60}: {hint}there is {', '.join(known)}")


def folder_of(address: str) -> Path:
    """The folder of the run that an address names. Raises as `entry_of`."""
    return DATA / entry_of(address).name
