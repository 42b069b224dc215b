"""Optuna over a grid: each point is measured once, and what an interrupted search has learned is not lost.

Optuna may suggest a point again, above all when a grid is small or the search has settled. Measuring it again would
say nothing new, and counting it would end the search with fewer points than were asked for.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from typing import Any

import optuna
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from flopray.sweep.definition import OBJECTIVES, Sweep

#: Suggestions of one point after another that was drawn already, before one of the others is drawn at random.
_TRIES = 20

Key = tuple[Any, ...]


class DistinctOptuna(Searcher):
    """Tune's `OptunaSearch` without repeats.

    Args:
        sweep: search space, objective and seed.
        known: the objective of points that need no measuring, None where it is missing, by the point's `key_of`.
    """

    def __init__(self, sweep: Sweep, known: Mapping[Key, float | None]) -> None:
        mode = OBJECTIVES[str(sweep.objective)]
        super().__init__(metric="objective", mode=mode)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # Another seed for each session: the same one would suggest what is known first.
        seed = sweep.settings.seed + len(known)
        self._axes = dict(sweep.axes)
        self._metric_key = f"{sweep.settings.phases[0]}/{sweep.objective}"
        self._drawn = dict(known)
        self._running: dict[str, tuple[str | None, Key]] = {}
        self._inner = OptunaSearch(metric="objective", mode=mode, seed=seed)
        self._random = random.Random(seed)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Take the space from Tune and tell optuna what is known."""
        taken = self._inner.set_search_properties(metric, mode, config, **spec)
        for key, value in self._drawn.items():
            self._tell_measured(key, value)
        return taken

    def suggest(self, trial_id: str) -> Any:
        """The axes' values of a point that was not drawn yet; `FINISHED` when there is none."""
        for attempt in range(_TRIES):
            inner_id = f"{trial_id}-{attempt}"
            suggestion = self._inner.suggest(inner_id)
            assert isinstance(suggestion, dict)
            key = key_of(suggestion, self._axes)
            if key not in self._drawn:
                return self._draw(trial_id, inner_id, key)
            self._tell_suggested(inner_id, self._drawn[key])
        left = [key for key in itertools.product(*self._axes.values()) if key not in self._drawn]
        return self._draw(trial_id, None, self._random.choice(left)) if left else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Only the end of a trial counts."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note the objective of a point."""
        if trial_id not in self._running:
            return
        inner_id, key = self._running.pop(trial_id)
        value = None if error or not result else result.get(self._metric_key)
        self._drawn[key] = value if value is not None and math.isfinite(value) else None
        if inner_id is not None:
            self._tell_suggested(inner_id, self._drawn[key])
        else:
            self._tell_measured(key, self._drawn[key])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a resume learns from the journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""

    def _draw(self, trial_id: str, inner_id: str | None, key: Key) -> dict[str, Any]:
        self._drawn[key] = None
        self._running[trial_id] = (inner_id, key)
        return dict(zip(self._axes, key, strict=True))

    def _tell_suggested(self, inner_id: str, value: float | None) -> None:
        if value is None:
            self._inner.on_trial_complete(inner_id, error=True)
        else:
            self._inner.on_trial_complete(inner_id, {"objective": value})

    def _tell_measured(self, key: Key, value: float | None) -> None:
        if value is not None:
            self._inner.add_evaluated_point(dict(zip(self._axes, key, strict=True)), value)


def key_of(fields: Mapping[str, Any], axes: Mapping[str, Any]) -> Key:
    """A point by its fields: its place on each axis."""
    return tuple(fields[name] for name in axes)
