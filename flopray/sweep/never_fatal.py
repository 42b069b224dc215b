"""A logger that fails does not end a sweep: the journal has every point, whatever happens to other disks or servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune.logger import LoggerCallback

from flopray.cluster.connection import NAMESPACE
from flopray.store.redaction import redacted


class NeverFatal(LoggerCallback):
    """A logger that fails is reported once, in a line; the sweep goes on, and so do the calls of the logger.

    Attributes:
        title: name of the logger for people.
        recorder: name of the recorder's actor: behind `ray://` Tune runs elsewhere.
    """

    title = "a logger"
    remedy = "the run has every point"

    def __init__(self, *, recorder: str, **options: Any) -> None:
        super().__init__(**options)
        self.recorder = recorder
        self._told = False

    def setup(self, *args: Any, **info: Any) -> None:
        """Called by Tune, in its process, before the first trial."""
        self._guarded(super().setup, *args, **info)

    def on_trial_start(self, *args: Any, **info: Any) -> None:
        """A trial begins, or begins again."""
        self._guarded(super().on_trial_start, *args, **info)

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """A point, or several."""
        self._guarded(super().on_trial_result, *args, **info)

    def on_trial_complete(self, *args: Any, **info: Any) -> None:
        """All of a trial's points have results."""
        self._guarded(super().on_trial_complete, *args, **info)

    def on_trial_error(self, *args: Any, **info: Any) -> None:
        """Tune abandons the trial."""
        self._guarded(super().on_trial_error, *args, **info)

    def on_experiment_end(self, *args: Any, **info: Any) -> None:
        """Tune is done."""
        self._guarded(super().on_experiment_end, *args, **info)

    def failed(self, error: Exception) -> None:
        """Tell the sweep, once."""
        if self._told:
            return
        self._told = True
        with contextlib.suppress(RayError, ValueError):  # the recorder is gone, which the writer reports
            actor: Any = ray.get_actor(self.recorder, namespace=NAMESPACE)
            actor.notice.remote(f"{self.title} lacks results ({reason(error)}): {self.remedy}")

    def _guarded(self, call: Callable[..., None], *args: Any, **info: Any) -> None:
        try:
            call(*args, **info)
        except Exception as error:  # any error of a library: points must not suffer from it
            self.failed(error)


def reason(error: Exception) -> str:
    """Message of a library's error, in a line without secrets; of MLflow's client without the chained errors."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    request, failed, _ = first.partition(" failed with exception")
    return redacted(f"{request} failed" if failed else first)[:200]
