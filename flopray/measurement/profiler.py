"""Measures points on one device while an actor lives: build, warm up, measure, audit. Knows no Ray."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flopray.measurement.ceiling import measured_peak_flops_per_s
from flopray.measurement.columns import (
    closed_form_failure,
    derived_columns,
    energy_columns,
    failure_of,
    findings_of,
    flop_columns,
    measured_columns,
    point_columns,
    series_columns,
    status_columns,
    version_columns,
)
from flopray.measurement.counting.ahead import CountedAhead, rounds_beside_dispatcher
from flopray.measurement.counting.progress import Tell
from flopray.measurement.device import Device
from flopray.measurement.device_power import DevicePower
from flopray.measurement.filler import HeldTemperature
from flopray.measurement.operators import operator_columns
from flopray.measurement.phase import measure_phase
from flopray.measurement.result import Failure, PhaseResult
from flopray.measurement.sentinel import Sentinel
from flopray.measurement.start_up import StartUp, imported_meanwhile
from flopray.measurement.window import COLD_AFTER_S, WAKE_S, WARM_UP_S, laps_for, warm_up
from flopray.point import Point
from flopray.records import PhaseRecord, Row
from flopray.settings import MeasureSettings
from flopray.workloads.execution import Work, captures_are_broken
from flopray.workloads.phases import BuiltPoint, imported_by_optimizers

#: Columns by which libraries choose kernels.
_ENVIRONMENT = (
    *("device_name", "compute_capability", "sm_count", "memory_total_bytes", "driver_version"),
    *("torch_version", "cuda_version", "python_version", "flopray_version"),
)


@dataclass
class Outcome:
    """The outcome of one phase: a result or a failure, and the conditions at that moment.

    Attributes:
        phase: its name.
        started_unix_s: when it began.
        failure: why there is no result.
        result: time, energy and state.
        attention_backend: that ran.
        further: columns beside these, such as those of operators.
        drift: columns of the sentinel.
        awake_idle_power_w: last measured.
        hold: columns of the held temperature.
        ended_unix_s: when it ended.
    """

    phase: str
    started_unix_s: float
    failure: Failure | None
    result: PhaseResult | None = None
    attention_backend: str | None = None
    further: Row = field(default_factory=dict)
    drift: dict[str, float | None] = field(default_factory=dict)
    awake_idle_power_w: float | None = None
    hold: Row = field(default_factory=dict)
    ended_unix_s: float | None = None


class Profiler:
    """Owns a device while it is open, with what is measured once for all points: meter, idle power, sentinel.

    Open it as a context, or by `open` and `close`: opening takes the meter, waits until the device is idle, and
    measures its idle power, which may take twenty seconds.

    Args:
        device: the device, whole.
        settings: what to measure and how precisely.
        run: name of the run, for the record.
        sentinel: the point to re-measure, already on this device type; None measures none.
        versions: further version columns, such as `ray_version`.
        start_up: where the parts of `open` are noted.

    Attributes:
        first_window_after_s: from the end of `open` to the first measured window; None before it.
    """

    def __init__(
        self,
        device: Device,
        settings: MeasureSettings,
        *,
        run: str = "",
        sentinel: Point | None = None,
        versions: dict[str, str] | None = None,
        start_up: StartUp | None = None,
    ) -> None:
        self.device, self.settings = device, settings
        self._constant = {"run": run, **device.columns(), **version_columns(), **(versions or {})}
        self._start_up = start_up or StartUp()
        self.first_window_after_s: float | None = None
        self._timed = "time" in settings.instruments
        capability = self._constant.get("compute_capability")
        self._ahead: CountedAhead | None = None
        if "counters" in settings.instruments:
            self._ahead = CountedAhead(capability, settings.phases, settings.seed, device=device.torch_name)
        self._measured_peaks: dict[str, float | None] = {}
        self._sentinel_point = sentinel
        every_s = settings.sentinel_every_s if sentinel and self._timed else 0.0
        self._power = DevicePower(device, settings, self._constant)
        target_c = settings.hold_temperature_c
        self._hold = None if target_c is None else HeldTemperature(device, target_c)
        self._sentinel = Sentinel(self._measure_sentinel, every_s=every_s, board=self._power.board)
        self._frozen = self._warm = False
        self._busy_at = float("-inf")
        self._last_end = time.monotonic()

    def __enter__(self) -> Profiler:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> Profiler:
        """Take the meter, wait until the device is idle, measure its idle power, and wake it.

        Raises:
            MeterError: the GPU is lost; the meter was closed.
        """
        try:
            gpu = self._timed and self.device.is_cuda  # while it is woken, the host has nothing else to do
            with imported_meanwhile(imported_by_optimizers(self.settings.phases) if gpu else None):
                self._power.open(self._start_up)
                if self._sentinel.due and (self.device.is_cuda or self._power.meter):
                    # Clocks and voltage take a second to come up. The baseline is taken after the first point: against
                    # that of a cold board, which leaks less (docs/method.md), every later value would be a drift.
                    self._wake()
                    self._start_up.mark("waking")
                    self._power.measure_awake_idle()
                    self._start_up.mark("awake idle power")
            self._start_up.mark("imports")
        except BaseException:
            self.close()
            raise
        self._last_end = time.monotonic()
        return self

    @property
    def environment(self) -> tuple[tuple[str, Any], ...]:
        """The properties of device and software by which libraries choose kernels."""
        return tuple((name, self._constant.get(name)) for name in _ENVIRONMENT)

    @property
    def energy_reason(self) -> str | None:
        """Why there is no energy on this device; None when there is, or when it was not asked for."""
        return self._power.without.reason

    @property
    def factor_reason(self) -> str | None:
        """Why a calibration that was asked for gave no factor of the board; None where it gave one."""
        return self._power.factor_reason

    @property
    def counters_reason(self) -> str | None:
        """Why no counters could be read so far; None while there were some, or when they were not asked for."""
        return self._ahead.reason if self._ahead else None

    @property
    def counting(self) -> CountedAhead | None:
        """What was counted and waits to be measured; None where counters were not asked for."""
        return self._ahead

    def counted_rounds(self, points: Sequence[Point], tell: Tell | None = None) -> Iterator[list[Point]]:
        """Read the hardware counters of points that will be measured, chunk by chunk, if they were asked for.

        Counting is never in the same pass as time or energy: Nsight Compute runs in a process of its own. Yields points
        that are counted now; `tell` is called with each point that begins, and how far counting is.
        """
        if self._ahead and (waiting := self._ahead.waiting(points)):
            self._forget()
            yield from rounds_beside_dispatcher(self._ahead, waiting, self.settings.phases, tell)

    def count_ahead(self, points: Sequence[Point]) -> None:
        """All rounds of `counted_rounds`."""
        list(self.counted_rounds(points))

    def measure_point(self, point: Point, *, order_index: int | None = None, attempt: int = 1) -> list[PhaseRecord]:
        """Measure every phase of a point; failures of the point become records, never exceptions.

        Args:
            point: the point; its device type is this device's.
            order_index: place in the sweep's order.
            attempt: 1 for the first try.

        Returns:
            One record a phase of the settings, in their order.

        Raises:
            RuntimeError: the device stopped computing before the point began; only a new process can go on.
            MeterError: the GPU is lost.
        """
        if self._warm:
            self._check_sentinel()
        self.count_ahead([point])
        self.device.cool_down(self.settings.cooldown_c)
        self._measured_peak(point.precision)
        rows = [self._row(point, outcome) for outcome in self.outcomes(point)]
        self._warm = True
        ended = time.monotonic()
        wall_s, self._last_end = ended - self._last_end, ended
        shared = {**self._constant, "order_index": order_index, "attempt": attempt, "seed": self.settings.seed}
        shared |= point_columns(point) | {"device_wall_s": wall_s} | self._power.factor
        rows = [shared | row for row in rows]
        if self._ahead:
            self._ahead.forget(point)
        return [PhaseRecord.of(**row, findings=findings) for row, findings in zip(rows, findings_of(rows), strict=True)]

    def healthy(self) -> bool:
        """Whether this process can go on: after some CUDA errors only a new process can compute."""
        try:
            self.device.synchronize()
        except RuntimeError:
            return False
        return not captures_are_broken()

    def close(self) -> None:
        """Close the meter."""
        self._power.close()

    def _measure(self, work: Work) -> PhaseResult:
        peak_bytes = self._hold.before_window(work) if self._hold else None
        if self._hold and self.device.is_cuda:
            self._busy_at = time.monotonic()
        cold = time.monotonic() - self._busy_at > COLD_AFTER_S
        try:
            result = measure_phase(
                work,
                self.device,
                self._power.meter,
                self.settings,
                tick_period_s=self._power.tick_period_s,
                warm_at_least_s=WAKE_S if cold and self.device.is_cuda else WARM_UP_S,
                without_meter=self._power.without,
                board=self._power.board,
            )
            return result if peak_bytes is None else result.with_peak(peak_bytes)
        finally:
            self._busy_at = time.monotonic()

    def _wake(self) -> None:
        """Run the sentinel until the clocks are up. Nothing is measured, so that the first point comes sooner."""
        assert self._sentinel_point is not None
        try:
            work = self._build(self._sentinel_point).phase("forward")
            warm_up(work, laps_for(self.device.torch_name), at_least_s=WAKE_S)
            self.device.synchronize()
        except Exception:
            return  # its own point reports the failure
        finally:
            self._busy_at = time.monotonic()
            self._forget()

    def _check_sentinel(self) -> None:
        """If it is due, measure the sentinel, then idle power with the clocks still up."""
        if not self._sentinel.due:
            return
        self._sentinel.check()
        if not self.healthy():
            raise RuntimeError("the device stopped computing while the sentinel was measured")
        self._power.measure_awake_idle()

    def _measure_sentinel(self) -> PhaseResult | None:
        assert self._sentinel_point is not None
        try:
            return self._measure(self._build(self._sentinel_point).phase("forward"))
        except Exception:
            return None  # a sentinel that cannot run says nothing about drift; its own point reports the failure
        finally:
            self._forget()

    def outcomes(self, point: Point) -> list[Outcome]:
        """Measure the phases of a point; a subclass may measure them in another way."""
        built: BuiltPoint | None = None
        failure: Failure | None = None
        self.device.reset_peak_memory()
        try:
            if self._timed:
                built = self._build(point)
        except Exception as error:
            failure = failure_of(error)
        outcomes = [self._outcome(point, phase, built, failure) for phase in self.settings.phases]
        del built
        if self._timed:  # a process that only counts has built nothing
            self._forget()
        return outcomes

    def _outcome(self, point: Point, phase: str, built: BuiltPoint | None, failure: Failure | None) -> Outcome:
        outcome = Outcome(phase, time.time(), failure or closed_form_failure(point, phase))
        if built and outcome.failure is None:
            self._measure_one(built, outcome)
        outcome.hold = self._hold.columns() if self._hold else {}
        outcome.drift, outcome.awake_idle_power_w = self._sentinel.columns(), self._power.awake_idle_power_w
        outcome.ended_unix_s = time.time()
        return outcome

    def _build(self, point: Point) -> BuiltPoint:
        memory_bytes = self._constant.get("memory_total_bytes")
        return BuiltPoint(point, device=self.device.torch_name, seed=self.settings.seed, memory_bytes=memory_bytes)

    def _measure_one(self, built: BuiltPoint, outcome: Outcome) -> None:
        try:
            outcome.attention_backend = built.attention_backend(outcome.phase)
            outcome.result = self._measure(built.phase(outcome.phase))
            if self.first_window_after_s is None:
                self.first_window_after_s = time.monotonic() - self._last_end - outcome.result.timing.window_s
            outcome.further = self._operators(built, outcome.phase)
            return
        except Exception as error:
            outcome.failure = failure_of(error)
        finally:
            self.device.reset_peak_memory()
        # Outside of the handler, where the traceback no longer holds the memory that did not fit.
        built.forget()
        self._forget()

    def _operators(self, built: BuiltPoint, phase: str) -> Row:
        """The columns of a phase's operators, in a pass after its window.

        A CUDA graph is profiled as its capture launches it, kernel by kernel.
        """
        if "operators" not in self.settings.instruments:
            return {}
        return operator_columns(lambda: built.launched(phase), is_cuda=self.device.is_cuda)

    def _row(self, point: Point, outcome: Outcome) -> Row:
        """The columns of one phase, each from one part."""
        flops = flop_columns(point, outcome.phase)
        without = self._power.energy_without(failed=outcome.failure is not None)
        measured = measured_columns(outcome.result) if outcome.result else energy_columns(without)
        series: Row = {}
        if self.settings.keep_series:
            result = outcome.result
            series = series_columns(result.series, result.energy) if result else series_columns(None, without)
        counters = self._ahead.columns(point, {"phase": outcome.phase, **flops}) if self._ahead else {}
        ended = status_columns(outcome.failure, counters if not self._timed else {})
        peak = {"measured_peak_flops_per_s": self._measured_peak(point.precision)}
        derived = derived_columns(
            {**self._constant, "phase": outcome.phase, **flops, **measured, **peak},
            point.precision,
            outcome.drift,
            {"idle_power_w": self._power.idle_power_w, "awake_idle_power_w": outcome.awake_idle_power_w},
            self._power.board,
            self.settings.reference_temperature_c,
        )
        return {
            "phase": outcome.phase,
            "started_unix_s": outcome.started_unix_s,
            "ended_unix_s": outcome.ended_unix_s,
            "attention_backend": outcome.attention_backend,
            **flops,
            **measured,
            **counters,
            **outcome.further,
            **series,
            **ended,
            **peak,
            **outcome.hold,
            **derived,
        }

    def _measured_peak(self, precision: str) -> float | None:
        """The rate of products at a precision on a CPU, measured once; None on a GPU, whose datasheet states it."""
        if self.device.is_cuda or not self._timed:
            return None
        if precision not in self._measured_peaks:
            self._measured_peaks[precision] = measured_peak_flops_per_s(precision)
        return self._measured_peaks[precision]

    def _forget(self) -> None:
        """Free what the last work held, also in cycles (tracebacks, autograd).

        Objects that are alive after the first work, such as modules that torch imports late, live as long as the
        actor: later collections skip them, which saves 60 ms a point.
        """
        gc.collect()
        if not self._frozen and self._busy_at > float("-inf"):
            gc.freeze()
            self._frozen = True
        try:
            self.device.release()
        except RuntimeError:
            return  # a broken context frees nothing; `healthy` tells the actor
