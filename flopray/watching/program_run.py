"""A program watched from outside: energy, peak power and time series of each GPU that it used, and what else ran there.

All GPUs of the machine are recorded from before the program begins, since it is unknown which it will use. Those that
it did not use are left out at the end. The program is not changed.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from flopray.errors import InputError, MeasurementError
from flopray.mappings import Json
from flopray.units import prefixed
from flopray.watching.programs import Outcome, Program
from flopray.watching.recording import Recorder, Recording, record_cpu, record_gpu
from flopray.watching.series import Series, save_series, series_of
from flopray.watching.summary import DeviceSummary, device_summary
from flopray.watching.timeline import Timeline
from flopray.watching.usage import Usage

#: While a program runs, its folder is written each time the recording has grown by this factor and by this many
#: seconds.
_SAVE_FACTOR, _SAVE_S = 1.2, 30.0
_NO_STEPS = Timeline(np.zeros(0), np.zeros(0), np.zeros(0, dtype=int))


@dataclass(frozen=True)
class ProgramRun:
    """What one program took.

    Attributes:
        command: its words.
        started_at: UTC, ISO 8601.
        time_s: from its start to its end.
        exit_code: see `flopray.watching.programs.Outcome`.
        signal: see there.
        energy_j: of all GPUs that it used, from its start to its end; None with `reason`.
        energy_error_j: half width of its 95 % interval.
        peak_power_w: sum of the peaks of its GPUs, each over a tenth of a second.
        reason: why there is no energy.
        gpus: that it used.
        known_by: how it is known that it used them.
        others: what else ran on each of them, by UUID.
        cpu: packages and memory of the CPU, with all that ran on the machine.
        folder: with the series.
        not_saved: why the series could not be written, or None.
    """

    command: tuple[str, ...]
    started_at: str
    time_s: float
    exit_code: int | None
    signal: str | None
    energy_j: float | None
    energy_error_j: float | None
    peak_power_w: float | None
    reason: str | None
    gpus: tuple[DeviceSummary, ...]
    known_by: str | None
    others: dict[str, list[str]]
    cpu: DeviceSummary
    folder: str
    not_saved: str | None = None

    def to_dict(self) -> Json:
        """As plain values, for JSON, without the values that only steps have."""
        entry = asdict(self)
        for device in (*entry["gpus"], entry["cpu"]):
            for name in ("step_energy_j", "step_rel_error", "step_reason", "ticks"):
                del device[name]
        return entry

    def lines(self) -> list[str]:
        """What a person wants to read."""
        ended = f"ended by {self.signal}" if self.signal else f"exit code {self.exit_code}"
        lines = [f"{prefixed(self.time_s, 's')}, {ended}"]
        if self.energy_j is None:
            lines.append(f"energy: none: {self.reason}")
        else:
            peak = f"peak {prefixed(self.peak_power_w, 'W')}"
            error = prefixed(self.energy_error_j, "J")
            mean = prefixed(self.energy_j / self.time_s, "W")
            lines.append(
                f"energy: {prefixed(self.energy_j, 'J')} ± {error} on {_count(self.gpus)}, mean {mean}, {peak}"
            )
        lines += [
            f"on {uuid} there also ran: {', '.join(others)}; the energy is that of the whole GPU"
            for uuid, others in self.others.items()
        ]
        if self.not_saved:
            lines.append(f"error: {self.not_saved}")
        if self.cpu.energy_j is not None:
            lines.append(f"CPU packages and DRAM, whole machine: {prefixed(self.cpu.energy_j, 'J')}")
        return lines


def _count(gpus: Sequence[DeviceSummary]) -> str:
    return f"{len(gpus)} GPU" + ("s" if len(gpus) != 1 else "")


def run_program(
    command: Sequence[str], folder: Path, *, every_s: float = 0.1, mask: set[int] | None = None
) -> tuple[ProgramRun, Series]:
    """Run a program, record the devices meanwhile, and keep the series in a folder.

    Ctrl-C, a crash of the program and any other end of it keep what was measured. The folder is also written while it
    runs, so that little is lost where this process itself is killed.

    Args:
        command: words of the program.
        folder: new; gets the series.
        every_s: between two samples.
        mask: see `flopray.watching.programs.Program`.

    Returns:
        What it took, and the series.

    Raises:
        InputError: the program cannot be run, or the folder exists or cannot be written.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already: nothing that was measured is overwritten")
    if shutil.which(command[0]) is None:
        raise InputError(f"{command[0]} cannot be run: there is no such program, or it is not executable")
    usage = Usage()
    origin_s, started_at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        program = Program(command, mask)
    except InputError:
        folder.rmdir()
        raise
    recordings = [*(record_gpu(use.uuid) for use in usage.gpus), record_cpu()]
    saved_s = [time.perf_counter()]

    def result(outcome: Outcome | None) -> tuple[ProgramRun, Series]:
        return _result(tuple(command), started_at, origin_s, usage, recordings, outcome, folder)

    def after_samples() -> None:
        usage.look(program.pid)
        now_s = time.perf_counter()
        if now_s - origin_s > _SAVE_FACTOR * (saved_s[0] - origin_s) + _SAVE_S:
            saved_s[0] = now_s
            with suppress(InputError):  # reported at the end of the program
                save_series(result(None)[1], folder)

    recorder = Recorder(recordings, every_s, after=after_samples)
    try:
        outcome = program.wait()
        recorder.stop()
        run, series = result(outcome)
        try:
            save_series(series, folder)
        except InputError as error:
            run = replace(run, not_saved=str(error))
    finally:
        recorder.stop()
        program.release()
    return run, series


