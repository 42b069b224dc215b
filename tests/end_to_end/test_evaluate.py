"""`flopray evaluate` as a user runs it: points are trials of Ray Tune, rows of a run, and an interrupt loses none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_workload_of_a_file import interrupted

from flopray import load_run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400), pytest.mark.extras("evaluate")]
TESTS = Path(__file__).parents[1] / "evaluation"


def test_an_evaluation_is_a_run_that_can_be_resumed(machine, standing):
    """The tasks lie where the run was started; a stranger's tasks, or changed ones, are not run by a resume."""
    machine.environment["FLOPRAY_CACHE"] = str(machine.folder / "cache")
    for name, knows in (("guessing", 0), ("knowing", 20)):
        made = [sys.executable, str(TESTS / "tiny_models.py"), str(machine.folder / name), str(knows)]
        subprocess.run(made, check=True, capture_output=True)
    tasks = machine.folder / "tasks"
    tasks.mkdir()
    for file in (TESTS / "tasks").iterdir():
        (tasks / file.name).write_bytes(file.read_bytes())
    words = "guessing knowing --tasks kinds --include-path tasks --precision fp32 bf16 --batch-size 4"
    code, output = machine.sweep(f"evaluate {words} --name whole {standing}", script="")
    assert code == 0, output
    assert "1.000 (0.839 to 1.000)" in output
    whole = machine.run_path("whole")
    frame = load_run(whole)
    assert len(frame) == 4
    assert set(frame.status) == {"ok"}, frame.status_reason.dropna().tolist()
    scores = {Path(str(model)).name: score for model, score in zip(frame.model, frame.score, strict=True)}
    assert scores["knowing"] == 1.0 > scores["guessing"]
    assert (whole / "plots" / "scores.png").is_file()
    seen = [json.loads(file.read_text().splitlines()[-1]) for file in (whole / "tune").rglob("result.json")]
    assert len(seen) == 4  # a trial of Tune each, with the score as a metric
    assert sorted(each["evaluation/score"] for each in seen) == sorted(frame.score)
    assert all(each["evaluation/time_per_sample_s"] > 0 for each in seen)

    part = interrupted(machine, whole, "part", points=1)
    code, output = machine.sweep(f"resume {part} --no-plots {standing}", script="")
    assert code == 0, output
    again = load_run(part)
    assert set(again.trial_id) == set(frame.trial_id)
    kept = pd.merge(frame, again, on=["trial_id", "ended_unix_s"])
    assert len(kept) == 1  # what was evaluated before stays as it was

    (tasks / "kinds.yaml").write_text((tasks / "kinds.yaml").read_text() + "# changed\n")
    code, output = machine.sweep(f"resume {interrupted(machine, whole, 'changed', points=1)} {standing}", script="")
    assert code == 2
    assert "were not run here before in this form" in output
