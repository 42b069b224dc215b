"""A small sweep, and its points as if they had been measured."""

from __future__ import annotations

from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.sweep.definition import Sweep
from flopray.workloads.mlp import MLP


def sweep() -> Sweep:
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1,), "width": (16, 32, 64, 128, 256), "tokens": (8,)}
    return Sweep(workload=MLP(), axes=axes, settings=MeasureSettings(phases=("forward",)), cpus_per_trial={"CPU": 1})


#: The points of a run, as if they had been measured.
POINTS = sweep().points()


def row(point, **changes):
    fields = {"trial_id": point.id, "phase": "forward", "time_s": 1.0, **point.fields()}
    return [PhaseRecord.of(**{**fields, **changes})]
