"""Runs a sweep: hands Tune the search space, moves what trials measured into the journal, and survives an interrupt."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune
from rich.console import Console

from flopray.cluster.connection import NAMESPACE
from flopray.cluster.ray_internals import behind_client
from flopray.errors import FloprayError, resume_command
from flopray.point import Point
from flopray.records import PhaseRecord
from flopray.store.run import RunFolder
from flopray.sweep.counting_plan import Expected
from flopray.sweep.definition import Sweep
from flopray.sweep.failures import failed_records
from flopray.sweep.free_devices import RECORDER_PREFIX, Waiting, waiting_now
from flopray.sweep.head_node_watchdog import HeadNodeWatchdog, end_process
from flopray.sweep.journal_writer import JournalWriterThread, points_are_safe_without_a_cluster
from flopray.sweep.limits import Limits
from flopray.sweep.listener import SweepListener
from flopray.sweep.metrics import linger_s
from flopray.sweep.plan import slabs_of
from flopray.sweep.prediction import count_seconds
from flopray.sweep.process_failures import ProcessFailureCallback
from flopray.sweep.recorder_actor import start_recorder
from flopray.sweep.space import sentinel_of
from flopray.sweep.trial import PointTrial, packed, points_of
from flopray.workloads.base import with_code
from flopray.workloads.registry import point_from, reference_of

#: Times Tune restarts a trial whose actor died, beside those that its points may cost: this bounds broken set-ups.
_TRIAL_RETRIES = 6


def run_sweep(
    sweep: Sweep,
    folder: RunFolder,
    slots: Mapping[str, int],
    progress: SweepListener,
    *,
    finished: Mapping[str, str],
    supersede: bool = False,
    limits: Limits | None = None,
    resume: str | None = None,
    trainable: type[PointTrial] = PointTrial,
) -> None:
    """Measure what the run's journal lacks, on the connected cluster.

    Every finished point is appended to the journal and synced as it comes. An interrupt (KeyboardInterrupt in the main
    thread) stops the sweep after a last look at the recorder and is raised again.

    Args:
        sweep: the run's sweep.
        folder: its folder; this takes its lock.
        slots: devices by type.
        progress: where to show what happens.
        finished: trial ids that need no measuring, with their status.
        supersede: whether a point that is in the journal already may be replaced (to try failed points again).
        limits: when a point or the sweep is given up; None takes the defaults.
        resume: the command that goes on with the run, for messages; None takes `resume_command` of it.
        trainable: what Tune runs; another one than `PointTrial` only to see what orchestration itself costs.

    Raises:
        RunLocked: another process writes this run.
        StorageError: the journal cannot be written; the sweep is stopped.
        FloprayError: the recorder or the cluster was lost.
        SweepStopped: points fail on every device.
        KeyboardInterrupt: after the journal is safe.
    """
    limits, resume = limits or Limits(), resume or resume_command(folder.address)
    with folder.writer() as journal:
        recorder_name = f"{RECORDER_PREFIX}:{folder.name}:{uuid.uuid4().hex[:8]}"
        recorder = start_recorder(folder.name, set(finished), sweep.settings, limits, actor_name=recorder_name)

        def waits() -> Waiting:
            return waiting_now(sweep.cpus_per_trial, list(slots), recorder_name)

        writer = JournalWriterThread(recorder, journal, progress, supersede=supersede, waits=waits, resume=resume)
        writer.tell_waiting()
        shared = sweep_config(sweep, folder.name, recorder_name, limits)

        try:
            with writer, HeadNodeWatchdog(_head_address(), lambda: _leave(progress, resume)):
                trials = _drawn(sweep, folder, finished) if sweep.search == "optuna" else _slabs(sweep, slots, finished)
                _expect(recorder, sweep, slots, trials)
                results = _tuner(trials, folder, shared, limits, trainable).fit()
                if left := _left(sweep, recorder, finished):
                    progress.retried(f"{len(left)} points are tried again: Ray Tune gave their trials up")
                    done = {point.id for point in sweep.points()} - left
                    results = _tuner(_slabs(sweep, slots, done), folder, shared, limits, trainable).fit()
                time.sleep(linger_s())
        finally:
            writer.raise_failure()
        journal.append(_unfinished(sweep, folder.name, results, set(finished) | writer.seen), supersede=supersede)


def _head_address() -> str | None:
    """`host:port` of the cluster's head node; None behind `ray://`."""
    return getattr(ray.get_runtime_context(), "gcs_address", None)


def _leave(progress: SweepListener, resume: str) -> None:
    """End this process, whose calls to the cluster would never return; every reported point is in the journal."""
    progress.__exit__()
    lost = "the sweep lost its cluster (its head node does not answer)"
    message = f"{lost}; {points_are_safe_without_a_cluster(resume)}"
    Console(stderr=True, markup=False).print(f"error: {message}", highlight=False, soft_wrap=True)
    end_process(FloprayError.exit_code)


def sweep_config(sweep: Sweep, run: str, recorder: str, limits: Limits) -> dict[str, Any]:
    """What every trial of a sweep is told besides its points."""
    phase = sweep.settings.phases[0]
    return {
        "run": run,
        "recorder": recorder,
        "namespace": NAMESPACE,
        "settings": sweep.settings.to_dict(),
        "point_timeout_s": limits.point_timeout_s,
        "cpus_per_trial": dict(sweep.cpus_per_trial),
        "placed_by_type": _placed_by_type(sweep.axes["device_type"]),
        "workload": reference_of(with_code(sweep.workload)),
        "implied": {axis: dict(by_value) for axis, by_value in sweep.implied.items()},
        "sentinels": {t: s.fields() for t, s in sentinel_of(sweep.points()).items()},
        "objective": {"name": "objective", "column": sweep.objective, "phase": phase} if sweep.objective else None,
    }


