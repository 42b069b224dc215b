"""Cost of a point before it is measured: time from FLOPs and bytes, and the least memory.

For sizing trials and for `--dry-run`; never used as a result. An iteration takes the longer of its FLOPs at the rate of
products and its bytes at the rate of memory, and no less than its operations take to be launched. A phase takes its
preparation, the warm-up (`measurement.window`), and a window, both in laps of at least one iteration. Standard library
only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flopray.audit.hardware import find_gpu
from flopray.errors import FloprayError
from flopray.point import FP8_SCALING, Point, is_compiled, unit_of
from flopray.settings import MeasureSettings
from flopray.workloads.base import ELEMENT_BYTES, Workload, workload_of
from flopray.workloads.dispatch import dispatched_flops

#: Shares of a datasheet's peaks that whole steps reach: on an H100 a Llama 1B forward in bf16 0.37, MLPs in fp32 0.7.
#: For fp8 it is assumed such that a step takes as long as in bf16: scales, casts and attention are not computed in it.
_PRODUCT_SHARE = {"fp32": 0.7, "tf32": 0.4, "bf16": 0.4, "fp16": 0.4, "fp8": 0.2}
_MEMORY_SHARE = 0.75
#: Launched operation by operation, AdamW moves about three times its least bytes (on a CPU it takes 2.1 to 3.8 times
#: their time).
_UNFUSED_OPTIMIZER = 3.0
#: Assumed rates of a core of a CPU that was not measured: products in fp32, and memory.
_CORE_FLOPS_PER_S, _CORE_BYTES_PER_S = 40e9, 6e9

#: As in `flopray.measurement.window` and `flopray.measurement.phase`, which import torch.
_LAP_S, _WARM_UP_S, _WARM_UP_CAP_S, _LEAST_LAPS, _LEAST_WINDOW_S = 0.01, 0.03, 1.0, 5, 0.25
_WARM_UP_CAP_SHARE = 1 / 3
#: Seconds of a phase besides its iterations: a capture on an H100, and Python.
_PREPARE_S = {"eager": 0.02, "graph": 0.08, "compile": 0.02, "compile_graph": 0.08}
#: Compiling a phase: of language models on an H200, where fp8 takes twice as long, and of MLPs on a CPU.
_COMPILE_S, _COMPILE_OTHER_S, _COMPILE_FP8, _COMPILE_ON_CPU = {"train_step": 7.0, "decode": 2.7}, 3.5, 2.0, 0.3
#: Iterations before the warm-up: a capture runs three and replays once or twice.
_PREPARE_ITERATIONS = {"eager": 0, "graph": 5, "compile": 1, "compile_graph": 5}
#: Freeing memory, choosing kernels and reporting the begin and end of a point.
_POINT_S = 0.1
#: Drawing random weights, for each of them.
_BUILD_S = {"CPU": 1.5e-8, "GPU": 5e-10}
#: Weights that are loaded from a disk.
_LOAD_BYTES_PER_S = 1e9
#: Reading the counters of a phase, for each kind of core.
_COUNT_S = 0.02
#: Idle power with clocks up, after each sentinel.
_AFTER_SENTINEL_S = 0.75


@dataclass(frozen=True)
class Rates:
    """Rates of a device.

    Attributes:
        flops_per_s: products, by precision; unknown where it is absent.
        bytes_per_s: memory, streaming.
        time_window_s: window that time alone needs for 1 %; it grows with the inverse square of the target.
        source: where the figures are from, for people.
    """

    flops_per_s: dict[str, float] = field(default_factory=dict)
    bytes_per_s: float = math.inf
    time_window_s: float = 0.5
    source: str = ""


def rates_of(device_type: str, *, cores: int = 1) -> Rates | None:
    """Rates by the type's datasheet; for a CPU a rough assumption, which `flopray.sweep.calibration` replaces.

    Args:
        device_type: `CPU` or the name of a GPU.
        cores: that compute, on a CPU.

    Returns:
        The rates, None for a GPU that the table does not have.
    """
    if device_type == "CPU":
        known: dict[str, float] = dict.fromkeys(("fp32", "bf16", "fp16"), _CORE_FLOPS_PER_S * cores)
        return Rates(known, _CORE_BYTES_PER_S * min(cores, 8), 1.0, "assumed")
    gpu = find_gpu(device_type)
    if gpu is None:
        return None
    flops = {precision: peak * _PRODUCT_SHARE[precision] for precision, peak in gpu.peaks.items()}
    return Rates(flops, gpu.memory_bytes_per_s * _MEMORY_SHARE, 0.5, f"datasheet of the {gpu.name}")


def iteration_seconds(point: Point, phase: str, rates: Rates) -> float:
    """Predicted time of one iteration of a phase.

    Args:
        point: the point.
        phase: one of the workload's phases.
        rates: of its device.
    """
    model = workload_of(point)
    flops = _flops(model, point, phase)
    moved = model.least_moved_bytes(point, phase, ELEMENT_BYTES[point.precision])
    optimizer_s = 0.0
    if phase in ("optimizer_step", "train_step"):  # it follows the products, and its bytes decide how long it takes
        optimizer = model.least_moved_bytes(point, "optimizer_step", ELEMENT_BYTES[point.precision])
        unfused = 1.0 if is_compiled(point.execution) else _UNFUSED_OPTIMIZER
        moved, optimizer_s = moved - optimizer, unfused * optimizer / rates.bytes_per_s
        flops = flops if moved else 0
    rate = rates.flops_per_s.get(unit_of(point.precision))
    launch_s = model.launch_s(point, phase) if point.execution == "eager" else 0.0
    return max(max(flops / rate if rate else 0.0, moved / rates.bytes_per_s) + optimizer_s, launch_s)


def _flops(model: Workload, point: Point, phase: str) -> int:
    """Of one iteration, as far as they are known: the closed form, else the dispatcher's count."""
    components = model.closed_form(point, phase)
    if components is None:
        return 0 if phase == "optimizer_step" else _dispatched(point, phase)
    return sum(components.values()) + (model.beside(point, phase).get("recomputed_flops") or 0)


