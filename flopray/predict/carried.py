"""Fits carried to a type of device whose rows are missing, from one with the same chip.

A constant keeps its distance from the datasheet: where the memory of one type reaches 0.8 of its datasheet, that of the
other is taken to reach 0.8 of its own. How wrong this is can be measured where both types have rows: all rows of one
are held out, and the other's fit is carried to them. The interval of an answer has these errors and the source's own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from flopray.predict.device import Device
from flopray.predict.energy import EnergyModel
from flopray.predict.energy import start_of as energy_start
from flopray.predict.fitting import LEARNED, ROOFLINE, DeviceFit, devices_of, fit_devices
from flopray.predict.held_out import GROUP, HeldOut, hash_of, keys_of
from flopray.predict.judging import TARGETS, SetErrors, errors_on, half_width, pooled
from flopray.predict.kernel_choice import KernelChoices
from flopray.predict.measured import Measured
from flopray.predict.roofline import TimeModel, start_of
from flopray.predict.stored import Interval

#: Kind of a held-out set that is a whole type of device.
TYPE = "type"
#: Peaks of the same chip, as logarithms apart.
_SAME_PEAK = 0.05
#: The models that can be carried: the others know one type alone.
_MODELS = (ROOFLINE, LEARNED)


def is_alike(one: Device, other: Device, precision: str) -> bool:
    """Whether two types have the same chip, as far as datasheets say: processors and peak."""
    peaks = [device.flops_per_s.get(precision) for device in (one, other)]
    if not all(peaks) or not (one.known and other.known) or one.processors != other.processors:
        return False
    return abs(math.log(peaks[0] / peaks[1])) < _SAME_PEAK  # type: ignore[operator]


def carried(fit: DeviceFit, device: Device, precision: str) -> DeviceFit:
    """A fit for another type: models 3 and 4.

    Args:
        fit: of a type that was measured.
        device: the other type.
        precision: of the fit.
    """
    shift = start_of(device, precision) - start_of(fit.device, precision)
    energy = None
    if fit.energy is not None:
        energy = EnergyModel(fit.energy.values * energy_start(device, precision) / energy_start(fit.device, precision))
    return dataclasses.replace(
        fit, device=device, time=TimeModel(device, fit.time.logs + shift), energy=energy, simple={}
    )


def type_errors(pools: Sequence[Measured]) -> list[SetErrors]:
    """Errors of carrying between types that were both measured: of each pool, each type held out.

    Args:
        pools: rows of one family, precision and execution each.

    Returns:
        A set for each pair: `device_type` of its rows, and in `values` the type whose fit was carried to it.
    """
    found = []
    for pool in pools:
        devices, choices, types = devices_of(pool), KernelChoices(pool.counted), pool.column("device_type")
        precision = pool.works[0].precision
        for target, device in sorted(devices.items()):
            others = {name: one for name, one in devices.items() if name != target}
            alike = [name for name, one in others.items() if is_alike(one, device, precision)]
            if not alike:
                continue
            rows = pool.of(types == target)
            fits = fit_devices(pool.of(types != target), others, choices)
            found += [errors_on(_set_of(rows, name), rows, carried(fits[name], device, precision)) for name in alike]
    return found


def _set_of(rows: Measured, source: str) -> HeldOut:
    first = rows.rows.iloc[0]
    group = {name: str(first[name]) for name in GROUP}
    return HeldOut(
        **group, kind=TYPE, values=(source,), edge=False, rows=len(rows.works), sha256=hash_of(keys_of(rows.rows))
    )


#: Widths that carrying adds to.
_WIDTHS = ("inside", "outside", "uncounted_inside", "uncounted_outside")


def carried_intervals(
    own: Mapping[str, Mapping[str, Interval]], errors: Sequence[SetErrors]
) -> dict[str, dict[str, Interval]]:
    """Intervals of carried answers: those of the source, and what carrying missed, added up.

    Not in quadrature: both are systematic, and what carrying missed was measured on other work.

    Args:
        own: of the source, by target and model.
        errors: of carrying between these chips at this precision; where there are none, intervals are unknown.
    """
    found: dict[str, dict[str, Interval]] = {}
    for target in TARGETS:
        for model in _MODELS:
            both = [pooled(errors, target, model, inside=where) for where in (True, False)]
            missed = half_width(np.concatenate(both)) if errors else None
            interval = own.get(target, {}).get(model)
            if interval is None:
                continue
            found.setdefault(target, {})[model] = msgspec.structs.replace(
                interval,
                **{name: _both(getattr(interval, name), missed) for name in _WIDTHS},
            )
    return found


def _both(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
