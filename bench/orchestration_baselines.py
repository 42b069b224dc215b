"""Baselines of `orchestration.py`: plain Tune and a bare pool of actors, each in a separate process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from orchestration_case import peak_bytes, run_case
from ray import tune


def _point_function(config: dict[str, Any]) -> None:
    tune.report({"value": config["point"]})


class _PointClass(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self._point = config["point"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._point = new_config["point"]
        return True

    def step(self) -> dict[str, Any]:
        return {"value": self._point, "done": True}


def timed(points: int, work: Callable[[], None]) -> dict[str, Any]:
    """Seconds of the work on a separate Ray, whose start is not counted."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init("local", log_to_driver=False, logging_level=logging.ERROR)
    begin_s = time.monotonic()
    work()
    sweep_s = time.monotonic() - begin_s
    ray.shutdown()
    return {"points": points, "sweep_s": sweep_s, "peak_bytes": peak_bytes()}


def _tune(trainable: Any, points: int, folder: Path, *, reuse: bool) -> None:
    """One point per trial, with Tune's defaults except for its output."""
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"point": tune.grid_search(list(range(points)))},
        tune_config=tune.TuneConfig(reuse_actors=reuse),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_at_end=False
            ),  # otherwise a class without checkpoints fails
        ),
    )
    results = tuner.fit()
    assert len(results) == points
    assert not results.errors


def tune_function(points: int, folder: Path) -> dict[str, Any]:
    """A plain function trainable as a user would write it: a new actor for each point."""
    return timed(points, lambda: _tune(_point_function, points, folder, reuse=False))


def tune_class(points: int, folder: Path) -> dict[str, Any]:
    """The same as a class with `reuse_actors`."""
    return timed(points, lambda: _tune(_PointClass, points, folder, reuse=True))


@ray.remote(num_cpus=1)
class _Bare:
    def point(self, value: int) -> int:
        return value


def actor_pool(points: int, folder: Path) -> dict[str, Any]:  # noqa: ARG001  (all cases have the same arguments)
    """A bare pool of two actors: no records, nothing kept."""

    def work() -> None:
        pool = ray.util.ActorPool([_Bare.remote() for _ in range(2)])  # type: ignore[attr-defined]
        found = pool.map(lambda actor, value: actor.point.remote(value), list(range(points)))
        assert sorted(found) == list(range(points))

    return timed(points, work)


if __name__ == "__main__":
    run_case({"tune_function": tune_function, "tune_class": tune_class, "actor_pool": actor_pool})
