"""Tune's loggers of files, which write into the run itself while it runs.

Tune has them write below Ray's session folder in `/tmp` and copies all of it to the storage path every five minutes
and at the end. So a sweep could not be followed, and what a killed driver had logged stayed in `/tmp`.
https://docs.ray.io/en/latest/tune/tutorials/tune-storage.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback, LoggerCallback

from flopray.mappings import Values
from flopray.store.tune_experiment import RESULTS
from flopray.store.tune_results import Result
from flopray.sweep.never_fatal import NeverFatal
from flopray.sweep.trial import readable


class StoredTrial:
    """A trial as a logger sees it: its folder is the one in the run, and its configuration is readable.

    It equals its trial as a key.

    Args:
        trial: of Tune.
    """

    def __init__(self, trial: Any) -> None:
        self.trial = trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trial, name)

    def __hash__(self) -> int:
        return hash(self.trial)

    def __eq__(self, other: object) -> bool:
        return self.trial is (other.trial if isinstance(other, StoredTrial) else other)

    def __str__(self) -> str:
        return str(self.trial)

    @property
    def local_path(self) -> str:
        """The trial's folder, which is made where it is missing."""
        path = Path(self.trial.path)
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    @property
    def evaluated_params(self) -> Values:
        """What was varied; for a slab without the text of its packed points."""
        return readable(self.trial.config)


class StoredInTheRun(LoggerCallback):
    """A logger of files, put before Tune's own in the bases of a class."""

    def log_trial_start(self, trial: Any) -> None:
        """Open the trial's files."""
        super().log_trial_start(_stored(trial))

    def log_trial_result(self, iteration: int, trial: Any, result: Result) -> None:
        """Write a result."""
        super().log_trial_result(iteration, _stored(trial), result)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Close the trial's files."""
        super().log_trial_end(_stored(trial), failed)


class StoredJson(NeverFatal, StoredInTheRun, JsonLoggerCallback):
    """Writes `result.json`, a line a result; what it lacks is added from the journal when the session ends."""

    title = f"{RESULTS} of Tune"


class StoredCsv(NeverFatal, StoredInTheRun, CSVLoggerCallback):
    """Writes `progress.csv`, a row a result."""

    title = "progress.csv of Tune"


def _stored(trial: Any) -> Any:
    return trial if isinstance(trial, StoredTrial) else StoredTrial(trial)
