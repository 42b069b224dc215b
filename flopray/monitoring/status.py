"""`python -m flopray status RUN`: how far a run is, from its folder alone, also while it is being measured."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from flopray.audit.explanations import COMMAND
from flopray.errors import one_line, resume_command, with_names
from flopray.monitoring.live_view import clock
from flopray.point import point_of
from flopray.records import Status
from flopray.store.location import open_run
from flopray.store.manifests import of_own_tuner, of_reference, of_tune_results
from flopray.store.resumption import MERGE_AGAIN, not_resumable
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.units import counted

_COLUMNS = (
    *("trial_id", "device_type", "node", "device_uuid", "device_wall_s", "window_s"),
    *("status", "status_reason", "findings"),
)


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        run: its folder or URI.
        state: `running` (a driver holds its lock), `finished`, `killed` (the last driver never released it),
            `interrupted`, or `merged` (points are missing, and it cannot be resumed).
        driver: who holds the lock, or held it when it was killed; None where nobody does.
        points, finished: of the whole sweep, and in the journal.
        points_per_s: rate at which the devices that measured finish points, from the device time of a point.
        eta_s: time for the rest at that rate; for a run that is not being measured, as if it were.
        failures: points by status and reason.
        findings: rows by finding of the audit.
        resume: the command that goes on with it; None where nothing is left.
        retry: the command that measures points again that crashed; None where there are none, or points are left.
        not_resumable: why a merged run cannot be resumed; None of any other.
    """

    run: str
    state: str
    driver: str | None
    points: int
    finished: int
    devices: int
    points_per_s: float | None
    eta_s: float | None
    measured_fraction: float | None
    failures: list[dict[str, object]]
    findings: dict[str, int]
    resume: str | None
    retry: str | None = None
    not_resumable: str | None = None


def status_of_run(path: str | Path) -> RunStatus:
    """Look at a run, in its folder or at its URI.

    Raises:
        NotARun, SchemaMismatch: as `RunFolder.open` and `RunFolder.load`.
    """
    folder = open_run(path)
    # Only the Tuner knows how many points there will be; reference data have all that they will have.
    open_ended = any(holds(folder.manifest) for holds in (of_own_tuner, of_tune_results, of_reference))
    alive, driver = folder.driver()
    frame: Any = folder.load(_COLUMNS)
    first = frame.drop_duplicates("trial_id")
    finished, wall_s = first["trial_id"].map(point_of).nunique(), first["device_wall_s"].dropna()
    devices = len(
        set(zip(first["device_type"], first["node"].fillna(""), first["device_uuid"].fillna(""), strict=True))
    )
    rate = _finite(devices / wall_s.mean()) if len(wall_s) and wall_s.mean() > 0 else None
    size = finished if open_ended else Sweep.from_manifest(folder.manifest).size
    left = max(0, size - finished)
    windows_s = frame["window_s"].sum()
    fixed = not_resumable(folder.manifest)
    state = _state(alive=alive, driver=driver, fixed=fixed, left=bool(left or (open_ended and driver)))
    failures = _failures(frame)
    command = None if alive or fixed or open_ended else _resume(folder)
    crashed = any(failure["status"] == Status.FAILED for failure in failures)
    return RunStatus(
        run=folder.address,
        state=state,
        driver=driver,
        points=size,
        finished=finished,
        devices=devices,
        points_per_s=rate,
        eta_s=_finite(left / rate) if rate and left and not fixed else None,
        measured_fraction=_finite(windows_s / wall_s.sum()) if wall_s.sum() and windows_s else None,
        failures=failures,
        findings=dict(Counter(code for codes in frame["findings"] for code in codes).most_common()),
        resume=command if left else None,
        retry=f"{command} --retry-failed" if command and crashed and not left else None,
        not_resumable=fixed,
    )


def _state(*, alive: bool, driver: str | None, fixed: str | None, left: bool) -> str:
    """What a run is doing, in a word."""
    if alive:
        return "running"
    if not left:
        return "finished"
    if fixed:
        return "merged"
    return "killed" if driver else "interrupted"


def _finite(value: float) -> float | None:
    """A plain number; None where values that were not measured made it overflow."""
    return float(value) if math.isfinite(value) else None


def print_status(console: Console, status: RunStatus, names: Mapping[str, str] | None = None) -> None:
    """Print it for people; `names` are of settings, as `flopray.errors.with_names` takes them."""
    more = [status.driver] if status.driver else []
    if status.not_resumable and status.state == "merged":
        more.append(f"cannot be resumed: {status.not_resumable}; {MERGE_AGAIN}")
    lines = [f"run      {status.run}", f"state    {', '.join([status.state, *more])}"]
    share = f"{status.finished / status.points:.0%}" if status.points else "-"
    lines.append(f"points   {status.finished} of {status.points} ({share})")
    if status.points_per_s:
        eta = f", {clock(status.eta_s)} to go" if status.eta_s else ""
        lines.append(f"rate     {status.points_per_s:.2f} points/s on {counted(status.devices, 'device')}{eta}")
    if status.measured_fraction is not None:
        lines.append(f"windows  {status.measured_fraction:.0%} of device time measured")
    lines += [
        f"failed   {f['points']} {f['status']}: {with_names(str(f['reason']), names or {})}" for f in status.failures
    ]
    lines += [f"audit    {counted(count, 'row')} {code}" for code, count in status.findings.items()]
    lines += [f"         what a finding means: {COMMAND}"] if status.findings else []
    for line in lines:
        console.print(one_line(line), highlight=False, markup=False, soft_wrap=True)
    for word, command in (("resume", status.resume), ("retry", status.retry)):
        if command:  # one line: a command that is wrapped cannot be copied
            line = one_line(f"{word:<9}{command}")
            console.print(line, highlight=False, markup=False, no_wrap=True, overflow="ignore", crop=False)


def as_json(status: RunStatus) -> str:
    """One JSON object with the fields of `RunStatus`."""
    return json.dumps(asdict(status), indent=2)


def _failures(frame: Any) -> list[dict[str, object]]:
    bad = frame[frame["status"] != Status.OK].drop_duplicates("trial_id")
    reasons = bad["status_reason"].fillna("no reason given").str.split("\n").str[0]
    counts = Counter(zip(bad["status"], reasons, strict=True)).most_common()
    return [{"status": status, "reason": reason, "points": count} for (status, reason), count in counts]


def _resume(folder: RunFolder) -> str:
    """The command that goes on with a run, whatever program its manifest says began it.

    People copy this line, and a stranger's manifest could name a program of its own.
    """
    return resume_command(folder.address)
