"""A sweep: a search space and how to measure it. The run's manifest keeps it, and a resume needs nothing else."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

import flopray
from flopray.description import Description
from flopray.errors import FloprayError, InputError, NotARun, SettingError, SpecError
from flopray.point import Point
from flopray.records import SCHEMA_VERSION
from flopray.settings import MeasureSettings, check_settings, setting, settings_of
from flopray.store import manifests
from flopray.store.manifests import Manifest
from flopray.sweep.manifest import Fields, described, difference
from flopray.sweep.objectives import FRONT, METRICS, Objective, objectives_of, of_a_surface
from flopray.sweep.space import COMMON, COMMON_AXES, grid, spread
from flopray.workloads.base import Workload

#: Largest number in 64 bits with a sign.
_MOST_FLOPS = 2**63 - 1
_MOST_SHARDS = 10_000
#: A sweep holds its points in memory, about a kilobyte each.
_MOST_POINTS = 1_000_000
SEARCHES = ("grid", "random", "sobol", "optuna", "active")
#: Searches in which a searcher draws one point after the other, from what it has learned.
_DRAWN = ("optuna", "active")
TRIALS = ("slab", "point")
#: Loggers that get every result; those of `_POINT_LOGGERS` are made to have a run of their own for each point.
LOGGERS = ("tensorboard", "mlflow", "wandb")
_POINT_LOGGERS = {"mlflow", "wandb"}


def axes_of(workload: Description) -> tuple[str, ...]:
    """Names of a workload's axes, `device_type` first; fields that follow from others are not axes."""
    return (*COMMON_AXES, *(f.name for f in workload.fields if not f.implied))


