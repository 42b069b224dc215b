"""MLflow: a run for each trial of Tune; each result is sent in one request, by a thread that nothing waits for.

Tune's own callback sends a request for each metric, of which a point has hundreds, and Tune waits for each of them.
https://docs.ray.io/en/latest/tune/examples/tune-mlflow.html
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from ray.air.integrations.mlflow import MLflowLoggerCallback

from flopray.errors import SettingError
from flopray.mappings import Arguments
from flopray.records import Status
from flopray.store.redaction import redacted
from flopray.store.tune_results import FINDINGS, POINT, POINT_ID, POINTS, STATUS, WORKLOAD, Result
from flopray.sweep.loggers import name_of
from flopray.sweep.never_fatal import NeverFatal, reason
from flopray.sweep.space import COMMON_AXES
from flopray.sweep.trial import readable

if TYPE_CHECKING:
    from flopray.sweep.loggers import Loggers

#: Tags by which a run of flopray finds what it has logged, and the measurement that an entry is of.
RUN, RUN_ID, TRIAL, MEASUREMENT = "flopray_run", "flopray_run_id", "flopray_trial", "flopray_measurement"
#: The client tries for minutes by default; `setdefault` keeps values that a user has set.
#: https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
#: The client prints two lines for each run that ends.
_QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
#: Limits of one request: 1,000 values, of them 100 parameters and 100 tags.
_METRICS, _WORDS = 800, 100
#: Seconds without requests after a server failed; what is not sent meanwhile is added when the session ends.
_PAUSE_S = 20.0
#: Most seconds of sending at the end of a session; the rest is added from the journal.
_FLUSH_S, _LAST_S = 30.0, 5.0


class NoAnswer(SettingError):
    """MLflow's server does not answer; a run that has begun can do without it for now."""


def client_of(loggers: Loggers) -> MlflowClient:
    """A client with short timeouts, which prints nothing."""
    for name, value in (_IMPATIENCE | _QUIET).items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it reports the tables that it makes
    return MlflowClient(tracking_uri=loggers.reachable_uri())


def check_server(loggers: Loggers) -> None:
    """Refuse a server that does not answer, or whose experiment was deleted.

    Raises:
        NoAnswer, InputError: the line names the server.
    """
    where = f"<log_to> mlflow: {redacted(loggers.tracking_uri)}"
    try:
        found = client_of(loggers).get_experiment_by_name(loggers.experiment)
    except Exception as error:  # of the client, of SQLAlchemy, or of a plug-in for another kind of store
        remedy = f"set MLFLOW_TRACKING_URI to a server that does ({reason(error)})"
        raise NoAnswer(f"{where} does not answer: {remedy}") from error
    if found is not None and found.lifecycle_stage != "active":
        remedy = "restore it, or set MLFLOW_EXPERIMENT_NAME"
        raise SettingError(f"{where} has deleted the experiment {loggers.experiment!r}: {remedy}")


def experiment_id(client: MlflowClient, name: str) -> str:
    """The id of an experiment, which is made where it is missing.

    Raises:
        MlflowException: the server failed.
    """
    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    try:
        return client.create_experiment(name)
    except MlflowException:  # another sweep made it at the same moment
        if found := client.get_experiment_by_name(name):
            return found.experiment_id
        raise


@dataclass(frozen=True)
class Content:
    """The content that MLflow gets of trials and results.

    Attributes:
        loggers: of the run.
        fields: of its points.
        varied: axes that a trial is called by.
        shape: what a trial is, `point` or `slab`.
    """

    loggers: Loggers
    fields: Sequence[str]
    varied: Sequence[str]
    shape: str = "point"
    _own: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_own", frozenset({"workload", *COMMON_AXES, *self.fields}))

    def name(self, fields: Mapping[str, Any]) -> str:
        """Name of a run."""
        return name_of(fields, self.varied)

    def tags(self) -> dict[str, str]:
        """The tags that a run begins with."""
        return {RUN: self.loggers.run, RUN_ID: self.loggers.run_id, TRIAL: self.shape}

    def metrics(self, result: Mapping[str, Any]) -> dict[str, float]:
        """The numbers of all phases, and of how many points they are; those that are missing are left out."""
        return {
            key: float(value)
            for key, value in result.items()
            if (key == POINTS or _is_of_a_phase(key)) and isinstance(value, int | float) and math.isfinite(value)
        }

    def params(self, result: Mapping[str, Any]) -> dict[str, str]:
        """The fields of the result's point."""
        found = {name: result.get(f"{POINT}/{name}") for name in self._own}
        return {name: str(value) for name, value in found.items() if not _is_missing(value)}

    def point_tags(self, result: Mapping[str, Any]) -> dict[str, str]:
        """Further texts of the result's point; its id comes last, as the mark of a complete run."""
        tags = {}
        for key, value in result.items():
            where, _, name = key.rpartition("/")
            if where == POINT and name not in (*self._own, "run") and key != WORKLOAD and not _is_missing(value):
                tags[name] = str(value)
            elif _is_of_a_phase(key) and isinstance(value, str) and value:
                tags[key] = value
        tags |= {STATUS: str(result[STATUS]), FINDINGS: str(result[FINDINGS])}
        return {**tags, MEASUREMENT: measurement_of(result), POINT_ID: str(result[POINT_ID])}


def measurement_of(result: Mapping[str, Any]) -> str:
    """Distinguishes measurements of a point, such as one that never reached the journal from the one that did."""
    started = [value for key, value in result.items() if key.endswith("/started_unix_s") and not _is_missing(value)]
    return f"{result[STATUS]} {min(started, default='')!r}"


def ended_status(status: str) -> str:
    """MLflow's word for the end of a run whose point has a status."""
    return "FAILED" if status == Status.FAILED else "FINISHED"


