"""Makes MLflow agree with the journal: each point has one run, with the journal's values.

A driver that was killed leaves runs without a point, points without a run, and runs of measurements that never reached
the journal, which were made again. The journal is the source of truth. Only runs with the tag of this run are touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient

from flopray.records import PhaseRecord
from flopray.store.run import RunFolder
from flopray.store.tune_results import POINT, POINT_ID, STATUS, Result, ResultFormat
from flopray.sweep.definition import Sweep
from flopray.sweep.loggers import Loggers, varied_axes
from flopray.sweep.mlflow_logger import (
    MEASUREMENT,
    TRIAL,
    Content,
    client_of,
    ended_status,
    experiment_id,
    log,
    logged_runs,
    measurement_of,
)
from flopray.sweep.never_fatal import reason

_RUNNING = "RUNNING"


@dataclass(frozen=True)
class Reconciled:
    """What was corrected in MLflow.

    Attributes:
        added: points that had no run.
        deleted: runs without a point of the journal, and second ones.
        ended: runs that were still open.
    """

    added: int = 0
    deleted: int = 0
    ended: int = 0

    def __str__(self) -> str:
        """In words; empty where nothing was wrong."""
        parts = {"added": self.added, "deleted": self.deleted, "ended": self.ended}
        return ", ".join(f"{count} {what}" for what, count in parts.items() if count)


def reconcile(folder: RunFolder, sweep: Sweep, loggers: Loggers) -> Reconciled:
    """Add, delete and end runs of MLflow until they are those of the journal's points.

    Slabs are not reconciled: a run of several points has no point's id. Those that a killed driver left are ended.

    Args:
        folder: the run; nothing else may write it meanwhile.
        sweep: its sweep.
        loggers: of the run.

    Raises:
        MlflowException: the server failed; what was done so far stays.
    """
    client = client_of(loggers)
    experiment = experiment_id(client, loggers.experiment)
    content = Content(loggers, folder.schema.fields, varied_axes(sweep))
    left: dict[str, list[Any]] = defaultdict(list)
    ended = 0
    for run in logged_runs(client, experiment, loggers.run_id):
        if run.data.tags.get(TRIAL) == content.shape:
            left[run.data.tags.get(POINT_ID, "")].append(run)
        elif run.info.status == _RUNNING:
            client.set_terminated(run.info.run_id, status="KILLED")
            ended += 1
    if sweep.trial_shape != content.shape:
        return Reconciled(ended=ended)
    results = ResultFormat(folder.schema, sweep.settings.phases)
    added = 0
    for records in folder.points():
        result = results.flat([records])
        runs = left[result[POINT_ID]]
        kept = next((run for run in runs if run.data.tags.get(MEASUREMENT) == measurement_of(result)), None)
        if kept is None:
            _add(client, experiment, content, result, records)
            added += 1
            continue
        runs.remove(kept)
        if kept.info.status == _RUNNING:
            client.set_terminated(
                kept.info.run_id, status=ended_status(result[STATUS]), end_time=_ms(_times(records)[1])
            )
            ended += 1
    surplus = [run for runs in left.values() for run in runs]
    for run in surplus:  # last: for a moment a point is there twice rather than not at all
        client.delete_run(run.info.run_id)
    return Reconciled(added, len(surplus), ended)


def reconcile_or_tell(folder: RunFolder, sweep: Sweep, loggers: Loggers, tell: Callable[[str], None]) -> bool:
    """`reconcile`; whether it corrected anything. A server that fails is reported, and the next resume tries again."""
    try:
        found = str(reconcile(folder, sweep, loggers))
    except Exception as error:  # of a server, a network or a store
        tell(f"MLflow may lack points of the journal until the next resume: {reason(error)}")
        return False
    if found:
        tell(f"MLflow's runs now agree with the journal: {found}")
    return bool(found)


def _add(
    client: MlflowClient, experiment: str, content: Content, result: Result, records: Sequence[PhaseRecord]
) -> None:
    """A run as `MLflowRuns` would have made it."""
    fields = {key.removeprefix(f"{POINT}/"): value for key, value in result.items() if key.startswith(f"{POINT}/")}
    started, ended = _times(records)
    name = content.name(fields) or str(result[POINT_ID])
    run = client.create_run(experiment, start_time=_ms(started), tags=content.tags(), run_name=name)
    told = {"params": content.params(result), "tags": content.point_tags(result)}
    log(client, run.info.run_id, content.metrics(result), step=1, unix_s=ended, **told)
    client.set_terminated(run.info.run_id, status=ended_status(result[STATUS]), end_time=_ms(ended))


def _times(records: Sequence[PhaseRecord]) -> tuple[float, float]:
    """When the point began and ended; 0 where no phase of it was measured."""
    starts = [r.started_unix_s for r in records if r.started_unix_s is not None]
    ends = [r.ended_unix_s for r in records if r.ended_unix_s is not None]
    return min(starts, default=0.0), max([*ends, *starts], default=0.0)


def _ms(unix_s: float) -> int:
    return int(unix_s * 1000)
