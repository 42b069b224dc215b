"""What `measure` returns: time, energy and FLOPs of one iteration, each with its interval or the reason it lacks one.

Every interval is a 95 % interval of the mean over the measured window, as a relative half width. It says how well this
window knows this device in this state, and not what another day or another board would give (docs/method.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from flopray.units import prefixed


@dataclass(frozen=True)
class Timing:
    """Time of one iteration.

    Attributes:
        time_s: mean time; None where the window gave none.
        rel_error: half width of its 95 % interval over `time_s`; None where the window was too short to say.
        iterations: iterations inside the window.
        window_s: length of the window, host clock.
        clock: `cuda_events` or `perf_counter`.
        converged: the target error was reached before the cap.
    """

    time_s: float
    rel_error: float | None
    iterations: int
    window_s: float
    clock: str
    converged: bool


@dataclass(frozen=True)
class Energy:
    """Energy of one iteration, whole device.

    Attributes:
        energy_j: mean energy; None without a source, with `status` and `reason`.
        rel_error: half width of its 95 % interval over `energy_j`.
        power_w: mean power in the window.
        source: `nvml_counter`, `nvml_power`, `rapl` or `simulated`.
        status: `ok`, `not_requested`, `no_energy_source` or `failed`.
        reason: why there is no energy.
        converged: the target error was reached before the cap.
    """

    energy_j: float | None
    rel_error: float | None
    power_w: float | None
    source: str | None
    status: str
    reason: str | None
    converged: bool | None


@dataclass(frozen=True)
class Flops:
    """FLOPs of one iteration.

    Attributes:
        dispatched_flops: what the framework was asked to do (matrix products, convolutions, attention as full squares;
            elementwise operations are not counted); None where a part of it cannot be counted.
        reason: why it is missing, naming the operators.
        by_operator: FLOPs of each operator, by name.
        peak_flops_per_s: dense peak of the device at `precision`; None where it is not known.
        precision: the peak's precision, where one was given.
    """

    dispatched_flops: int | None
    reason: str | None
    by_operator: dict[str, int]
    peak_flops_per_s: float | None
    precision: str | None


@dataclass(frozen=True)
class State:
    """State of the device at both ends of the window; None for what it does not report."""

    temperature_start_c: float | None
    temperature_end_c: float | None
    sm_clock_start_hz: float | None
    sm_clock_end_hz: float | None
    throttle_end: str | None
    other_processes: int | None
    memory_peak_bytes: int | None


@dataclass(frozen=True, repr=False)
class Measurement:
    """What one iteration of a step costs on one device.

    Attributes:
        device_name: full name of the device.
        device_uuid: NVML's UUID of a GPU.
        execution: `eager`, `graph` or `compile`.
        time, energy, flops, state: the parts.
    """

    device_name: str
    device_uuid: str | None
    execution: str
    time: Timing
    energy: Energy
    flops: Flops
    state: State

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
        """`flops_per_s` over the dense peak of the device; None without a `precision` or a known peak."""
        if self.flops_per_s is None or self.flops.peak_flops_per_s is None:
            return None
        return self.flops_per_s / self.flops.peak_flops_per_s

    def __repr__(self) -> str:
        """Four lines, as in a lab book."""
        return "\n".join(
            (
                f"Measurement on {self.device_name}, {self.execution}",
                f"  time    {_with_error(self.time.time_s, 's', self.time.rel_error)}"
                f"  ({self.time.iterations} iterations in {self.time.window_s:.2f} s{_missed(self.time.converged)})",
                f"  energy  {self._energy_line()}",
                f"  FLOPs   {self._flops_line()}",
            )
        )

    def _energy_line(self) -> str:
        energy = self.energy
        if energy.energy_j is None:
            return f"none: {energy.reason or energy.status.replace('_', ' ')}"
        value = _with_error(energy.energy_j, "J", energy.rel_error)
        return f"{value}  ({prefixed(energy.power_w, 'W')}, {energy.source}{_missed(energy.converged)})"

    def _flops_line(self) -> str:
        if self.flops.dispatched_flops is None:
            return f"none: {self.flops.reason}"
        parts = [f"{prefixed(self.flops.dispatched_flops, 'FLOP')} dispatched", prefixed(self.flops_per_s, "FLOP/s")]
        if self.flops_per_j is not None:
            parts.append(prefixed(self.flops_per_j, "FLOP/J"))
        if self.mfu is not None:
            parts.append(f"MFU {self.mfu:.1%} of the {self.flops.precision} peak")
        return ", ".join(parts)


def _with_error(value: float, unit: str, rel_error: float | None) -> str:
    error = "error unknown: too few repeats" if rel_error is None else f"± {rel_error:.1%}"
    return f"{prefixed(value, unit)} {error}"


def _missed(converged: bool | None) -> str:
    return ", target error missed" if converged is False else ""
