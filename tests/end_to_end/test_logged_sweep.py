"""A sweep that is logged to TensorBoard, MLflow and Weights & Biases, killed in the middle and resumed."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.extras("mlflow", "tensorboard")]

GRID = "--n 1 --d 16 24 --m 8 16 24 --phases forward --instruments time --max-seconds 0.2 --target-error 0.5"
POINTS = 6


def test_a_killed_sweep_has_each_point_once_everywhere_after_its_resume(machine, mlflow_server):
    """MLflow's server does not answer during a session, and the sweep goes on."""
    machine.environment["MLFLOW_TRACKING_URI"] = mlflow_server.uri
    run = machine.run_path("logged")
    sweep = machine.start(f"{GRID} --sentinel-every 0 --no-plots --name logged --log-to tensorboard mlflow")
    machine.wait_for(lambda: len(machine.journal_ids(run)) >= 2)
    machine.wait_for(lambda: _event_files(run))  # while the sweep runs
    sweep.signal(signal.SIGKILL)
    sweep.wait()
    assert 2 <= len(machine.journal_ids(run)) < POINTS
    machine.wait_for(lambda: not any("PointTrial" in command for command in machine.processes().values()))
    # What a killed driver may leave: a run that has no point yet.
    experiment = mlflow_server.client.get_experiment_by_name("logged").experiment_id
    run_id = json.loads((run / "manifest.json").read_text())["loggers"]["run_id"]
    left = mlflow_server.client.create_run(experiment, tags={"flopray_run_id": run_id, "flopray_trial": "point"})
    machine.environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    code, output = machine.sweep(f"--resume {run}")
    assert code == 0, output
    assert "does not answer" in output
    ids = machine.journal_ids(run)
    assert len(ids) == len(set(ids)) == POINTS
    machine.environment["MLFLOW_TRACKING_URI"] = mlflow_server.uri
    code, output = machine.sweep(f"--resume {run}")
    assert code == 0, output
    assert "MLflow's runs now agree with the journal: " in output
    assert mlflow_server.points("logged") == dict.fromkeys(ids, 1)
    assert left.info.run_id not in {found.info.run_id for found in mlflow_server.runs("logged")}
    frame = load_run(run / "tune")
    assert sorted(frame.trial_id) == sorted(ids)
    times = dict(zip(frame.trial_id, frame.time_s, strict=True))
    for found in mlflow_server.runs("logged"):
        assert found.data.metrics["forward/time_s"] == times[found.data.tags["point_id"]]
        assert found.info.status == "FINISHED"
    assert machine.sweep(f"--resume {run}")[0] == 2, "and then there is nothing left to do"
    _check_event_files(run, times)


def _event_files(run: Path) -> list[Path]:
    return [path for path in run.glob("tune/session-*/trial-*/events.out.tfevents.*") if path.stat().st_size > 1000]


def _check_event_files(run: Path, times: dict[str, float]) -> None:
    """The numbers in TensorBoard's files are those of the journal; one point per trial."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = {}
    for file in _event_files(run):
        events = accumulator.EventAccumulator(str(file))
        events.Reload()
        names = events.Tags()["scalars"]
        assert "ray/tune/forward/energy_j" not in names, "what is missing is left out"
        (point,) = json_lines(file.with_name("result.json"))
        (read[point["point_id"]],) = (event.value for event in events.Scalars("ray/tune/forward/time_s"))
    assert set(read) <= set(times)
    assert len(read) >= POINTS - 2  # a point that was measured while the driver died has no event
    for point, value in read.items():
        assert math.isclose(value, times[point], rel_tol=1e-6)  # events are of single precision


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.extras("wandb")
def test_weights_and_biases_has_a_run_for_each_point_without_a_network(machine):
    machine.environment["WANDB_MODE"] = "offline"
    code, output = machine.sweep(
        "--n 1 --d 16 --m 8 16 --phases forward --instruments time --max-seconds 0.2 --target-error 0.5 "
        "--sentinel-every 0 --no-plots --name offline --log-to wandb"
    )
    assert code == 0, output
    run = machine.run_path("offline")
    trials = {path.parent for path in run.glob("tune/session-1/trial-*/result.json")}
    files = [*run.glob("tune/session-1/trial-*/wandb/offline-run-*/run-*.wandb")]
    assert {file.parents[2] for file in files} == trials
    assert len(files) == len(trials) == 2
    for file in files:
        content = file.read_bytes()
        (result,) = json_lines(file.parents[2] / "result.json")
        assert b"forward/time_s" in content
        assert b"forward/energy_j" not in content, "what is missing is left out"
        assert str(result["point_id"]).encode() in content
        assert f"tokens {result['point/tokens']}".encode() in content, "a run is called by what varies"
