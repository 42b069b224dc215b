"""What Tune sees of a point, and a run that is read only from Tune's files."""

import dataclasses
import json
import math
import warnings
from pathlib import Path

import pandas as pd
import pytest

import flopray
from flopray.description import Column, Description, Field
from flopray.errors import NotARun, RunError, SchemaMismatch
from flopray.monitoring.status import status_of_run
from flopray.records import DERIVED, PhaseRecord
from flopray.store.journal_index import RunWarning
from flopray.store.location import open_run
from flopray.store.resumption import check_resumable
from flopray.store.run import RunFolder
from flopray.store.schema import RecordSchema
from flopray.store.tune_experiment import next_session, reported_ids, sessions_in
from flopray.store.tune_results import LEFT_OUT, ResultFormat, rows_of
from flopray.sweep.failures import failed_records
from flopray.sweep.merge import merge
from flopray.sweep.tune_sessions import FROM_JOURNAL, add_missing
from flopray.workloads.mlp import MLP

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
RUNS = ("h100_mlp_fp32", "h100_llama", "h100_counters_bf16")


def points_of(run, at_most=6):
    folder = RunFolder.open(RESULTS / run)
    points = [points for points, _ in zip(folder.points(), range(at_most), strict=False)]
    return folder, points


def phases_of(points):
    return tuple(dict.fromkeys(record.phase for records in points for record in records))


def report(experiment, results, trial="trial-0", **more):
    path = experiment / trial / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for number, result in enumerate(results):
            file.write(
                json.dumps({"timestamp": 100 + number, "trial_id": trial, "config": {}, **result, **more}) + "\n"
            )


@pytest.mark.parametrize("run", RUNS)
def test_the_rows_of_a_result_are_those_of_the_run_but_for_what_tune_cannot_hold(run):
    folder, points = points_of(run)
    results = ResultFormat(folder.schema, phases_of(points))
    keys = None
    for records in points:
        result = json.loads(json.dumps(results.flat([records])))
        assert keys in (None, list(result)), "progress.csv takes its columns from the first result"
        keys = list(result)
        rows = rows_of(result, folder.schema)
        assert [row["phase"] for row in rows] == [record.phase for record in records]
        for row, record in zip(rows, records, strict=True):
            expected = record.columns() | {name: folder.schema.defaults[name] for name in LEFT_OUT}
            assert row == expected


def test_metrics_have_readable_names_and_what_is_missing_is_nan_and_never_zero():
    folder, points = points_of("h100_mlp_fp32")
    phases = phases_of(points)
    result = ResultFormat(folder.schema, phases).flat([points[0]])
    first = points[0][0]
    assert result[f"{first.phase}/energy_j"] == first.energy_j
    assert result[f"{first.phase}/flops_per_j"] == first.flops_per_j
    assert result["point/width"] == first.width
    assert result["point_id"] == first.trial_id
    assert result["points"] == 1
    assert math.isnan(result[f"{first.phase}/executed_flops"])  # no counters were asked for
    spec = MLP().point(device_type="CPU", n_layers=2, width=16, tokens=8)
    failed = failed_records(spec, dataclasses.replace(folder_settings(), phases=phases), "r", "its node was lost")
    result = ResultFormat(folder.schema, phases).flat([failed])
    assert result["status"] == "failed"
    assert all(math.isnan(result[f"{phase}/{name}"]) for phase in phases for name in ("time_s", "energy_j", "mfu"))
    assert result[f"{phases[0]}/status_reason"] == "its node was lost"


def folder_settings():
    from flopray.settings import MeasureSettings

    return MeasureSettings()


