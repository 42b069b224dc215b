"""Moves finished points from the recorder into the journal, in a thread of the driver, and tells the progress."""

from __future__ import annotations

import shlex
import signal
import threading
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from flopray.errors import FloprayError, StorageError, SweepStopped
from flopray.records import PhaseRecord, Status
from flopray.store.journal import JournalWriter
from flopray.sweep.listener import SweepListener
from flopray.sweep.recorder import Events

_DRAIN_EVERY_S = 0.25


class Drain:
    """A thread that moves finished points from the recorder into the journal, and tells the progress."""

    def __init__(self, recorder: Any, journal: JournalWriter, progress: SweepListener, *, supersede: bool) -> None:
        self._recorder, self._journal, self._progress, self._supersede = recorder, journal, progress, supersede
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._notices: set[str] = set()
        self.seen: set[str] = set()
        self._thread = threading.Thread(target=self._loop, name="flopray-drain", daemon=True)

    def __enter__(self) -> Drain:
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

    def raise_failure(self) -> None:
        """Raise what stopped the drain, in the caller's thread."""
        resume = f"--resume {shlex.quote(self._journal.run)}"
        if isinstance(self._failure, OutOfMemoryError):
            message = f"the driver's node ran out of host memory, and Ray ended the sweep's recorder; {resume} goes on"
            raise FloprayError(message) from self._failure
        if isinstance(self._failure, RayTaskError):  # raised by its code: the cluster is there
            cause = getattr(self._failure, "cause", None) or self._failure
            first = (str(cause).splitlines() or [""])[0]
            message = f"the sweep's recorder failed ({type(cause).__name__}: {first}), which is a fault of flopray"
            raise FloprayError(f"{message}; every point in the journal is safe, {resume} goes on") from self._failure
        if isinstance(self._failure, RayError):
            message = f"the sweep lost its cluster ({type(self._failure).__name__}); {resume} goes on with it"
            raise FloprayError(message) from self._failure
        if isinstance(self._failure, StorageError):
            message = f"{self._failure}; all points before are safe: mend that, and {resume} goes on"
            raise StorageError(message) from self._failure
        if self._failure:
            raise self._failure

    def _loop(self) -> None:
        import _thread

        while not self._stop.wait(_DRAIN_EVERY_S):
            try:
                self._once()
            except Exception as error:
                self._failure = error
                # Measuring on would measure for nothing. A sweep behind `nohup` or `&` ignores SIGINT.
                ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
                _thread.interrupt_main(signal.SIGTERM if ignored else signal.SIGINT)
                return

    def _once(self) -> None:
        events: Events = ray.get(self._recorder.drain.remote())
        try:
            self._journal.append(events.points, supersede=self._supersede)
        except ValueError:  # of one point, before anything was written
            events.points[:] = [self._append_alone(records) for records in events.points]
        self.seen |= {records[0].trial_id for records in events.points}
        for line in events.notices:
            if line not in self._notices:
                self._notices.add(line)
                self._progress.notice(line)
        for line in events.retries:
            self._progress.retried(line)
        for line in events.said:
            self._progress.said(line)
        self._progress.update(events.points, events.working_on)
        if events.stop:
            raise SweepStopped(
                f"the sweep was stopped: {events.stop}; mend that, then --resume {shlex.quote(self._journal.run)} "
                "--retry-failed (or --stop-after 0 to go on all the same)"
            )

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
            outcome: dict[str, Any] = {
                "status": str(Status.FAILED),
                "status_reason": f"what was measured is no record: {error}",
            }
            records = [PhaseRecord.of(phase=record.phase, **common, **outcome) for record in records]
            self._journal.append([records], supersede=self._supersede)
        return records