def _placed_by_type(device_types: Sequence[str]) -> list[str]:
    """Types that Ray knows as resources; one that was given by a flag is every GPU of the cluster."""
    known = ray.cluster_resources() if ray.is_initialized() else {}
    return [name for name in device_types if f"accelerator_type:{name}" in known]


@dataclass(frozen=True)
class _Trials:
    """What Tune is to run.

    Attributes:
        space: a trial's configuration, besides what all trials share.
        order: the points as trials begin them; none where a searcher draws them.
        longest: the most points that a trial holds.
        search: what `TuneConfig` takes of a searcher.
    """

    space: dict[str, Any]
    order: list[Point] = field(default_factory=list)
    longest: int = 1
    search: dict[str, Any] = field(default_factory=dict)


def _slabs(sweep: Sweep, slots: Mapping[str, int], done: Collection[str]) -> _Trials:
    """The slabs of a grid without the points that are done, each point with its place in the order."""
    points = sweep.points()
    todo = [point for point in points if point.id not in done]
    has_energy = any(device_type != "CPU" for device_type in slots)
    planned = slabs_of(sweep, todo, slots, has_energy=has_energy)
    packages, index = [], len(points) - len(todo)
    for slab in planned:
        numbered = [{"order_index": index + i, "spec": point.fields()} for i, point in enumerate(slab)]
        packages.append({"device_type": slab[0].device_type, "points": packed(numbered)})
        index += len(slab)
    # Tune queues 200 trials at a time: a slow type would fill the queue while the devices of another one starve.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(max(200, len(packages))))
    return _Trials({"slab": tune.grid_search(packages)}, [p for slab in planned for p in slab], max(map(len, planned)))


def _expect(recorder: Any, sweep: Sweep, slots: Mapping[str, int], trials: _Trials) -> None:
    """Tell the recorder which points will be counted, so that trials count for one another."""
    if "counters" in sweep.settings.instruments:
        expected = [
            Expected(point.id, point.device_type, point.fields(), count_seconds(sweep.settings, point))
            for point in trials.order
        ]
        ray.get(recorder.expect.remote(expected, dict(slots)))


def _drawn(sweep: Sweep, folder: RunFolder, finished: Mapping[str, str]) -> _Trials:
    """Points that a searcher draws, one a trial; it is told what the run's earlier sessions have measured."""
    from flopray.sweep.searchers import DistinctOptuna, key_of

    known = {
        key_of(record.columns(), sweep.axes): getattr(record, str(sweep.objective))
        for record in folder.records()
        if record.trial_id in finished and record.phase == sweep.settings.phases[0]
    }
    axes = {name: tune.choice(list(values)) for name, values in sweep.axes.items()}
    search = {"search_alg": DistinctOptuna(sweep, known), "num_samples": sweep.size - len(finished)}
    return _Trials({"workload": sweep.workload.name, **axes}, search=search)


def _tuner(
    trials: _Trials, folder: RunFolder, shared: dict[str, Any], limits: Limits, trainable: type[PointTrial]
) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        param_space={**trials.space, "sweep": shared},
        tune_config=tune.TuneConfig(
            reuse_actors=True, trial_name_creator=_trial_name, trial_dirname_creator=_trial_name, **trials.search
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=_tune_storage(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_TRIAL_RETRIES + (1 + limits.retries) * trials.longest),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[ProcessFailureCallback(shared["recorder"])],
        ),
    )


def _tune_storage(folder: RunFolder) -> str:
    """Where Tune keeps its own files, which are never read: behind `ray://` it runs on another machine."""
    if behind_client():
        return f"/tmp/flopray-tune/{folder.name}-{uuid.uuid4().hex[:8]}"
    return str(folder.tune_path.resolve())


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.trial_id}"


def _left(sweep: Sweep, recorder: Any, finished: Mapping[str, str]) -> set[str]:
    """Points of the grid that are not finished although Tune is done.

    A process that dies while it is handed its next slab ends that slab's trial without the retries that Tune was told
    of (`TuneController._process_trial_failure` of Ray 2.60 retries running trials only).
    """
    if sweep.search == "optuna":  # which draws as many points as it was asked for
        return set()
    return ray.get(recorder.unfinished.remote([p.id for p in sweep.points() if p.id not in finished]))


def _unfinished(sweep: Sweep, run: str, results: tune.ResultGrid, seen: set[str]) -> list[list[PhaseRecord]]:
    """Rows for the points of trials that Tune gave up on: a failed point stays visible."""
    rows = []
    for result in results:
        if result.error is None or not result.config:
            continue
        reason = f"the trial could not run: {(str(result.error).strip().splitlines() or ['unknown'])[-1]}"
        for _, fields in points_of(result.config):
            spec = point_from(fields, with_code(sweep.workload))
            if spec.id not in seen:
                rows.append(failed_records(spec, sweep.settings, run, reason))
                seen.add(spec.id)
    unseen = [p for p in sweep.points() if p.id not in seen] if sweep.search != "optuna" else []
    reason = "Ray Tune gave its trial up, twice, before it began"
    return rows + [failed_records(spec, sweep.settings, run, reason) for spec in unseen]
