"""Measures the standard loads of a board at the reference temperature.

`flopray.energy.board_factor` makes the board's factor of them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

import flopray
from flopray.energy.board_factor import BoardFactor, factor_of
from flopray.energy.calibration import Calibration, LoadResult
from flopray.energy.idle import idle_power
from flopray.energy.meter import Meter
from flopray.energy.thermal import REPEAT_SCATTER, AtReference, BoardTemperature
from flopray.energy.type_reference import reference_for
from flopray.errors import InputError, MeasurementError, StorageError, Unsupported
from flopray.measurement.device import Device
from flopray.measurement.filler import hold_temperature
from flopray.measurement.phase import measure_phase
from flopray.measurement.result import PhaseResult
from flopray.measurement.sentinel import condition_of
from flopray.measurement.standard_loads import STANDARD_LOADS
from flopray.measurement.temperature_hold import TemperatureHold
from flopray.measurement.window import WAKE_S
from flopray.settings import MeasureSettings
from flopray.store.calibrations import MOST_AGE_S, keep, latest
from flopray.workloads.execution import Work, is_out_of_memory

_HALF_WIDTH = 1.96
#: Windows of each load at the reference temperature, in rounds over all loads, so that they are seconds apart.
_ROUNDS = 2
#: Seconds of a window; 15 ticks of a counter that ticks every 0.1 s.
_WINDOW_S = 1.5
#: Most seconds that heating or cooling a board for one load may take.
_HOLD_CAP_S = 45.0
_IDLE_S = 0.6
#: A calibration younger than this was made by the same sweep.
_JUST_MADE_S = 600.0
#: This near to the reference temperature a guess of the coefficient is used; its error is in that of the load.
_NEAR_K = 3.0


def known_factor(device: Device, meter: Meter, settings: MeasureSettings, board: BoardTemperature) -> BoardFactor:
    """The factor of a board, from the stored calibration or from a new one where the settings ask for it.

    A process that soon follows another one on the same board uses that one's calibration.

    Args:
        device: the GPU.
        meter: of its energy.
        settings: whether to measure anew, and the reference temperature.
        board: how its power follows temperature; learns from a new calibration.
    """
    columns, reference_c = device.columns(), settings.reference_temperature_c
    if columns.get("device_uuid") is None:
        return BoardFactor(reason="NVML does not report the UUID of the board")
    most_age_s = _JUST_MADE_S if settings.calibrate else MOST_AGE_S
    wanted = columns["device_uuid"], columns.get("driver_version"), reference_c
    found = latest(*wanted, most_age_s=most_age_s)
    if found is None and settings.calibrate:
        try:
            found = calibrate(device, meter, reference_c=reference_c, board=board)
        except MeasurementError as error:  # the rows of the points say what is wrong with the meter
            return BoardFactor(reason=f"this board could not be calibrated: {error}")
        with contextlib.suppress(StorageError):  # if the home folder cannot be written, the next sweep calibrates again
            keep(found)
    if found is None:
        return BoardFactor(reason="this board was not calibrated: run `flopray calibrate`")
    return factor_of(found, reference_for(found.device_name))


@dataclass(frozen=True)
class _Window:
    """One window of a load: its result and its power at the reference temperature."""

    result: PhaseResult
    at: AtReference | None


def calibrate(
    device: Device,
    meter: Meter,
    *,
    reference_c: float = MeasureSettings.reference_temperature_c,
    board: BoardTemperature | None = None,
    loads: Mapping[str, Callable[[str], Work]] = STANDARD_LOADS,
    tell: Callable[[str], object] = lambda _: None,
) -> Calibration:
    """Measure the standard loads once; takes some minutes.

    A load that cannot be measured has a reason and no value; the others go on.

    Args:
        device: a GPU that nothing else uses.
        meter: of its energy.
        reference_c: temperature that the board is brought to, and that the loads' values refer to.
        board: how its power follows temperature; learns from the windows.
        loads: what builds each load, by name.
        tell: called with a line before each window.

    Raises:
        InputError: the device's own identity is not known.
        MeterError: the meter failed.
    """
    begin_s = time.monotonic()
    columns = device.columns()
    if columns.get("device_uuid") is None:
        raise InputError(f"NVML does not report the UUID of {columns.get('device_name')}: its factor cannot be kept")
    board = board or BoardTemperature(columns.get("device_name"), columns.get("power_limit_w"))
    measuring = _Measuring(device, meter, reference_c, board)
    works, failed = _built(device, loads)
    windows: dict[str, list[_Window]] = {name: [] for name in works}
    # For a type that was not measured before, a round at the board's own temperature shows how its power follows
    # temperature.
    for held in (*(() if board.prior else (False,)), *[True] * _ROUNDS):
        for name, work in works.items():
            tell(f"{name}{f' at {reference_c:g} °C' if held else ''}")
            window = measuring.window(name, work, held=held)
            if held:
                windows[name].append(window)
    del works
    results = [_result(name, windows[name]) if name in windows else failed[name] for name in loads]
    return Calibration(
        device_name=columns["device_name"],
        device_uuid=columns["device_uuid"],
        driver_version=columns.get("driver_version"),
        power_limit_w=columns.get("power_limit_w"),
        node=columns.get("node"),
        torch_version=str(torch.__version__),
        cuda_version=torch.version.cuda,
        flopray_version=flopray.__version__,
        measured_unix_s=time.time(),
        seconds=time.monotonic() - begin_s,
        reference_temperature_c=reference_c,
        loads=tuple(results),
    )


def _built(device: Device, loads: Mapping[str, Callable[[str], Work]]) -> tuple[dict[str, Work], dict[str, LoadResult]]:
    """The works of the loads, and the loads that this device cannot run."""
    works: dict[str, Work] = {}
    failed: dict[str, LoadResult] = {}
    for name, build in loads.items():
        try:
            works[name] = build(device.torch_name)
        except (RuntimeError, Unsupported) as error:
            if not isinstance(error, Unsupported) and not is_out_of_memory(error):
                raise
            reason = "out of memory" if is_out_of_memory(error) else str(error)
            failed[name] = LoadResult(load=name, reason=reason)
    return works, failed


class _Measuring:
    """Measures windows of loads on one device."""

    def __init__(self, device: Device, meter: Meter, reference_c: float, board: BoardTemperature) -> None:
        self._device, self._meter, self._reference_c, self._board = device, meter, reference_c, board
        self._hold = TemperatureHold(reference_c, cap_s=_HOLD_CAP_S)
        self._settings = MeasureSettings(instruments=("time", "energy"), target_error=1e-6, max_seconds=_WINDOW_S)
        self._tick_period_s = idle_power(meter, _IDLE_S).tick_period_s

    def window(self, name: str, work: Work, *, held: bool) -> _Window:
        """One window of a load, at the reference temperature or at the board's own."""
        if held:
            hold_temperature(self._hold, work, self._device)
        result = measure_phase(
            work,
            self._device,
            self._meter,
            self._settings,
            tick_period_s=self._tick_period_s,
            warm_at_least_s=WAKE_S / 2 if held else WAKE_S,
        )
        if condition := condition_of(result):
            self._board.learn(("load", name), condition)
        return _Window(result, self._at_reference(result))

    def _at_reference(self, result: PhaseResult) -> AtReference | None:
        condition, end = condition_of(result, limited=True), result.state.end
        if condition is None:
            return None
        throttle, limit_w = (end.throttle, end.power_limit_w) if end else (None, None)
        limits = {"throttle": throttle, "power_limit_w": limit_w}
        return self._board.at_reference(condition, self._reference_c, near_k=_NEAR_K, **limits)


