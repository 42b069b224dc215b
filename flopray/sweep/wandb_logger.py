"""Weights & Biases: Tune's callback, with readable names and the environment of the driver.

Missing values (NaN) are left out, and a slab's trial is described by its axes instead of its compressed points.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.air.integrations.wandb import WandbLoggerCallback

from flopray.store.tune_results import Result
from flopray.sweep.loggers import name_of
from flopray.sweep.never_fatal import NeverFatal
from flopray.sweep.stored_loggers import StoredTrial
from flopray.sweep.trial import readable

if TYPE_CHECKING:
    from flopray.sweep.loggers import Loggers

#: Most seconds in which Weights & Biases sends what is left when the sweep ends; Tune's default is half an hour.
_UPLOAD_S = 120


class _WholeRun(WandbLoggerCallback._logger_actor_cls):
    """The process of a trial's run, which ends when everything is written.

    Ray ends the service of Weights & Biases with this process, and `finish` need not have waited until the service has
    closed the run's file: two of some twenty offline runs were left with their header alone.
    https://docs.wandb.ai/ref/python/functions/teardown/
    """

    def run(self) -> None:
        """Log what the queue has, and wait for the service."""
        super().run()
        self._wandb.teardown()


class WandbRuns(NeverFatal, WandbLoggerCallback):
    """A run of Weights & Biases for each trial, in the group of the sweep's run.

    Args:
        loggers: of the run.
        varied: axes that a trial is called by.
        recorder: name of the recorder's actor.
    """

    title = "Weights & Biases"
    _logger_actor_cls = _WholeRun
    #: These are words or the same for all phases; the rest of a result is logged as numbers.
    AUTO_CONFIG_KEYS: Sequence[str] = (
        *WandbLoggerCallback.AUTO_CONFIG_KEYS,
        *("point", "point_id", "point_ids", "status", "findings"),
    )

    def __init__(self, loggers: Loggers, *, varied: Sequence[str], recorder: str) -> None:
        # The process of a trial's run is Ray's, which on a standing cluster does not have the driver's environment.
        chosen = {"mode": os.environ.get("WANDB_MODE"), "entity": loggers.entity, "tags": ["flopray"]}
        if url := os.environ.get("WANDB_BASE_URL"):
            chosen["settings"] = {"base_url": url}
        super().__init__(
            recorder=recorder,
            project=loggers.project,
            group=loggers.run,
            upload_timeout=_UPLOAD_S,
            **{name: value for name, value in chosen.items() if value is not None},
        )
        self._varied = tuple(varied)

    def check(self) -> None:
        """Look for the user's key.

        Raises:
            ValueError: there is none.
        """
        with contextlib.redirect_stderr(io.StringIO()):  # Ray's call is deprecated, which users cannot change
            WandbLoggerCallback.setup(self)

    def setup(self, *_: Any, **__: Any) -> None:
        """Called by Tune, in its process, before the first trial; behind `ray://` its environment is another one."""
        if self.kwargs.get("mode") not in ("offline", "disabled"):
            self._guarded(self.check)

    def log_trial_result(self, iteration: int, trial: Any, result: Result) -> None:
        """Send a result to the process of the trial's run."""
        super().log_trial_result(iteration, trial, known(result))

    def _start_logging_actor(self, trial: Any, exclude_results: list[str], **options: Any) -> None:
        """Names the run by what is measured, and describes a slab readably; Tune has no public way to choose."""
        config = readable(options["config"])
        options |= {"config": config, "name": name_of(config.get("slab", config), self._varied) or str(trial)}
        options["dir"] = StoredTrial(trial).local_path  # Tune's own logger would leave its files in /tmp
        super()._start_logging_actor(trial, exclude_results, **options)


def known(result: Mapping[str, Any]) -> Result:
    """A result without its missing values."""
    return {key: value for key, value in result.items() if not (isinstance(value, float) and math.isnan(value))}