def test_a_result_of_no_point_has_all_keys_and_is_no_point():
    folder, points = points_of("h100_mlp_fp32")
    results = ResultFormat(folder.schema, phases_of(points))
    empty = results.flat([])
    assert list(empty) == list(results.flat([points[0]]))
    assert (empty["points"], empty["point_id"], empty["point_ids"]) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_an_experiment_folder_loads_as_the_run(run, tmp_path):
    folder, points = points_of(run)
    results = ResultFormat(folder.schema, phases_of(points))
    for number, records in enumerate(points):
        report(tmp_path / "experiment", [results.flat([records])], f"trial-{number}")
    ids = {records[0].trial_id for records in points}
    whole = folder.load()
    expected = whole[whole.trial_id.isin(list(ids))].reset_index(drop=True).drop(columns=list(LEFT_OUT))
    loaded = flopray.load_run(tmp_path / "experiment")
    pd.testing.assert_frame_equal(loaded.drop(columns=list(LEFT_OUT)), expected)
    found = open_run(tmp_path / "experiment")
    assert found.workload.name == folder.workload.name
    assert set(found.finished()) == ids
    with pytest.raises(RunError, match="are only read: name the run's own folder"):
        found.check_unlocked()


def test_what_only_a_runs_own_folder_can_do_says_so(tmp_path):
    folder, points = points_of("h100_mlp_fp32", 2)
    results = ResultFormat(folder.schema, phases_of(points))
    report(tmp_path, [results.flat([records]) for records in points])
    found = status_of_run(tmp_path)
    assert (found.state, found.points, found.finished, found.resume) == ("finished", 2, 2, None)
    with pytest.raises(RunError, match="can only be read; name the run's own folder"):
        check_resumable(open_run(tmp_path).manifest, str(tmp_path))
    with pytest.raises(NotARun, match="have no grid: name the run's own folder"):
        merge([tmp_path, tmp_path], tmp_path / "merged")


def test_the_sessions_of_a_run_are_read_together_and_the_last_one_holds(tmp_path):
    folder, points = points_of("h100_mlp_fp32", 3)
    results = ResultFormat(folder.schema, phases_of(points))
    again = [dataclasses.replace(record, time_s=1.0) for record in points[0]]
    report(tmp_path / "session-2", [results.flat([again])])
    report(tmp_path / "session-1", [results.flat([records]) for records in points], timestamp=900)
    report(tmp_path / "session-10", [results.flat([])])
    frame = flopray.load_run(tmp_path)
    assert frame.trial_id.nunique() == 3
    assert set(frame[frame.trial_id == points[0][0].trial_id].time_s) == {1.0}
    assert [path.name for path in sessions_in(tmp_path)] == ["session-1", "session-2", "session-10"]
    assert next_session(tmp_path) == "session-11"
    assert next_session(tmp_path / "none") == "session-1"


def test_a_torn_line_is_left_out_and_told(tmp_path):
    folder, points = points_of("h100_mlp_fp32", 2)
    results = ResultFormat(folder.schema, phases_of(points))
    report(tmp_path, [results.flat([records]) for records in points])
    path = tmp_path / "trial-0" / "result.json"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.warns(RunWarning, match="1 line of Tune's results in .* is torn and left out"):
        frame = flopray.load_run(tmp_path)
    assert frame.trial_id.nunique() == 1


def test_thinned_results_say_how_many_points_have_none_of_their_own(tmp_path):
    folder, points = points_of("h100_mlp_fp32", 3)
    results = ResultFormat(folder.schema, phases_of(points))
    result = results.flat(points)
    assert result["points"] == 3
    assert result["point_id"] == points[2][0].trial_id
    report(tmp_path, [result])
    assert reported_ids([tmp_path]) == {records[0].trial_id for records in points}
    with pytest.warns(RunWarning, match="2 of 3 points have no result of their own .* load the run itself"):
        assert flopray.load_run(tmp_path).trial_id.nunique() == 1


def test_a_workload_of_a_file_is_read_without_its_code(tmp_path):
    class Conv(Description):
        name, phases = "conv", ("forward",)
        fields = (Field(name="channels", letter="c"), Field(name="padding", type=str, words={"same": "same"}))
        columns = (Column(name="receptive_field_px", type=int),)

    schema = RecordSchema(Conv())
    record = PhaseRecord.of(
        trial_id="0" * 16,
        phase="forward",
        workload="conv",
        channels=8,
        padding="same",
        receptive_field_px=3,
        time_s=0.5,
    )
    report(tmp_path, [ResultFormat(schema, ("forward",)).flat([[record]])])
    frame = flopray.load_run(tmp_path)
    assert frame[["channels", "padding", "receptive_field_px", "time_s"]].to_dict("records") == [
        {"channels": 8, "padding": "same", "receptive_field_px": 3, "time_s": 0.5}
    ]
    assert open_run(tmp_path).workload == Conv()


