"""The trials of Ray Tune: slabs of neighbouring points, or one for each point."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator

from flopray.cluster.ray_internals import free_by_node
from flopray.mappings import Arguments
from flopray.point import Point
from flopray.records import PhaseRecord
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.grid_keys import Key, key_of, number_of, values_of
from flopray.sweep.plan import slabs_of
from flopray.sweep.trial import ORDER_INDEX, Config, points_of, slab_config
from flopray.workloads.base import with_code
from flopray.workloads.registry import point_from

#: Tune queues 200 trials of a grid at a time: a slow type would fill the queue while devices of another type are idle.
_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
_LEAST_PENDING = 200


@dataclass(frozen=True)
class Trials:
    """The trials for Tune.

    Attributes:
        sweep: whose points they are.
        space: a trial's configuration.
        longest: the most points that a trial holds.
        slabs: the points of each slab, by its number.
        order: the points as trials begin them; none where a searcher draws them.
        search: arguments of `TuneConfig` for a searcher.
    """

    sweep: Sweep
    space: Config
    longest: int = 1
    slabs: Sequence[Sequence[Point]] = ()
    order: Sequence[Point] = ()
    search: Arguments = field(default_factory=dict)

    def points_of(self, config: Mapping[str, Any], shared: Mapping[str, Any]) -> list[Point]:
        """The points of a trial, by the configuration in its results."""
        if "slab" in config:
            return list(self.slabs[config["slab"]["number"]])
        workload = with_code(self.sweep.workload)
        return [point_from(fields, workload) for _, fields in points_of(config, shared)]


def trials_of(sweep: Sweep, folder: RunFolder, slots: Mapping[str, int], done: Collection[str]) -> Trials:
    """The trials for the points that a sweep lacks.

    Args:
        sweep: the sweep.
        folder: its run, from which a search learns.
        slots: devices by type.
        done: trial ids that need no measuring.
    """
    if sweep.is_drawn:
        return _drawn(sweep, folder, slots, done)
    points = sweep.points()
    todo = [point for point in points if point.id not in done]
    has_energy = any(device_type != "CPU" for device_type in slots)
    slabs = slabs_of(sweep, todo, slots, has_energy=has_energy)
    begin = len(points) - len(todo)
    if sweep.trial_shape == "slab":
        return _slabs(sweep, slabs, begin)
    return _points(sweep, slabs, begin, _at_once(sweep, slots))


def _slabs(sweep: Sweep, slabs: list[list[Point]], begin: int) -> Trials:
    """A trial a slab, each point with its place in the order."""
    packages, index = [], begin
    for number, slab in enumerate(slabs):
        numbered = list(enumerate(slab, start=index))
        packages.append(slab_config(number, numbered, list(sweep.axes)))
        index += len(slab)
    os.environ.setdefault(_PENDING, str(max(_LEAST_PENDING, len(packages))))
    order = [point for slab in slabs for point in slab]
    return Trials(sweep, {"slab": tune.grid_search(packages)}, max(map(len, slabs)), slabs, order)


def _points(sweep: Sweep, slabs: list[list[Point]], begin: int, at_once: int) -> Trials:
    """A trial a point, in the order in which slabs would have them."""
    points = [point for slab in slabs for point in slab]
    axes = {name: tune.choice(list(values)) for name, values in sweep.axes.items()}
    listed = [
        {**{name: point.fields()[name] for name in axes}, ORDER_INDEX: index}
        for index, point in enumerate(points, start=begin)
    ]
    os.environ.setdefault(_PENDING, str(_LEAST_PENDING))
    search = {"search_alg": BasicVariantGenerator(points_to_evaluate=listed), "num_samples": len(listed)}
    search["scheduler"] = BesideStartingActors(at_once)
    return Trials(sweep, {**axes, ORDER_INDEX: tune.choice([None])}, order=points, search=search)


def _drawn(sweep: Sweep, folder: RunFolder, slots: Mapping[str, int], finished: Collection[str]) -> Trials:
    """Points that a searcher draws, one a trial; it is told what the run's earlier sessions have measured.

    A searcher learns from finished points, so only as many are drawn at a time as devices measure; Tune queues as many.
    """
    axes = {name: tune.choice(list(values)) for name, values in sweep.axes.items()}
    at_once = _at_once(sweep, slots)
    searcher = ConcurrencyLimiter(_searcher(sweep, folder, finished), max_concurrent=at_once)
    search = {"search_alg": searcher, "num_samples": sweep.size - len(finished)}
    return Trials(sweep, axes, search=search | {"scheduler": BesideStartingActors(at_once)})


def _searcher(sweep: Sweep, folder: RunFolder, finished: Collection[str]) -> Searcher:
    """The searcher, which knows what is finished; each needs an extra of its own."""
    known = _known(sweep, folder, finished)
    if sweep.search == "active":
        from flopray.sweep.active_searcher import ActiveGrid

        return ActiveGrid(sweep, {key: tuple(map(number_of, values)) for key, values in known.items()})
    from flopray.sweep.searchers import DistinctOptuna

    return DistinctOptuna(sweep, {key: values_of(values) for key, values in known.items()})


def _known(sweep: Sweep, folder: RunFolder, finished: Collection[str]) -> dict[Key, list[Any]]:
    """The objectives of the points that are finished, by their places on the axes."""
    rows: dict[Any, dict[str, PhaseRecord]] = {}
    for record in folder.records():
        if record.trial_id in finished:
            rows.setdefault(key_of(record.columns(), sweep.axes), {})[record.phase] = record
    return {
        key: [getattr(phases.get(o.phase), o.column, None) for o in sweep.objectives] for key, phases in rows.items()
    }


def _at_once(sweep: Sweep, slots: Mapping[str, int]) -> int:
    """How many trials run at the same time: one a GPU, and on CPUs as many as have their cores."""
    count = sum(slots.values())
    if "CPU" in slots and ray.is_initialized():
        cores = sweep.cpus_per_trial["CPU"]
        count += sum(int(total.get("CPU", 0)) // cores for total, _ in free_by_node()) - slots["CPU"]
    return max(1, count)


class BesideStartingActors(FIFOScheduler):
    """Hands a finished trial's actor to a trial that has none under way.

    Tune would hand it to the trial that has waited longest, and end the actor that is starting for that one. With
    points that are shorter than an actor's start, such as that of a CUDA context, this repeats for ever and one device
    measures all.

    Args:
        devices: how many trials run at a time, and so how many waiting ones may have an actor under way.
    """

    def __init__(self, devices: int) -> None:
        super().__init__()
        self._devices = devices

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first trial that waits behind those whose actors may be starting, else the last one that waits."""
        pending = (trial for trial in tune_controller.get_trials() if trial.status == Trial.PENDING)
        waiting = list(itertools.islice(pending, self._devices))
        return waiting[-1] if waiting else super().choose_trial_to_run(tune_controller)
