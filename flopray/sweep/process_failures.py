"""Called by Tune when the process of a trial ends: tells the recorder why, so that the sweep goes on.

Runs in the process of Tune, which is the driver or, behind `ray://`, one on the cluster.
"""

from __future__ import annotations

import contextlib
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError

from flopray.cluster.connection import NAMESPACE
from flopray.cluster.ray_internals import last_failure, take_memory_kills_as_process_failures


class ProcessFailureCallback(tune.Callback):
    """Tells the recorder why a trial's process ended, before Tune starts the trial again.

    Args:
        recorder: name of the actor: behind `ray://` Tune runs elsewhere, and takes this along.
    """

    def __init__(self, recorder: str) -> None:
        self._recorder = recorder

    def setup(self, **_: Any) -> None:
        """Called by Tune, in its process, before the first trial."""
        take_memory_kills_as_process_failures()

    def on_trial_recover(self, *_: Any, **info: Any) -> None:
        """Tune will try the trial again."""
        self._tell(info["trial"])

    def on_trial_error(self, *_: Any, **info: Any) -> None:
        """Tune abandons the trial."""
        self._tell(info["trial"])

    def _tell(self, trial: Any) -> None:
        with contextlib.suppress(RayError, ValueError):  # the recorder is gone, which the writer reports
            recorder: Any = ray.get_actor(self._recorder, namespace=NAMESPACE)
            ray.get(recorder.died.remote(trial.trial_id, last_failure(trial)))
