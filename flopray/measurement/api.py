"""`measure`: what one iteration of any callable costs in time, energy and FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import overload

import torch

from flopray.audit.hardware import peak_flops_per_s
from flopray.energy.meter import Meter
from flopray.energy.reference import EnergyAtReference, energy_at_reference
from flopray.energy.thermal import BoardTemperature, Condition
from flopray.errors import InputError, NoEnergySource, SettingError, several
from flopray.flops.dispatched import DispatchedCount, count_dispatched
from flopray.flops.step import check_step
from flopray.measurement.ceiling import measured_peak_flops_per_s
from flopray.measurement.device import Device
from flopray.measurement.phase import NOT_REQUESTED, measure_phase
from flopray.measurement.result import Energy, Flops, Measurement, PhaseResult
from flopray.measurement.step_phases import Phases, StepMeasurement
from flopray.measurement.window import WAKE_S, WARM_UP_S
from flopray.point import EXECUTIONS, PRECISIONS, is_captured, is_compiled
from flopray.records import Row, Status
from flopray.settings import MeasureSettings, settings_of
from flopray.units import prefixed
from flopray.workloads.execution import Work, captured

#: Calls that are counted until two in a row agree.
_MOST_COUNTS = 3
_COUNTING_FAILED = "counting failed: {}"


@overload
def measure(
    step: Callable[[], object],
    *,
    instruments: Sequence[str] = ...,
    target_error: float = ...,
    max_seconds: float = ...,
    device: str | None = ...,
    execution: str = ...,
    precision: str | None = ...,
    reference_temperature: float = ...,
    meter: Meter | None = ...,
) -> Measurement: ...


@overload
def measure(
    *,
    forward: Callable[[], object] | None = ...,
    backward: Callable[..., object] | None = ...,
    optimizer: Callable[[], object] | None = ...,
    instruments: Sequence[str] = ...,
    target_error: float = ...,
    max_seconds: float = ...,
    device: str | None = ...,
    execution: str = ...,
    precision: str | None = ...,
    reference_temperature: float = ...,
    meter: Meter | None = ...,
) -> StepMeasurement: ...


def measure(
    step: Callable[[], object] | None = None,
    *,
    forward: Callable[[], object] | None = None,
    backward: Callable[..., object] | None = None,
    optimizer: Callable[[], object] | None = None,
    instruments: Sequence[str] = ("time", "energy", "flops"),
    target_error: float = MeasureSettings.target_error,
    max_seconds: float = MeasureSettings.max_seconds,
    device: str | None = None,
    execution: str = "eager",
    precision: str | None = None,
    reference_temperature: float = MeasureSettings.reference_temperature_c,
    meter: Meter | None = None,
) -> Measurement | StepMeasurement:
    """Measure one iteration of a step: time, energy and FLOPs, each with its interval or a reason why it has none.

    The step is warmed up, counted at the dispatcher until two calls agree, and repeated without pause until time and
    energy are known to `target_error`, or for `max_seconds`. It may change its own state, as an optimizer with a real
    learning rate does or a data loader: what is measured is the mean over the iterations of the window, and afterwards
    the model has been trained for as many iterations. Data must not run out: `itertools.cycle(loader)` starts a loader
    over.

    Instead of a step its phases can be given, any of `forward`, `backward` and `optimizer`. Each is measured by itself,
    and all of them in order as the whole step, so that the result says whether they add up.

    Args:
        step: a callable without arguments; one call is one iteration. It launches its work on the current stream and
            need not synchronise.
        forward: the forward pass, which also clears the gradients first; `backward` gets what it returns.
        backward: a backward pass that can be repeated, such as `lambda loss: loss.backward(retain_graph=True)`. By
            itself it walks one graph, and adds to the existing gradients.
        optimizer: a step of the optimizer. By itself it repeats the last gradients, so it must not clear them.
        instruments: some of `time` (always measured), `energy` and `flops`.
        target_error: relative half width of the 95 % interval that ends the window.
        max_seconds: cap on the window; of phases, on each of their windows.
        device: a torch device such as `cuda:1` or `cpu`; by default the current GPU, or the CPU where there is none.
        execution: `eager` calls the step as it is, `graph` captures it into a CUDA graph, `compile` compiles it,
            `compile_graph` compiles and captures it.
        precision: one of `flopray.point.PRECISIONS`, whose peak `mfu` is a share of. The peak of a CPU is measured.
        reference_temperature: in Celsius; the energy of a GPU is also given at this temperature, where it is known how
            its power follows temperature (`Measurement.at_reference`).
        meter: another source of energy than the device's own.

    Returns:
        The parts; `print` shows them as four lines, on a GPU as five. Of phases a `StepMeasurement`, a line for each.

    Raises:
        InputError: an impossible argument, or data that ran out.
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
    given = {"forward": forward, "backward": backward, "optimizer": optimizer}
    phases = Phases({name: work for name, work in given.items() if work is not None})
    if step is None and not phases.names:
        raise InputError("give a step, or its phases as forward=, backward= and optimizer=")
    if step is not None and phases.names:
        raise InputError(f"give a step or its phases, and not both: step and {phases.names[0]}")
    whole = phases.whole() if step is None else step
    instruments = several("instruments", instruments, one_word=True)
    settings = _settings(whole, instruments, target_error, max_seconds, execution, precision, reference_temperature)
    own = device_of(device)
    if is_captured(execution) and not own.is_cuda:
        raise InputError("execution: a CUDA graph needs a CUDA device, use eager or compile on a CPU")
    with _current(own), _Windows(own, settings, meter, execution, precision, instruments) as windows, _data_ends():
        if step is not None:
            return windows.measure(lambda: step, lambda: _prepared(step, execution))
        measured = {
            # The whole comes before the optimizer alone, which drives weights along one gradient.
            name: windows.measure(lambda name=name: phases.alone(name), lambda name=name: phases.alone(name, execution))
            if name != "whole"
            else windows.measure(phases.whole, lambda: phases.whole(execution))
            for name in ("forward", "backward", "whole", "optimizer")
            if name in (*phases.names, "whole")
        }
        return StepMeasurement({name: measured[name] for name in phases.names}, measured["whole"])


