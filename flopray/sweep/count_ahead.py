"""Counts for a trial before it measures: what the recorder says, its own points and later ones, in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ray

from flopray.point import Point
from flopray.sweep.counting_plan import Claim, Counts
from flopray.workloads.base import workload_of
from flopray.workloads.registry import point_from

if TYPE_CHECKING:  # imports torch
    from flopray.measurement.profiler import Profiler


def count_ahead(
    profiler: Profiler, recorder: Any, trial: str, points: Sequence[Point], tell: Callable[[Point], object]
) -> list[str]:
    """Count the points of a trial and later ones, and hand over what others will measure.

    Args:
        profiler: of the trial's device.
        recorder: the actor.
        trial: Tune's id of the trial.
        points: of the trial that are left.
        tell: called with each point that begins.

    Returns:
        Lines for the log: what each ncu process took.
    """
    counting = profiler.counting
    if counting is None:
        return []
    ids = [point.id for point in points]
    claim: Claim = ray.get(recorder.claim_counting.remote(trial, profiler.environment, ids))
    for point_id, counts in claim.counted.items():
        counting.take(point_id, dict(counts.phases), counts.ncu_version)
    own = [point for point in points if point.id in claim.own]
    others = [point_from(dict(fields), workload_of(points[0])) for fields in claim.others]
    if not own:
        return []
    profiler.count_ahead([*own, *others], tell)
    given = {point.id: found for point in others if (found := counting.give(point.id))}
    handed_over = {point_id: Counts(phases, version) for point_id, (phases, version) in given.items()}
    ray.get(recorder.counted.remote(trial, profiler.environment, handed_over))
    return [str(seconds) for seconds in counting.seconds]
