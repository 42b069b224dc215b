"""Which statistics Tune keeps of a trial's results, in its own process."""

from __future__ import annotations

from typing import Any

from ray import tune

from flopray.cluster.ray_internals import keep_no_moving_averages


class NoMovingAverages(tune.Callback):
    """Last value, least, largest and mean of each number, and no averages over the last 5 and 10 results.

    For slabs, whose results are those of different points in a shuffled order: such an average says nothing.
    """

    def on_trial_start(self, *_: Any, **info: Any) -> None:
        """A trial begins, or begins again."""
        keep_no_moving_averages(info["trial"])
