"""Why a process ended while it measured a point, whether a retry may help, and the rows of an abandoned point."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum

from flopray.point import Point
from flopray.records import PhaseRecord, Row, Status
from flopray.settings import MeasureSettings
from flopray.sweep.limits import Limits


class Cause(StrEnum):
    """What ended a process."""

    NODE_LOST = "its node was lost"
    PROCESS_DIED = "its process died"
    TIMED_OUT = "it took too long"
    OUT_OF_MEMORY = "its node ran out of memory"


@dataclass(frozen=True)
class ProcessFailure:
    """The end of a process, as driver and recorder see it."""

    cause: Cause
    reason: str

    @property
    def status(self) -> Status:
        """Status of the point that was being measured, if it is abandoned."""
        return Status.OUT_OF_MEMORY if self.cause is Cause.OUT_OF_MEMORY else Status.FAILED

    def attempts(self, limits: Limits) -> int:
        """How often a point may end like this. Too little memory stays too little; a hang may occur once."""
        if self.cause is Cause.OUT_OF_MEMORY:
            return 1
        return 1 + (min(1, limits.retries) if self.cause is Cause.TIMED_OUT else limits.retries)


#: What Ray says, in its error of an actor that died. https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html
_NODE_LOST = re.compile(
    r"node (has died|was terminated|is dead)|NODE_DIED|node failure|drained|preempted", re.IGNORECASE
)
_OUT_OF_MEMORY = re.compile("NODE_OUT_OF_MEMORY|running low on memory", re.IGNORECASE)
#: A connection to the actor broke; Ray cannot tell yet whether its process or its whole node is gone.
_UNREACHABLE = re.compile("is unavailable|ActorUnavailableError", re.I)


def process_failure_of(text: str, elapsed_s: float, limits: Limits) -> ProcessFailure:
    """Find out from Ray's message and the clock why a process ended.

    Args:
        text: Ray's error of the actor; may be empty.
        elapsed_s: since the point began.
        limits: of the sweep.
    """
    if limits.point_timeout_s and elapsed_s >= limits.point_timeout_s:
        return ProcessFailure(Cause.TIMED_OUT, f"it took longer than {limits.point_timeout_s:g} s (point_timeout_s)")
    if "Traceback (most recent call last)" in text:  # it ended by an exception, such as for a lost GPU
        return ProcessFailure(Cause.PROCESS_DIED, f"its process ended by {text.strip().splitlines()[-1][:200]}")
    if _OUT_OF_MEMORY.search(text):
        return ProcessFailure(Cause.OUT_OF_MEMORY, "its node ran out of host memory, and Ray ended its process")
    if _NODE_LOST.search(text):
        return ProcessFailure(Cause.NODE_LOST, "its node was lost")
    if _UNREACHABLE.search(text):
        return ProcessFailure(Cause.NODE_LOST, "its process or its node could not be reached any more")
    why = "its process ended without a message (killed, crashed, or out of host memory)"
    return ProcessFailure(Cause.PROCESS_DIED, why)


def failed_records(
    spec: Point,
    settings: MeasureSettings,
    run: str,
    reason: str,
    *,
    attempt: int = 1,
    status: Status = Status.FAILED,
) -> list[PhaseRecord]:
    """Rows of a point that could not be finished, so that it stays visible.

    Args:
        spec: the point.
        settings: for the phases.
        run: name of the run.
        reason: one line.
        attempt: attempts made.
        status: of every phase.

    Returns:
        One record a phase.
    """
    common = {"trial_id": spec.id, "run": run, "attempt": attempt, "seed": settings.seed} | spec.fields()
    outcome: Row = {"status": str(status), "status_reason": reason, "started_unix_s": time.time()}
    if "energy" in settings.instruments:
        outcome |= {"energy_status": str(Status.FAILED), "energy_reason": reason}
    if "counters" in settings.instruments:
        outcome |= {"counters_status": str(Status.FAILED), "counters_reason": reason}
    return [PhaseRecord.of(phase=phase, **common, **outcome) for phase in settings.phases]
