"""What `measure` returns: time, energy and FLOPs of one iteration, each with its interval or the reason it lacks one.

Every interval is a 95 % interval of the mean over the measured window, as a relative half width; that of a GPU's time
includes what preparing the same step again changes. It is for this device
in the state of this window, and not for another day or another board (docs/method.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from flopray.energy.nvml import GpuState
from flopray.energy.reference import EnergyAtReference
from flopray.measurement.statistics import FEWEST_LAPS
from flopray.store.window_series import WindowSeries
from flopray.units import counted, prefixed


@dataclass(frozen=True)
class Timing:
    """Time of one iteration.

    Attributes:
        time_s: mean time.
        rel_error: half width of its 95 % interval over `time_s`; None where the window was too short to say.
        iterations: iterations inside the window.
        clock: `cuda_events` or `perf_counter`.
        converged: the target error was reached before the cap; None where none was asked for.
        window_s: length of the window, host clock.
        warmup_s: time spent until time per iteration was stable; None without a warm-up.
        warmup_iterations: iterations of the warm-up.
        target_error: relative error that was asked for.
        max_seconds: cap on the window.
    """

    time_s: float
    rel_error: float | None
    iterations: int
    clock: str
    converged: bool | None
    window_s: float
    warmup_s: float | None = None
    warmup_iterations: int | None = None
    target_error: float | None = None
    max_seconds: float | None = None


@dataclass(frozen=True)
class Energy:
    """Energy of one iteration, whole device.

    Attributes:
        status: `ok`, `not_requested`, `no_energy_source` or `failed`.
        reason: why there is no energy, or what makes it doubtful.
        source: `nvml_counter`, `nvml_power`, `rapl` or `simulated`.
        energy_j: mean energy; None without a source, with `status` and `reason`.
        rel_error: half width of its 95 % interval over `energy_j`.
        converged: the target error was reached before the cap.
        power_w: mean power in the window.
        power_rel_error: half width of its 95 % interval over `power_w`.
        temperature_c: of the device, mean over the ticks that were used; None where it reports none.
        window_s: from the first to the last tick that was used.
        ticks: counter ticks that were used.
        tick_period_s: median distance of these ticks.
        power_drift_rel: change of power across the window over `power_w`.
        power_drift_significant: more drift than scatter explains; half is in the error.
    """

    status: str
    reason: str | None = None
    source: str | None = None
    energy_j: float | None = None
    rel_error: float | None = None
    converged: bool | None = None
    power_w: float | None = None
    power_rel_error: float | None = None
    temperature_c: float | None = None
    window_s: float | None = None
    ticks: int | None = None
    tick_period_s: float | None = None
    power_drift_rel: float | None = None
    power_drift_significant: bool | None = None


@dataclass(frozen=True)
class Flops:
    """FLOPs of one iteration.

    Attributes:
        dispatched_flops: what the framework was asked to do (matrix products, convolutions, attention as full squares;
            elementwise operations are not counted); None where a part of it cannot be counted.
        reason: why it is missing, naming the operators.
        by_operator: FLOPs of each operator, by name.
        peak_flops_per_s: dense peak of the device at `precision`; on a CPU the measured rate of products, which is not
            a limit; None where neither is known.
        precision: the peak's precision, where one was given.
        peak_measured: whether the peak is a measured one.
    """

    dispatched_flops: int | None
    reason: str | None
    by_operator: dict[str, int]
    peak_flops_per_s: float | None
    precision: str | None
    peak_measured: bool = False


@dataclass(frozen=True)
class State:
    """State of the device at both ends of the window.

    Attributes:
        start: before it; None on a CPU or without NVML.
        end: after it, under load.
        other_processes: that computed on the device; None where that cannot be known.
        memory_peak_bytes: that torch allocated; None on a CPU.
    """

    start: GpuState | None
    end: GpuState | None
    other_processes: int | None
    memory_peak_bytes: int | None


@dataclass(frozen=True)
class Failure:
    """Why a phase has no result.

    Attributes:
        status: one of `flopray.records.Status`.
        reason: one line.
        traceback: of an unexpected exception.
    """

    status: str
    reason: str
    traceback: str | None = None


@dataclass(frozen=True)
class PhaseResult:
    """What the window of one phase gave.

    Attributes:
        timing, energy, state: the parts.
        series: of the counter's ticks, where it was asked for and there was a tick.
    """

    timing: Timing
    energy: Energy
    state: State
    series: WindowSeries | None = None

    def with_peak(self, memory_bytes: int) -> PhaseResult:
        """The same with the peak of torch's allocations before the window, if that is larger."""
        most = max(memory_bytes, self.state.memory_peak_bytes or 0)
        return replace(self, state=replace(self.state, memory_peak_bytes=most))


