"""`run.log` of a run: what happened, one line each with a timestamp, and the messages of Ray's libraries."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from flopray.description import Description
from flopray.errors import one_line
from flopray.records import PhaseRecord, Status, label_of
from flopray.store import atomic
from flopray.store.redaction import redacted
from flopray.sweep.outcome import reason_of, status_of

_CHATTY = ("ray", "transformers")


class _LossyHandler(logging.StreamHandler[io.TextIOWrapper]):
    """Drops what cannot be written: the journal reports a full disk, in one line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Close, whatever becomes of what is still buffered."""
        super().close()
        with contextlib.suppress(OSError):
            self.stream.close()


class RunLog:
    """Appends to a run's log while it is open. A log that cannot be written ends no sweep.

    Args:
        path: of the file; a resume goes on with it.
        workload: of the run, whose points it names.
    """

    def __init__(self, path: Path, workload: Description) -> None:
        self._workload = workload
        self._handler: logging.Handler
        try:
            file = io.TextIOWrapper(atomic.append_regular(path), "utf-8", "backslashreplace", line_buffering=True)
            self._handler = _LossyHandler(file)
        except OSError:
            self._handler = logging.NullHandler()
        form = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        form.converter = time.gmtime
        self._handler.setFormatter(form)
        self._logger = logging.getLogger("flopray.run")
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._before: list[tuple[logging.Handler, int]] = []
        self._names = ("flopray.run", *_CHATTY)

    def __enter__(self) -> RunLog:
        """Begin; Ray's and transformers' warnings go here too."""
        ray = logging.getLogger("ray")
        self._before = [(handler, handler.level) for handler in ray.handlers]
        for handler, _ in self._before:  # keep it out of the terminal: Tune logs an actor's end as a long error
            handler.setLevel(logging.CRITICAL)
        for name in ("ray", "ray.tune", "ray.data"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # Two lines a trial about result files that Tune was told not to write (`flopray.cluster.quiet`).
        logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
        for name in self._names:
            logging.getLogger(name).addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        """End and close the file."""
        for name in self._names:
            logging.getLogger(name).removeHandler(self._handler)
        for handler, level in self._before:
            handler.setLevel(level)
        self._handler.close()

    def say(self, line: str, *, level: int = logging.INFO) -> None:
        """Write a line, without the secrets of addresses, such as those in a command line."""
        self._logger.log(level, "%s", one_line(redacted(line)))

    def point(self, records: Sequence[PhaseRecord]) -> None:
        """Write how a point ended: its status, its reason, its attempt and the audit's findings."""
        first, status = records[0], status_of(records)
        findings = sorted({finding for record in records for finding in record.findings})
        words = [f"point {label_of(first, self._workload)} on {first.device_type}@{first.node or '?'}: {status}"]
        words += [f"attempt {first.attempt}"] if first.attempt > 1 else []
        words += [reason_of(records) or ""] if status != Status.OK else []
        words += [f"audit: {' '.join(findings)}"] if findings else []
        self.say("; ".join(filter(None, words)), level=logging.INFO if status == Status.OK else logging.WARNING)
