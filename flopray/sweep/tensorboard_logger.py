"""TensorBoard: Tune's callback, which writes into the run and shows a slab by its axes, not by its packed points."""

from __future__ import annotations

from ray.tune.logger import TBXLoggerCallback

from flopray.sweep.never_fatal import NeverFatal
from flopray.sweep.stored_loggers import StoredInTheRun


class TensorBoardEvents(NeverFatal, StoredInTheRun, TBXLoggerCallback):
    """Writes an event file a trial, in the trial's folder; a point is a step, and missing values are left out."""

    title = "TensorBoard"
