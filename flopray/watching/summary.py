"""What a watch found, in numbers and in words: time and energy per step, devices, named regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from flopray.errors import MeasurementError, NoEnergySource
from flopray.mappings import Arguments, Json
from flopray.measurement.statistics import FEWEST_LAPS
from flopray.units import counted, prefixed
from flopray.watching.recording import Recording
from flopray.watching.step_energy import StepEnergy, energy_per_step, mean_time_error_s
from flopray.watching.timeline import Region, Timeline, total_by_name

#: A smaller share of a step's time is not worth a word.
LEAST_SAID_SHARE = 0.01


@dataclass(frozen=True)
class StepTime:
    """Time of one step, the pause that usually follows it included (`Timeline.with_pauses`).

    Attributes:
        time_s: mean time.
        rel_error: half width of its 95 % interval over it; None where too few steps tell.
        scatter_rel: standard deviation of the times of single steps over their mean.
        clock: `cuda_events` or `perf_counter`.
        pause_share: part of the time that lies between the end of a step and the start of the next one.
    """

    time_s: float
    rel_error: float | None
    scatter_rel: float
    clock: str
    pause_share: float = 0.0


@dataclass(frozen=True)
class DeviceSummary:
    """One device over the whole watch.

    Attributes:
        kind: `GPU` or `CPU`.
        uuid: of NVML, or a word.
        name: in full.
        source: of its energy, such as `nvml_counter`.
        reason: why there is no energy, or what went wrong.
        energy_j: taken while it was watched, pauses and regions included; None without a source.
        energy_error_j: half width of its 95 % interval.
        power_w: mean power.
        peak_power_w: highest mean power over a tenth of a second.
        peak_temperature_c: highest in the samples.
        peak_memory_bytes: most that was in use in the samples, by all processes.
        step_energy_j: energy of one step.
        step_rel_error: half width of its 95 % interval over it.
        step_reason: why there is none.
        ticks: of the counter from which the energy of a step is known.
    """

    kind: str
    uuid: str
    name: str
    source: str | None = None
    reason: str | None = None
    energy_j: float | None = None
    energy_error_j: float | None = None
    power_w: float | None = None
    peak_power_w: float | None = None
    peak_temperature_c: float | None = None
    peak_memory_bytes: float | None = None
    step_energy_j: float | None = None
    step_rel_error: float | None = None
    step_reason: str | None = None
    ticks: int | None = None


@dataclass(frozen=True)
class RegionSummary:
    """All passages through one named region.

    Attributes:
        name: as it was given.
        passages: how many; one inside another of the same name is part of it.
        time_s: of all together.
        energy_j: of all together, on all GPUs that were watched; None without a source.
        energy_error_j: half width of its 95 % interval.
        reason: why there is no energy.
    """

    name: str
    passages: int
    time_s: float
    energy_j: float | None = None
    energy_error_j: float | None = None
    reason: str | None = None


@dataclass(frozen=True, repr=False)
class Summary:
    """What was watched; `print` shows it as a few lines.

    Attributes:
        time_s: length of the watch.
        steps: that ended, the ones that were left out included.
        left_out: first steps that are left out of means.
        time: of one step; None without steps.
        energy_j: of one step, on all GPUs together (on the CPU where no GPU was used); None with `reason`.
        rel_error: half width of its 95 % interval over it.
        source: of that energy.
        reason: why there is none.
        devices: the GPUs.
        cpu: packages and memory of the CPU; None where it was not asked for.
        regions: in the order in which they were entered first.
        warnings: what may make the numbers doubtful.
    """

    time_s: float
    steps: int
    left_out: int
    time: StepTime | None
    energy_j: float | None
    rel_error: float | None
    source: str | None
    reason: str | None
    devices: tuple[DeviceSummary, ...]
    cpu: DeviceSummary | None
    regions: tuple[RegionSummary, ...]
    warnings: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        return "\n".join(_lines(self))

    def to_dict(self) -> Json:
        """As plain values, for JSON."""
        return asdict(self)


def summarise(
    recordings: Sequence[Recording],
    timeline: Timeline,
    regions: Sequence[Region],
    *,
    time_s: float,
    clock: str,
    left_out: int = 0,
    no_gpu: str = "no GPU was used",
    warnings: Sequence[str] = (),
) -> Summary:
    """The summary of all recordings.

    Args:
        recordings: of all devices.
        timeline: all steps.
        regions: that have ended.
        time_s: length of the watch.
        clock: of the steps.
        left_out: first steps that are to be left out of means.
        no_gpu: why there is no energy where no GPU is among the recordings.
        warnings: passed on as they are.
    """
    steps = timeline.steps
    left_out = min(left_out, max(steps - 1, 0))
    inside = timeline.since(left_out)
    kept = inside.with_pauses(regions)
    found = [device_summary(recording, kept) for recording in recordings]
    gpus = tuple(device for device in found if device.kind == "GPU")
    cpu = next((device for device in found if device.kind == "CPU"), None)
    energy_j, rel_error, source, reason = together(gpus, cpu, no_gpu)
    return Summary(
        time_s=time_s,
        steps=steps,
        left_out=left_out,
        time=step_time(kept, clock, inside) if steps else None,
        energy_j=energy_j,
        rel_error=rel_error,
        source=source,
        reason=reason,
        devices=gpus,
        cpu=cpu,
        regions=tuple(_region(name, passages, recordings, no_gpu) for name, passages in total_by_name(regions).items()),
        warnings=tuple(warnings),
    )


def device_summary(recording: Recording, timeline: Timeline) -> DeviceSummary:
    """One device over a watch, and its energy per step over the steps of a timeline."""
    device, samples = recording.device, recording.samples()
    common: Arguments = {
        **asdict(device),
        "source": recording.meter.source if recording.meter else None,
        "reason": recording.reason,
        "peak_temperature_c": _highest(samples[:, 1]),
        "peak_memory_bytes": _highest(samples[:, 4]),
    }
    try:
        curve = recording.curve()
    except MeasurementError as error:
        common |= {"reason": str(error), "step_reason": str(error)}
        return DeviceSummary(**common)
    energy_j, error_j = curve.between(recording.start_s, recording.end_s)
    length_s = recording.end_s - recording.start_s
    common |= {
        "energy_j": energy_j,
        "energy_error_j": error_j,
        "power_w": energy_j / length_s if length_s > 0 else None,
        "peak_power_w": curve.peak_power_w(),
    }
    try:
        step = step_energy(recording, timeline)
    except MeasurementError as error:
        return DeviceSummary(**common, step_reason=str(error))
    return DeviceSummary(**common, step_energy_j=step.energy_j, step_rel_error=step.rel_error, ticks=step.ticks)


def step_energy(recording: Recording, timeline: Timeline, most_ticks: int | None = None) -> StepEnergy:
    """Energy per step on one device.

    Args:
        recording: of the device.
        timeline: the steps.
        most_ticks: of more, every second, third, ... one is used, which takes less time.

    Raises:
        MeasurementError: with the reason why there is none.
    """
    meter = recording.meter
    if meter is None:
        raise NoEnergySource(recording.reason or "no meter")
    ticks = recording.ticks(float(timeline.start_s[0]) if timeline.steps else 0.0)
    if most_ticks is not None and len(ticks) > most_ticks:
        ticks = ticks.where(np.arange(len(ticks)) % math.ceil(len(ticks) / most_ticks) == 0)
    return energy_per_step(ticks, timeline, meter.characteristics)


def together(
    gpus: Sequence[DeviceSummary], cpu: DeviceSummary | None, no_gpu: str
) -> tuple[float | None, float | None, str | None, str | None]:
    """Energy of a step, its error, source and reason: of all GPUs, or of the CPU where there is none."""
    counted = list(gpus) or ([cpu] if cpu and cpu.step_energy_j is not None else [])
    if not counted:
        return None, None, None, no_gpu
    for device in counted:
        if device.step_energy_j is None:
            return None, None, device.source, f"{device.name}: {device.step_reason or device.reason}"
    energy_j = sum(device.step_energy_j or 0.0 for device in counted)
    # Devices of one loop fluctuate together: their errors add up.
    error_j = sum((device.step_energy_j or 0.0) * (device.step_rel_error or 0.0) for device in counted)
    sources = sorted({device.source or "" for device in counted})
    return energy_j, error_j / energy_j, ", ".join(sources), None


def step_time(timeline: Timeline, clock: str, inside: Timeline | None = None) -> StepTime:
    """Mean time of the steps of a timeline, one at least.

    Args:
        timeline: the steps.
        clock: see `StepTime`.
        inside: the same steps without the pauses that belong to them.
    """
    times_s = timeline.step_times_s
    mean_s, half_s = float(np.mean(times_s)), mean_time_error_s(times_s)
    told = mean_s > 0 and len(times_s) >= FEWEST_LAPS
    scatter = float(np.std(times_s) / mean_s) if mean_s > 0 else 0.0
    outside = 1 - float(np.mean(inside.step_times_s)) / mean_s if inside is not None and mean_s > 0 else 0.0
    return StepTime(mean_s, half_s / mean_s if told else None, scatter, clock, outside)


def _region(name: str, passages: Sequence[Region], recordings: Sequence[Recording], no_gpu: str) -> RegionSummary:
    passages = _without_inner(passages)
    time_s = sum(region.time_s for region in passages)
    counted = [recording for recording in recordings if recording.device.kind == "GPU"]
    if not counted:
        counted = [recording for recording in recordings if recording.meter is not None]
    if not counted:
        return RegionSummary(name, len(passages), time_s, reason=no_gpu)
    energy_j, error_j = 0.0, 0.0
    try:
        for curve in (recording.curve() for recording in counted):
            parts = [curve.between(region.start_s, region.end_s) for region in passages]
            energy_j += sum(part for part, _ in parts)
            error_j += math.hypot(*(error for _, error in parts))
    except MeasurementError as error:
        return RegionSummary(name, len(passages), time_s, reason=str(error))
    return RegionSummary(name, len(passages), time_s, energy_j, error_j)


def _without_inner(passages: Sequence[Region]) -> list[Region]:
    """Passages without those that lie in another one, whose time and energy would count twice."""
    outer: list[Region] = []
    for region in sorted(passages, key=lambda one: (one.start_s, -one.end_s)):
        if not outer or region.start_s >= outer[-1].end_s:
            outer.append(region)
        elif region.end_s > outer[-1].end_s:  # the two overlap
            outer[-1] = replace(outer[-1], end_s=region.end_s)
    return outer


def _highest(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else None


def _lines(summary: Summary) -> list[str]:
    steps = counted(summary.steps, "step")
    first = f"watched {summary.time_s:.3g} s, {steps}"
    if summary.left_out:
        steps_left_out = "first step" if summary.left_out == 1 else f"first {summary.left_out} steps"
        first += f" (means leave out the {steps_left_out})"
    if not summary.steps:
        first += ": none was named (for x in w.steps(loader), or with w.step())"
    lines = [first]
    if summary.time is not None:
        time = summary.time
        several = summary.steps - summary.left_out > 1
        how = f"step to step {time.scatter_rel:.1%}, {time.clock}" if several else time.clock
        how = f"too few steps to tell; {how}" if time.rel_error is None else how
        if time.pause_share >= LEAST_SAID_SHARE:
            how += f"; {time.pause_share:.0%} of it between two steps"
        lines.append(f"  time    {prefixed(time.time_s, 's')} a step {_within(time.rel_error)} ({how})")
        if summary.energy_j is not None:
            said = f"{prefixed(summary.energy_j, 'J')} a step {_within(summary.rel_error)} ({summary.source})"
        else:
            said = f"none: {summary.reason}"
        lines.append(f"  energy  {said}")
    lines += [f"  {_device_line(device)}" for device in (*summary.devices, summary.cpu) if device]
    for region in summary.regions:
        energy = f", {prefixed(region.energy_j, 'J')} ± {prefixed(region.energy_error_j, 'J')}"
        what = energy if region.energy_j is not None else f", no energy: {region.reason}"
        lines.append(f"  region  {region.name}: {region.passages} x, {prefixed(region.time_s, 's')}{what}")
    return lines + [f"  warning: {warning}" for warning in summary.warnings]


def _within(rel_error: float | None) -> str:
    if rel_error is None:
        return "± ?"
    percent = 100 * rel_error
    return f"± {percent:.2g} %" if percent < 9.95 else f"± {percent:.0f} %"  # never 2.8e+02 %


def _device_line(device: DeviceSummary) -> str:
    label = f"{device.kind}     {device.name}" + (f" {device.uuid[:12]}" if device.uuid.startswith("GPU-") else "")
    if device.energy_j is None:
        return f"{label}: no energy: {device.reason}"
    line = f"{label}: {prefixed(device.energy_j, 'J')} ± {prefixed(device.energy_error_j, 'J')}"
    line += f", mean {prefixed(device.power_w, 'W')}, peak {prefixed(device.peak_power_w, 'W')}"
    if device.peak_temperature_c is not None:
        line += f", up to {device.peak_temperature_c:.0f} °C"
    return line + (f" ({device.reason})" if device.reason else "")
