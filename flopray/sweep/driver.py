"""Runs a sweep: hands Tune the search space, moves measured points into the journal, and ends well on an interrupt."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.logger import LoggerCallback
from rich.console import Console

from flopray.cluster.connection import NAMESPACE
from flopray.cluster.ray_internals import behind_client
from flopray.errors import FloprayError, resume_command
from flopray.measurement.start_up import StartUp
from flopray.records import PhaseRecord
from flopray.store.atomic import reason
from flopray.store.run import RunFolder
from flopray.store.tune_experiment import next_session, sessions_in
from flopray.sweep.counting_plan import Expected
from flopray.sweep.definition import Sweep
from flopray.sweep.failures import failed_records
from flopray.sweep.free_devices import RECORDER_PREFIX, Waiting, waiting_now
from flopray.sweep.head_node_watchdog import HeadNodeWatchdog, end_process
from flopray.sweep.journal_writer import JournalWriterThread, points_are_safe_without_a_cluster
from flopray.sweep.limits import Limits
from flopray.sweep.listener import SweepListener
from flopray.sweep.metrics import linger_s
from flopray.sweep.prediction import count_seconds
from flopray.sweep.process_failures import ProcessFailureCallback
from flopray.sweep.recorder_actor import start_recorder
from flopray.sweep.space import sentinel_of
from flopray.sweep.stored_loggers import StoredCsv, StoredJson
from flopray.sweep.trial import Config, PointTrial, bound
from flopray.sweep.trial_statistics import NoMovingAverages
from flopray.sweep.trials import Trials, trials_of
from flopray.sweep.tune_sessions import add_missing
from flopray.units import counted
from flopray.workloads.base import with_code
from flopray.workloads.registry import reference_of

if TYPE_CHECKING:  # imported only where a run has loggers
    from flopray.sweep.loggers import Loggers

#: How often Tune restarts a trial whose actor ended, besides the restarts for its points: this bounds broken set-ups.
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
    loggers: Loggers | None = None,
    start_up: StartUp | None = None,
) -> None:
    """Measure what the run's journal lacks, on the connected cluster.

    Every finished point is appended to the journal and synced as it comes. An interrupt (KeyboardInterrupt in the main
    thread) stops the sweep after the recorder is drained once more, and is raised again.

    Args:
        sweep: the run's sweep.
        folder: its folder; this takes its lock.
        slots: devices by type.
        progress: where to show what happens.
        finished: trial ids that need no measuring, with their status.
        supersede: whether a point that is in the journal already may be replaced (to try failed points again).
        limits: when a point or the sweep is abandoned; None takes the defaults.
        resume: the command that goes on with the run, for messages; None takes `resume_command` of it.
        trainable: what Tune runs; another one than `PointTrial` only to see what orchestration itself costs.
        loggers: get every result, besides Tune's own files; None where there are none.
        start_up: of the command so far; None begins here.

    Raises:
        RunLocked: another process writes this run.
        StorageError: the journal cannot be written; the sweep is stopped.
        FloprayError: the recorder or the cluster was lost.
        SweepStopped: points fail on every device.
        KeyboardInterrupt: after the journal is safe.
    """
    limits, resume = limits or Limits(), resume or resume_command(folder.address)
    start_up = start_up or StartUp()
    with folder.writer() as journal:
        _reconcile(sweep, folder, loggers, progress)
        recorder_name = f"{RECORDER_PREFIX}:{folder.name}:{uuid.uuid4().hex[:8]}"
        recorder = start_recorder(
            folder.name, set(finished), sweep.settings, limits, actor_name=recorder_name, about=_about(sweep)
        )

        def waits() -> Waiting:
            return waiting_now(sweep.cpus_per_trial, list(slots), recorder_name)

        writer = JournalWriterThread(
            recorder, journal, progress, supersede=supersede, waits=waits, resume=resume, start_up=start_up
        )
        writer.tell_waiting()
        start_up.mark("recorder")
        shared = sweep_config(sweep, folder.name, recorder_name, limits)

        def tell() -> list[LoggerCallback]:
            if loggers is None:
                return []
            from flopray.sweep.tune_loggers import callbacks  # only where there are some

            return callbacks(loggers, sweep, folder.schema.fields, recorder_name)

        try:
            with writer, HeadNodeWatchdog(_head_address(), lambda: _leave(progress, resume)):
                trials = trials_of(sweep, folder, slots, finished)
                _expect(recorder, sweep, slots, trials)
                results = _tuner(trials, folder, shared, limits, trainable, tell()).fit()
                if left := _left(sweep, recorder, finished):
                    progress.retried(
                        f"{counted(len(left), 'point is', 'points are')} tried again: Ray Tune abandoned their trials"
                    )
                    done = {point.id for point in sweep.points()} - left
                    trials = trials_of(sweep, folder, slots, done)
                    results = _tuner(trials, folder, shared, limits, trainable, tell()).fit()
                time.sleep(linger_s())
        finally:
            writer.raise_failure()
        seen = set(finished) | writer.seen
        given_up = _unfinished(sweep, folder.name, trials, results, shared, seen)
        journal.append(given_up, supersede=supersede)
        _reconcile(sweep, folder, loggers, progress)
    _complete(sweep, folder, seen | {records[0].trial_id for records in given_up}, progress)


def _reconcile(sweep: Sweep, folder: RunFolder, loggers: Loggers | None, progress: SweepListener) -> None:
    """Make MLflow agree with the journal, before this session and after it."""
    if loggers and "mlflow" in loggers.names:
        from flopray.sweep.mlflow_reconciliation import reconcile_or_tell  # MLflow is an extra

        reconcile_or_tell(folder, sweep, loggers, progress.notice)


def _complete(sweep: Sweep, folder: RunFolder, journaled: set[str], progress: SweepListener) -> None:
    """Give each journaled point a result of Tune, also those of earlier sessions that were killed."""
    sessions = sessions_in(folder.tune_path)
    if not sessions:  # behind `ray://`, Tune's files are on another machine
        return
    try:
        add_missing(folder, sessions[-1].name, sweep.settings.phases, journaled)
    except (OSError, FloprayError) as error:
        progress.notice(f"Tune's results lack points that the journal has: {reason(error)}")


def _about(sweep: Sweep) -> str:
    """What a sweep is, in a line for the dashboard."""
    what = f"{counted(sweep.size, 'point')} of {sweep.workload.name} on {', '.join(sweep.axes['device_type'])}"
    return f"{what}; {' '.join(sweep.settings.phases)}; {' '.join(sweep.settings.instruments)}"


def _head_address() -> str | None:
    """`host:port` of the cluster's head node; None behind `ray://`."""
    return getattr(ray.get_runtime_context(), "gcs_address", None)