def _result(name: str, windows: list[_Window]) -> LoadResult:
    """The mean of a load's windows; it has no value where one of them has none."""
    timings, energies = [w.result.timing for w in windows], [w.result.energy for w in windows]
    n, time_s = len(windows), _mean([t.time_s for t in timings])
    time_errors = [t.rel_error for t in timings if t.rel_error is not None]
    time_error = _mean(time_errors) / math.sqrt(n) if len(time_errors) == n else None
    powers = [e.power_w for e in energies if e.power_w is not None]
    temperatures = [e.temperature_c for e in energies if e.temperature_c is not None]
    known = LoadResult(
        load=name,
        time_s=time_s,
        time_rel_error=time_error,
        power_w=_mean(powers) if powers else None,
        temperature_c=_mean(temperatures) if temperatures else None,
        windows=tuple((e.power_w, e.temperature_c) for e in energies),
    )
    if (reason := next(filter(None, map(_why_not, windows)), None)) is not None:
        return replace(known, reason=reason)
    at = [w.at for w in windows if w.at is not None]
    power_w = _mean([e.power_w * a.factor for e, a in zip(energies, at, strict=True) if e.power_w and a.factor])
    own = [math.hypot((e.power_rel_error or 0.0) / _HALF_WIDTH, REPEAT_SCATTER) for e in energies]
    # Coefficient and sensor are the same in all windows, so their error does not average out.
    shared = _mean([a.rel_error for a in at if a.rel_error is not None])
    error = math.hypot(_HALF_WIDTH * math.hypot(*own) / n, shared, time_error or 0.0)
    return replace(known, power_at_reference_w=power_w, energy_at_reference_j=power_w * time_s, rel_error=error)


def _why_not(window: _Window) -> str | None:
    """Why a window gives no power at the reference temperature; None where it does."""
    energy, others = window.result.energy, window.result.state.other_processes
    if others:
        return f"{others} other process{'es' if others > 1 else ''} computed on the GPU meanwhile"
    if energy.power_w is None or energy.power_rel_error is None:
        return f"no power: {energy.reason or 'its error is not known'}"
    if window.at is None or window.at.factor is None:
        return window.at.reason if window.at else "no power"
    if window.result.timing.rel_error is None:
        return "the error of its time is not known: too few repeats in the window"
    return None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
