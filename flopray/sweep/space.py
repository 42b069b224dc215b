"""From a grid to points, and from points to the slabs that Tune schedules.

A slab is one Tune trial: neighbouring points of one device type, precision and execution, as many as make the trial
last well above an actor's start. Scheduling a trial costs Tune 14 to 60 ms and keeps state in the driver, so one point
a trial does not scale; one slab of everything would leave other devices idle.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flopray.description import Description
from flopray.errors import FloprayError
from flopray.point import EXECUTIONS, PRECISIONS, Point
from flopray.settings import Setting
from flopray.workloads.base import workload_of
from flopray.workloads.mlp import MLP

#: A trial should last at least about three times an actor's start (up to 10 s with a CUDA context), but not longer than
#: a user is willing to lose.
TRIAL_SECONDS = (20.0, 120.0)
#: More trials than this cost Tune's driver more than they gain: for each it copies the list of all of them, and keeps a
#: result of some hundred values with their statistics.
MAX_TRIALS = 250
#: Axes of every workload, in order. Their defaults follow from the workload and the devices.
COMMON = {
    "device_type": Setting(
        name="device_type",
        doc="device types to sweep, such as H100 or CPU (default every GPU type, CPU if there is none)",
        many=True,
        noun="type",
        flag="--accelerators",
        metavar="TYPE",
    ),
    "precision": Setting(
        name="precision", doc="{choices} (default {default})", many=True, choices=PRECISIONS, metavar="P"
    ),
    "execution": Setting(
        name="execution", doc="{choices} (default {default})", many=True, choices=EXECUTIONS, metavar="E"
    ),
}
COMMON_AXES = tuple(COMMON)
#: Trials a device should get at least, where points are long enough, so that devices finish together.
_TRIALS_PER_SLOT = 4
#: Digits of Sobol's sequence, and how far it is followed: after that, cells of a large grid are drawn at random.
_SOBOL_BITS = 30
_SOBOL_BLOCK, _SOBOL_BLOCKS = 256, 64


def grid(
    workload: Description,
    axes: Mapping[str, Sequence[Any]],
    implied: Mapping[str, Mapping[Any, Mapping[str, Any]]] | None = None,
) -> list[Point]:
    """Every combination of the axes as points, the last axis fastest.

    Args:
        workload: as in `Point`.
        axes: values by the name of `Point`'s fields.
        implied: by axis and value, further fields that follow from it.

    Returns:
        The points; as many as the product of the axes' lengths.

    Raises:
        SpecError: a combination that is not a point.
    """
    common = [name for name in axes if name in COMMON_AXES]
    own = [name for name in axes if name not in COMMON_AXES]
    names = [*common, *own]
    follow = [(name, by_value) for name, by_value in (implied or {}).items() if name in axes]
    points = []
    for chosen in itertools.product(*(axes[name] for name in names)):
        values = dict(zip(own, chosen[len(common) :], strict=True))
        for name, by_value in follow:
            values |= by_value.get(values[name], {})
        heads = dict(zip(common, chosen, strict=False))
        points.append(Point(workload=workload, values=values, **heads))
    return points


def spread(axes: Mapping[str, Sequence[Any]], samples: int, seed: int) -> set[tuple[Any, ...]]:
    """Shapes that fill a grid evenly: few points with many values of each axis and of each pair of axes.

    Points of Sobol's sequence (https://doi.org/10.1016/0041-5553(67)90144-9), shifted digit by digit as the seed says,
    fall into the cells of the grid by the rank of its values. So the values of an axis decide the density: 128 256 512
    1024 fills a logarithmic scale. A cell that was hit before is left out and the sequence goes on.

    Args:
        axes: values of each dimension.
        samples: how many shapes; at most all of the grid.
        seed: of the shift. The same axes and seed give the same shapes, with more samples these and further ones.

    Example:
        >>> sorted(spread({"width": (128, 256, 512, 1024), "tokens": (16, 64, 256, 1024)}, 4, seed=0))
        [(128, 16), (256, 1024), (512, 256), (1024, 64)]
    """
    from scipy.stats.qmc import Sobol  # slow to import, and needed by this search only

    values = [sorted(axis) for axis in axes.values()]
    size = math.prod(len(axis) for axis in values)
    shift = random.Random(seed)
    shifts = [shift.getrandbits(_SOBOL_BITS) for _ in values]
    sequence = Sobol(len(values), scramble=False, bits=_SOBOL_BITS)
    found: dict[tuple[Any, ...], None] = {}
    for _ in range(_SOBOL_BLOCKS):
        for position in sequence.random(_SOBOL_BLOCK):
            digits = [int(u * 2**_SOBOL_BITS) ^ s for u, s in zip(position, shifts, strict=True)]
            shape = tuple(axis[d * len(axis) >> _SOBOL_BITS] for axis, d in zip(values, digits, strict=True))
            found[shape] = None
            if len(found) == min(samples, size):
                return set(found)
    rest = [shape for shape in itertools.product(*values) if shape not in found]
    shift.shuffle(rest)
    return {*found, *rest[: min(samples, size) - len(found)]}


def slabs(
    points: Sequence[Point],
    *,
    seconds: Callable[[Point], float],
    slots: Mapping[str, int],
    seed: int | None,
    points_per_trial: int | None = None,
) -> list[list[Point]]:
    """Pack points into trials.

    Args:
        points: what is left to measure, in grid order (neighbours next to one another).
        seconds: predicted device time of a point.
        slots: devices by type, which bounds how far work is split.
        seed: of both shuffles; the same seed and points give the same slabs. None shuffles nothing and keeps rows of
            one width together, whose layers share their kernels: for counting, which heat does not change.
        points_per_trial: fixed number of points, instead of one from the prediction.

    Returns:
        Slabs of whole rows (the last dimension varies) that are drawn from all over the grid, in a shuffled order and
        with their points shuffled too, so that heat and drift do not follow an axis.
    """
    order = random.Random(seed or 0)
    totals: dict[str, float] = {}
    for point in points:
        totals[point.device_type] = totals.get(point.device_type, 0.0) + seconds(point)
    packed: list[list[Point]] = []
    for (device_type, _, _), rows in _rows(points).items():
        if seed is None:
            rows.sort(key=lambda row: tuple(reversed(tuple(row[0].shape().values())[:-1])))
        else:
            order.shuffle(rows)
        # A trial that counts starts Nsight Compute, which takes as long as counting many points: as few trials as
        # possible.
        trials = (1 if seed is None else _TRIALS_PER_SLOT) * max(1, slots.get(device_type, 1))
        share = totals[device_type] / trials
        most = max(MAX_TRIALS, _TRIALS_PER_SLOT * sum(slots.values()))
        longest = max(TRIAL_SECONDS[1], sum(totals.values()) / most)
        target = max(share / math.ceil(share / longest), TRIAL_SECONDS[0])
        packed.extend(_pack([point for row in rows for point in row], seconds, target, points_per_trial))
    if seed is not None:
        for slab in packed:
            order.shuffle(slab)
        order.shuffle(packed)
    return packed


def _rows(points: Sequence[Point]) -> dict[tuple[str, str, str], list[list[Point]]]:
    """Points by what a slab must share, as rows along the last dimension of the shape."""
    rows: dict[tuple[str, str, str], dict[tuple[Any, ...], list[Point]]] = {}
    for point in points:
        kind = (point.device_type, point.precision, point.execution)
        choices = tuple(point.values[f.name] for f in point.workload.choices)
        row = (*choices, *tuple(point.shape().values())[:-1])
        rows.setdefault(kind, {}).setdefault(row, []).append(point)
    return {kind: list(by_row.values()) for kind, by_row in rows.items()}


def _pack(
    group: Sequence[Point], seconds: Callable[[Point], float], target_s: float, fixed: int | None
) -> list[list[Point]]:
    """Cut a sequence of neighbours into pieces of about the target's length."""
    pieces: list[list[Point]] = [[]]
    filled_s = 0.0
    for point in group:
        full = len(pieces[-1]) >= fixed if fixed else pieces[-1] and filled_s + seconds(point) > target_s * (1 + 1e-9)
        if full:
            pieces.append([])
            filled_s = 0.0
        pieces[-1].append(point)
        filled_s += seconds(point)
    return pieces


