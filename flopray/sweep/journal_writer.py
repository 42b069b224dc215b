"""Moves finished points from the recorder into the journal, in a thread of the driver, and reports progress."""

from __future__ import annotations

import math
import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError, RayTaskError

from flopray.errors import FloprayError, StorageError, SweepStopped, resume_command
from flopray.measurement.start_up import StartUp
from flopray.records import PhaseRecord, Row, Status
from flopray.store.journal import JournalWriter
from flopray.sweep.free_devices import Waiting
from flopray.sweep.listener import SweepListener
from flopray.sweep.recorder import Events

_DRAIN_EVERY_S = 0.25
#: If no trial's process has started by then, check again whether there is a device for one: another sweep that was
#: started at the same time may have taken it. A process of this sweep, which holds one too, starts sooner.
_LOOK_AFTER_S = 30.0


#: Message of Ray for an actor whose node is gone, and with it the driver's way into the cluster.
_NODE_LOST = re.compile(r"node (has died|was terminated|is dead)|NODE_DIED", re.IGNORECASE)


def explained(failure: Exception, resume: str) -> Exception:
    """The message about the end of a sweep: which part is gone, and how to go on.

    Args:
        failure: what stopped the writer.
        resume: the command that goes on with the run.

    Returns:
        An error of one line; the failure itself where that is one already, or is not a failure of a sweep.
    """
    safe = f"every point in the journal is safe, {resume} goes on"
    match failure:
        case OutOfMemoryError():
            return FloprayError(f"the driver's node ran out of host memory, and Ray ended the sweep's recorder; {safe}")
        case RayTaskError():  # raised by the recorder's code: the cluster is there
            return FloprayError(f"the sweep's recorder failed ({_first(failure)}), which is a fault of flopray; {safe}")
        case ActorDiedError() if not _NODE_LOST.search(
            str(failure)
        ):  # reported by the head node, which is therefore running
            return FloprayError(f"the sweep's recorder is gone: {_ended(failure)}; {safe}")
        case RayError() | ConnectionError():  # the second behind `ray://`
            lost = f"the sweep lost its cluster ({type(failure).__name__})"
            return FloprayError(f"{lost}; {points_are_safe_without_a_cluster(resume)}")
        case StorageError():
            return StorageError(f"{failure}; all points before are safe: mend that, and {resume} goes on")
    return failure


def points_are_safe_without_a_cluster(resume: str) -> str:
    """How to go on where the cluster is gone."""
    return f"every point in the journal is safe: once there is a cluster again, {resume} goes on"


def _first(failure: RayTaskError) -> str:
    """The exception behind an actor's error, in one line."""
    cause = getattr(failure, "cause", None) or failure
    return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"


def _ended(failure: ActorDiedError) -> str:
    """How the recorder's process ended, as far as Ray knows."""
    text = str(failure)
    if failure.actor_init_failed:
        return f"it could not start ({text.strip().splitlines()[-1][:200]})"
    if "ray.kill" in text:
        return "it was ended by `ray.kill`"
    how = "killed, crashed, or out of host memory"
    return f"its process, on the driver's node, ended without a message ({how})"


def _interrupt_main(_: Exception) -> None:
    """Going on would measure for nothing. A sweep behind `nohup` or `&` ignores SIGINT."""
    import _thread

    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    _thread.interrupt_main(signal.SIGTERM if ignored else signal.SIGINT)


