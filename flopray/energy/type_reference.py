"""The reference of a type: what standard loads take on its boards, and how far these lie apart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flopray.energy.board_spread import THREE_H100, of_pairs
from flopray.energy.calibration import Calibration, LoadResult
from flopray.errors import InputError
from flopray.mappings import Json

#: Standard deviation of the factors of boards of one type, relative, and of single works about the factor of their
#: board. A reference does not say which boards it is of, so that boards with kept UUIDs, which may be among them, are
#: not in this.
BOARD_SPREAD = of_pairs(THREE_H100.energy, THREE_H100.boards)
WORK_SPREAD = of_pairs(THREE_H100.works, THREE_H100.boards)
#: Degrees of freedom of this knowledge; for the works, too, since those of another type may scatter otherwise.
PRIOR_DEGREES = THREE_H100.boards - 1
_REFERENCES = Path(__file__).with_name("board_references.json")


@dataclass(frozen=True, kw_only=True)
class LoadReference:
    """One standard load on the boards of a reference.

    Attributes:
        energy_at_reference_j: of one iteration, geometric mean over the boards.
        power_at_reference_w: the same of power.
        time_s: the same of time.
        rel_error: half width of the 95 % interval of a board's value, relative, as its calibration stated it (mean over
            the boards).
    """

    energy_at_reference_j: float
    power_at_reference_w: float
    time_s: float
    rel_error: float


@dataclass(frozen=True, kw_only=True)
class TypeReference:
    """What standard loads take on the boards of a type that were measured.

    Attributes:
        device_name: of the type, as NVML says it, in full.
        loads_version: of the set of loads.
        reference_temperature_c: of the loads' values.
        boards: how many there were.
        spread_rel: standard deviation of the boards' common factors; None for one board.
        scatter_rel: standard deviation of single loads about the factor of their board; None for one board.
        source: when and how they were measured.
        torch_versions, cuda_versions, driver_versions: that they were measured with.
        loads: by name.
    """

    device_name: str
    loads_version: int
    reference_temperature_c: float
    boards: int
    spread_rel: float | None
    scatter_rel: float | None
    source: str
    torch_versions: tuple[str, ...] = ()
    cuda_versions: tuple[str, ...] = ()
    driver_versions: tuple[str, ...] = ()
    loads: Mapping[str, LoadReference] = field(default_factory=dict)

    @property
    def board_spread(self) -> float:
        """Standard deviation of boards, with what was known before."""
        return _shrunk(self.spread_rel, BOARD_SPREAD, self.boards - 1)

    @property
    def work_spread(self) -> float:
        """Standard deviation of single works about their board's factor, with what was known before."""
        return _shrunk(self.scatter_rel, WORK_SPREAD, (self.boards - 1) * max(0, len(self.loads) - 1))

    def to_dict(self) -> Json:
        """JSON-ready fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TypeReference:
        """The inverse of `to_dict`."""
        loads = {name: LoadReference(**load) for name, load in fields["loads"].items()}
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**{**fields, **lists, "loads": loads})


def _shrunk(seen: float | None, known: float, degrees: int) -> float:
    if seen is None or degrees < 1:
        return known
    return math.sqrt((PRIOR_DEGREES * known**2 + degrees * seen**2) / (PRIOR_DEGREES + degrees))


@cache
def references() -> tuple[TypeReference, ...]:
    """The references that ship with the package."""
    return tuple(TypeReference.from_dict(fields) for fields in json.loads(_REFERENCES.read_text())["references"])


def reference_for(device_name: str, among: Sequence[TypeReference] | None = None) -> TypeReference | None:
    """The reference of a type of device; None for one of which no board was measured.

    Args:
        device_name: as NVML says it, in full: boards of one chip with other memory or cooling are other types.
        among: by default those that ship with the package.
    """
    known = references() if among is None else among
    return next((reference for reference in known if reference.device_name == device_name), None)


def reference_from(calibrations: Sequence[Calibration], source: str) -> TypeReference:
    """The reference of a type from calibrations of its boards; several of one board count as their mean.

    Args:
        calibrations: of one type of device, same loads and same temperature.
        source: when and how they were measured, in a line.

    Raises:
        InputError: the list is empty, they are not of one kind, or no load was measured on all boards.
    """
    if not calibrations:
        raise InputError("a reference needs the calibration of at least one board")
    for name in ("device_name", "loads_version", "reference_temperature_c"):
        if len(values := {getattr(calibration, name) for calibration in calibrations}) > 1:
            raise InputError(f"calibrations of several {name} make no reference: {', '.join(map(str, sorted(values)))}")
    by_board: dict[str, list[Calibration]] = {}
    for calibration in calibrations:
        by_board.setdefault(calibration.device_uuid, []).append(calibration)
    boards = [_mean_loads(several) for several in by_board.values()]
    names = [name for name in boards[0] if all(name in board for board in boards)]
    if not names:
        raise InputError("no standard load has a value at the reference temperature on every board")
    table = np.log([[[getattr(board[name], key) for key in _MEANS] for name in names] for board in boards])
    mean = np.exp(table.mean(axis=0))
    errors = [float(np.mean([board[name].rel_error for board in boards])) for name in names]
    spread, scatter = _spreads(table[:, :, 0])
    first = calibrations[0]

    def versions(key: str) -> tuple[str, ...]:
        return tuple(sorted({str(getattr(calibration, key)) for calibration in calibrations}))

    return TypeReference(
        device_name=first.device_name,
        loads_version=first.loads_version,
        reference_temperature_c=first.reference_temperature_c,
        boards=len(boards),
        spread_rel=spread,
        scatter_rel=scatter,
        source=source,
        torch_versions=versions("torch_version"),
        cuda_versions=versions("cuda_version"),
        driver_versions=versions("driver_version"),
        loads={
            name: LoadReference(**dict(zip(_MEANS, map(float, row), strict=True)), rel_error=error)
            for name, row, error in zip(names, mean, errors, strict=True)
        },
    )


_MEANS = ("energy_at_reference_j", "power_at_reference_w", "time_s")


def _mean_loads(several: Sequence[Calibration]) -> dict[str, LoadReference]:
    """The loads of one board that have a value in each of its calibrations."""
    found: dict[str, list[LoadResult]] = {}
    for calibration in several:
        for load in calibration.loads:
            if load.energy_at_reference_j and load.power_at_reference_w and load.time_s and load.rel_error:
                found.setdefault(load.load, []).append(load)
    return {
        name: LoadReference(
            **{key: float(np.exp(np.mean([math.log(getattr(load, key)) for load in loads]))) for key in _MEANS},
            rel_error=float(np.mean([load.rel_error or 0.0 for load in loads])),
        )
        for name, loads in found.items()
        if len(loads) == len(several)
    }


def _spreads(logs: np.ndarray) -> tuple[float | None, float | None]:
    """Standard deviation of the boards' factors, and of loads about them; shape of `logs` is (boards, loads).

    The mean square of boards contains that of loads over their number, which is subtracted (analysis of variance).
    """
    boards, loads = logs.shape
    if boards < 2:
        return None, None
    centred = logs - logs.mean(axis=0)
    factors = centred.mean(axis=1)
    between = float(np.sum(factors**2)) / (boards - 1)
    if loads < 2:
        return math.sqrt(between), None
    within = float(np.sum((centred - factors[:, None]) ** 2)) / ((boards - 1) * (loads - 1))
    return math.sqrt(max(0.0, between - within / loads)), math.sqrt(within)
