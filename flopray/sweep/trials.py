"""What Ray Tune is asked to run: slabs of neighbouring points, or a trial for each point."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from flopray.point import Point
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.plan import slabs_of
from flopray.sweep.trial import ORDER_INDEX, points_of, slab_config
from flopray.workloads.base import with_code
from flopray.workloads.registry import point_from

#: Tune queues 200 trials of a grid at a time: a slow type would fill the queue while the devices of another one starve.
_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
_LEAST_PENDING = 200


@dataclass(frozen=True)
class Trials:
    """What Tune is to run.

    Attributes:
        sweep: whose points they are.
        space: a trial's configuration.
        longest: the most points that a trial holds.
        slabs: the points of each slab, by its number.
        order: the points as trials begin them; none where a searcher draws them.
        search: what `TuneConfig` takes of a searcher.
    """

    sweep: Sweep
    space: dict[str, Any]
    longest: int = 1
    slabs: Sequence[Sequence[Point]] = ()
    order: Sequence[Point] = ()
    search: dict[str, Any] = field(default_factory=dict)

    def points_of(self, config: Mapping[str, Any], shared: Mapping[str, Any]) -> list[Point]:
        """The points of a trial by what its results say of its configuration."""
        if "slab" in config:
            return list(self.slabs[config["slab"]["number"]])
        workload = with_code(self.sweep.workload)
        return [point_from(fields, workload) for _, fields in points_of(config, shared)]


def trials_of(sweep: Sweep, folder: RunFolder, slots: Mapping[str, int], done: Collection[str]) -> Trials:
    """The trials of what is left of a sweep.

    Args:
        sweep: the sweep.
        folder: its run, from which a search learns.
        slots: devices by type.
        done: trial ids that need no measuring.
    """
    if sweep.search == "optuna":
        return _drawn(sweep, folder, slots, done)
    points = sweep.points()
    todo = [point for point in points if point.id not in done]
    has_energy = any(device_type != "CPU" for device_type in slots)
    slabs = slabs_of(sweep, todo, slots, has_energy=has_energy)
    begin = len(points) - len(todo)
    return _points(sweep, slabs, begin) if sweep.trial_shape == "point" else _slabs(sweep, slabs, begin)


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


def _points(sweep: Sweep, slabs: list[list[Point]], begin: int) -> Trials:
    """A trial a point, in the order in which slabs would have them."""
    points = [point for slab in slabs for point in slab]
    axes = {name: tune.choice(list(values)) for name, values in sweep.axes.items()}
    listed = [
        {**{name: point.fields()[name] for name in axes}, ORDER_INDEX: index}
        for index, point in enumerate(points, start=begin)
    ]
    os.environ.setdefault(_PENDING, str(_LEAST_PENDING))
    search = {"search_alg": BasicVariantGenerator(points_to_evaluate=listed), "num_samples": len(listed)}
    return Trials(sweep, {**axes, ORDER_INDEX: tune.choice([None])}, order=points, search=search)


def _drawn(sweep: Sweep, folder: RunFolder, slots: Mapping[str, int], finished: Collection[str]) -> Trials:
    """Points that a searcher draws, one a trial; it is told what the run's earlier sessions have measured."""
    from flopray.sweep.searchers import DistinctOptuna, key_of

    known = {
        key_of(record.columns(), sweep.axes): getattr(record, str(sweep.objective))
        for record in folder.records()
        if record.trial_id in finished and record.phase == sweep.settings.phases[0]
    }
    axes = {name: tune.choice(list(values)) for name, values in sweep.axes.items()}
    search = {"search_alg": DistinctOptuna(sweep, known), "num_samples": sweep.size - len(finished)}
    os.environ.setdefault(_PENDING, str(sum(slots.values())))
    return Trials(sweep, axes, search=search)
