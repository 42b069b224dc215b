"""The table and the figure of evaluations, made from rows that were not measured here."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from flopray.cli.main import main
from flopray.errors import InputError
from flopray.records import PhaseRecord
from flopray.report.front import front_of
from flopray.report.scores.data import MEAN, evaluations_of, load_evaluations, short_names
from flopray.report.scores.figure import draw_scores
from flopray.report.scores.table import table_of
from flopray.store.run import RunFolder
from flopray.sweep.manifest import described
from flopray.workloads.evaluation.scores import cost_columns, interval_of
from flopray.workloads.registry import find_workload, make_point, refuse_scores

MODELS = {"/m/small": (0.6, 20.0), "/m/large": (0.8, 400.0), "/m/poor": (0.5, 100.0)}


def record(model, task, *, joules=True, score=None, energy_j=None, precision="bf16", **further):
    point = make_point(
        *("evaluation",),
        **{"device_type": "H100", "model": model, "task": task, "precision": precision, "batch_size": 8},
        **{"include_path": "harness", "num_fewshot": "task", "limit": "all", "chat_template": False},
    )
    score, energy_j = score or MODELS[model][0], energy_j or MODELS[model][1]
    stderr = (score * (1 - score) / 99) ** 0.5
    low, high = interval_of(score, stderr, 100)
    found = {"score": score, "score_stderr": stderr, "score_low": low, "score_high": high, "samples": 100}
    found |= {"score_metric": "acc", "score_filter": "none", "score_higher_is_better": True, "time_s": 2.0}
    energy = {"energy_j": energy_j, "energy_rel_error": 0.02, "energy_status": "ok", "energy_source": "simulated"}
    energy = energy if joules else {"energy_status": "no_energy_source", "energy_reason": "no counter here"}
    measured = found | energy | cost_columns(found | energy)
    own = {"trial_id": point.id, "phase": "evaluation", "ended_unix_s": 1.0, **point.fields()}
    return PhaseRecord.of(**{"run": "r", **own, **measured, **further})


def manifest_of(name):
    return {"sweep": {"workload": name}, **described(find_workload(name))}


def run_of(folder, *records) -> RunFolder:
    made = RunFolder.create(folder, "r", manifest_of("evaluation"))
    with made.writer() as writer:
        writer.append([[one] for one in records])
    return made


def test_scores_with_their_costs(tmp_path):
    run = run_of(tmp_path, *(record(model, task) for model in MODELS for task in ("rte", "sst2")))
    found = load_evaluations([run.path])
    assert set(found.models) == {"small", "large", "poor"}
    small = next(result for result in found.results if (result.model, result.task) == ("small", "rte"))
    assert (small.series, small.task, small.score, small.samples) == ("small bf16", "rte", 0.6, 100)
    assert small.energy_per_sample_j == pytest.approx(0.2)
    assert small.energy_per_point_j == pytest.approx(20 / 60)
    text = table_of(found).to_markdown()
    assert "0.600 (0.502 to 0.691)" in text
    assert "200 mJ ±2.0%" in text


def test_the_mean_of_all_tasks_is_over_those_who_have_all(tmp_path):
    rows = [record("/m/small", "rte", score=0.5), record("/m/small", "sst2", score=0.7, energy_j=60.0)]
    run = run_of(tmp_path, *rows, record("/m/large", "rte"))
    (mean,) = load_evaluations([run.path]).means
    assert (mean.series, mean.task, mean.score) == ("small bf16", MEAN, pytest.approx(0.6))
    assert mean.energy_per_sample_j == pytest.approx((20 + 60) / 200)
    assert (mean.score_high - mean.score_low) / 2 == pytest.approx(0.0655, abs=0.002)


def test_the_front_of_the_figure(tmp_path):
    run = run_of(tmp_path, *(record(model, "rte") for model in MODELS))
    figure = draw_scores(load_evaluations([run.path]), "t")
    (axes,) = figure.axes
    (line,) = [line for line in axes.lines if line.get_gid() == "front line"]
    assert set(line.get_ydata()[1:-1]) == {0.6, 0.8}  # not the poor one, which takes more than the small one
    assert axes.get_xlabel() == "energy of a sample (mJ)"
    assert axes.get_ylabel() == "acc (%)"
    assert front_of(pd.DataFrame([[1, 2], [2, 1], [2, 2]]).to_numpy()).tolist() == [0, 1]


def test_without_energy_seconds_are_drawn_and_it_is_said(tmp_path):
    run = run_of(tmp_path, *(record(model, "rte", joules=False) for model in MODELS))
    found = load_evaluations([run.path])
    figure = draw_scores(found, "t")
    assert figure.axes[0].get_xlabel().startswith("time of a sample")
    assert any("no energy was measured" in text.get_text() for text in figure.texts)
    assert "no energy, seconds instead: no counter here" in table_of(found).notes


def test_what_failed_is_named(tmp_path):
    failed = record("/m/large", "rte", status="out_of_memory", status_reason="16 GB", score=0.1)
    found = load_evaluations([run_of(tmp_path, record("/m/small", "rte"), failed).path])
    assert "large bf16 on rte: out of memory: 16 GB" in table_of(found).notes
    assert any("1 of 2 evaluations failed" in text.get_text() for text in draw_scores(found, "t").texts)


def test_of_equal_evaluations_the_latest_is_shown(tmp_path):
    rows = [record("/m/small", "rte", ended_unix_s=at) for at in (3.0, 9.0)]
    frame = pd.DataFrame([row.columns() for row in rows])
    frame.loc[1, "time_per_sample_s"] = 7.0
    found = evaluations_of(frame)
    assert [result.time_per_sample_s for result in found.results] == [7.0]
    assert "1 earlier one is left out" in found.notes[0]


def test_models_of_one_name_are_told_apart():
    assert short_names(["a/x/last", "a/y/last", "org/other"]) == {
        **{"a/x/last": "x/last", "a/y/last": "y/last", "org/other": "other"}
    }


def test_the_command_writes_table_and_figure(tmp_path, capsys):
    run = run_of(tmp_path, *(record(model, "rte") for model in MODELS))
    assert main(["scores", str(run.path), "--formats", "png"]) == 0
    assert "small bf16" in capsys.readouterr().out
    assert (run.path / "plots" / "scores.png").stat().st_size > 10_000
    assert len(pd.read_csv(run.path / "tables" / "scores.csv")) == 3


@pytest.mark.parametrize("command", ["surfaces", "compare-gpus", "report"])
def test_what_draws_phases_names_the_command_that_draws_scores(tmp_path, capsys, command):
    run = run_of(tmp_path, record("/m/small", "rte"))
    assert main([command, str(run.path)]) == 2
    assert "flopray scores" in capsys.readouterr().err


def test_a_run_of_another_kind_is_named(tmp_path):
    made = RunFolder.create(tmp_path, "m", manifest_of("mlp"))
    with pytest.raises(InputError, match="is a run of mlp, which has no scores"):
        load_evaluations([made.path])


def test_the_command_that_draws_scores_can_be_typed_whatever_the_folder_is_called():
    with pytest.raises(InputError, match=r": flopray scores '/my runs/ev é'$"):
        refuse_scores(find_workload("evaluation"), Path("/my runs/ev é"))
