"""The series of a window: its counter's ticks, the power between them, and the state of the device at each of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flopray.energy.estimator import ticks_in_load
from flopray.energy.meter import Characteristics, Reading, Temperature
from flopray.energy.ticks import find_ticks
from flopray.store.window_series import WindowSeries

#: More ticks than this are thinned: RAPL ticks every millisecond, and the journal holds each series as text.
MOST_TICKS = 200
#: Seconds, joules, watts and Celsius as they are kept: below what any meter resolves.
_DIGITS = {"time_s": 6, "energy_j": 6, "power_w": 3, "temperature_c": 2}


@dataclass(frozen=True)
class DeviceSample:
    """The device at a tick.

    Attributes:
        time_s: host clock.
        sm_clock_hz: of the streaming multiprocessors; None where it is not known.
        memory_used_bytes: of the device, by all processes; None where it is not known.
    """

    time_s: float
    sm_clock_hz: float | None
    memory_used_bytes: int | None


def window_series(
    readings: Sequence[Reading],
    *,
    start_s: float,
    end_s: float,
    meter: Characteristics,
    temperatures: Sequence[Temperature] = (),
    samples: Sequence[DeviceSample] = (),
) -> WindowSeries | None:
    """The series of a window, from the readings that its energy comes from; None without a tick.

    Args:
        readings: of a `Poller`.
        start_s, end_s: host clock at both ends of the window.
        meter: what is known of the meter.
        temperatures: of the device, in the order of time.
        samples: of the device, in the order of time.
    """
    ticks = find_ticks(readings, meter.max_power_w)
    if not len(ticks):
        return None
    used = ticks_in_load(ticks, start_s=start_s, end_s=end_s, meter=meter)
    kept = np.unique(np.linspace(0, len(ticks) - 1, min(len(ticks), MOST_TICKS)).round().astype(int))
    seen, ticks, used = len(ticks), ticks.where(kept), used[kept]
    energy_j = ticks.energy_j.copy()
    for segment in np.unique(ticks.segment):
        energy_j[ticks.segment == segment] -= ticks.energy_j[ticks.segment == segment][0]
    gained_j, gap_s = np.diff(ticks.energy_j, prepend=np.nan), np.diff(ticks.time_s, prepend=np.nan)
    gained_j[np.diff(ticks.segment, prepend=-1) != 0] = np.nan
    celsius = np.interp(ticks.time_s, *np.array(temperatures).T) if temperatures else np.full(len(ticks), np.nan)
    near = [_near(samples, at_s) for at_s in ticks.before_s]
    return WindowSeries(
        start_unix_s=round(time.time() - time.perf_counter() + start_s, 6),
        window_s=round(end_s - start_s, 6),
        ticks=seen,
        time_s=[round(float(at), _DIGITS["time_s"]) for at in ticks.time_s - start_s],
        energy_j=[round(float(value), _DIGITS["energy_j"]) for value in energy_j],
        power_w=_known(gained_j / gap_s, _DIGITS["power_w"]),
        temperature_c=_known(celsius, _DIGITS["temperature_c"]),
        sm_clock_hz=[one and one.sm_clock_hz for one in near],
        memory_used_bytes=[one and one.memory_used_bytes for one in near],
        used=[bool(value) for value in used],
    )


def _near(samples: Sequence[DeviceSample], at_s: float) -> DeviceSample | None:
    """The first sample after a tick, or the last one before it."""
    return next((one for one in samples if one.time_s >= at_s), samples[-1] if samples else None)


def _known(values: np.ndarray, digits: int) -> list[float | None]:
    return [round(float(value), digits) if np.isfinite(value) else None for value in values]