def _shard(text: str) -> tuple[int, int]:
    """The two numbers of a shard such as `3/8`."""
    number, _, whole = text.partition("/")
    if not (number.isascii() and number.isdecimal() and whole.isascii() and whole.isdecimal()):
        raise SettingError(f"<shard> {text[:40]}: write which part of how many, such as 3/8")
    if not 1 <= int(number) <= int(whole) <= _MOST_SHARDS:
        raise SettingError(f"<shard> {text[:40]}: the parts of N are 1/N to N/N, and N is at most {_MOST_SHARDS}")
    return int(number), int(whole)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A search space and how its points are measured; each setting is described at its field.

    Attributes:
        workload: what is measured; its description alone where a run is only read.
        axes: values by axis (`axes_of`), `device_type` first.
        settings: how each point is measured.
        search: `grid` measures every point; `random`, `optuna` (which seeks the best one) and `active` (which seeks to
            know a surface or a Pareto front soonest) draw `samples` of them, none twice; `sobol` draws `samples` shapes
            that fill the grid evenly, and measures each in every precision, execution and choice.
        objective: as `objectives_of` reads it; of several, the Pareto front is sought.
        cpus_per_trial: by device type.
        points_per_trial: None sizes slabs by predicted time.
        implied: by axis and value, further fields that follow from it, such as the configuration of a model.
        shards: the parts of the grid that are measured, such as `3/8`; empty is all of it. A point's part follows from
            its trial id, so that it stays the same when other axes grow.

    Raises:
        InputError: values that contradict one another.
    """

    workload: Description
    axes: Mapping[str, tuple[Any, ...]]
    settings: MeasureSettings
    search: str = setting("grid", doc="{choices} (default {default})", choices=SEARCHES, metavar="HOW")
    samples: int | None = setting(
        None,
        doc="points to draw with random, optuna or active, shapes of sobol",
        kind=int,
        also=("--budget",),
        metavar="N",
    )
    objective: tuple[str, ...] | None = setting(
        None,
        doc=f"what optuna optimises, in the first phase unless one is named: {', '.join(METRICS)}; several, such as "
        "train_step/energy_j train_step/time_s, for their Pareto front. With active: surface (the default: time and "
        "energy of each phase, everywhere), pareto (FLOP/s and FLOP/J), or several of these metrics for their front",
        many=True,
        metavar="PHASE/METRIC",
    )
    cpus_per_trial: Mapping[str, int] = setting(
        doc="CPU cores a trial holds (default 1 beside a GPU; all of a node on a CPU)",
        kind=int,
        must="be at least 1",
        holds=lambda value: value >= 1,
        metavar="N",
    )
    points_per_trial: int | None = setting(
        None,
        doc="points in one Tune trial (default: sized by predicted time)",
        kind=int,
        must="be at least 1",
        holds=lambda value: value >= 1,
        metavar="N",
    )
    implied: Mapping[str, Mapping[Any, Mapping[str, Any]]] = field(default_factory=dict)
    shards: tuple[str, ...] = setting(
        (),
        doc="measure only part I of N of the grid, such as 3/8; `flopray merge` unites them",
        name="shard",
        many=False,
        metavar="I/N",
    )
    trial: str | None = setting(
        None,
        doc="what a trial of Ray Tune is: slab (neighbouring points, one result each) or point (one run of a logger "
        "for each point); default slab; point with optuna, mlflow and wandb",
        choices=TRIALS,
        metavar="WHAT",
    )
    log_to: tuple[str, ...] | None = setting(
        None,
        doc="tell these of every result too: {choices} (each an extra; MLflow's server is that of "
        "MLFLOW_TRACKING_URI); docs/loggers.md",
        many=True,
        noun="logger",
        choices=LOGGERS,
        metavar="LOGGER",
    )

    def __post_init__(self) -> None:
        if isinstance(self.objective, str):  # a program may give a single one as a text
            object.__setattr__(self, "objective", (self.objective,))
        for name, common in COMMON.items():
            common.check(self.axes[name])
        settings_of(MeasureSettings)["phases"].check(self.settings.phases, choices=self.workload.phases)
        check_settings(self)
        self._check_search()
        for shard in self.shards:
            _shard(shard)
        if self.shards and self.is_drawn:
            raise SettingError(f"<shard> divides a grid; with <search> {self.search} leave it out")
        if self.grid_size > _MOST_POINTS:
            raise InputError(f"the grid has {self.grid_size:.3g} points, more than {_MOST_POINTS}: choose fewer values")
        self._check_size()

    def _check_search(self) -> None:
        """Refuse settings of a search that do not go together."""
        if self.search == "grid" and self.samples is not None:
            raise SettingError("<samples> goes with <search> random, sobol, optuna or active; a grid has every point")
        if self.search != "grid" and (self.samples is None or self.samples < 1):
            raise SettingError(f"<search> {self.search} needs <samples> N, the number of points to draw (at least 1)")
        if self.search == "optuna" and not self.objective:
            which = f"one or several of {', '.join(METRICS)}, with the phase as in train_step/time_s"
            raise SettingError(f"<search> optuna needs <objective>, {which} (without one it is the first)")
        if self.is_drawn and self.trial == "slab":
            raise SettingError("<trial> slab goes with a grid: a search draws one point after the other")
        if self.points_per_trial is not None and self.trial == "point":
            raise SettingError("<points_per_trial> goes with <trial> slab")
        if not self.is_drawn and self.objective:
            raise SettingError("<objective> goes with <search> optuna or active")
        if self.search == "active" and not self.of_surface and len(self.objectives) < 2:
            raise SettingError(
                "<search> active learns a surface or a front of several objectives: for one <objective> use optuna"
            )
        for objective in self.objectives:
            for instrument in ("time", "energy") if objective.metric.of_energy else ("time",):
                if instrument not in self.settings.instruments:
                    raise SettingError(f"<objective> {objective.text} needs {instrument} among the <instruments>")

    def _check_size(self) -> None:
        """Refuse points whose counts exceed the 64 bits of a record."""
        if not isinstance(self.workload, Workload):
            return
        largest = {f.name: (max(self.axes[f.name]),) for f in self.workload.dimensions}
        phase = "train_step" if "train_step" in self.workload.phases else self.settings.phases[0]
        words = {f.name: self.axes[f.name] for f in self.workload.choices if f.name in self.axes}
        common = {name: self.axes[name][:1] for name in COMMON_AXES}
        for point in grid(self.workload, common | words | largest, self.implied):
            try:
                flops = sum((self.workload.closed_form(point, phase) or {}).values())
            except FloprayError:  # the rows of the point will say so
                continue
            if flops > _MOST_FLOPS:
                what = self.workload.label(point.values)
                raise InputError(f"the largest point, {what}, takes {flops:.2g} FLOPs a step: choose smaller values")

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What a search optimises, or for a surface what it learns.

        Raises:
            SettingError: a phase or a metric that cannot be one.
        """
        texts: Sequence[str] = self.objective or ()
        if self.of_surface:
            texts = of_a_surface(self.settings.phases, energy="energy" in self.settings.instruments)
        elif self.search == "active" and texts == ("pareto",):
            texts = FRONT
        return objectives_of(texts, self.settings.phases, self.workload.phases)

    @property
    def of_surface(self) -> bool:
        """Whether an active search learns surfaces, and not a front."""
        return self.search == "active" and (self.objective or ("surface",)) == ("surface",)

    @property
    def is_drawn(self) -> bool:
        """Whether a searcher draws the points, one after the other."""
        return self.search in _DRAWN

    @property
    def trial_shape(self) -> str:
        """What a trial of Tune is: `slab` (neighbouring points) or `point`.

        By default it is a point for a search, and for loggers that make a run of each trial; a slab otherwise.
        """
        one_run_each = not _POINT_LOGGERS.isdisjoint(self.log_to or ()) and self.points_per_trial is None
        return self.trial or ("point" if self.is_drawn or one_run_each else "slab")

    @property
    def grid_size(self) -> int:
        """Points of the whole grid."""
        size = 1
        for values in self.axes.values():
            size *= len(values)
        return size

    @cached_property
    def size(self) -> int:
        """Points that the finished run will have."""
        return len(self.points()) if self.shards else self._drawn

    @property
    def _drawn(self) -> int:
        if self.samples is None:
            return self.grid_size
        if self.search == "sobol":  # the samples are shapes
            shapes = math.prod(len(self.axes[name]) for name in self._dimensions)
            return self.grid_size // shapes * min(self.samples, shapes)
        return min(self.samples, self.grid_size)

    @property
    def _dimensions(self) -> tuple[str, ...]:
        """The axes that make the shape of a point."""
        return tuple(f.name for f in self.workload.dimensions if f.name in self.axes)

    def points(self) -> list[Point]:
        """The points to measure, or to choose from under optuna; neighbours stand next to one another."""
        return list(self._points)

    @cached_property
    def _points(self) -> list[Point]:
        points = grid(self.workload, self.axes, self.implied)
        if self.search == "random":
            # Drawn here and not by Tune, so that no point is drawn twice and a resume draws the same ones.
            chosen = random.Random(self.settings.seed).sample(range(len(points)), self._drawn)
            points = [points[i] for i in sorted(chosen)]
        elif self.search == "sobol" and self.samples is not None:
            shapes = spread({name: self.axes[name] for name in self._dimensions}, self.samples, self.settings.seed)
            points = [p for p in points if tuple(p.values[name] for name in self._dimensions) in shapes]
        shards = [_shard(shard) for shard in self.shards]
        return [p for p in points if any(int(p.id, 16) % n == i - 1 for i, n in shards)] if shards else points

    def with_code(self, workload: Workload) -> Sweep:
        """The same sweep with the code of its workload, to measure it.

        Raises:
            InputError: the workload's fields, columns or phases are others than those that the run began with.
        """
        if part := difference(self.workload, workload):
            changed = f"the {part} of the workload {workload.name} changed since the run began"
            raise InputError(f"{changed}: put them back, or start a new run")
        return dataclasses.replace(self, workload=workload)

    def to_manifest(self, name: str, versions: Mapping[str, str]) -> Manifest:
        """The content of `manifest.json`."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["axes"] = {name: list(values) for name, values in self.axes.items()}
        fields["settings"], fields["shards"] = self.settings.to_dict(), list(self.shards)
        fields["objective"] = None if self.objective is None else list(self.objective)
        fields["log_to"] = list(self.log_to) if self.log_to else None
        fields["cpus_per_trial"], fields["workload"] = dict(self.cpus_per_trial), self.workload.name
        fields["implied"] = {axis: dict(by_value) for axis, by_value in self.implied.items()}
        head = {"schema_version": SCHEMA_VERSION, "flopray_version": flopray.__version__, "name": name}
        return (
            head
            | {"created_unix_s": time.time(), "versions": dict(versions), "sweep": fields}
            | described(self.workload)
        )

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Sweep:
        """The sweep of a manifest.

        Raises:
            NotARun: the manifest lacks what a sweep needs.
        """
        if manifests.of_own_tuner(manifest):
            name = f"run {manifest.get('name')!s:.80}"
            raise NotARun(
                f"{name} has no grid, since a Tuner of your own decides on its points: it can only be loaded and drawn"
            )
        if manifests.of_tune_results(manifest):
            raise NotARun(
                f"{manifest['tune_results']} holds results of Ray Tune, which have no grid: name the run's own folder"
            )
        try:
            workload = manifests.workload_in(manifest)
            return cls(**msgspec.convert(manifest["sweep"], Fields).arguments(workload, axes_of(workload)))
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError, SpecError) as error:
            why = f"{type(error).__name__} {str(error)[:200]}"
            raise NotARun(f"the run's manifest does not describe a sweep this flopray can resume ({why})") from error
