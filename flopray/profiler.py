"""Measures points on one device for as long as an actor lives: build, warm up, measure, audit. Knows no Ray."""

from __future__ import annotations

import gc
import sys
import time
import traceback
from typing import Any

import torch

import flopray
from flopray.audit import audit_point, audit_row
from flopray.device import Device
from flopray.energy.idle import idle_power
from flopray.energy.meter import Meter
from flopray.errors import FloprayError, MeasurementError, NoEnergySource, OutOfMemory
from flopray.flops.analytic import model_flops
from flopray.flops.dispatch import dispatched_flops
from flopray.hardware import peak_flops_per_s
from flopray.measurement import measure_phase
from flopray.records import PhaseRecord, Status, TrialSpec
from flopray.sentinel import Sentinel
from flopray.settings import MeasureSettings
from flopray.statistics import in_quadrature
from flopray.workload import Workload

_IDLE_SECONDS = 1.0
_AWAKE_IDLE_SECONDS = 0.6
#: The counter takes this long to forget a load.
_AFTER_LOAD_S = 0.15
_COOLDOWN_CAP_S = 600.0
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
        sentinel: TrialSpec | None = None,
        versions: dict[str, str] | None = None,
    ) -> None:
        self.device, self.settings = device, settings
        self._constant = {"run": run, **device.columns(), **_versions(), **(versions or {})}
        self._meter, self._energy_missing = self._open_meter()
        self._idle_power_w: float | None = None
        self._awake_idle_power_w: float | None = None
        self._tick_period_s: float | None = None
        self._sentinel_spec = sentinel
        self._sentinel = Sentinel(self._measure_sentinel, every_s=settings.sentinel_every_s if sentinel else 0.0)
        # What lives now lives as long as the actor: collections need not look at it again (0.1 s each).
        gc.collect()
        gc.freeze()
        self._idle_power_w = self._idle(_IDLE_SECONDS)
        if self._sentinel.due:
            # Wakes the device: from deep idle, clocks and voltage take a second to come up, and a baseline measured
            # meanwhile would call every later value a drift.
            self._measure_sentinel()
        self._check_sentinel()
        self._last_end = time.monotonic()

    @property
    def energy_reason(self) -> str | None:
        """Why there is no energy on this device; None when there is, or when it was not asked for."""
        return self._energy_missing.get("energy_reason")

    def measure_point(self, spec: TrialSpec, *, order_index: int | None = None, attempt: int = 1) -> list[PhaseRecord]:
        """Measure every phase of a point; failures become records, never exceptions.

        Args:
            spec: the point; its device type is this device's.
            order_index: place in the sweep's order.
            attempt: 1 for the first try.

        Returns:
            One record a phase of the settings, in their order.
        """
        self._check_sentinel()
        self._cool_down()
        identity = {"order_index": order_index, "attempt": attempt, "seed": self.settings.seed}
        records = [self._constant | identity | _spec_columns(spec) | row for row in self._measure_phases(spec)]
        wall_s = time.monotonic() - self._last_end
        self._last_end = time.monotonic()
        for row in records:
            row["device_wall_s"] = wall_s
        for row, findings in zip(records, _findings(records), strict=True):
            row["findings"] = findings
        return [PhaseRecord(**row) for row in records]

    def healthy(self) -> bool:
        """Whether the device still computes; a poisoned CUDA context does not until its process is replaced."""
        try:
            self.device.synchronize()
        except RuntimeError:
            return False
        return True

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

    def _check_sentinel(self) -> None:
        """Where it is due, measure the sentinel, and after it idle power with the clocks still up."""
        if not self._sentinel.due:
            return
        self._sentinel.check()
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
        assert self._sentinel_spec is not None
        try:
            workload = Workload(self._sentinel_spec, device=self.device.torch_name, seed=self.settings.seed)
            work = workload.phase("forward")
            return measure_phase(work, self.device, self._meter, self.settings, tick_period_s=self._tick_period_s)
        except Exception:
            return None  # a sentinel that cannot run says nothing about drift; its own point reports the failure
        finally:
            self._forget()

    def _measure_phases(self, spec: TrialSpec) -> list[dict[str, Any]]:
        workload, failure = None, {}
        self.device.reset_peak_memory()
        try:
            workload = Workload(spec, device=self.device.torch_name, seed=self.settings.seed)
        except Exception as error:
            failure = _failure_columns(error)
        rows: list[dict[str, Any]] = []
        for phase in self.settings.phases:
            row = {"phase": phase, "started_unix_s": time.time()} | _flop_columns(spec, phase)
            row |= self._energy_missing
            row |= self._measure_one(workload, phase) if workload else failure
            if "status" in row and "energy_status" not in row:
                row |= _NOT_MEASURED
            row |= self._derived_columns(row, spec.precision)
            rows.append(row | {"ended_unix_s": time.time()})
        del workload
        self._forget(thoroughly=any("status" in row for row in rows))
        return rows

    def _measure_one(self, workload: Workload, phase: str) -> dict[str, Any]:
        try:
            work = workload.phase(phase)
            return measure_phase(work, self.device, self._meter, self.settings, tick_period_s=self._tick_period_s)
        except Exception as error:
            return _failure_columns(error)
        finally:
            work = None
            self.device.reset_peak_memory()

    def _forget(self, *, thoroughly: bool = False) -> None:
        """Free what the last point held; after a failure also what its traceback keeps in reference cycles."""
        if thoroughly:
            gc.collect()
        try:
            self.device.release()
        except RuntimeError:
            return  # a poisoned context frees nothing; `healthy` tells the actor

    def _derived_columns(self, row: dict[str, Any], precision: str) -> dict[str, Any]:
        """Rates and efficiencies, active energy, and errors with the sentinel's drift folded in."""
        drift = self._sentinel.columns()
        time_s, energy_j, flops = row.get("time_s"), row.get("energy_j"), row["model_flops"]
        columns: dict[str, Any] = dict(drift)
        if time_s:
            columns["flops_per_s"] = flops / time_s
            columns |= _with_drift(row, "time_rel_error", drift.get("sentinel_time_drift"))
            columns |= self._mfu_columns(precision, row["phase"], columns["flops_per_s"])
        if time_s and energy_j is not None:
            columns |= _with_drift(row, "energy_rel_error", drift.get("sentinel_energy_drift"))
            columns["flops_per_j"] = flops / energy_j if energy_j > 0 else None
            columns["idle_power_w"] = self._idle_power_w
            columns["awake_idle_power_w"] = self._awake_idle_power_w
            if self._idle_power_w is not None:
                columns["active_energy_j"] = energy_j - self._idle_power_w * time_s
        return columns

    def _mfu_columns(self, precision: str, phase: str, flops_per_s: float) -> dict[str, Any]:
        if phase == "optimizer_step":
            return {
                "mfu": None,
                "mfu_reason": "the optimizer is elementwise: the peak of matrix products does not apply",
            }
        name = str(self._constant.get("device_name"))
        peak = peak_flops_per_s(name, precision) if self.device.is_cuda else None
        if peak is None:
            return {"mfu": None, "mfu_reason": f"no {precision} peak known for {name}"}
        return {"mfu": flops_per_s / peak}