class JournalWriterThread:
    """A thread that moves finished points from the recorder into the journal, and reports progress.

    Args:
        recorder: the actor.
        journal: open for writing.
        progress: told of what happens.
        supersede: whether a point that is in the journal already may be replaced.
        waits: which trials cannot start now, and why.
        resume: the command that goes on with the run, for messages; None takes `resume_command` of the run.
        journaled: called with points once they are in the journal.
        failed: called with what stopped the writer, instead of an interrupt of the main thread, in a process that may
            leave Ray at any time.
        every_s: seconds between two looks at the recorder.
        start_up: of the command, for a line in the log once the first process of a trial has started.
    """

    def __init__(
        self,
        recorder: Any,
        journal: JournalWriter,
        progress: SweepListener,
        *,
        supersede: bool,
        waits: Callable[[], Waiting] = Waiting,
        resume: str | None = None,
        journaled: Callable[[list[list[PhaseRecord]]], object] = lambda _: None,
        failed: Callable[[Exception], object] | None = None,
        every_s: float = _DRAIN_EVERY_S,
        start_up: StartUp | None = None,
    ) -> None:
        self._journaled, self._failed, self._every_s = journaled, failed or _interrupt_main, every_s
        self._may_leave, self._start_up = failed is not None, start_up
        self._recorder, self._journal, self._progress, self._supersede = recorder, journal, progress, supersede
        self._resume = resume or resume_command(journal.run)
        self._waits, self._told, self._look_at = waits, False, time.monotonic() + _LOOK_AFTER_S
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._notices: set[str] = set()
        self.seen: set[str] = set()
        self._thread = threading.Thread(target=self._loop, name="flopray-journal", daemon=True)

    def __enter__(self) -> JournalWriterThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is None:
            try:
                self._once()
            except Exception as error:
                self._failure = error

    def tell_waiting(self) -> None:
        """Report trials that cannot start for lack of a free device; the sweep waits only if none can."""
        found = self._waits()
        self._told |= bool(found.lines)
        for line in found.lines:
            (self._progress.waiting if found.all_types else self._progress.notice)(line)

    def raise_failure(self) -> None:
        """Raise what stopped the writer, in the caller's thread."""
        if self._failure is None:
            return
        told = explained(self._failure, self._resume)
        if told is self._failure:
            raise self._failure
        raise told from self._failure

    def _loop(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._once()
            except Exception as error:
                self._failure = error
                self._failed(error)
                return

    def _once(self) -> None:
        if self._may_leave and not ray.is_initialized():  # a call would start another Ray
            raise ConnectionError("this process has left Ray")
        events: Events = ray.get(self._recorder.take.remote())
        try:
            self._journal.append(events.points, supersede=self._supersede)
        except ValueError:  # of one point, before anything was written
            events.points[:] = [self._append_alone(records) for records in events.points]
        if events.points:
            self._journaled(events.points)
        self._told |= events.started
        if events.started and self._start_up:
            self._start_up.mark("Tune and the first process")
            self._progress.spent(self._start_up.line("the first trial started"))
            self._start_up = None
        if not self._told and time.monotonic() >= self._look_at:
            self._look_at = math.inf
            self.tell_waiting()
        self.seen |= {records[0].trial_id for records in events.points}
        for line in events.notices:
            if line not in self._notices:
                self._notices.add(line)
                self._progress.notice(line)
        for line in events.retries:
            self._progress.retried(line)
        for line in events.spent:
            self._progress.spent(line)
        for line in events.said:
            self._progress.said(line)
        self._progress.update(events.points, events.working_on)
        if events.stop:
            raise SweepStopped(events.stop, self._resume)

    def _append_alone(self, records: list[PhaseRecord]) -> list[PhaseRecord]:
        """Journal one point; one that the journal refuses becomes rows that say why."""
        try:
            self._journal.append([records], supersede=self._supersede)
        except ValueError as error:
            kept = (
                "run",
                "trial_id",
                "workload",
                "device_type",
                "precision",
                "execution",
                "attempt",
                *self._journal.schema.fields,
            )
            common = {name: value for name, value in records[0].columns().items() if name in kept}
            outcome: Row = {
                "status": str(Status.FAILED),
                "status_reason": f"the measured values do not make a record: {error}",
            }
            records = [PhaseRecord.of(phase=record.phase, **common, **outcome) for record in records]
            self._journal.append([records], supersede=self._supersede)
        return records
