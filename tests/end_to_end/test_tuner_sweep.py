"""A user's own Tuner, as docs/ray.md shows it, on a standing cluster that RAY_ADDRESS names."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from machine import ROOT, Machine

from flopray import load_run
from flopray.monitoring.status import status_of_run
from flopray.store.location import open_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

GRID, SEARCH = (
    block
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "ray.md").read_text(), re.DOTALL)
    if ".fit()" in block
)
#: What a test wants to know of a grid: each trial's seconds and metrics, and what the journal has before the end.
SAY = """
import json
told = {
    "errors": [str(error) for error in results.errors],
    "time_s": {r.metrics["point_id"]: r.metrics["train_step/time_s"] for r in results},
    "config": [r.config for r in results],
    "journaled": sorted(flopray.load_run("results/mine").trial_id.unique()),
}
print("SAID", json.dumps(told))
"""


@pytest.fixture(scope="module")
def cluster(machine: Machine):
    """Runs a script with the cluster's address; what it printed."""
    started = machine.ray("start --head --port=0 --num-cpus=2 --include-dashboard=false")
    found = re.search(r"--address='([^']+)'", started)
    assert found, started

    def run(code: str, name: str = "script.py", expected: int = 0) -> str:
        path = machine.folder / name
        path.write_text(code)
        python = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        script = machine.start("", script=str(path), RAY_ADDRESS=found[1], PYTHONPATH=python)
        assert script.wait() == expected, script.output
        return script.output

    yield run
    machine.end_processes()


def said(output: str) -> dict:
    return json.loads(next(line for line in output.splitlines() if line.startswith("SAID ")).removeprefix("SAID "))


@pytest.mark.extras("optuna")
def test_the_page_runs_and_runs_again_without_measuring(machine, cluster):
    output = cluster(GRID + SAY + SEARCH)
    first = said(output)
    assert first["errors"] == []
    assert len(first["time_s"]) == 4
    assert all(value > 0 for value in first["time_s"].values())
    assert first["journaled"] == sorted(first["time_s"]), "in the journal before Tune has it"
    assert [config["tokens"] for config in first["config"]] == [16] * 4
    assert "fastest: {" in output
    assert "best rate: {" in output

    run = machine.folder / "results" / "mine"
    journal = (run / "journal.jsonl").read_bytes()
    ids = machine.journal_ids(run)
    assert len(ids) == len(set(ids)) >= 5, "the search measured what the grid had not"
    frame = load_run(run)
    assert set(frame.trial_id) == set(ids)
    assert (run / "records.parquet").exists()
    assert json.loads((run / "summary.json").read_text())["points"] == len(ids)
    status = status_of_run(run)
    assert (status.state, status.finished, status.points, status.resume) == ("finished", len(ids), len(ids), None)

    second = said(cluster(GRID + SAY))
    assert second["time_s"] == first["time_s"], "answered from the journal"
    assert second["errors"] == []
    assert (run / "journal.jsonl").read_bytes() == journal

    experiments = sorted((Path(machine.environment["HOME"]) / "ray_results").iterdir())
    rows = load_run(experiments[0])
    assert set(rows.trial_id) == set(first["time_s"])
    assert rows.set_index("trial_id").time_s.to_dict() == first["time_s"]
    assert open_run(run).workload.name == "mlp"


def test_what_is_no_point_ends_fit_at_once_and_what_cannot_run_is_a_result(machine, cluster):
    code = """
import numpy as np, pandas as pd, ray, time
import flopray
from flopray.errors import InputError
from ray import tune
from ray.tune.search import Searcher

class Floats(Searcher):
    "Draws as BayesOptSearch does."
    def set_search_properties(self, *_, **__):
        return True
    def suggest(self, trial_id):
        return {"n_layers": 1, "width": 16.25, "tokens": 8}
    def on_trial_complete(self, *_, **__):
        pass
    def save(self, path):
        pass
    restore = save

own = dict(phases="forward", instruments="time", max_seconds=0.2, cpus_per_trial=1)
trainable = flopray.sweep.trainable("mlp", journal="results/again", **own)
trainable = flopray.sweep.trainable("mlp", journal="results/again", **own)  # a cell that runs again

def refused(space, **search):
    try:  # in a folder of its own: Tune names experiments by the second, and the one that runs comes in the same
        run = tune.RunConfig(name="refused")
        tune.Tuner(trainable, param_space=space, tune_config=tune.TuneConfig(**search), run_config=run).fit()
    except InputError as error:
        print("REFUSED", error)

refused({"n_layers": tune.uniform(1, 9)}, search_alg=Floats(metric="forward/time_s", mode="min"), num_samples=2)
refused({"n_layers": 1, "wdith": 16, "tokens": 8})
space = {"n_layers": 1, "width": np.int64(16), "tokens": 8, "precision": tune.grid_search(["fp32", "tf32"])}
results = tune.Tuner(trainable, param_space=space, tune_config=tune.TuneConfig(reuse_actors=True)).fit()
# Of each result: Tune's table of all of them reads configurations from files, and was once seen without one.
frame = pd.DataFrame([{**result.metrics, "precision": result.config["precision"]} for result in results])
frame = frame.set_index("precision")
print("SAID", frame.status.to_json(), frame["forward/time_s"].notna().to_json(), sep="|")
ray.shutdown()  # the journal is let go all the same
trainable.close()
trainable.close()
print("BEFORE THE END", (len(flopray.load_run("results/again"))))
"""
    output = cluster(code)
    refusals = [line for line in output.splitlines() if line.startswith("REFUSED ")]
    assert len(refusals) == 2, output
    assert "param_space width: 16.25 is not a whole number; a searcher that draws floats only" in refusals[0]
    assert "param_space has 'wdith', unknown in mlp: choose from n_layers, width, tokens" in refusals[1]
    _, status, measured = next(line for line in output.splitlines() if line.startswith("SAID")).split("|")
    assert json.loads(status) == {"fp32": "ok", "tf32": "unsupported"}
    assert json.loads(measured) == {"fp32": True, "tf32": False}
    assert "BEFORE THE END 2" in output
    assert "Traceback" not in output
    assert (machine.folder / "results" / "again" / "records.parquet").exists()
