"""The stored form of fitted models: data only, with names, units and origin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from flopray.predict.device import Device
from flopray.predict.domain import Domain
from flopray.predict.energy import UNITS, EnergyModel
from flopray.predict.fitting import DeviceFit, Simple
from flopray.predict.judging import Judgement
from flopray.predict.kernel_choice import Counted, KernelChoices
from flopray.predict.measured import Measured
from flopray.predict.residual import WIDTHS, Residual
from flopray.predict.roofline import CONSTANTS, TimeModel
from flopray.predict.simple import PowerLaw
from flopray.units import counted

#: 2: constants of an optimizer, of operands and of active processors; residuals of operations.
FORMAT = 3


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The rows behind a fit.

    Attributes:
        family: workloads that were fitted together.
        workloads, device_type, precision, execution, phases: of the rows.
        device_names, boards, drivers, torch: of the devices that measured them.
        rows, points: how many.
        first_unix_s, last_unix_s: when; None where rows do not say.
        carried_from: type whose rows they are, where `device_type` has none; see `flopray.predict.carried`.
    """

    family: str
    workloads: list[str]
    device_type: str
    precision: str
    execution: str
    phases: list[str]
    device_names: list[str]
    boards: list[str]
    drivers: list[str]
    torch: list[str]
    rows: int
    points: int
    first_unix_s: float | None = None
    last_unix_s: float | None = None
    carried_from: str | None = None

    @property
    def title(self) -> str:
        """In a few words, such as `H100 bf16 graph mlp`."""
        carried = f", from {self.carried_from}" if self.carried_from else ""
        return f"{self.device_type} {self.precision} {self.execution} {self.family}{carried}"

    @property
    def label(self) -> str:
        """For people."""
        boards = f"{len(self.boards)} board{'s' if len(self.boards) != 1 else ''}"
        of = f"{counted(self.rows, 'row')} of {', '.join(self.workloads)}"
        measured = f"{of} on {boards} of {self.carried_from or self.device_type}, {self.precision} {self.execution}"
        return f"{measured}, carried to {self.device_type} by datasheets" if self.carried_from else measured

    @classmethod
    def of(cls, measured: Measured) -> Where:
        """Of rows of one type of device."""
        rows, work = measured.rows, measured.works[0]

        def values(name: str) -> list[str]:
            return sorted(set(rows[name].dropna().astype(str))) if name in rows else []

        times = rows["started_unix_s"].dropna().astype(float) if "started_unix_s" in rows else []
        return cls(
            family=work.family,
            workloads=values("workload"),
            device_type=str(rows["device_type"].iloc[0]),
            precision=work.precision,
            execution=work.execution,
            phases=values("phase"),
            device_names=values("device_name"),
            boards=values("device_uuid"),
            drivers=values("driver_version"),
            torch=values("torch_version"),
            rows=len(rows),
            points=len(set(rows["trial_id"])),
            first_unix_s=float(min(times)) if len(times) else None,
            last_unix_s=float(max(times)) if len(times) else None,
        )


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Half widths of a 90 % interval, in logarithms, which are relative errors while they are small.

    Attributes:
        inside: from errors on held-out rows inside the region of the fit; None where these are few.
        outside: from those that lay outside.
        boards: of a board about its type.
        uncounted_inside, uncounted_outside: as the first two, where no kernel of the rows' products is known.
    """

    inside: float | None
    outside: float | None
    boards: float
    uncounted_inside: float | None = None
    uncounted_outside: float | None = None

    def half(self, *, outside: bool, counted: bool = True) -> float | None:
        """The interval of one answer.

        Args:
            outside: whether the question lies outside the region of the fit.
            counted: whether the kernels of all its products are known. Without them an interval is never narrower.
        """
        own = self.outside if outside else self.inside
        blind = self.uncounted_outside if outside else self.uncounted_inside
        if own is None:
            return None
        return math.hypot(own if counted or blind is None else max(own, blind), self.boards)


class StoredConstant(msgspec.Struct, frozen=True):
    """A number with its unit.

    Attributes:
        value: in SI units.
        unit: of it.
    """

    value: float
    unit: str


class StoredSimple(msgspec.Struct, frozen=True, kw_only=True):
    """See `flopray.predict.fitting.Simple`.

    Attributes:
        flops_per_s, flops_per_j, time, energy: as there.
    """

    flops_per_s: float | None
    flops_per_j: float | None
    time: PowerLaw
    energy: PowerLaw | None


class StoredFit(msgspec.Struct, frozen=True, kw_only=True):
    """See `flopray.predict.fitting.DeviceFit`.

    Attributes:
        device, simple, domains: as there.
        time, energy: constants by name.
        time_residual, energy_residual: places in the file's `residuals`, which types of device share.
    """

    device: Device
    simple: dict[str, StoredSimple]
    time: dict[str, StoredConstant]
    energy: dict[str, StoredConstant] | None
    domains: dict[str, Domain]
    time_residual: int | None
    energy_residual: int | None


class StoredGroup(msgspec.Struct, frozen=True, kw_only=True):
    """See `flopray.predict.predictor.Group`.

    Attributes:
        where, fit, judged, intervals: as there.
    """

    where: Where
    fit: StoredFit
    judged: list[Judgement]
    intervals: dict[str, dict[str, Interval]]


class StoredPredictor(msgspec.Struct, frozen=True, kw_only=True):
    """A file.

    Attributes:
        format: of the file.
        made_by: version of flopray.
        reference_c: temperature of energies, in Celsius.
        counted: kernels of products.
        residuals: of model 4.
        groups: fits.
    """

    made_by: str
    reference_c: float
    counted: list[Counted]
    residuals: list[Residual]
    groups: list[StoredGroup]
    format: int = FORMAT

    def check(self) -> None:
        """Refuse what the types let through.

        Raises:
            ValueError: saying what is wrong.
        """
        if self.format != FORMAT:
            raise ValueError(f"it is of format {self.format}, and this version reads {FORMAT}")
        for one in self.counted:
            sizes = (one.rows, one.columns, one.inner, one.choice.tile_rows, one.choice.tile_columns, one.choice.splits)
            if min(sizes) < 1:
                raise ValueError("sizes of products and tiles are whole numbers from 1")
        for residual in self.residuals:
            _check_residual(residual)
        for group in self.groups:
            _check(group.fit, len(self.residuals))


def _check_residual(residual: Residual) -> None:
    for part in residual.parts:
        width = WIDTHS.get(part.kind)
        if width is None or {len(part.lengths), *map(len, part.points)} != {width}:
            raise ValueError("a residual's numbers do not fit together")
        if len(part.points) != len(part.weights) or not all(value > 0 for value in (part.size, *part.lengths)):
            raise ValueError("a residual has a weight for each point, and positive lengths")


def _check(fit: StoredFit, residuals: int) -> None:
    time = {name: one.value for name, one in fit.time.items()}
    if set(time) != {one.name for one in CONSTANTS} or not all(0 < value < math.inf for value in time.values()):
        raise ValueError("constants of time are missing, unknown or not positive")
    if fit.energy is not None:
        values = [one.value for one in fit.energy.values()]
        if set(fit.energy) != set(UNITS) or not all(0 <= value < math.inf for value in values):
            raise ValueError("constants of energy are missing, unknown or negative")
    if fit.device.processors < 1:
        raise ValueError("a device needs at least one processor")
    if any(place is not None and not 0 <= place < residuals for place in (fit.time_residual, fit.energy_residual)):
        raise ValueError("a fit names a residual that is not there")
    for domain in fit.domains.values():
        count = len(domain.names)
        if (
            count < 2
            or {len(domain.low), len(domain.high)} != {count}
            or any(len(p) != count - 2 for p in domain.points)
            or not set(domain.edges) <= set(domain.names[:-2])
        ):
            raise ValueError("a region's numbers do not fit together")


def stored(fit: DeviceFit, residuals: list[Residual]) -> StoredFit:
    """A fit as data.

    Args:
        fit: the fit.
        residuals: of the file; gets those of the fit that are not there yet.
    """
    units = {one.name: one.unit for one in CONSTANTS}
    energy = fit.energy.constants if fit.energy else None
    return StoredFit(
        device=fit.device,
        simple={phase: StoredSimple(**vars(one)) for phase, one in fit.simple.items()},
        time={name: StoredConstant(value, units[name]) for name, value in fit.time.constants.items()},
        energy=None if energy is None else {name: StoredConstant(value, UNITS[name]) for name, value in energy.items()},
        domains=dict(fit.domains),
        time_residual=_place(fit.time_residual, residuals),
        energy_residual=_place(fit.energy_residual, residuals),
    )


def _place(residual: Residual | None, residuals: list[Residual]) -> int | None:
    if residual is None:
        return None
    known = next((place for place, other in enumerate(residuals) if other is residual), None)
    if known is None:
        residuals.append(residual)
        return len(residuals) - 1
    return known


def restored(fit: StoredFit, residuals: Sequence[Residual], choices: KernelChoices) -> DeviceFit:
    """A fit from data that was checked."""
    energy = None if fit.energy is None else {name: one.value for name, one in fit.energy.items()}
    simple = {
        phase: Simple(one.flops_per_s, one.flops_per_j, one.time, one.energy) for phase, one in fit.simple.items()
    }
    return DeviceFit(
        device=fit.device,
        time=TimeModel.of_constants(fit.device, {name: one.value for name, one in fit.time.items()}),
        energy=EnergyModel.of_constants(energy) if energy else None,
        time_residual=None if fit.time_residual is None else residuals[fit.time_residual],
        energy_residual=None if fit.energy_residual is None else residuals[fit.energy_residual],
        simple=simple,
        domains=fit.domains,
        choices=choices,
    )