def _leave(progress: SweepListener, resume: str) -> None:
    """End this process, whose calls to the cluster would never return; every reported point is in the journal."""
    progress.__exit__()
    lost = "the sweep lost its cluster (its head node does not answer)"
    message = f"{lost}; {points_are_safe_without_a_cluster(resume)}"
    Console(stderr=True, markup=False, emoji=False).print(f"error: {message}", highlight=False, soft_wrap=True)
    end_process(FloprayError.exit_code)


def sweep_config(sweep: Sweep, run: str, recorder: str, limits: Limits) -> Config:
    """What every trial of a sweep gets besides its points."""
    return {
        "run": run,
        "recorder": recorder,
        "namespace": NAMESPACE,
        "settings": sweep.settings.to_dict(),
        "point_timeout_s": limits.point_timeout_s,
        "cpus_per_trial": dict(sweep.cpus_per_trial),
        "placed_by_type": placed_by_type(sweep.axes["device_type"]),
        "workload": reference_of(with_code(sweep.workload)),
        "implied": {axis: dict(by_value) for axis, by_value in sweep.implied.items()},
        "sentinels": {t: s.fields() for t, s in sentinel_of(sweep.points()).items()},
    }


def placed_by_type(device_types: Sequence[str]) -> list[str]:
    """Types that Ray knows as resources; one that was given by a flag is every GPU of the cluster."""
    known = ray.cluster_resources() if ray.is_initialized() else {}
    return [name for name in device_types if f"accelerator_type:{name}" in known]


def _expect(recorder: Any, sweep: Sweep, slots: Mapping[str, int], trials: Trials) -> None:
    """Tell the recorder which points will be counted, so that trials count for one another."""
    if "counters" in sweep.settings.instruments:
        expected = [
            Expected(point.id, point.device_type, point.fields(), count_seconds(sweep.settings, point))
            for point in trials.order
        ]
        ray.get(recorder.expect.remote(expected, dict(slots)))


def _tuner(
    trials: Trials,
    folder: RunFolder,
    shared: Config,
    limits: Limits,
    trainable: type[PointTrial],
    loggers: Sequence[LoggerCallback] = (),
) -> tune.Tuner:
    return tune.Tuner(
        bound(trainable, shared),
        param_space=trials.space,
        tune_config=tune.TuneConfig(
            reuse_actors=True, trial_name_creator=_trial_name, trial_dirname_creator=_trial_name, **trials.search
        ),
        run_config=tune.RunConfig(
            name=next_session(folder.tune_path),
            storage_path=_tune_storage(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_TRIAL_RETRIES + (1 + limits.retries) * trials.longest),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[
                ProcessFailureCallback(shared["recorder"]),
                StoredJson(recorder=shared["recorder"]),
                StoredCsv(recorder=shared["recorder"]),
                *([NoMovingAverages()] if trials.slabs else []),
                *loggers,
            ],
        ),
    )


def _tune_storage(folder: RunFolder) -> str:
    """Where Tune keeps its own files; behind `ray://` it runs on another machine, and they stay there."""
    if behind_client():
        return f"/tmp/flopray-tune/{folder.name}-{uuid.uuid4().hex[:8]}"
    return str(folder.tune_path.resolve())


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.trial_id}"


def _left(sweep: Sweep, recorder: Any, finished: Mapping[str, str]) -> set[str]:
    """Points of the grid that are not finished although Tune is done.

    A process that ends while it is handed its next slab ends that slab's trial without the retries that Tune was told
    of (`TuneController._process_trial_failure` of Ray 2.60 retries running trials only).
    """
    if sweep.is_drawn:  # a searcher draws as many points as it was asked for
        return set()
    return ray.get(recorder.unfinished.remote([p.id for p in sweep.points() if p.id not in finished]))


def _unfinished(
    sweep: Sweep, run: str, trials: Trials, results: tune.ResultGrid, shared: Config, seen: set[str]
) -> list[list[PhaseRecord]]:
    """Rows for the points of trials that Tune abandoned: a failed point stays visible."""
    rows = []
    for result in results:
        if result.error is None or not result.config:
            continue
        why = f"the trial could not run: {(str(result.error).strip().splitlines() or ['unknown'])[-1]}"
        for point in trials.points_of(result.config, shared):
            if point.id not in seen:
                rows.append(failed_records(point, sweep.settings, run, why))
                seen.add(point.id)
    unseen = [p for p in sweep.points() if p.id not in seen] if not sweep.is_drawn else []
    why = "Ray Tune abandoned its trial twice before it began"
    return rows + [failed_records(spec, sweep.settings, run, why) for spec in unseen]
