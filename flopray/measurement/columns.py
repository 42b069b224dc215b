"""The columns of a row, from its parts: FLOPs, measured values, derived values, versions."""

from __future__ import annotations

import sys
import traceback

import torch

import flopray
from flopray.audit import audit_point, audit_row
from flopray.audit.drift import added_error, drift_column
from flopray.audit.hardware import peak_flops_per_s
from flopray.energy.nvml import GpuState
from flopray.energy.reference import reference_columns
from flopray.energy.thermal import BoardTemperature
from flopray.errors import FloprayError, OutOfMemory, Unsupported, WorkloadError, brief
from flopray.measurement.result import Energy, Failure, PhaseResult
from flopray.point import Point
from flopray.records import Row, Status
from flopray.store.window_series import WindowSeries
from flopray.workloads.base import closed_columns
from flopray.workloads.dispatch import dispatched_flops
from flopray.workloads.execution import is_out_of_memory


def point_columns(point: Point) -> Row:
    """The point: its id and the fields that make it."""
    return {"trial_id": point.id, **point.fields()}


def flop_columns(point: Point, phase: str) -> Row:
    """Closed form, where the workload has one, and dispatcher's count of one iteration; each missing where it fails."""
    closed: Row = {}
    try:
        closed = closed_columns(point, phase)
        return closed | dispatched_flops(point, phase, closed.get("model_flops"))
    except Exception as error:  # another library failed to trace the model: the measurement goes on
        reason = f"counting failed: {error if isinstance(error, FloprayError) else brief(error)}"
        return closed | {"dispatched_flops": None, "dispatched_reason": reason, "dispatched_rel_difference": None}


def measured_columns(result: PhaseResult) -> Row:
    """Time, energy and state of a phase, by the names of their columns."""
    timing, energy, state = result.timing, result.energy, result.state
    return {
        "time_s": timing.time_s,
        "time_rel_error": timing.rel_error,
        "time_iterations": timing.iterations,
        "time_clock": timing.clock,
        "time_converged": timing.converged,
        "warmup_s": timing.warmup_s,
        "warmup_iterations": timing.warmup_iterations,
        "window_s": timing.window_s,
        "target_error": timing.target_error,
        "max_seconds": timing.max_seconds,
        **energy_columns(energy),
        **_state_columns(state.start, "start"),
        **_state_columns(state.end, "end"),
        "other_processes": state.other_processes,
        "memory_peak_bytes": state.memory_peak_bytes,
    }


def energy_columns(energy: Energy) -> Row:
    """Energy of a phase, or why there is none."""
    return {
        "energy_j": energy.energy_j,
        "energy_rel_error": energy.rel_error,
        "energy_source": energy.source,
        "energy_status": energy.status,
        "energy_reason": energy.reason,
        "energy_converged": energy.converged,
        "energy_window_s": energy.window_s,
        "energy_ticks": energy.ticks,
        "energy_tick_period_s": energy.tick_period_s,
        "power_w": energy.power_w,
        "temperature_mean_c": energy.temperature_c,
        "power_drift_rel": energy.power_drift_rel,
        "power_drift_significant": energy.power_drift_significant,
    }


def series_columns(series: WindowSeries | None, energy: Energy) -> Row:
    """The series of a phase's window, or why there is none.

    Args:
        series: None where there was no tick, or no window.
        energy: of the same window, which says why.
    """
    if series is not None:
        return {"series_status": str(Status.OK), "series": (series.to_json(),)}
    if energy.status == Status.NO_ENERGY_SOURCE:
        return {"series_status": energy.status, "series_reason": energy.reason}
    reason = energy.reason or "the energy counter did not tick in the window"
    return {"series_status": str(Status.FAILED), "series_reason": reason}


def _state_columns(state: GpuState | None, end: str) -> Row:
    if state is None:
        return {}
    return {
        f"temperature_{end}_c": state.temperature_c,
        f"sm_clock_{end}_hz": state.sm_clock_hz,
        f"memory_clock_{end}_hz": state.memory_clock_hz,
        f"power_limit_{end}_w": state.power_limit_w,
        f"throttle_{end}": state.throttle,
    }


