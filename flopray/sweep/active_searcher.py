"""A search that measures the most informative points of a grid, by Tune's interface of searchers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

from ray.tune.search import Searcher

from flopray.point import Point
from flopray.store.tune_results import Result
from flopray.sweep.active import Surrogate, features_of
from flopray.sweep.definition import Sweep
from flopray.sweep.grid_keys import Key, number_of
from flopray.sweep.grid_searcher import GridSearcher
from flopray.sweep.prior import prior_of
from flopray.sweep.space import grid

#: Candidates for each choice; from a larger grid this many are drawn at random.
_MOST_CANDIDATES = 5_000


class ActiveGrid(GridSearcher):
    """Draws points of a grid, none twice, so that the surface or the Pareto front is known soonest.

    Args:
        sweep: search space, objectives and seed.
        known: objectives of points that need no measuring, NaN where one is missing, by the point's `key_of`.
    """

    def __init__(self, sweep: Sweep, known: Mapping[Key, tuple[float, ...]]) -> None:
        super().__init__(sweep)
        self._objectives, self._axes = sweep.objectives, dict(sweep.axes)
        self._of_surface = sweep.of_surface
        keys = list(itertools.product(*self._axes.values()))
        if len(keys) > _MOST_CANDIDATES:
            drawn = set(random.Random(sweep.settings.seed).sample(range(len(keys)), _MOST_CANDIDATES))
            keys = [key for place, key in enumerate(keys) if place in drawn or key in known]
        self._keys = keys
        self._places = {key: place for place, key in enumerate(keys)}
        prior = prior_of([_point(sweep, key) for key in keys], self._objectives)
        self._surrogate = Surrogate(features_of(self._axes, keys), sweep.settings.seed, prior)
        self._running: dict[str, int] = {}
        self._lost: set[int] = set()
        for key, values in known.items():
            self._tell(self._places[key], values)

    def suggest(self, trial_id: str) -> Any:
        """The axes' values of the most informative point; `FINISHED` when all are drawn."""
        taken = {*self._running.values(), *self._lost, *self._surrogate.measured}
        left = [place for place in range(len(self._keys)) if place not in taken]
        if not left:
            return Searcher.FINISHED
        running = list(self._running.values())
        if self._of_surface:
            place = self._surrogate.next_of_surface(running, left)
        else:
            place = self._surrogate.next_of_front([o.metric.mode == "min" for o in self._objectives], running, left)
        self._running[trial_id] = place
        return dict(zip(self._axes, self._keys[place], strict=True))

    def on_trial_complete(self, trial_id: str, result: Result | None = None, error: bool = False) -> None:
        """Note the objectives of a point."""
        if trial_id not in self._running:
            return
        place = self._running.pop(trial_id)
        found = result if result and not error else {}
        self._tell(place, tuple(number_of(found.get(objective.key)) for objective in self._objectives))

    def _tell(self, place: int, values: tuple[float, ...]) -> None:
        if all(value != value for value in values):
            self._lost.add(place)  # a point without any number is not tried again, and is not learned from
        else:
            self._surrogate.tell(place, values)


def _point(sweep: Sweep, key: Key) -> Point:
    axes = {name: (value,) for name, value in zip(sweep.axes, key, strict=True)}
    return grid(sweep.workload, axes, sweep.implied)[0]
