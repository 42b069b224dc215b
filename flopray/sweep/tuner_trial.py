"""The trainable of a user's own Tuner: one point a trial, whose fields are the trial's configuration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import ray

from flopray.description import Field
from flopray.errors import FloprayError, InputError
from flopray.mappings import Values
from flopray.point import Point
from flopray.records import PhaseRecord
from flopray.store.schema import RecordSchema
from flopray.store.tune_results import Result
from flopray.sweep.result_recorder import records_in
from flopray.sweep.space import COMMON_AXES
from flopray.sweep.trial import BrokenDevice, Config, PointTrial
from flopray.workloads.base import Workload
from flopray.workloads.registry import load

#: How often a trial asks whether its point is in the journal.
_ASK_EVERY_S = 0.05


class TunerTrial(PointTrial):
    """Measures the point of its configuration, or returns the journal's records of it.

    A trial returns to Tune once its point is in the journal. Its metrics are those of a sweep (`store.tune_results`).
    """

    def setup(self, config: Config) -> None:
        """As a sweep's trial."""
        self._broken = False
        try:
            super().setup(config)
        except ValueError as error:  # Ray's error for a missing actor
            if "actor" not in str(error):
                raise
            run = self.shared["run"]
            raise FloprayError(f"run {run} was closed: call flopray.sweep.trainable again") from error

    def reset_config(self, new_config: Config) -> bool:
        """Take another point in the same process, if its device still computes."""
        return not self._broken and super().reset_config(new_config)

    def step(self) -> Result:
        """The one result of the trial."""
        ((index, spec),) = self._left
        records = self._journaled(spec)
        if records is None:
            self._measure_into_journal(spec, index)
            while (records := self._journaled(spec)) is None:
                time.sleep(_ASK_EVERY_S)
        self._left = []
        return {"points_left": 0, "done": True, **self._format.flat([records])}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing, though Tune asks for it at the end of a trial: a later session continues from the journal."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as above."""

    @classmethod
    def device_type_in(cls, config: Mapping[str, Any]) -> str:
        """The device type of a configuration, which Tune asks for in the driver before it starts a trial.

        Raises:
            InputError: the configuration is not a point; `Tuner.fit` ends with this line.
        """
        return point_in(config, cls.shared).device_type

    def _points_in(self, config: Mapping[str, Any]) -> list[tuple[int | None, Point]]:
        return [(None, point_in(config, self.shared))]

    def _measure_into_journal(self, spec: Point, index: int | None) -> None:
        """Hand the point over to the recorder, whose driver journals it."""
        if not self._counted:
            self._count_ahead()
        try:
            self._measure(spec, index)
            self._hand_over()
        except BrokenDevice:  # the point is recorded as failed; the next one gets a new process
            self._broken = True

    def _journaled(self, spec: Point) -> list[PhaseRecord] | None:
        """The journal's records of a point. Asked first: a device is opened only for a point that is to be measured."""
        answer: Any = ray.get(self._recorder.journaled.remote(spec.id))
        return None if answer is None else records_in(answer, RecordSchema(self._workload))


def point_in(config: Mapping[str, Any], shared: Mapping[str, Any]) -> Point:
    """The point of a trial's configuration.

    Args:
        config: values by field, as a searcher drew them: numpy's numbers become Python's, and words the values that
            they stand for. `device_type`, `precision`, `execution` and choices have defaults.
        shared: of the run, see `own_tuner`.

    Raises:
        InputError: it is not a point; the line says what in `param_space` is wrong.
    """
    workload = _loaded(tuple(sorted(shared["workload"].items())))
    own = [field for field in workload.fields if not field.implied]
    known = [*(field.name for field in own), *COMMON_AXES]
    for name in config:
        if name not in known:
            raise InputError(
                f"param_space has {name!r:.60}, unknown in {workload.name}: choose from {', '.join(known)}"
            )
    device_type = _plain(config.get("device_type", shared["device_type"]))
    if device_type not in shared["device_types"]:
        there = ", ".join(shared["device_types"])
        asked = "device_type is missing" if device_type is None else f"no node has the device_type {device_type!r:.60}"
        raise InputError(f"param_space: {asked}, choose from {there}")
    on_gpu = device_type != "CPU"
    common = {
        "precision": workload.gpu_precisions[0] if on_gpu else "fp32",
        "execution": workload.gpu_execution[0] if on_gpu else "eager",
    }
    common |= {name: _plain(config[name]) for name in common if name in config}
    values = {field.name: _value(field, config, on_gpu=on_gpu) for field in own}
    return workload.point(device_type=device_type, **common, **_completed(workload, values))


@lru_cache(maxsize=8)
def _loaded(reference: tuple[tuple[str, Any], ...]) -> Workload:
    """The workload of a reference; a file is run once a process."""
    return load(dict(reference))


def _completed(workload: Workload, values: Mapping[str, Any]) -> Values:
    """Values as a point has them, with those that follow from others, such as the sizes of a model of a file."""
    axes, implied = workload.complete({name: (value,) for name, value in values.items()})
    completed = {name: of[0] for name, of in axes.items()}
    for name, by_value in implied.items():
        completed |= by_value.get(completed.get(name), {})
    return completed


def _plain(value: Any) -> Any:
    """A value of numpy as Python's own."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _value(field: Field, config: Mapping[str, Any], *, on_gpu: bool) -> Any:
    """The value of a field.

    Raises:
        InputError: it is missing, or a float where only whole numbers are.
    """
    if field.name not in config:
        default = field.gpu_values if on_gpu and field.gpu_values is not None else field.values
        if field.is_dimension or len(default) != 1:
            raise InputError(f"param_space lacks {field.name}: {field.doc or field.title}")
        value = default[0]
    else:
        value = _plain(config[field.name])
    if field.is_dimension and isinstance(value, float):
        remedy = "take tune.randint or tune.choice, and a searcher such as OptunaSearch"
        floats = "a searcher that draws floats only, such as BayesOptSearch, cannot search for it"
        raise InputError(f"param_space {field.name}: {value!r:.40} is not a whole number; {floats}: {remedy}")
    return field.words.get(value, value) if isinstance(value, str) else value