def derived_columns(
    row: Row,
    precision: str,
    drift: dict[str, float | None],
    idle: dict[str, float | None],
    board: BoardTemperature | None = None,
    reference_c: float | None = None,
) -> Row:
    """Rates and efficiencies, active energy, and errors with the sentinel's drift folded in.

    Args:
        row: what was measured, with the device's columns.
        precision: of the point.
        drift: columns of the sentinel.
        idle: `idle_power_w` and `awake_idle_power_w`.
        board: how its power follows temperature, as far as it is known at this moment; None on a CPU.
        reference_c: temperature of `energy_at_reference_j`.
    """
    time_s, energy_j, flops = row.get("time_s"), row.get("energy_j"), flops_of(row)
    columns: Row = dict(drift)
    if time_s:
        columns["flops_per_s"] = None if flops is None else flops / time_s
        columns |= _with_drift(row, "time", drift)
        columns |= _mfu_columns(row, precision, columns["flops_per_s"])
    if time_s and energy_j is not None:
        columns |= _with_drift(row, "energy", drift)
        if board is not None and reference_c is not None:
            columns |= reference_columns(row | columns, board, reference_c)
        if row.get("tokens_per_iteration"):
            columns["energy_per_token_j"] = energy_j / row["tokens_per_iteration"]
        columns |= idle
        columns["flops_per_j"] = flops / energy_j if flops is not None and energy_j > 0 else None
        if idle["idle_power_w"] is not None:
            columns["active_energy_j"] = energy_j - idle["idle_power_w"] * time_s
    return columns


def flops_of(row: Row) -> int | None:
    """FLOPs behind rates and efficiencies: the closed form, and without one the dispatcher's count."""
    model = row.get("model_flops")
    return row.get("dispatched_flops") if model is None else model


def _with_drift(row: Row, quantity: str, columns: dict[str, float | None]) -> dict[str, float]:
    """The error of a quantity with the drift of the sentinel, as far as it is more than the sentinel's own scatter."""
    name, column = f"{quantity}_rel_error", drift_column(columns, quantity)
    drift = columns.get(column)
    if row.get(name) is None or drift is None:
        return {}
    return {name: row[name] + added_error(drift, columns.get(f"{column}_error"))}


def _mfu_columns(row: Row, precision: str, flops_per_s: float | None) -> Row:
    if row["phase"] == "optimizer_step":
        return {"mfu": None, "mfu_reason": "the optimizer is elementwise: the peak of matrix products does not apply"}
    if flops_per_s is None:
        return {"mfu": None, "mfu_reason": "no FLOPs are known: see dispatched_reason"}
    peak = peak_flops_per_s(row.get("device_name"), precision) or row.get("measured_peak_flops_per_s")
    if peak is None:
        return {"mfu": None, "mfu_reason": f"no {precision} peak known for {row.get('device_name')}"}
    again, flops = row.get("recomputed_flops") or 0, flops_of(row)
    return {"mfu": flops_per_s / peak, "hfu": flops_per_s * (1 + again / flops) / peak if flops else None}


def failure_of(error: Exception) -> Failure:
    """Status, one-line reason and, for the unexpected, the traceback."""
    if is_out_of_memory(error):
        error = OutOfMemory((str(error).splitlines() or ["out of memory"])[0])
    elif "No available kernel" in str(error):
        error = Unsupported(
            "this attention backend has no kernel for the precision or the grouped heads: try another one"
        )
    text = "".join(traceback.format_exception(error))
    if isinstance(error, FloprayError):
        traced = text if isinstance(error, WorkloadError) else None
        return Failure(str(getattr(error, "status", Status.FAILED)), str(error), traced)
    return Failure(str(Status.FAILED), brief(error), text)


def closed_form_failure(point: Point, phase: str) -> Failure | None:
    """What is wrong with the FLOPs that a workload states for a phase: rates from a wrong count would mislead."""
    try:
        closed_columns(point, phase)
    except Exception as error:
        return failure_of(error)
    return None


def status_columns(failure: Failure | None, counters: Row) -> Row:
    """How a phase ended; where only counters were asked for, how their counting ended."""
    if failure is not None:
        return {"status": failure.status, "status_reason": failure.reason, "traceback": failure.traceback}
    if counters:
        return {"status": counters["counters_status"], "status_reason": counters.get("counters_reason")}
    return {}


def findings_of(rows: list[Row]) -> list[tuple[str, ...]]:
    """Each row's findings: its own, and those of the whole point that concern it."""
    codes = [[finding.code for finding in audit_row(row)] for row in rows]
    for finding in audit_point(rows):
        for place in finding.rows:
            codes[int(str(place))].append(finding.code)
    return [tuple(dict.fromkeys(row)) for row in codes]


def version_columns() -> Row:
    """Versions as plain text: torch's own version is an object, which readers could not load without torch."""
    return {
        "flopray_version": flopray.__version__,
        "torch_version": str(torch.__version__),
        "cuda_version": torch.version.cuda,
        "python_version": sys.version.split()[0],
    }
