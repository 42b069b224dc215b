"""What fitted models expect of a grid, so that a search need only learn in what its device differs from them.

A surface rises by factors of a hundred, and has steps where a library changes its kernels. Models that were fitted to
other boards of the type know both (`flopray.predict`); what is left is small and smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flopray.errors import FloprayError
from flopray.point import Point
from flopray.predict.prediction import Prediction
from flopray.predict.predictor import Predictor
from flopray.predict.shipped import shipped
from flopray.sweep.objectives import Objective
from flopray.workloads.base import workload_of

#: The roofline has few constants: of a type with few measured shapes it errs less than the learner on its residual.
MODEL = "roofline"
#: A prediction takes 2 to 5 ms; a grid that needs more of them is searched without.
_MOST_PREDICTIONS = 4_000


def prior_of(
    points: Sequence[Point], objectives: Sequence[Objective], predictor: Predictor | None = None
) -> NDArray[np.float64] | None:
    """Objectives of points as fitted models expect them.

    Args:
        points: N points.
        objectives: K of them.
        predictor: default the models that come with flopray.

    Returns:
        Shape (N, K), NaN where no model was fitted to the type of device, the precision, the execution and the kind of
        workload, and in the columns of quantities that models do not give, such as memory. None where all would be NaN,
        or a grid is too large.
    """
    phases = list(dict.fromkeys(objective.phase for objective in objectives))
    predictor = predictor or shipped()
    if len(points) * len(phases) > _MOST_PREDICTIONS:
        return None
    table = np.full((len(points), len(objectives)), math.nan)
    for row, point in enumerate(points):
        if point.device_type not in predictor.device_types:
            continue
        found = {phase: _predicted(predictor, point, phase) for phase in phases}
        flops = {phase: _flops(point, phase) for phase in phases}
        for column, one in enumerate(objectives):
            table[row, column] = _value(one.column, found[one.phase], flops[one.phase])
    return table if np.isfinite(table).any() else None


def _predicted(predictor: Predictor, point: Point, phase: str) -> Prediction | None:
    try:
        found = predictor.predict(point, phase, model=MODEL)
    except FloprayError:
        return None
    return found if found.same_kind else None


def _flops(point: Point, phase: str) -> float:
    """Of one iteration by the closed form; NaN where there is none."""
    try:
        components = workload_of(point).closed_form(point, phase)
    except FloprayError:
        return math.nan
    return float(sum(components.values())) if components else math.nan


def _value(column: str, found: Prediction | None, flops: float) -> float:
    if found is None:
        return math.nan
    time_s, energy_j = found.time_s.value, found.energy_j.value if found.energy_j else math.nan
    known = {
        "time_s": time_s,
        "energy_j": energy_j,
        "power_w": energy_j / time_s,
        "flops_per_s": flops / time_s,
        "flops_per_j": flops / energy_j,
    }
    return known.get(column, math.nan)
