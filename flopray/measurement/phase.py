"""One phase of one point, measured: its time, its energy and the state of the device."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import Any

from flopray.energy.estimator import MIN_TICKS, EnergyEstimate, estimate_energy
from flopray.energy.iterations import Iterations
from flopray.energy.load import LoadSpan, Warming
from flopray.energy.meter import Meter
from flopray.energy.poller import Poller
from flopray.energy.thermal import BoardTemperature
from flopray.errors import MeasurementError
from flopray.measurement.device import Device
from flopray.measurement.result import Energy, PhaseResult, State, Timing
from flopray.measurement.statistics import FEWEST_LAPS, FEWEST_LONG_LAPS, Mean, batch_mean
from flopray.measurement.window import (
    WARM_UP_CAP_S,
    WARM_UP_CAP_SHARE,
    WARM_UP_S,
    Window,
    laps_for,
    run_window,
    warm_up,
)
from flopray.measurement.window_series import DeviceSample, window_series
from flopray.records import PREPARED_AGAIN_REL, Status
from flopray.settings import MeasureSettings
from flopray.store.window_series import WindowSeries
from flopray.workloads.execution import Work

NOT_REQUESTED = Energy(str(Status.NOT_REQUESTED))
#: Time alone needs a window that is long enough for changes of the clocks to show.
_MIN_TIME_WINDOW_S = 0.25
#: At its power limit a board's power is not constant: it moves around the limit, on an H200 by 1.6 % from tick to tick
#: in a cycle of about a second (docs/method.md). Half a cycle says little about the load.
_LIMITER_CYCLE_S = 1.0
#: A lap this long is one iteration of thousands of kernels: rare disturbances are averaged within it, as within several
#: ordinary laps of 10 ms, so that fewer laps say enough. No window could hold 25 of them at an acceptable price.
_LONG_LAP_S = 0.05
#: Largest part of a window between two estimates of its energy.
_MOST_LONGER = 0.15
#: An error of this size that is in an interval is not worth a word.
_LITTLE = 0.001
#: How often the stopping rule is evaluated; in between a lap costs the launching thread nothing.
_CHECK_EVERY_S = 0.04


def measure_phase(
    work: Work,
    device: Device,
    meter: Meter | None,
    settings: MeasureSettings,
    *,
    tick_period_s: float | None = None,
    warm_at_least_s: float = WARM_UP_S,
    without_meter: Energy | None = None,
    board: BoardTemperature | None = None,
) -> PhaseResult:
    """Measure one phase.

    Args:
        work: one iteration.
        device: where it runs.
        meter: energy meter, or None to measure time alone.
        settings: target error and cap.
        tick_period_s: the meter's period as measured on this device.
        warm_at_least_s: see `flopray.measurement.window.warm_up`.
        without_meter: why there is none; by default energy was not requested.
        board: how the power of the device follows its temperature, where that is known.

    Returns:
        Time, energy and the state at both ends; a missing energy has its reason.

    Raises:
        Exception: whatever the work raises, such as running out of memory.
    """
    before = device.state()
    laps = laps_for(device.torch_name)
    cap_s = min(WARM_UP_CAP_S, WARM_UP_CAP_SHARE * settings.max_seconds)
    warmup = warm_up(work, laps, at_least_s=warm_at_least_s, cap_s=cap_s)
    at_end: list[Any] = []
    with ExitStack() as stack:
        sampled = device if settings.keep_series else None
        ticks = stack.enter_context(_WindowTicks(meter, tick_period_s, board, sampled)) if meter else None
        window = run_window(
            work,
            laps,
            iteration_s=warmup.iteration_s,
            max_seconds=settings.max_seconds,
            enough=_StoppingRule(settings, ticks, device),
            before_end=lambda: at_end.append((device.state(), device.other_processes())),
        )
        device.synchronize()
        energy = _energy(ticks, window, settings) if ticks else without_meter or NOT_REQUESTED
        series = ticks.series(window) if ticks and settings.keep_series else None
    after, others = at_end[0]
    mean = _time_mean(window, settings.target_error)
    timing = Timing(
        time_s=mean.value,
        rel_error=_if_known(math.hypot(mean.rel_error, PREPARED_AGAIN_REL if device.is_cuda else 0.0)),
        iterations=window.iterations,
        clock=laps.clock,
        converged=mean.rel_error <= settings.target_error,
        window_s=window.end_s - window.start_s,
        warmup_s=warmup.seconds,
        warmup_iterations=warmup.iterations,
        target_error=settings.target_error,
        max_seconds=settings.max_seconds,
    )
    return PhaseResult(timing, energy, State(before, after, others, device.peak_memory_bytes()), series)


def _time_mean(window: Window, target: float) -> Mean:
    """Time of one iteration with its interval: that of the stopping rule where it ended the window."""
    stopped = _time_so_far(window, stopping=True)
    return stopped if stopped.rel_error <= target else _time_so_far(window)


def _time_so_far(window: Window, *, stopping: bool = False) -> Mean:
    """The same by one of the two intervals; how many laps it needs depends on how long a lap is."""
    times_s = window.iteration_times_s
    long = min(times_s) * window.iterations_per_lap >= _LONG_LAP_S
    return batch_mean(times_s, fewest=FEWEST_LONG_LAPS if long else FEWEST_LAPS, stopping=stopping)


class _WindowTicks:
    """The ticks of a meter while a window lasts, and the energy they give."""

    def __init__(
        self, meter: Meter, tick_period_s: float | None, board: BoardTemperature | None, sampled: Device | None = None
    ) -> None:
        """`sampled` is the device whose clock and memory are read at each tick, for a series."""
        self.meter, self._tick_period_s = meter, tick_period_s
        self._slope_w_per_k = board.slope_w_per_k if board else None
        self._sampled, self._samples = sampled, list[DeviceSample]()
        self._poller = Poller(meter, tick_period_s=tick_period_s, at_tick=self._sample if sampled else None)

    def __enter__(self) -> _WindowTicks:
        self._poller.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Ends the thread without raising: `readings` has raised the error of a meter that failed.
        self._poller.__exit__()

    @property
    def count(self) -> int:
        """Ticks so far; costs nothing."""
        return self._poller.ticks

    @property
    def broken(self) -> bool:
        """Whether the meter failed; costs nothing."""
        return self._poller.broken

    def _sample(self) -> None:
        if self._sampled is not None:
            clock_hz, memory_bytes = self._sampled.clock_and_memory()
            self._samples.append(DeviceSample(time.perf_counter(), clock_hz, memory_bytes))

    def series(self, window: Window) -> WindowSeries | None:
        """All ticks so far, also those of a meter that has failed; None without any. The poller drops them."""
        temperatures = self._poller.temperatures()
        return window_series(
            self._poller.take(),
            start_s=window.start_s,
            end_s=window.end_s,
            meter=self.meter.characteristics,
            temperatures=temperatures,
            samples=self._samples,
        )

    def estimate(self, window: Window, mean: Mean) -> EnergyEstimate:
        """Energy of one iteration of this mean time; raises `WindowTooShort` or `MeterError`."""
        return estimate_energy(
            self._poller.readings(),
            LoadSpan(
                window.start_s,
                window.end_s,
                Iterations.of_laps(window.lap_times_s, window.iterations_per_lap, window.start_s, window.end_s),
            ),
            time_per_iteration_s=mean.value,
            time_rel_error=mean.rel_error,
            tick_period_s=self._tick_period_s,
            meter=self.meter.characteristics,
            warming=Warming(self._poller.temperatures(), self._slope_w_per_k),
        )


class _StoppingRule:
    """Says when time, and energy where there is a meter, are inside the target error."""

    def __init__(self, settings: MeasureSettings, ticks: _WindowTicks | None, device: Device) -> None:
        self._target, self._ticks, self._device = settings.target_error, ticks, device
        self._next_check = 0.0
        self._next_ticks = MIN_TICKS

    def __call__(self, window: Window) -> bool:
        now = time.perf_counter()
        if now < self._next_check or now - window.start_s < _MIN_TIME_WINDOW_S:
            return False
        self._next_check = now + _CHECK_EVERY_S
        if not window.lap_times_s:
            return False
        mean = _time_so_far(window, stopping=True)
        if mean.rel_error > self._target:
            return False
        return self._ticks is None or self._energy_is_enough(self._ticks, window, mean)

    def _energy_is_enough(self, ticks: _WindowTicks, window: Window, mean: Mean) -> bool:
        if ticks.broken:
            return True  # going on would measure nothing more
        if ticks.count < self._next_ticks:
            return False  # nothing new since the last look
        self._next_ticks = ticks.count + 1
        try:
            estimate = ticks.estimate(window, mean)
        except MeasurementError:
            return False  # too few ticks after the first moments, or a meter that just failed
        # The meter's own error is in the record, but a longer window would not lower it.
        excess = max(0.0, estimate.energy_rel_error**2 - ticks.meter.characteristics.rel_error**2) ** 0.5 / self._target
        if excess > 1:
            # One tick among many changes little, and the estimate costs milliseconds.
            self._next_ticks = ticks.count + max(1, math.floor(estimate.ticks * min(excess - 1, _MOST_LONGER)))
            return False
        missing_s = _LIMITER_CYCLE_S - estimate.window_s
        if missing_s <= 0 or not self._device.power_capped():
            return True
        self._next_ticks = ticks.count + math.ceil(missing_s / estimate.tick_period_s)
        return False


def _energy(ticks: _WindowTicks, window: Window, settings: MeasureSettings) -> Energy:
    source = ticks.meter.source
    try:
        estimate = ticks.estimate(window, _time_mean(window, settings.target_error))
    except MeasurementError as error:
        return Energy(str(Status.FAILED), str(error), source)
    return Energy(
        str(Status.OK),
        _doubt(estimate, window),
        source,
        energy_j=estimate.energy_j,
        rel_error=_if_known(estimate.energy_rel_error),
        converged=estimate.energy_rel_error <= settings.target_error,
        power_w=estimate.power_w,
        power_rel_error=_if_known(estimate.power_rel_error),
        temperature_c=estimate.temperature_c,
        window_s=estimate.window_s,
        ticks=estimate.ticks,
        tick_period_s=estimate.tick_period_s,
        power_drift_rel=estimate.drift_rel,
        power_drift_significant=estimate.drift_significant,
    )


def _doubt(estimate: EnergyEstimate, window: Window) -> str | None:
    """What makes a measured energy doubtful: a beat, parts of iterations that were missed, or jumps of the counter."""
    doubts = []
    iteration_s = sum(window.iteration_times_s) / len(window.lap_times_s)
    if estimate.unseen_share:
        doubts.append(
            f"beat: counter ticks of {estimate.tick_period_s:.3g} s saw only {1 - estimate.unseen_share:.0%} of "
            f"iterations of {iteration_s:.3g} s, and the rest is in the error; a longer window or iterations of "
            f"another length would show more of them"
        )
    elif estimate.missed_rel > _LITTLE:
        doubts.append(
            f"beat: counter ticks of {estimate.tick_period_s:.3g} s meet iterations of {iteration_s:.3g} s at some of "
            f"their parts only; what a sensor may have missed between them, ± {estimate.missed_rel:.1%}, is in the "
            "error; iterations of another length would show more of them"
        )
    if estimate.jump_j:
        doubts.append(f"jump: the counter gained {estimate.jump_j:.3g} J that no device can have taken; left out")
    return "; ".join(doubts) or None


def _if_known(rel_error: float) -> float | None:
    """An error that is unknown for too few laps is infinite in the arithmetic and missing in the record."""
    return rel_error if rel_error < float("inf") else None
