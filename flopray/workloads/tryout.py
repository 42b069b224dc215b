"""Tries the code of a workload at a point on torch's meta device, which needs neither memory nor the point's device.

What fails there fails everywhere, and is reported before anything starts. Imports torch on first use.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from flopray.errors import FloprayError, WorkloadError, brief
from flopray.point import Point
from flopray.workloads.base import KEEPS_ACTIVATIONS, Built, closed_columns, workload_of
from flopray.workloads.capability import why_not
from flopray.workloads.contract import place_of, point_words
from flopray.workloads.llama import Llama
from flopray.workloads.mlp import MLP

_KNOWN = (MLP, Llama)


def is_tried(point: Point) -> bool:
    """Whether the code of a point's workload needs to be tried, and can be; flopray's own workloads are tested."""
    return type(point.workload) not in _KNOWN and not getattr(point.workload, "as_a_whole", False)


def failure_at(point: Point, phases: Sequence[str]) -> FloprayError | None:
    """Why a point cannot be measured in any of its phases, as its rows would say; None where no reason is found.

    Args:
        point: the point.
        phases: that would be measured.
    """
    try:
        _try(point, phases)
    except FloprayError as error:
        return error
    return None


def failures_at(
    points: Sequence[Point], phases: Sequence[str], *, most: int, seconds: float
) -> Iterator[tuple[Point, FloprayError | None]]:
    """Tries some of the points, from all over the grid, except those that are refused anyway.

    Args:
        points: the points.
        phases: that would be measured.
        most: points to try.
        seconds: after which no further point is begun.

    Yields:
        Each point that was tried, with its error.
    """
    until = time.monotonic() + seconds
    for point in _spread(points, most):
        if why_not(point) is None:
            yield point, failure_at(point, phases)
        if time.monotonic() > until:
            return


def _spread(points: Sequence[Point], most: int) -> Iterable[Point]:
    """At most this many, at equal distances, the first and the last one included."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _try(point: Point, phases: Sequence[str]) -> None:
    """Call all methods that run before a measurement, and the module once.

    Raises:
        FloprayError: as the rows of the point would say.
    """
    from flopray.workloads.phases import DTYPES

    workload, dtype = workload_of(point), DTYPES[point.precision]
    built = workload.build(point, device="meta", dtype=dtype, seed=0)
    failed: list[FloprayError] = []
    for phase in phases:
        try:
            workload.least_bytes(point, phase, dtype.itemsize)
            workload.least_moved_bytes(point, phase, dtype.itemsize)
            closed_columns(point, phase)
        except FloprayError as error:
            failed.append(error)
    if len(failed) == len(phases):
        raise failed[0]
    if any(phase in (*KEEPS_ACTIVATIONS, "inference") for phase in phases):
        _call(point, built)


def _call(point: Point, built: Built) -> None:
    """One forward pass, whose shapes and types are checked.

    Raises:
        FloprayError: it fails, and not because there are no numbers.
    """
    import torch

    from flopray.workloads.phases import check_output

    try:
        with torch.no_grad():
            y = built.module(built.x)
    except Exception as error:
        if isinstance(error, NotImplementedError) or "meta" in str(error).lower():
            return  # it reads numbers, and may run where there are some
        what = f"the forward pass of {place_of(point.workload)}"
        raise WorkloadError(what, point_words(point), brief(error)) from error
    check_output(y)