def test_results_of_schema_3_are_read_with_those_of_this_version(tmp_path):
    folder, points = points_of("h100_mlp_fp32", 2)
    results = [ResultFormat(folder.schema, phases_of(points)).flat([records]) for records in points]
    assert {result["point/schema_version"] for result in results} == {3}
    report(tmp_path, [results[0], _edited(results[1], **{"point/schema_version": 4})])
    frame = flopray.load_run(tmp_path)
    assert sorted(set(frame["schema_version"])) == [3, 4]
    assert set(frame) == {*folder.schema.names, *DERIVED}


def test_a_folder_of_the_home_is_found_by_its_tilde(tmp_path, monkeypatch):
    """Tune writes to ~/ray_results, and no shell expands what Python is given."""
    folder, points = points_of("h100_mlp_fp32", 1)
    report(tmp_path / "ray_results" / "mine", [ResultFormat(folder.schema, phases_of(points)).flat(points)])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert flopray.load_run("~/ray_results/mine").trial_id.nunique() == 1


def _edited(result, **changes):
    return {**result, **changes}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"point_id": ""}, NotARun, "whose results have no point_id"),
        ({"point/workload": "cnn"}, NotARun, "does not describe its workload 'cnn'"),
        ({"point/schema_version": 99}, SchemaMismatch, "schema version 99"),
        ({"forward/time_s": "fast"}, NotARun, "time_s must be a number, got 'fast'"),
        ({"forward/time_s": math.inf}, NotARun, "time_s must be finite"),
        ({"point/width": "16"}, NotARun, "width must be a whole number"),
        ({"status": "failed"}, NotARun, "its status is not that of its phases"),
        ({"forward/status": "splendid"}, NotARun, "unknown status 'splendid'"),
    ],
)
def test_results_that_are_not_understood_are_told_by_name(tmp_path, changes, error, message):
    folder, points = points_of("h100_mlp_fp32", 1)
    report(tmp_path, [_edited(ResultFormat(folder.schema, phases_of(points)).flat(points), **changes)])
    with pytest.raises(error, match=message):
        open_run(tmp_path)


def test_results_of_other_experiments_and_of_several_workloads_are_refused(tmp_path):
    report(tmp_path / "foreign", [{"loss": 0.5}])
    with pytest.raises(NotARun, match="flopray did not write it"):
        open_run(tmp_path / "foreign")
    for run in ("h100_mlp_fp32", "h100_llama"):
        folder, points = points_of(run, 1)
        report(tmp_path / "both", [ResultFormat(folder.schema, phases_of(points)).flat(points)], run)
    with pytest.raises(NotARun, match=r"several workloads \(llama and mlp\): name the experiment of one"):
        open_run(tmp_path / "both")


def test_journaled_points_that_tune_lost_are_added_once(tmp_path):
    source, points = points_of("h100_mlp_fp32", 4)
    run = RunFolder.create(tmp_path, "r", source.manifest)
    phases = phases_of(points)
    with run.writer() as journal:
        journal.append([[dataclasses.replace(r, run="r") for r in records] for records in points])
    results = ResultFormat(source.schema, phases)
    session = run.tune_path / "session-1"
    report(session, [results.flat([points[0]]), results.flat(points[1:3])])
    assert add_missing(run, "session-1", phases, run.finished()) == 1
    assert add_missing(run, "session-1", phases, run.finished()) == 0
    (line,) = (session / FROM_JOURNAL / "result.json").read_text().splitlines()
    assert json.loads(line)["point_id"] == points[3][0].trial_id
    assert reported_ids(sessions_in(run.tune_path)) == set(run.finished())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)  # of the thinned one
        assert flopray.load_run(run.tune_path).trial_id.nunique() == 3
    table = pd.read_csv(session / FROM_JOURNAL / "progress.csv")
    assert table["point_id"].tolist() == [points[3][0].trial_id]
