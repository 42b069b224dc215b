"""`measure`: what one iteration of any callable costs in time, energy and FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from flopray.audit.hardware import peak_flops_per_s
from flopray.energy.meter import Meter
from flopray.errors import InputError, NoEnergySource
from flopray.flops.dispatched import DispatchedCount, count_dispatched
from flopray.measurement.ceiling import measured_peak_flops_per_s
from flopray.measurement.device import Device
from flopray.measurement.phase import NOT_REQUESTED, measure_phase
from flopray.measurement.result import Energy, Flops, Measurement, PhaseResult
from flopray.measurement.window import WAKE_S, WARM_UP_S
from flopray.point import EXECUTIONS, PRECISIONS
from flopray.records import Row, Status
from flopray.settings import MeasureSettings
from flopray.workloads.execution import Work, captured

_COUNTING_FAILED = "counting failed: {}"


def measure(
    step: Callable[[], object],
    *,
    instruments: Sequence[str] = ("time", "energy", "flops"),
    target_error: float = MeasureSettings.target_error,
    max_seconds: float = MeasureSettings.max_seconds,
    device: str | None = None,
    execution: str = "eager",
    precision: str | None = None,
    meter: Meter | None = None,
) -> Measurement:
    """Measure one iteration of a step: time, energy and FLOPs, each with its interval or a reason why it has none.

    The step is warmed up, counted once at the dispatcher, and repeated without pause until time and energy are known to
    `target_error`, or for `max_seconds`. It may change its own state, as an optimizer does or a data loader: what is
    measured is the mean over the iterations of the window.

    Args:
        step: a callable without arguments; one call is one iteration. It launches its work on the current stream and
            need not synchronise.
        instruments: of `time` (always measured), `energy` and `flops`.
        target_error: relative half width of the 95 % interval that ends the window.
        max_seconds: cap on the window.
        device: a torch device such as `cuda:1` or `cpu`; by default the current GPU, or the CPU where there is none.
        execution: `eager` calls the step as it is, `graph` captures it into a CUDA graph, `compile` compiles it.
        precision: of `flopray.point.PRECISIONS`; says which peak `mfu` is a share of. That of a CPU is measured.
        meter: another source of energy than the device's own.

    Returns:
        The parts; `print` shows them as four lines.

    Raises:
        InputError: an argument that cannot be.
        Unsupported: the step cannot be captured.
        Exception: whatever the step raises.

    Example:
        >>> import torch
        >>> from flopray.measurement.api import measure
        >>> x = torch.ones(64, 64)
        >>> m = measure(lambda: x @ x, max_seconds=0.3, device="cpu")
        >>> m.flops.dispatched_flops
        524288
        >>> m.time.time_s > 0
        True
    """
    settings = _settings(step, instruments, target_error, max_seconds, execution, precision)
    own = device_of(device)
    with _current(own):
        count = _count(step) if "flops" in instruments else DispatchedCount(None, {}, "not requested")
        work = _prepared(step, execution, own)
        without, opened = NOT_REQUESTED, None
        if meter is None and "energy" in instruments:
            try:
                meter = opened = own.open_meter()
            except NoEnergySource as error:
                without = Energy(str(Status.NO_ENERGY_SOURCE), str(error))
        own.reset_peak_memory()
        warm_at_least_s = WAKE_S if own.is_cuda else WARM_UP_S
        try:
            result = measure_phase(work, own, meter, settings, warm_at_least_s=warm_at_least_s, without_meter=without)
        finally:
            if opened is not None:
                opened.close()
    products = None if own.is_cuda or not precision or count.flops is None else measured_peak_flops_per_s(precision)
    return _measurement(own.columns(), result, count, execution, precision, products)


def _settings(
    step: object,
    instruments: Sequence[str],
    target_error: float,
    max_seconds: float,
    execution: str,
    precision: str | None,
) -> MeasureSettings:
    if not callable(step):
        raise InputError(f"step must be a callable without arguments, got {type(step).__name__}")
    for name, value, known in (
        *(("instruments", word, ("time", "energy", "flops")) for word in instruments),
        ("execution", execution, EXECUTIONS),
        ("precision", precision, (*PRECISIONS, None)),
    ):
        if value not in known:
            raise InputError(f"{name}: unknown {value!r}, choose from {', '.join(str(k) for k in known if k)}")
    measured = ("time", "energy") if "energy" in instruments else ("time",)
    return MeasureSettings(instruments=measured, target_error=target_error, max_seconds=max_seconds)


def device_of(name: str | None) -> Device:
    """The device of a torch name such as `cuda:1`; None takes the current GPU, or the CPU where there is none.

    Raises:
        InputError: there is no such device here, or none that can be measured.
    """
    if name is None:
        name = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: torch knows no {name!r}, give cpu or cuda:0") from error
    if device.type == "cpu":
        return Device("CPU")
    if device.type != "cuda":
        raise InputError(f"device: {device.type} cannot be measured, give cpu or cuda:0")
    index = torch.cuda.current_device() if device.index is None and torch.cuda.is_available() else device.index or 0
    if index >= torch.cuda.device_count():
        raise InputError(f"device: this process sees {torch.cuda.device_count()} CUDA devices, no {name}")
    return Device("GPU", index=index)


def _current(device: Device) -> AbstractContextManager[object]:
    return torch.cuda.device(device.torch_name) if device.is_cuda else nullcontext()


def _count(step: Callable[[], object]) -> DispatchedCount:
    try:
        return count_dispatched(step)
    except Exception as error:  # a step that cannot be traced can still be measured; one that fails will say so there
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return DispatchedCount(None, {}, _COUNTING_FAILED.format(first))


def _prepared(step: Callable[[], object], execution: str, device: Device) -> Work:
    if execution == "compile":
        return torch.compile(step, dynamic=False)
    if execution == "graph":
        if not device.is_cuda:
            raise InputError("execution: a CUDA graph needs a CUDA device, use eager or compile on a CPU")
        return captured(step)
    return step


def _measurement(
    device: Row,
    result: PhaseResult,
    count: DispatchedCount,
    execution: str,
    precision: str | None,
    products_flops_per_s: float | None,
) -> Measurement:
    name = device.get("device_name") or "unknown device"
    peak = peak_flops_per_s(name, precision) if precision else None
    return Measurement(
        device_name=name,
        device_uuid=device.get("device_uuid"),
        execution=execution,
        time=result.timing,
        energy=result.energy,
        flops=Flops(
            count.flops,
            count.reason,
            count.by_operator,
            peak_flops_per_s=peak or products_flops_per_s,
            precision=precision,
            peak_measured=not peak and products_flops_per_s is not None,
        ),
        state=result.state,
    )