def sentinel_of(points: Sequence[Point]) -> dict[str, Point]:
    """The point to re-measure on each device type: the middle one of the grid's order.

    A middle point is not so small that it only measures launches, nor so large that it costs a minute. On a GPU it
    runs as a CUDA graph whatever the sweep does, so that it shows drift of the device and not of Python's launches.
    """
    by_type: dict[str, list[Point]] = {}
    for point in points:
        by_type.setdefault(point.device_type, []).append(point)
    middles = {device_type: group[len(group) // 2] for device_type, group in by_type.items()}
    middles = {t: _stated_sentinel(point) or _small(point) for t, point in middles.items()}
    return {t: point if t == "CPU" else dataclasses.replace(point, execution="graph") for t, point in middles.items()}


def _stated_sentinel(point: Point) -> Point | None:
    try:
        return workload_of(point).sentinel(point)
    except FloprayError:  # the sentinel's rows are not of the user's points
        return None


def _small(point: Point) -> Point:
    """An MLP in place of a large model: the device drifts the same, and the sentinel is quickly built."""
    return small_point(point.device_type, point.precision, point.execution)


def small_point(device_type: str, precision: str = "fp32", execution: str = "eager") -> Point:
    """An MLP that any device runs in milliseconds."""
    shape = MLP(n_layers=8, width=1024, tokens=128)
    return shape.point(device_type=device_type, precision=precision, execution=execution)