def _flop_columns(spec: TrialSpec, phase: str) -> dict[str, Any]:
    closed = model_flops(spec, phase)
    return closed | dispatched_flops(spec, phase, closed["model_flops"])


def _spec_columns(spec: TrialSpec) -> dict[str, Any]:
    names = ("workload", "device_type", "precision", "execution")
    return {"trial_id": spec.trial_id, **{n: getattr(spec, n) for n in names}, **spec.shape()}


def _with_drift(row: dict[str, Any], name: str, drift: float | None) -> dict[str, float]:
    return {} if row.get(name) is None or drift is None else {name: in_quadrature(row[name], drift)}


def _failure_columns(error: Exception) -> dict[str, Any]:
    """Status, one-line reason and, for the unexpected, the traceback."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        error = OutOfMemory(str(error) or "out of memory")
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, FloprayError):
        return {"status": getattr(error, "status", str(Status.FAILED)), "status_reason": first_line}
    text = "".join(traceback.format_exception(error))
    return {"status": str(Status.FAILED), "status_reason": f"{type(error).__name__}: {first_line}", "traceback": text}


def _findings(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Each row's findings: its own, and those of the whole point that concern it."""
    codes = [[finding.code for finding in audit_row(row)] for row in rows]
    for finding in audit_point(rows):
        for place in finding.rows:
            codes[int(str(place))].append(finding.code)
    return [tuple(dict.fromkeys(row)) for row in codes]


def _versions() -> dict[str, Any]:
    """As plain text: torch's version is of a class of its own, for which every reader would have to import torch."""
    return {
        "flopray_version": flopray.__version__,
        "torch_version": str(torch.__version__),
        "cuda_version": torch.version.cuda,
        "python_version": sys.version.split()[0],
    }