@dataclass(frozen=True, repr=False)
class Measurement:
    """What one iteration of a step costs on one device.

    Attributes:
        device_name: full name of the device.
        device_uuid: NVML's UUID of a GPU.
        execution: `eager`, `graph` or `compile`.
        time, energy, flops, state: the parts.
        at_reference: energy at the reference temperature, or why it is missing; None without energy and on a CPU, where
            it is unknown how power follows temperature.
    """

    device_name: str
    device_uuid: str | None
    execution: str
    time: Timing
    energy: Energy
    flops: Flops
    state: State
    at_reference: EnergyAtReference | None = None

    @property
    def flops_per_s(self) -> float | None:
        """Dispatched FLOPs over time."""
        return None if self.flops.dispatched_flops is None else self.flops.dispatched_flops / self.time.time_s

    @property
    def flops_per_j(self) -> float | None:
        """Dispatched FLOPs over energy."""
        if self.flops.dispatched_flops is None or not self.energy.energy_j:
            return None
        return self.flops.dispatched_flops / self.energy.energy_j

    @property
    def mfu(self) -> float | None:
        """`flops_per_s` over the peak of the device (`Flops`); None without a `precision` or a peak."""
        if self.flops_per_s is None or self.flops.peak_flops_per_s is None:
            return None
        return self.flops_per_s / self.flops.peak_flops_per_s

    def __repr__(self) -> str:
        """Four lines, as in a lab book, and one of the energy at the reference temperature where that was asked."""
        at = self.at_reference
        return "\n".join(
            (
                f"Measurement on {self.device_name}, {self.execution}",
                f"  time    {with_error(self.time.time_s, 's', self.time.rel_error)}"
                f"  ({counted(self.time.iterations, 'iteration')} in {self.time.window_s:.2f} s"
                f"{_missed(self.time.converged)})",
                f"  energy  {self._energy_line()}",
                *((f"  {at_reference_line(at)}",) if at else ()),
                f"  FLOPs   {self._flops_line()}",
            )
        )

    def _energy_line(self) -> str:
        energy = self.energy
        if energy.energy_j is None:
            return f"none: {energy.reason or energy.status.replace('_', ' ')}"
        value = with_error(energy.energy_j, "J", energy.rel_error)
        return f"{value}  ({prefixed(energy.power_w, 'W')}, {energy.source}{_missed(energy.converged)})"

    def _flops_line(self) -> str:
        if self.flops.dispatched_flops is None:
            return f"none: {self.flops.reason}"
        parts = [f"{prefixed(self.flops.dispatched_flops, 'FLOP')} dispatched", prefixed(self.flops_per_s, "FLOP/s")]
        if self.flops_per_j is not None:
            parts.append(prefixed(self.flops_per_j, "FLOP/J"))
        if self.mfu is not None:
            measured = f" of {prefixed(self.flops.peak_flops_per_s, 'FLOP/s')} measured"
            peak = f"the {self.flops.precision} peak" + (measured if self.flops.peak_measured else "")
            parts.append(f"MFU {self.mfu:.1%} of {peak}")
        return ", ".join(parts)


def at_reference_line(at: EnergyAtReference) -> str:
    """Energy at the reference temperature, such as `energy at 50 °C  12.1 mJ ± 1.3%`, or why there is none."""
    value = f"none: {at.reason}" if at.energy_j is None else with_error(at.energy_j, "J", at.rel_error)
    return f"energy at {at.reference_c:g} °C  {value}"


def with_error(value: float, unit: str, rel_error: float | None) -> str:
    """A value with the half width of its 95 % interval, such as `12.9 ms ± 1.4%`.

    A time without one had too few laps, each of which may be many iterations.
    """
    why = f": fewer than {FEWEST_LAPS} laps" if unit == "s" else ""
    error = f"error unknown{why}" if rel_error is None else f"± {rel_error:.1%}"
    return f"{prefixed(value, unit)} {error}"


def _missed(converged: bool | None) -> str:
    return ", target error missed" if converged is False else ""
