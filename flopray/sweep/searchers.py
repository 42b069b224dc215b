"""Optuna over a grid: each point is measured once, and an interrupted search keeps what it has learned.

Optuna may suggest a point again, above all when a grid is small or the search has converged. Measuring it again would
add nothing, and counting it would end the search with fewer points than were asked for. Optuna's own interface is used:
Tune's `OptunaSearch` cannot be told of a point with several known objectives.
https://optuna.readthedocs.io/en/stable/tutorial/20_recipes/009_ask_and_tell.html
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from flopray.store.tune_results import Result
from flopray.sweep.definition import Sweep
from flopray.sweep.grid_keys import Key, Values, key_of, values_of
from flopray.sweep.grid_searcher import GridSearcher
from flopray.sweep.trial import Config

#: Suggestions in a row of points that were drawn already, before another one is drawn at random.
_TRIES = 20


class DistinctOptuna(GridSearcher):
    """Suggests points of a grid, none twice; for several objectives it seeks the Pareto front.

    Args:
        sweep: search space, objectives and seed.
        known: the objectives of points that need no measuring, by the point's `key_of`.
    """

    def __init__(self, sweep: Sweep, known: Mapping[Key, Values]) -> None:
        keys = [objective.key for objective in sweep.objectives]
        modes = [objective.metric.mode for objective in sweep.objectives]
        super().__init__(sweep)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # Another seed for each session: the same one would suggest known points first.
        seed = sweep.settings.seed + len(known)
        self._keys, self._axes = keys, dict(sweep.axes)
        self._drawn = dict(known)
        self._running: dict[str, tuple[optuna.Trial | None, Key]] = {}
        self._random = random.Random(seed)
        self._space: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in self._axes.items()
        }
        directions: list[Any] = ["minimize" if mode == "min" else "maximize" for mode in modes]
        self.study = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(seed=seed))
        for key, values in self._drawn.items():
            self._tell_measured(key, values)

    def suggest(self, trial_id: str) -> Any:
        """The axes' values of a point that was not drawn yet; `FINISHED` when there is none."""
        for _ in range(_TRIES):
            trial = self.study.ask(self._space)
            key = key_of(trial.params, self._axes)
            if key not in self._drawn:
                return self._draw(trial_id, trial, key)
            self._tell_suggested(trial, self._drawn[key])
        left = [key for key in itertools.product(*self._axes.values()) if key not in self._drawn]
        return self._draw(trial_id, None, self._random.choice(left)) if left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Result | None = None, error: bool = False) -> None:
        """Note the objectives of a point."""
        if trial_id not in self._running:
            return
        trial, key = self._running.pop(trial_id)
        self._drawn[key] = None if error or not result else values_of([result.get(name) for name in self._keys])
        if trial is not None:
            self._tell_suggested(trial, self._drawn[key])
        else:
            self._tell_measured(key, self._drawn[key])

    def _draw(self, trial_id: str, trial: optuna.Trial | None, key: Key) -> Config:
        self._drawn[key] = None
        self._running[trial_id] = (trial, key)
        return dict(zip(self._axes, key, strict=True))

    def _tell_suggested(self, trial: optuna.Trial, values: Values) -> None:
        if values is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, list(values))

    def _tell_measured(self, key: Key, values: Values) -> None:
        if values is not None:
            params = dict(zip(self._axes, key, strict=True))
            self.study.add_trial(create_trial(params=params, distributions=self._space, values=list(values)))
