"""What Tune does when the process of a trial dies: the recorder learns why, and the sweep goes on.

Runs in the process of Tune, which is the driver or, behind `ray://`, one on the cluster.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from flopray.cluster.connection import NAMESPACE

#: How Tune begins each failure in the text it keeps of a trial (`Trial.handle_error`).
_FAILURE = "Failure # "


class TellDeath(tune.Callback):
    """Tells the recorder why a trial's process died, before Tune starts the trial again.

    Args:
        recorder: name of the actor: behind `ray://` Tune runs elsewhere, and takes this along.
    """

    def __init__(self, recorder: str) -> None:
        self._recorder = recorder

    def setup(self, **_: Any) -> None:
        """Called by Tune, in its process, before the first trial."""
        _take_memory_kills_as_deaths()

    def on_trial_recover(self, *_: Any, **info: Any) -> None:
        """Tune will try the trial again."""
        self._tell(info["trial"])

    def on_trial_error(self, *_: Any, **info: Any) -> None:
        """Tune gives the trial up."""
        self._tell(info["trial"])

    def _tell(self, trial: Any) -> None:
        with contextlib.suppress(RayError, ValueError):  # the recorder is gone, which the drain tells
            recorder: Any = ray.get_actor(self._recorder, namespace=NAMESPACE)
            ray.get(recorder.died.remote(trial.trial_id, _last_failure(trial)))


def _last_failure(trial: Any) -> str:
    """What Tune noted of a trial's last failure; earlier ones, which may have had other causes, stand before it."""
    try:
        return Path(trial.error_file).read_text(errors="replace").rpartition(_FAILURE)[2]
    except (OSError, TypeError):
        return ""


def _take_memory_kills_as_deaths() -> None:
    """Let Tune try a trial again whose process Ray's memory monitor has ended.

    Ray tells of it by `OutOfMemoryError`, which is no `RayActorError`; Tune knows only those of a dead actor and ends
    the whole experiment on any other: `RayActorManager._actor_task_failed` of Ray 2.60 raises "unexpected exception".
    """
    original: Any = getattr(RayActorManager, "_actor_task_failed", None)
    if original is None or hasattr(original, "knows_memory_kills"):
        return

    def task_failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        original(self, tracked_actor_task=tracked_actor_task, exception=exception)

    task_failed.knows_memory_kills = True  # type: ignore[attr-defined]
    RayActorManager._actor_task_failed = task_failed
