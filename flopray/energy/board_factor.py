"""A board's factor: how much more energy one board takes than a typical one of its type, for the same work.

Boards of one type differ by a constant factor, which all kinds of work share, and by a smaller scatter of single works
about it. Standard loads, measured at the reference temperature, give the factor of a board against its type:

    ln E(board, load) = ln R(load) + ln f(board) + scatter + error of the window

R is the mean over the boards of the reference. Its own error is the spread of boards over the root of their number, so
that a reference of one board says little of the type. The spread and the scatter are known from pairs of boards that
ran the same sweep (docs/method.md) and are updated by the boards of the reference.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from flopray.energy.board_spread import THREE_H100, of_pairs
from flopray.errors import InputError
from flopray.mappings import Arguments, Json

#: Half widths of 95 % intervals over standard deviations.
_HALF_WIDTH = 1.96
#: Standard deviation of the factors of boards of one type, relative, and of single works about the factor of their
#: board. A reference does not say which boards it is of, so that boards with kept UUIDs, which may be among them, are
#: not in this.
BOARD_SPREAD = of_pairs(THREE_H100.energy, THREE_H100.boards)
WORK_SPREAD = of_pairs(THREE_H100.works, THREE_H100.boards)
#: Degrees of freedom of this knowledge; for the works, too, since those of another type may scatter otherwise.
PRIOR_DEGREES = THREE_H100.boards - 1
#: A load whose iteration is longer or shorter than the reference's by this share is different work: the library chose
#: other kernels, or the clocks differed.
MOST_TIME_DIFFERENCE = 0.05
#: Version of the set of standard loads; values of another set are not comparable.
LOADS_VERSION = 1
_REFERENCES = Path(__file__).with_name("board_references.json")


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What one standard load took on one board.

    Attributes:
        load: its name.
        time_s: of one iteration; None where the load could not run.
        time_rel_error: half width of its 95 % interval over `time_s`.
        power_w: mean over the windows.
        temperature_c: mean over the windows.
        power_at_reference_w: power at the reference temperature; None with a reason.
        energy_at_reference_j: of one iteration.
        rel_error: half width of the 95 % interval of either, relative: windows, their repetition, coefficient and
            temperature.
        reason: why there is no value at the reference temperature.
        windows: power in W and temperature in Celsius of each window.
    """

    load: str
    time_s: float | None = None
    time_rel_error: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    power_at_reference_w: float | None = None
    energy_at_reference_j: float | None = None
    rel_error: float | None = None
    reason: str | None = None
    windows: tuple[tuple[float | None, float | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The standard loads of one board at one time.

    Attributes:
        device_name, device_uuid, driver_version, power_limit_w, node: of the board.
        torch_version, cuda_version, flopray_version: of the software, which chooses kernels.
        measured_unix_s: when it ended, seconds since 1970 UTC.
        seconds: that it took.
        loads_version: of the set of loads.
        reference_temperature_c: of the loads' values.
        loads: their results.
    """

    device_name: str
    device_uuid: str
    driver_version: str | None
    power_limit_w: float | None
    node: str | None
    torch_version: str
    cuda_version: str | None
    flopray_version: str
    measured_unix_s: float
    seconds: float
    reference_temperature_c: float
    loads: tuple[LoadResult, ...]
    loads_version: int = LOADS_VERSION

    def to_dict(self) -> Json:
        """JSON-ready fields."""
        return asdict(self) | {"loads": [asdict(load) for load in self.loads]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`; fields that a later version added are left out.

        Raises:
            InputError: it is not a calibration.
        """
        try:
            loads = tuple(_load(load) for load in fields["loads"])
            made = cls(**{**_known(cls, fields), "loads": loads})
            numbers = [made.measured_unix_s, made.reference_temperature_c]
            numbers += [v for load in loads for v in (load.time_s, load.energy_at_reference_j, load.rel_error) if v]
            if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
                raise TypeError("a field that must be a number is not")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not a calibration: {error}") from error
        return made


def _load(fields: Mapping[str, Any]) -> LoadResult:
    windows = tuple((power_w, temperature_c) for power_w, temperature_c in fields.get("windows", ()))
    return LoadResult(**{**_known(LoadResult, fields), "windows": windows})


def _known(cls: type, fields: Mapping[str, Any]) -> Arguments:
    return {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}


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


@dataclass(frozen=True, kw_only=True)
class BoardFactor:
    """Energy of a board over that of its type's typical board.

    Attributes:
        factor: common to all works; None with a reason.
        rel_error: half width of its 95 % interval: windows, single loads, and how few boards the type is known by.
        work_rel_error: half width of the 95 % interval for one work, which departs from the common factor.
        loads: factor and half width, relative, of each load that could be compared: against the mean board, whose own
            error is not in it.
        boards: of the type's reference.
        reason: why there is no factor.
    """

    factor: float | None = None
    rel_error: float | None = None
    work_rel_error: float | None = None
    loads: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    boards: int = 0
    reason: str | None = None


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


def factor_of(calibration: Calibration, reference: TypeReference | None) -> BoardFactor:
    """The factor of a board against its type.

    Args:
        calibration: of the board.
        reference: of its type; None where no board of it was measured.
    """
    if reference is None:
        return BoardFactor(reason=f"no reference for {calibration.device_name}: this is the first board")
    if (reason := _not_comparable(calibration, reference)) is not None:
        return BoardFactor(boards=reference.boards, reason=reason)
    loads, logs, variances, left_out = {}, [], [], []
    tau, n = reference.work_spread, reference.boards
    for load in calibration.loads:
        if (reason := _load_not_comparable(load, reference)) is not None:
            left_out.append(reason)
            continue
        known = reference.loads[load.load]
        assert load.energy_at_reference_j is not None
        assert load.rel_error is not None
        variance = (load.rel_error / _HALF_WIDTH) ** 2
        variance += ((known.rel_error / _HALF_WIDTH) ** 2 + tau**2) / n
        ratio = load.energy_at_reference_j / known.energy_at_reference_j
        loads[load.load] = ratio, _HALF_WIDTH * math.sqrt(variance)
        logs.append(math.log(ratio))
        variances.append(variance + tau**2)
    if not logs:
        return BoardFactor(boards=n, reason="no load can be compared: " + "; ".join(left_out))
    weights = 1 / np.array(variances)
    own = 1 / float(weights.sum())
    of_boards = float(stdtrit(PRIOR_DEGREES + n - 1, 0.975)) * reference.board_spread / math.sqrt(n)
    common = math.hypot(_HALF_WIDTH * math.sqrt(own), of_boards)
    return BoardFactor(
        factor=math.exp(float(weights @ np.array(logs)) * own),
        rel_error=common,
        work_rel_error=math.hypot(common, _HALF_WIDTH * tau),
        loads=loads,
        boards=n,
    )


def _not_comparable(calibration: Calibration, reference: TypeReference) -> str | None:
    if calibration.loads_version != reference.loads_version:
        return (
            f"measured with version {calibration.loads_version} of the standard loads, and the reference with version "
            f"{reference.loads_version}: run `flopray calibrate` again"
        )
    if calibration.reference_temperature_c != reference.reference_temperature_c:
        return (
            f"measured at {calibration.reference_temperature_c:g} °C, and the reference is for "
            f"{reference.reference_temperature_c:g} °C: calibrate at that temperature"
        )
    return None


def _load_not_comparable(load: LoadResult, reference: TypeReference) -> str | None:
    """Why a load is not used for the factor; None where it is."""
    if load.time_s is None or load.energy_at_reference_j is None or load.rel_error is None:
        return f"{load.load}: {load.reason or 'its error is not known'}"
    known = reference.loads.get(load.load)
    if known is None:
        return f"{load.load}: the reference has no such load"
    difference = load.time_s / known.time_s - 1
    if abs(difference) > MOST_TIME_DIFFERENCE:
        return f"{load.load}: an iteration takes {difference:+.0%} of the reference's time, so it is different work"
    return None


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
