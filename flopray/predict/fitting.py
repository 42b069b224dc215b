"""Fits of all four models to rows that share kernels: one family of workloads at one precision and execution.

Constants of kernels hold for all phases, and start from those of all types of device together: a type with few rows
takes from others what its own rows do not show. The two simple models know one phase of one type each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flopray.predict.arrays import Floats, Works, works_as_arrays
from flopray.predict.device import Device, device_of
from flopray.predict.domain import Domain
from flopray.predict.energy import HELD, HELD_LOOSELY, EnergyModel, fit_energy, limited, parts_of, term_parts
from flopray.predict.energy import start_of as energy_start
from flopray.predict.kernel_choice import KernelChoices
from flopray.predict.measured import Measured
from flopray.predict.residual import Residual, fit_residual, joined, terms_of
from flopray.predict.roofline import TimeModel, fit_time, start_of
from flopray.predict.simple import PowerLaw, fit_power_law, fit_rate
from flopray.predict.work import Work
from flopray.workloads.operations import Product

#: The models, from simple to good.
MODELS = ("constant", "power_law", "roofline", "learned")
CONSTANT, POWER_LAW, ROOFLINE, LEARNED = MODELS


@dataclass(frozen=True)
class Simple:
    """The two simple models of one phase.

    Attributes:
        flops_per_s, flops_per_j: None where FLOPs or energy are not known.
        time, energy: power laws; energy None where it is not known.
    """

    flops_per_s: float | None
    flops_per_j: float | None
    time: PowerLaw
    energy: PowerLaw | None


@dataclass(frozen=True, eq=False)
class DeviceFit:
    """All models of one type of device.

    Attributes:
        device: the type.
        time: model 3 of time.
        energy: model 3 of energy; None without energies.
        time_residual, energy_residual: model 4; None where rows do not suffice.
        simple: models 1 and 2 by phase.
        domains: what was measured, by phase.
        choices: kernels of products.
    """

    device: Device
    time: TimeModel
    energy: EnergyModel | None
    time_residual: Residual | None
    energy_residual: Residual | None
    simple: Mapping[str, Simple]
    domains: Mapping[str, Domain]
    choices: KernelChoices = field(repr=False)

    def predict(self, works: Sequence[Work]) -> dict[str, tuple[Floats, Floats]]:
        """Time in seconds and energy in joules by each model, NaN where a model has no answer, shape (W,) each.

        Args:
            works: of the group that was fitted.
        """
        arrays = works_as_arrays(works, self.device, self.choices)
        nothing = np.full(len(works), np.nan)
        times = self.time.times(arrays)
        energies = self.energy.energies(self.time, arrays, times) if self.energy else nothing
        learned, learned_j = times, energies
        if self.time_residual:
            learned = times * np.exp(self.time_residual.of(terms_of(self.time, arrays, self.time.term_times(arrays))))
        if self.energy and (self.time_residual or self.energy_residual):
            parts = term_parts(self.time, arrays, learned)
            learned_j = arrays.summed(arrays.term_work, parts @ self.energy.values)
            if self.energy_residual:
                terms = terms_of(self.time, arrays, parts @ self.energy.values)
                learned_j = learned_j * np.exp(self.energy_residual.of(terms))
        return {
            CONSTANT: self._constant(works),
            POWER_LAW: self._power_law(works),
            ROOFLINE: self._limited(times, energies),
            LEARNED: self._limited(learned, learned_j),
        }

    def knows_kernels(self, work: Work) -> bool:
        """Whether the kernel of each product with a shape is known, and no candidate stands for it."""
        products = (one for one in work.operations if isinstance(one, Product))
        return all(self.choices.of(one, self.device.name, work.precision) is not None for one in products)

    def _limited(self, times: Floats, energies: Floats) -> tuple[Floats, Floats]:
        if self.energy is None or not self.device.known:  # the limit of an unknown device is a guess
            return times, energies
        return limited(times, energies, self.device.power_w, self.energy.constants["rest_w"])

    def _constant(self, works: Sequence[Work]) -> tuple[Floats, Floats]:
        found = np.full((2, len(works)), np.nan)
        for place, work in enumerate(works):
            if one := self.simple.get(work.phase):
                found[0, place] = work.flops / one.flops_per_s if one.flops_per_s else np.nan
                found[1, place] = work.flops / one.flops_per_j if one.flops_per_j else np.nan
        return found[0], found[1]

    def _power_law(self, works: Sequence[Work]) -> tuple[Floats, Floats]:
        found = np.full((2, len(works)), np.nan)
        for place, work in enumerate(works):
            if one := self.simple.get(work.phase):
                found[0, place] = one.time.of(work.shape)
                found[1, place] = one.energy.of(work.shape) if one.energy else np.nan
        return found[0], found[1]


def devices_of(measured: Measured) -> dict[str, Device]:
    """Types of device by name, as far as they are known."""
    types, found = measured.column("device_type"), {}
    for name in sorted(set(types)):
        own = measured.of(types == name)
        full, count = own.first("device_name"), own.first("sm_count")
        processors = int(count) if count else None
        found[name] = device_of(name, str(full) if full else None, processors, own.works, own.times_s.tolist())
    return found


def fit_devices(
    measured: Measured, devices: Mapping[str, Device], choices: KernelChoices, *, learn: bool = True
) -> dict[str, DeviceFit]:
    """All models of each type of device.

    Args:
        measured: rows of one family at one precision and execution.
        devices: by name.
        choices: kernels of products.
        learn: whether residuals are learned, too.
    """
    types = measured.column("device_type")
    names = sorted(set(types))
    own = {name: measured.of(types == name) for name in names}
    arrays = {name: works_as_arrays(own[name].works, devices[name], choices) for name in names}
    precision = measured.works[0].precision
    starts = {name: start_of(devices[name], precision) for name in names}
    moved = _shared_shift(own, arrays, devices, starts)
    times = {
        name: fit_time(devices[name], arrays[name], own[name].times_s, starts[name] + moved, near=len(names) > 1)
        for name in names
    }
    parts = {name: parts_of(times[name], arrays[name], own[name].times_s) for name in names}
    energies = {name: own[name].energies_j for name in names}
    centre = _shared_energy(
        parts, energies, np.mean([energy_start(devices[name], precision) for name in names], axis=0)
    )
    held = HELD_LOOSELY if len(names) == 1 else HELD
    joules = {name: _energy_fit(parts[name], energies[name], centre, held) for name in names}
    learned = _learned(own, arrays, times, parts, joules) if learn else (None, None)
    return {name: _device_fit(own[name], times[name], joules[name], learned, choices) for name in names}


def _shared_shift(
    own: Mapping[str, Measured],
    arrays: Mapping[str, Works],
    devices: Mapping[str, Device],
    starts: Mapping[str, Floats],
) -> Floats:
    """How far the constants of all types lie from their datasheets, in logarithms: the mean of one fit for each.

    A type counts by its rows.
    """
    rows = np.array([len(own[name].works) for name in own], float)
    fits = [fit_time(devices[name], arrays[name], own[name].times_s, starts[name]).logs - starts[name] for name in own]
    return np.average(np.array(fits), axis=0, weights=rows)


def _shared_energy(parts: Mapping[str, Floats], energies: Mapping[str, Floats], start: Floats) -> Floats:
    """Constants of all types together."""
    together = np.concatenate(list(parts.values()))
    values = np.concatenate(list(energies.values()))
    there = np.isfinite(values)
    return fit_energy(together[there], values[there], start, HELD_LOOSELY).values if there.any() else start


def _energy_fit(parts: Floats, energies_j: Floats, centre: Floats, held: float) -> EnergyModel | None:
    there = np.isfinite(energies_j)
    return fit_energy(parts[there], energies_j[there], centre, held) if there.any() else None


def _learned(
    own: Mapping[str, Measured],
    arrays: Mapping[str, Works],
    times: Mapping[str, TimeModel],
    parts: Mapping[str, Floats],
    joules: Mapping[str, EnergyModel | None],
) -> tuple[Residual | None, Residual | None]:
    """Residuals of time and energy, of all types together: they run the same kernels."""
    by_time, by_energy = [], []
    for name, model in times.items():
        works, energy = arrays[name], joules[name]
        by_time.append(terms_of(model, works, model.term_times(works)))
        if energy is not None:
            costs = term_parts(model, works, own[name].times_s) @ energy.values
            by_energy.append(terms_of(model, works, costs))
    in_time = np.concatenate([np.log(own[name].times_s / times[name].times(arrays[name])) for name in own])
    learned = fit_residual(joined(by_time), in_time)
    if not by_energy:
        return learned, None
    there_are = [name for name in own if joules[name] is not None]
    in_energy = np.concatenate([_energy_residuals(own[name], parts[name], joules[name]) for name in there_are])
    there = np.isfinite(in_energy)
    return learned, fit_residual(joined(by_energy).of(there), in_energy[there])


def _energy_residuals(own: Measured, parts: Floats, joules: EnergyModel | None) -> Floats:
    nothing = np.full(len(own.works), np.nan)
    return nothing if joules is None else np.log(own.energies_j / (parts @ joules.values))


def _device_fit(
    own: Measured,
    time: TimeModel,
    energy: EnergyModel | None,
    learned: tuple[Residual | None, Residual | None],
    choices: KernelChoices,
) -> DeviceFit:
    phases = np.array([work.phase for work in own.works], dtype=object)
    by_phase = {str(phase): own.of(phases == phase) for phase in sorted(set(phases))}
    return DeviceFit(
        device=time.device,
        time=time,
        energy=energy,
        time_residual=learned[0],
        energy_residual=learned[1],
        simple={phase: _simple(rows) for phase, rows in by_phase.items()},
        domains={phase: Domain.of(rows.works) for phase, rows in by_phase.items()},
        choices=choices,
    )


def _simple(rows: Measured) -> Simple:
    there = np.isfinite(rows.energies_j)
    kept = rows.of(there)
    return Simple(
        flops_per_s=fit_rate(rows.works, rows.times_s),
        flops_per_j=fit_rate(kept.works, kept.energies_j) if there.any() else None,
        time=fit_power_law(rows.works, rows.times_s),
        energy=fit_power_law(kept.works, kept.energies_j) if there.any() else None,
    )
