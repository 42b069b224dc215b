"""What MLflow gets for a point, and how it is made to agree with the journal; on a real tracking server."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
from ray import cloudpickle

pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'flopray[mlflow]'")

from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.store.tune_results import ResultFormat
from flopray.sweep.definition import Sweep
from flopray.sweep.failures import failed_records
from flopray.sweep.loggers import Loggers, varied_axes
from flopray.sweep.mlflow_logger import Content, MLflowRuns, Sender, check_server, client_of, experiment_id, log
from flopray.sweep.mlflow_reconciliation import Reconciled, reconcile
from flopray.sweep.tune_loggers import callbacks
from flopray.workloads.mlp import MLP

pytestmark = [pytest.mark.extras("mlflow"), pytest.mark.slow]


def sweep(**fields) -> Sweep:
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1,), "width": (16, 24, 32), "tokens": (8,)}
    settings = MeasureSettings(phases=("forward",))
    return Sweep(workload=MLP(), axes=axes, settings=settings, cpus_per_trial={"CPU": 1}, log_to=("mlflow",), **fields)


def measured(point, at: float, time_s: float = 0.25):
    """The records of a point that was measured at a time."""
    values = {"status": "ok", "status_reason": "", "started_unix_s": at, "ended_unix_s": at + 2, "time_s": time_s}
    rows = failed_records(point, sweep().settings, "r", "")
    return [dataclasses.replace(record, **values, findings=("note:no_limit_known",)) for record in rows]


def a_run(tmp_path, name, **fields) -> tuple[RunFolder, Sweep]:
    asked = sweep(**fields)
    return RunFolder.create(tmp_path, name, asked.to_manifest(name, {})), asked


def loggers_for(server, name) -> Loggers:
    return Loggers(names=("mlflow",), run=name, run_id=f"id-of-{name}", tracking_uri=server.uri, experiment=name)


def content_for(loggers, asked=None) -> Content:
    asked = asked or sweep()
    return Content(loggers, [field.name for field in MLP().fields], varied_axes(asked), asked.trial_shape)


def result_of(records):
    from flopray.store.schema import RecordSchema

    return ResultFormat(RecordSchema(MLP()), ("forward",)).flat([records])


PLACE = Loggers(names=("mlflow",), run="r", run_id="1")


def test_a_point_has_its_fields_as_parameters_its_numbers_as_metrics_and_the_rest_as_tags():
    content = content_for(PLACE)
    result = result_of(measured(sweep().points()[0], 100.0))
    common = {"workload": "mlp", "device_type": "CPU", "precision": "fp32", "execution": "eager"}
    assert content.params(result) == common | {"n_layers": "1", "width": "16", "tokens": "8"}
    metrics = content.metrics(result)
    assert metrics["forward/time_s"] == 0.25
    assert metrics["points"] == 1
    assert all(math.isfinite(value) for value in metrics.values())
    assert "forward/energy_j" not in metrics, "what is missing is left out, and not 0"
    tags = content.point_tags(result)
    assert list(tags)[-1] == "point_id"
    assert tags["point_id"] == sweep().points()[0].id
    assert (tags["status"], tags["forward/status"], tags["findings"]) == ("ok", "ok", "note:no_limit_known")
    assert content.name({"width": 16, "tokens": 8}) == "width 16"


def test_a_result_goes_in_one_request_and_a_very_large_one_in_several_with_its_id_in_the_last():
    class Client:
        def __init__(self):
            self.sent = []

        def log_batch(self, run_id, **batch):
            self.sent.append(batch)

    small, large = Client(), Client()
    log(small, "1", {f"m{i}": 1.0 for i in range(700)}, step=1, unix_s=5.0, params={"a": "1"}, tags={"point_id": "x"})
    assert len(small.sent) == 1
    tags = {f"t{i}": "1" for i in range(130)} | {"point_id": "x"}
    log(large, "1", {f"m{i}": 1.0 for i in range(1700)}, step=1, unix_s=5.0, params={"a": "1"}, tags=tags)
    assert [len(batch["metrics"]) for batch in large.sent] == [800, 800, 100]
    assert [tag.key for batch in large.sent for tag in batch["tags"]] == list(tags)
    assert [param.key for batch in large.sent for param in batch["params"]] == ["a"]
    for batch in large.sent:
        assert sum(map(len, batch.values())) <= 1000
        assert max(len(batch["params"]), len(batch["tags"])) <= 100


def test_what_a_server_does_not_take_is_dropped_and_told_and_nobody_waits(monkeypatch):
    failures, done = [], []
    sender = Sender(failures.append)

    def fail():
        raise OSError("gone")

    sender.send(lambda: done.append(1))
    sender.send(fail)
    sender.send(lambda: done.append(2))  # while the server is left alone
    sender.finish()
    assert done == [1]
    assert [str(failure) for failure in failures] == ["gone"]
    monkeypatch.setattr("flopray.sweep.mlflow_logger._PAUSE_S", 0.0)
    sender = Sender(failures.append)
    sender.send(fail)
    sender.send(lambda: done.append(3))
    sender.finish()
    assert done == [1, 3]


def test_mlflow_is_made_to_agree_with_the_journal(mlflow_server, tmp_path):
    folder, asked = a_run(tmp_path, "agree")
    first, second, third = asked.points()
    with folder.writer() as journal:
        journal.append([measured(first, 100.0), measured(second, 200.0, 0.5), measured(third, 300.0)])
    loggers = loggers_for(mlflow_server, "agree")
    content, client = content_for(loggers), client_of(loggers)
    experiment = experiment_id(client, "agree")

    def logged(records, content=content, ended=True) -> str:
        run = client.create_run(experiment, tags=content.tags())
        if records:
            result = result_of(records)
            told = {"params": content.params(result), "tags": content.point_tags(result)}
            log(client, run.info.run_id, content.metrics(result), step=1, unix_s=1.0, **told)
        if ended:
            client.set_terminated(run.info.run_id)
        return run.info.run_id

    kept = logged(measured(first, 100.0), ended=False)  # the driver died before it could end it
    logged(measured(first, 100.0))  # twice
    logged(measured(second, 150.0, 0.75))  # of a measurement that never reached the journal
    logged(None)  # of a point that was being measured
    stranger = dataclasses.replace(loggers, run_id="another run of this name")
    others = {logged(measured(third, 300.0), content_for(stranger)), client.create_run(experiment).info.run_id}

    assert reconcile(folder, asked, loggers) == Reconciled(added=2, deleted=3, ended=1)
    mine = [run for run in mlflow_server.runs("agree") if run.info.run_id not in others]
    found = {run.data.tags["point_id"]: run for run in mine}
    assert sorted(found) == sorted(point.id for point in asked.points())
    assert len(mine) == 3
    assert {run.info.status for run in mine} == {"FINISHED"}
    assert found[first.id].info.run_id == kept
    added = found[second.id]
    assert added.data.metrics["forward/time_s"] == 0.5
    assert added.data.params["width"] == "24"
    assert (added.info.start_time, added.info.end_time) == (200_000, 202_000)
    assert added.info.run_name == "width 24"
    assert {run.info.run_id for run in mlflow_server.runs("agree")} >= others, "other runs are not touched"
    assert reconcile(folder, asked, loggers) == Reconciled(), "and then there is nothing to do"

    with folder.writer() as journal:  # a point is measured again, as by --retry-failed
        journal.append([measured(third, 400.0, 0.125)], supersede=True)
    assert reconcile(folder, asked, loggers) == Reconciled(added=1, deleted=1)
    again = [r for r in mlflow_server.runs("agree") if r.data.tags.get("flopray_run_id") == loggers.run_id]
    assert {run.data.metrics["forward/time_s"] for run in again} == {0.25, 0.5, 0.125}


def test_runs_of_slabs_are_ended_and_otherwise_left_alone(mlflow_server, tmp_path):
    folder, asked = a_run(tmp_path, "slabs", trial="slab")
    with folder.writer() as journal:
        journal.append([measured(point, 100.0) for point in asked.points()])
    loggers = loggers_for(mlflow_server, "slabs")
    client = client_of(loggers)
    experiment = experiment_id(client, "slabs")
    client.create_run(experiment, tags=content_for(loggers, asked).tags())
    assert reconcile(folder, asked, loggers) == Reconciled(ended=1)
    assert [run.info.status for run in mlflow_server.runs("slabs")] == ["KILLED"]


class Trial:
    def __init__(self, number, config):
        self.trial_id, self.config = f"t{number}", config

    def __str__(self):
        return f"trial-{self.trial_id}"


def test_the_callback_logs_what_the_reconciliation_expects(mlflow_server, tmp_path):
    folder, asked = a_run(tmp_path, "callback")
    loggers = loggers_for(mlflow_server, "callback")
    callback = MLflowRuns(loggers, content_for(loggers), recorder="none")
    callback.setup()
    with folder.writer() as journal:
        for number, point in enumerate(asked.points()):
            records = measured(point, 100.0 + number)
            trial = Trial(number, {**{name: point.fields()[name] for name in asked.axes}, "order_index": number})
            callback.on_trial_start(1, [], trial)
            callback.on_trial_result(1, [], trial, {"training_iteration": 1, **result_of(records)})
            callback.on_trial_complete(1, [], trial)
            journal.append([records])
    callback.on_experiment_end([])
    assert mlflow_server.points("callback") == dict.fromkeys([p.id for p in asked.points()], 1)
    assert {run.info.run_name for run in mlflow_server.runs("callback")} == {"width 16", "width 24", "width 32"}
    assert reconcile(folder, asked, loggers) == Reconciled(), "the journal has the same measurements"


def test_what_tune_pickles_into_the_run_has_no_password(monkeypatch):
    uri = "http://me:hunter2@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    place = dataclasses.replace(PLACE, tracking_uri=uri)
    (made,) = callbacks(place, sweep(), [field.name for field in MLP().fields], "recorder")
    sent = cloudpickle.dumps(made)
    assert b"hunter2" not in sent
    assert pickle.loads(sent)._loggers.reachable_uri() == uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:other@127.0.0.1:10")
    assert pickle.loads(sent)._loggers.reachable_uri() == "http://***@127.0.0.1:9"


def test_an_experiment_that_was_deleted_is_refused(mlflow_server):
    loggers = loggers_for(mlflow_server, "deleted")
    check_server(loggers)
    client = client_of(loggers)
    client.delete_experiment(experiment_id(client, "deleted"))
    with pytest.raises(Exception, match="has deleted the experiment 'deleted': restore it, or set MLFLOW_EXPERIMENT_N"):
        check_server(loggers)