def log(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, float],
    *,
    step: int,
    unix_s: float,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Send a result, in one request unless it is larger than any of a built-in workload; tags go last.

    Raises:
        MlflowException: the server failed.
    """
    numbers = [Metric(key, value, int(unix_s * 1000), step) for key, value in metrics.items()]
    fields = [Param(key, value) for key, value in (params or {}).items()]
    words = [RunTag(key, value) for key, value in (tags or {}).items()]
    batches = max(math.ceil(len(numbers) / _METRICS), math.ceil(len(fields) / _WORDS), math.ceil(len(words) / _WORDS))
    for number in range(batches):
        end = max(0, len(words) - (batches - number - 1) * _WORDS)  # the last batch has the last tags
        client.log_batch(
            run_id,
            metrics=numbers[number * _METRICS : (number + 1) * _METRICS],
            params=fields[number * _WORDS : (number + 1) * _WORDS],
            tags=words[max(0, end - _WORDS) : end],
        )


class Sender:
    """Sends requests in order, in a thread of its own; while the server fails, they are dropped.

    Args:
        failed: called, in the thread, with what a request raised.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed, self._paused_until = failed, 0.0
        self._requests: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._over = False
        self._thread = threading.Thread(target=self._loop, name="flopray-mlflow", daemon=True)
        self._thread.start()

    def send(self, request: Callable[[], None]) -> None:
        """Queue a request."""
        self._requests.put(request)

    def finish(self, within_s: float = _FLUSH_S) -> None:
        """Wait until all is sent, for some seconds at most; the rest is dropped."""
        self._requests.put(None)
        self._thread.join(within_s)
        self._over = True
        self._thread.join(min(within_s, _LAST_S))  # for the request that is under way

    def _loop(self) -> None:
        while (request := self._requests.get()) is not None:
            if self._over or time.monotonic() < self._paused_until:
                continue
            try:
                request()
            except Exception as error:  # of a server, a network or a store
                self._paused_until = time.monotonic() + _PAUSE_S
                self._failed(error)


class MLflowRuns(NeverFatal, MLflowLoggerCallback):
    """A run of MLflow for each trial. It appears when the trial begins, and has its point's id once it is measured.

    Args:
        loggers: of the run.
        content: what MLflow is told.
        recorder: name of the recorder's actor.
    """

    title = "MLflow"
    remedy = "the end of the session, or a resume, adds them"

    def __init__(self, loggers: Loggers, content: Content, *, recorder: str) -> None:
        super().__init__(
            recorder=recorder, tracking_uri=loggers.tracking_uri, experiment_name=loggers.experiment, tags={}
        )
        self._loggers, self._content = loggers, content

    def setup(self, *_: Any, **__: Any) -> None:
        """Begin to send; unlike Tune's own this leaves the process's global server and experiment alone."""
        self._client = client_of(self._loggers)
        self._sender, self._experiment = Sender(self.failed), ""
        self._trial_runs: dict[str, str] = {}
        self._statuses: dict[str, str] = {}

    def log_trial_start(self, trial: Any) -> None:
        """Make the run of a trial, once."""
        config = readable(trial.config)
        fields, began, named = config.get("slab", config), _now_ms(), str(trial)
        tags = self._content.tags() | {"trial_name": named}
        name = self._content.name(fields) or named
        params = {key: str(value) for key, value in fields.items()} if self._content.shape == "slab" else {}

        def begin() -> None:
            if trial.trial_id in self._trial_runs:
                return
            self._experiment = self._experiment or experiment_id(self._client, self._loggers.experiment)
            run = self._client.create_run(self._experiment, start_time=began, tags=tags, run_name=name)
            self._trial_runs[trial.trial_id] = run.info.run_id
            log(self._client, run.info.run_id, {}, step=0, unix_s=0, params=params)

        self._sender.send(begin)

    def log_trial_result(self, iteration: int, trial: Any, result: Result) -> None:  # noqa: ARG002
        """Send a result that stands for a point; its step is the trial's iteration, as Tune's own callback has it."""
        if not result.get(POINT_ID):
            return
        content: Arguments = {"step": int(result["training_iteration"]), "unix_s": time.time()}
        if self._content.shape == "point":
            content |= {"params": self._content.params(result), "tags": self._content.point_tags(result)}
        metrics = self._content.metrics(result)
        self._statuses[trial.trial_id] = result[STATUS]

        def tell() -> None:
            if run_id := self._trial_runs.get(trial.trial_id):
                log(self._client, run_id, metrics, **content)

        self._sender.send(tell)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """End the run of a trial."""
        ended, status = _now_ms(), ended_status("failed" if failed else self._statuses.get(trial.trial_id, ""))

        def end() -> None:
            if run_id := self._trial_runs.get(trial.trial_id):
                self._client.set_terminated(run_id, status=status, end_time=ended)

        self._sender.send(end)

    def on_experiment_end(self, *_: Any, **__: Any) -> None:
        """Send what is left."""
        self._guarded(self._sender.finish)


def logged_runs(client: MlflowClient, experiment: str, run_id: str) -> list[Any]:
    """All of MLflow's runs that a run of flopray has logged, the oldest first, without deleted ones.

    Raises:
        MlflowException: the server failed.
    """
    found: list[Any] = []
    token, oldest_first = None, ["attributes.start_time ASC"]
    of_the_run = f"tags.{RUN_ID} = '{run_id}'"
    while True:
        page = client.search_runs(
            [experiment], of_the_run, ViewType.ACTIVE_ONLY, 200, order_by=oldest_first, page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def _is_of_a_phase(key: str) -> bool:
    where, slash, _ = key.partition("/")
    return bool(slash) and where not in (POINT, "config")


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _now_ms() -> int:
    return int(time.time() * 1000)