class _Windows:
    """What all windows of a call share; it owns the meter that it opens."""

    def __init__(
        self,
        device: Device,
        settings: MeasureSettings,
        meter: Meter | None,
        execution: str,
        precision: str | None,
        instruments: Sequence[str],
    ) -> None:
        self._device, self._settings, self._meter = device, settings, meter
        self._execution, self._precision, self._flops = execution, precision, "flops" in instruments
        self._without, self._opened = NOT_REQUESTED, None
        self._columns = device.columns()
        self._board: BoardTemperature | None = None
        if device.is_cuda:
            self._board = BoardTemperature(self._columns.get("device_name"), self._columns.get("power_limit_w"))
        if meter is None and "energy" in instruments:
            try:
                self._meter = self._opened = device.open_meter()
            except NoEnergySource as error:
                self._without = Energy(str(Status.NO_ENERGY_SOURCE), str(error))

    def __enter__(self) -> _Windows:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()

    def measure(self, original: Callable[[], Work], prepared: Callable[[], Work]) -> Measurement:
        """One window.

        Args:
            original: gives the work as it is counted at the dispatcher.
            prepared: gives the same as it is executed.
        """
        count = _steady_count(original()) if self._flops else DispatchedCount(None, {}, "not requested")
        work = prepared()
        self._device.reset_peak_memory()
        result = measure_phase(
            work,
            self._device,
            self._meter,
            self._settings,
            warm_at_least_s=WAKE_S if self._device.is_cuda else WARM_UP_S,
            without_meter=self._without,
            board=self._board,
        )
        on_cpu = not self._device.is_cuda and self._precision and count.flops is not None
        products = measured_peak_flops_per_s(self._precision) if on_cpu and self._precision else None
        at = _at_reference(result, self._board, self._settings.reference_temperature_c) if self._board else None
        return _measurement(self._columns, result, count, self._execution, self._precision, products, at)


@contextmanager
def _data_ends() -> Iterator[None]:
    """An iterator without further items ends the measurement with one line, not as the end of a loop."""
    try:
        yield
    except StopIteration as error:
        raise InputError(
            "the step ran out of data (StopIteration): let it start over, as itertools.cycle(loader) does"
        ) from error


def _settings(
    step: object,
    instruments: Sequence[str],
    target_error: float,
    max_seconds: float,
    execution: str,
    precision: str | None,
    reference_c: float,
) -> MeasureSettings:
    check_step(step)
    for name, value, known in (
        *(("instruments", word, ("time", "energy", "flops")) for word in instruments),
        ("execution", execution, EXECUTIONS),
        ("precision", precision, (*PRECISIONS, None)),
    ):
        if value not in known:
            raise InputError(f"{name}: unknown {value!r}, choose from {', '.join(str(k) for k in known if k)}")
    measured = ("time", "energy") if "energy" in instruments else ("time",)
    return MeasureSettings(
        instruments=measured,
        target_error=target_error,
        max_seconds=max_seconds,
        reference_temperature_c=checked_reference(reference_c),
    )


def checked_reference(reference_c: float) -> float:
    """The reference temperature as it was given.

    Raises:
        InputError: it is out of range; the message names the argument.
    """
    try:
        settings_of(MeasureSettings)["reference_temperature_c"].check(reference_c)
    except SettingError as error:
        raise InputError(error.told({"reference_temperature_c": "reference_temperature"})) from error
    return float(reference_c)


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
    except StopIteration:
        raise
    except Exception as error:  # a step that cannot be traced can still be measured; one that fails will fail there
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return DispatchedCount(None, {}, _COUNTING_FAILED.format(first))


def _steady_count(step: Callable[[], object]) -> DispatchedCount:
    """The count of a call that the next one repeats: a first call may fill caches, and data may change their shape."""
    counts = [_count(step)]
    while counts[-1].flops is not None and len(counts) < _MOST_COUNTS:
        counts.append(_count(step))
        if counts[-1].flops == counts[-2].flops:
            break
    last = counts[-1].flops
    if last is None or (len(counts) > 1 and last == counts[-2].flops):
        return counts[-1]
    said = ", ".join(prefixed(count.flops or 0, "FLOP") for count in counts)
    return DispatchedCount(None, {}, f"calls of the step differ ({said}), and its time is the mean of all")


def _prepared(step: Callable[[], object], execution: str) -> Work:
    if is_compiled(execution):
        step = torch.compile(step, dynamic=False)
    return captured(step) if is_captured(execution) else step


def _at_reference(result: PhaseResult, board: BoardTemperature, reference_c: float) -> EnergyAtReference | None:
    """Energy at the reference temperature; None where no energy was measured."""
    energy, end = result.energy, result.state.end
    if energy.energy_j is None or not energy.power_w:
        return None
    return energy_at_reference(
        energy.energy_j,
        energy.rel_error,
        Condition(energy.temperature_c, energy.power_w, energy.power_rel_error),
        board,
        reference_c,
        throttle=end.throttle if end else None,
        power_limit_w=end.power_limit_w if end else None,
    )


def _measurement(
    device: Row,
    result: PhaseResult,
    count: DispatchedCount,
    execution: str,
    precision: str | None,
    products_flops_per_s: float | None,
    at_reference: EnergyAtReference | None,
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
        at_reference=at_reference,
    )