def _dispatched(point: Point, phase: str) -> int:
    try:
        return dispatched_flops(point, phase, None)["dispatched_flops"] or 0
    except Exception:  # the model's own code, or torch, fails without numbers: unknown
        return 0


def energy_window_s(target_error: float) -> float:
    """Length of a window that energy ends, by a counter that ticks every 100 ms.

    On an H100 windows of steady loads take 0.8 s for 2 % and 0.9 to 1.05 s for 1 %.
    """
    return 0.6 + 0.004 / target_error


def phase_seconds(
    settings: MeasureSettings,
    point: Point,
    phase: str,
    rates: Rates,
    *,
    has_energy: bool,
    each_s: float | None = None,
) -> tuple[float, float]:
    """Predicted preparation and warm-up of a phase, and its window, in seconds.

    Args:
        settings: how it is measured.
        point: the point.
        phase: one of its workload's phases.
        rates: of the device.
        has_energy: whether the device has an energy source.
        each_s: time of one iteration, where it is known better than by the rates.
    """
    each_s = iteration_seconds(point, phase, rates) if each_s is None else each_s
    before = {"backward": ("forward",), "optimizer_step": ("forward_backward",), "decode": ("prefill",)}.get(phase, ())
    ready_s = sum(iteration_seconds(point, name, rates) for name in before)
    prepare_s = _PREPARE_S[point.execution] + ready_s + _PREPARE_ITERATIONS[point.execution] * each_s
    prepare_s += _compile_seconds(point, phase) if is_compiled(point.execution) else 0.0
    model = workload_of(point)
    if model.sees_attention and phase != "optimizer_step" and not is_compiled(point.execution):
        prepare_s += ready_s + 2 * each_s
    prepare_s += model.overhead_s(point, phase)
    warm_up_s, window_s = busy_seconds(settings, each_s, rates, has_energy=has_energy)
    return prepare_s + each_s + warm_up_s, window_s


def busy_seconds(settings: MeasureSettings, each_s: float, rates: Rates, *, has_energy: bool) -> tuple[float, float]:
    """Predicted warm-up of a phase and its window, in seconds: all this time the device runs it.

    Args:
        settings: how it is measured.
        each_s: time of one iteration.
        rates: of the device.
        has_energy: whether the device has an energy source.
    """
    lap_s = max(each_s, _LAP_S)
    cap_s = min(_WARM_UP_CAP_S, _WARM_UP_CAP_SHARE * settings.max_seconds)
    laps = max(3, math.ceil(_WARM_UP_S / lap_s)) if 3 * lap_s < cap_s else math.ceil(cap_s / lap_s)
    window_s = _time_window_s(settings, rates)
    if has_energy and "energy" in settings.instruments:
        window_s = max(energy_window_s(settings.target_error), _LEAST_WINDOW_S)
    window_s = min(settings.max_seconds, max(window_s, _LEAST_LAPS * lap_s))
    return laps * lap_s, math.ceil(window_s / lap_s - 1e-9) * lap_s


