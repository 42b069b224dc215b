"""Measures points on one device for as long as an actor lives: build, warm up, measure, audit. Knows no Ray."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

from flopray.energy.idle import idle_power
from flopray.energy.meter import Meter
from flopray.errors import MeasurementError, NoEnergySource
from flopray.measurement.columns import (
    derived_columns,
    failure_columns,
    findings_of,
    flop_columns,
    point_columns,
    version_columns,
)
from flopray.measurement.counting.ahead import CountedAhead
from flopray.measurement.device import Device
from flopray.measurement.phase import measure_phase
from flopray.measurement.sentinel import Sentinel
from flopray.measurement.window import COLD_AFTER_S, WAKE_S, WARM_UP_S
from flopray.point import Point
from flopray.records import PhaseRecord, Status
from flopray.settings import MeasureSettings
from flopray.workloads.execution import Work, captures_are_broken
from flopray.workloads.phases import BuiltPoint

_IDLE_SECONDS = 1.0
_AWAKE_IDLE_SECONDS = 0.6
#: The counter takes this long to forget a load.
_AFTER_LOAD_S = 0.15
_COOLDOWN_CAP_S = 600.0
_IDLE_CLOCKS_CAP_S = 10.0
#: Stays in the row of a phase that failed before its energy could be known.
_NOT_MEASURED = {"energy_status": str(Status.FAILED), "energy_reason": "the phase was not measured, see its status"}


class Profiler:
    """Owns a device; everything that is measured once for all points (meter, idle power, sentinel) lives here.

    Args:
        device: the device, whole.
        settings: what to measure and how precisely.
        run: name of the run, for the record.
        sentinel: the point to re-measure, already on this device type; None measures none.
        versions: further version columns, such as `ray_version`.
    """

    def __init__(
        self,
        device: Device,
        settings: MeasureSettings,
        *,
        run: str = "",
        sentinel: Point | None = None,
        versions: dict[str, str] | None = None,
    ) -> None:
        self.device, self.settings = device, settings
        self._constant = {"run": run, **device.columns(), **version_columns(), **(versions or {})}
        self._timed = "time" in settings.instruments
        capability = self._constant.get("compute_capability")
        self._ahead: CountedAhead | None = None
        if "counters" in settings.instruments:
            self._ahead = CountedAhead(capability, settings.phases, settings.seed, device=device.torch_name)
        self._meter, self._energy_missing = self._open_meter()
        self._idle_power_w: float | None = None
        self._awake_idle_power_w: float | None = None
        self._tick_period_s: float | None = None
        self._sentinel_point = sentinel
        every_s = settings.sentinel_every_s if sentinel and self._timed else 0.0
        self._sentinel = Sentinel(self._measure_sentinel, every_s=every_s)
        self._frozen = False
        self._busy_at = float("-inf")
        self._wait_for_idle_clocks()
        self._idle_power_w = self._idle(_IDLE_SECONDS)
        if self._sentinel.due and (self.device.is_cuda or self._meter):
            # A CPU without a meter has nothing to wake for, and its first point begins seconds sooner. Otherwise this
            # wakes the device, whose clocks and voltage take a second to come up from deep idle. The baseline waits for
            # the first point: a board leaks more the warmer it is (10 % of a small load's energy, docs/method.md), so
            # that a baseline of a cold board would call every later value a drift.
            self._measure_sentinel()
            self._measure_awake_idle()
        self._warm = False
        self._last_end = time.monotonic()

    @property
    def energy_reason(self) -> str | None:
        """Why there is no energy on this device; None when there is, or when it was not asked for."""
        return self._energy_missing.get("energy_reason")

    @property
    def counters_reason(self) -> str | None:
        """Why no counters could be read so far; None while there were some, or when they were not asked for."""
        return self._ahead.reason if self._ahead else None

    def count_ahead(self, points: Sequence[Point], tell: Callable[[Point], object] | None = None) -> None:
        """Read the hardware counters of points that will be measured next; without effect if they were not asked for.

        Counting is never in the same pass as time or energy: Nsight Compute runs in a process of its own, while this
        one leaves the device idle.

        Args:
            points: the next points.
            tell: called with each point that begins.
        """
        if self._ahead and self._ahead.waiting(points):
            self._forget()
            self._ahead.count(points, tell)

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
        self._cool_down()
        identity = {"order_index": order_index, "attempt": attempt, "seed": self.settings.seed}
        records = [self._constant | identity | point_columns(point) | row for row in self._measure_phases(point)]
        self._warm = True
        wall_s = time.monotonic() - self._last_end
        self._last_end = time.monotonic()
        for row in records:
            row["device_wall_s"] = wall_s
        if self._ahead:
            self._ahead.forget(point)
        for row, findings in zip(records, findings_of(records), strict=True):
            row["findings"] = findings
        return [PhaseRecord.of(**row) for row in records]

    def healthy(self) -> bool:
        """Whether this process can go on: a poisoned CUDA context computes nothing until its process is replaced."""
        try:
            self.device.synchronize()
        except RuntimeError:
            return False
        return not captures_are_broken()

    def close(self) -> None:
        """Let the meter go."""
        if self._meter:
            self._meter.close()
            self._meter = None

    def _open_meter(self) -> tuple[Meter | None, dict[str, str]]:
        if "energy" not in self.settings.instruments:
            return None, {"energy_status": str(Status.NOT_REQUESTED)}
        try:
            return self.device.open_meter(), {}
        except NoEnergySource as error:
            return None, {"energy_status": str(Status.NO_ENERGY_SOURCE), "energy_reason": str(error)}

    def _idle(self, seconds: float) -> float | None:
        """Power of this very process, which holds its CUDA context, while it does nothing; None without a meter.

        The first call also learns the counter's tick period.
        """
        if self._meter is None:
            return None
        try:
            idle = idle_power(self._meter, seconds)
        except MeasurementError:
            return None  # the points will say what is wrong with the meter
        self._tick_period_s = idle.tick_period_s
        return idle.power_w

    def _wait_for_idle_clocks(self) -> None:
        """Before idle power: an actor that follows another one finds the clocks still up. Some boards keep them up."""
        highest_hz = self._constant.get("max_sm_clock_hz")
        until = time.monotonic() + _IDLE_CLOCKS_CAP_S
        while self._meter and highest_hz and time.monotonic() < until:
            state = self.device.state()
            if state is None or state.sm_clock_hz is None or state.sm_clock_hz < highest_hz / 2:
                return
            time.sleep(0.5)

    def _measure(self, work: Work) -> dict[str, Any]:
        cold = time.monotonic() - self._busy_at > COLD_AFTER_S
        try:
            return measure_phase(
                work,
                self.device,
                self._meter,
                self.settings,
                tick_period_s=self._tick_period_s,
                warm_at_least_s=WAKE_S if cold and self.device.is_cuda else WARM_UP_S,
            )
        finally:
            self._busy_at = time.monotonic()

    def _check_sentinel(self) -> None:
        """Where it is due, measure the sentinel, and after it idle power with the clocks still up."""
        if not self._sentinel.due:
            return
        self._sentinel.check()
        if not self.healthy():
            raise RuntimeError("the device stopped computing while the sentinel was measured")
        self._measure_awake_idle()

    def _measure_awake_idle(self) -> None:
        time.sleep(_AFTER_LOAD_S)
        self._awake_idle_power_w = self._idle(_AWAKE_IDLE_SECONDS)

    def _cool_down(self) -> None:
        limit = self.settings.cooldown_c
        until = time.monotonic() + _COOLDOWN_CAP_S
        while limit is not None and time.monotonic() < until:
            state = self.device.state()
            if state is None or state.temperature_c is None or state.temperature_c <= limit:
                return
            time.sleep(0.5)

    def _measure_sentinel(self) -> dict[str, Any] | None:
        assert self._sentinel_point is not None
        try:
            return self._measure(self._build(self._sentinel_point).phase("forward"))
        except Exception:
            return None  # a sentinel that cannot run says nothing about drift; its own point reports the failure
        finally:
            self._forget()

    def _measure_phases(self, point: Point) -> list[dict[str, Any]]:
        built, failure = None, {}
        self.device.reset_peak_memory()
        try:
            if self._timed:
                built = self._build(point)
        except Exception as error:
            failure = failure_columns(error)
        rows = [self._row(point, phase, built, failure) for phase in self.settings.phases]
        del built
        if self._timed:  # a process that only counts has built nothing
            self._forget()
        return rows

    def _build(self, point: Point) -> BuiltPoint:
        memory_bytes = self._constant.get("memory_total_bytes")
        return BuiltPoint(point, device=self.device.torch_name, seed=self.settings.seed, memory_bytes=memory_bytes)

    def _row(self, point: Point, phase: str, built: BuiltPoint | None, failure: dict[str, Any]) -> dict[str, Any]:
        row = {"phase": phase, "started_unix_s": time.time()} | flop_columns(point, phase)
        row |= self._energy_missing
        row |= self._measure_one(built, phase) if built else failure
        if "status" in row and "energy_status" not in row:
            row |= _NOT_MEASURED
        if self._ahead:
            row |= self._ahead.columns(point, row | point.fields())
            if not self._timed:
                row |= {"status": row["counters_status"], "status_reason": row.get("counters_reason")}
        row |= derived_columns(self._constant | row, point.precision, self._sentinel.columns(), self._idle_columns())
        return row | {"ended_unix_s": time.time()}

    def _measure_one(self, built: BuiltPoint, phase: str) -> dict[str, Any]:
        try:
            backend = {"attention_backend": built.attention_backend(phase)}
            return self._measure(built.phase(phase)) | backend
        except Exception as error:
            columns = failure_columns(error)
        finally:
            self.device.reset_peak_memory()
        # Out of the handler, where the traceback no longer holds what did not fit: the next phase starts without it.
        built.forget()
        self._forget()
        return columns

    def _idle_columns(self) -> dict[str, float | None]:
        return {"idle_power_w": self._idle_power_w, "awake_idle_power_w": self._awake_idle_power_w}

    def _forget(self) -> None:
        """Free what the last work held, also in cycles (tracebacks, autograd).

        What still lives after the first work, modules that torch imports late included, lives as long as the actor:
        later collections need not look at it, which would take 60 ms a point.
        """
        gc.collect()
        if not self._frozen and self._busy_at > float("-inf"):
            gc.freeze()
            self._frozen = True
        try:
            self.device.release()
        except RuntimeError:
            return  # a poisoned context frees nothing; `healthy` tells the actor
