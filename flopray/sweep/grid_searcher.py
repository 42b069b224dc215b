"""What searchers over a sweep's own grid share of Tune's interface."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from flopray.store.tune_results import Result
from flopray.sweep.definition import Sweep
from flopray.sweep.trial import Config


class GridSearcher(Searcher):
    """A searcher whose space and objectives are the sweep's; a resume tells it of the points in the journal.

    Args:
        sweep: search space and objectives.
    """

    def __init__(self, sweep: Sweep) -> None:
        keys = [objective.key for objective in sweep.objectives]
        modes = [objective.metric.mode for objective in sweep.objectives]
        one: Any = (keys[0], modes[0]) if len(keys) == 1 else (keys, modes)  # stubs know one alone
        super().__init__(*one)

    def set_search_properties(self, metric: str | None, mode: str | None, config: Config, **spec: Any) -> bool:
        """The space is the sweep's, and so are the objectives."""
        del metric, mode, config, spec
        return True

    def on_trial_result(self, trial_id: str, result: Result) -> None:
        """Only the end of a trial counts."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resume learns from the journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""