def _compile_seconds(point: Point, phase: str) -> float:
    seconds = _COMPILE_S.get(phase, _COMPILE_OTHER_S) * (_COMPILE_ON_CPU if point.device_type == "CPU" else 1.0)
    return seconds * (_COMPILE_FP8 if point.precision in FP8_SCALING else 1.0)


def _time_window_s(settings: MeasureSettings, rates: Rates) -> float:
    """Window that time alone needs for the target error, whatever the cap."""
    return max(_LEAST_WINDOW_S, rates.time_window_s * (0.01 / settings.target_error) ** 2)


def predict_point_seconds(
    settings: MeasureSettings, point: Point, *, has_energy: bool, rates: Rates | None = None
) -> float:
    """Time of a point.

    Args:
        settings: how it is measured.
        point: the point.
        has_energy: whether the device has an energy source, whose ticks set the shortest useful window.
        rates: of the device; None takes `rates_of`, and of an unknown GPU the time of the windows alone.

    Returns:
        Seconds of device time, including building, warming up and a share of the sentinel. A point at which the
        workload's code fails takes hardly any time.
    """
    try:
        return _predicted(settings, point, has_energy=has_energy, rates=rates)
    except FloprayError:
        return _POINT_S


def _predicted(settings: MeasureSettings, point: Point, *, has_energy: bool, rates: Rates | None) -> float:
    rates = rates or rates_of(point.device_type) or Rates()
    seconds = _POINT_S + workload_of(point).count_s(point)
    if "time" in settings.instruments:
        phases = (phase_seconds(settings, point, phase, rates, has_energy=has_energy) for phase in settings.phases)
        seconds += _build_seconds(point) + sum(sum(parts) for parts in phases)
        if settings.sentinel_every_s:
            window_s = min(settings.max_seconds, _time_window_s(settings, rates))
            sentinel_s = 0.1 + window_s + (_AFTER_SENTINEL_S if has_energy else 0.0)
            seconds *= 1 + min(sentinel_s / settings.sentinel_every_s, 1.0)
    if "counters" in settings.instruments:
        seconds += count_seconds(settings, point)
    return seconds


def count_seconds(settings: MeasureSettings, point: Point) -> float:
    """Time for reading the counters of a point's phases, without the start of Nsight Compute."""
    return len(settings.phases) * _COUNT_S * kinds_of_core(point)


def kinds_of_core(point: Point) -> int:
    """Runs of Nsight Compute, one after the other: CUDA cores, and tensor cores where they are used.

    In fp8 and, on most chips, in fp16 tensor cores take two (`flopray.flops.executed.metrics`).
    """
    return {"fp32": 1, "fp16": 3, **dict.fromkeys(FP8_SCALING, 3)}.get(point.precision, 2)


def refused_seconds(point: Point) -> float:
    """Time of a point that cannot be measured: its FLOPs are counted anyway."""
    try:
        return _POINT_S + workload_of(point).count_s(point)
    except FloprayError:
        return _POINT_S


def _build_seconds(point: Point) -> float:
    workload = workload_of(point)
    weights_bytes = workload.least_bytes(point, "weights", 1)
    if workload.loads_weights(point):
        return weights_bytes * ELEMENT_BYTES[point.precision] / _LOAD_BYTES_PER_S
    return weights_bytes * _BUILD_S["CPU" if point.device_type == "CPU" else "GPU"]


def phases_too_large(point: Point, phases: tuple[str, ...], memory_bytes: int | None) -> dict[str, int]:
    """Least bytes of the phases that do not fit; `workloads.phases` refuses them by the same rule.

    Args:
        point: the point.
        phases: that are measured.
        memory_bytes: of the device; None where it is not known, and nothing is refused. Nothing is refused either where
            the workload's code fails.
    """
    if memory_bytes is None:
        return {}
    try:
        needed: dict[str, int] = {phase: least_bytes(point, phase) for phase in ("weights", *phases)}
    except FloprayError:
        return {}
    weights = needed.pop("weights")
    return {phase: need for phase, need in needed.items() if max(need, weights) > memory_bytes}


def least_bytes(point: Point, phase: str) -> int:
    """Least memory for a phase of a point to run; `weights` for what all phases need."""
    return workload_of(point).least_bytes(point, phase, ELEMENT_BYTES[point.precision])
