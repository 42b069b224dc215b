"""Tune's loggers of files write into the run while it runs, and a failing logger does not end it."""

from __future__ import annotations

import csv
import json

import pytest

from flopray.sweep.stored_loggers import StoredCsv, StoredJson, StoredTrial


class Trial:
    """What a logger of files asks of a trial; `local_path` is Ray's staging folder, `path` the one in the run."""

    def __init__(self, folder, **config):
        self.trial_id, self.config, self.checkpoint = "t1", config, None
        self.local_path, self.path = str(folder / "staging"), str(folder / "run" / "trial-t1")

    def init_local_path(self):
        pass


@pytest.fixture
def trial(tmp_path) -> Trial:
    return Trial(tmp_path, width=16)


def log(logger, trial, results=({"forward/time_s": 0.5}, {"forward/time_s": 0.25})):
    logger.setup()
    logger.on_trial_start(iteration=1, trials=[], trial=trial)
    for result in results:
        logger.on_trial_result(iteration=1, trials=[], trial=trial, result=result)


def test_results_are_in_the_run_as_they_come(trial, tmp_path):
    log(StoredJson(recorder="none"), trial)
    log(StoredCsv(recorder="none"), trial)
    folder = tmp_path / "run" / "trial-t1"
    lines = (folder / "result.json").read_text().splitlines()
    assert [json.loads(line)["forward/time_s"] for line in lines] == [0.5, 0.25]
    with (folder / "progress.csv").open(newline="") as file:
        assert [row["forward/time_s"] for row in csv.DictReader(file)] == ["0.5", "0.25"]
    assert not (tmp_path / "staging").exists()


def test_a_disk_that_cannot_be_written_is_told_once_and_ends_nothing(trial, tmp_path, monkeypatch):
    (tmp_path / "run").write_text("a file in the place of the folder")
    told = []
    logger = StoredJson(recorder="none")
    monkeypatch.setattr("ray.get_actor", lambda *_, **__: Recorder(told))
    log(logger, trial)
    logger.on_trial_complete(iteration=1, trials=[], trial=trial)
    assert len(told) == 1
    assert "result.json of Tune lacks results (" in told[0]
    assert "Not a directory" in told[0]


class Recorder:
    def __init__(self, told):
        self.notice = self
        self.remote = told.append


def test_a_trial_is_the_same_key_and_its_slab_is_readable(tmp_path):
    trial = Trial(tmp_path, slab={"number": 0, "count": 2, "width": "16 24", "points": "c-p;C000"})
    stored = StoredTrial(trial)
    assert {trial: 1}[stored] == {stored: 1}[trial] == {stored: 1}[StoredTrial(trial)] == 1
    assert stored.evaluated_params == {"slab": {"number": 0, "count": 2, "width": "16 24"}}
    assert stored.trial_id == "t1"