def _result(
    command: tuple[str, ...],
    started_at: str,
    origin_s: float,
    usage: Usage,
    recordings: Sequence[Recording],
    outcome: Outcome | None,
    folder: Path,
) -> tuple[ProgramRun, Series]:
    used = usage.used()
    kept = [recording for recording in recordings if recording.device.uuid in used]
    cpu = next(recording for recording in recordings if recording.device.kind == "CPU")
    gpus = tuple(device_summary(recording, _NO_STEPS) for recording in kept)
    end_s = outcome.start_s + outcome.time_s if outcome else time.perf_counter()
    energy_j, error_j, reason = _energy(kept, outcome.start_s if outcome else origin_s, end_s, usage)
    run = ProgramRun(
        command=command,
        started_at=started_at,
        time_s=outcome.time_s if outcome else end_s - origin_s,
        exit_code=outcome.exit_code if outcome else None,
        signal=outcome.signal if outcome else None,
        energy_j=energy_j,
        energy_error_j=error_j,
        peak_power_w=None if energy_j is None else sum(gpu.peak_power_w or 0.0 for gpu in gpus),
        reason=reason,
        gpus=gpus,
        known_by=next((how for how, _ in used.values()), None),
        others={uuid: others for uuid, (_, others) in used.items() if others},
        cpu=replace(device_summary(cpu, _NO_STEPS), step_reason=None),
        folder=str(folder),
    )
    about = {"started_at": started_at, "origin_s": origin_s, "run": run.to_dict()}
    series = series_of([*kept, cpu], _NO_STEPS, (), origin_s, about)
    return run, series


def _energy(
    kept: Sequence[Recording], start_s: float, end_s: float, usage: Usage
) -> tuple[float | None, float | None, str | None]:
    if not kept:
        return None, None, usage.reason or "the program used no GPU that NVML reports"
    energy_j, errors_j = 0.0, []
    for recording in kept:
        try:
            part_j, error_j = recording.curve().between(start_s, end_s)
        except MeasurementError as error:
            return None, None, f"{recording.device.name}: {error}"
        energy_j += part_j
        errors_j.append(error_j)
    return energy_j, math.hypot(*errors_j), None
