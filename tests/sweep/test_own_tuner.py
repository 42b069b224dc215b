"""A trainable for a user's own Tuner: what it refuses, and how a configuration becomes a point. Without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import flopray
from flopray.cli.main import main
from flopray.cluster.quiet import quiet_ray
from flopray.errors import FloprayError, InputError, NotARun, RunError, RunLocked
from flopray.monitoring.status import status_of_run
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store import manifests
from flopray.store.location import open_run
from flopray.store.run import RunFolder
from flopray.store.schema import RecordSchema
from flopray.sweep import own_tuner
from flopray.sweep.definition import Sweep
from flopray.sweep.limits import Limits
from flopray.sweep.result_recorder import ResultRecorder, lines_of, records_in
from flopray.sweep.tuner_trial import point_in
from flopray.workloads.mlp import MLP

SETTINGS = MeasureSettings(phases=("forward",), instruments=("time",), sentinel_every_s=0.0)
OWN = {"phases": ["forward"], "instruments": "time"}


def shared(name="mlp", types=("CPU",), default="CPU"):
    return {"workload": {"name": name}, "device_types": list(types), "device_type": default}


def no_ray(*_: object, **__: object) -> None:
    raise AssertionError("reached for Ray")


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(own_tuner, "_cluster", no_ray)


@pytest.fixture
def made(tmp_path) -> RunFolder:
    return own_tuner._made(tmp_path / "own", MLP(), SETTINGS, 2)


@pytest.mark.slow
def test_the_room_gives_it_and_imports_ray_only_then():
    code = "import sys, flopray; flopray.sweep; print('ray' in sys.modules, flopray.sweep.trainable.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False trainable\n", "")
    assert flopray.sweep.trainable is own_tuner.trainable


MLP_POINT = {"n_layers": 1, "width": 16, "tokens": 8}


@pytest.mark.parametrize(
    "config",
    [
        MLP_POINT,
        {name: np.int64(value) for name, value in MLP_POINT.items()},
        {name: np.uint8(value) for name, value in MLP_POINT.items()} | {"precision": np.str_("fp32")},
        MLP_POINT | {"execution": "eager", "device_type": "CPU"},
    ],
)
def test_a_configuration_is_a_point_whatever_drew_its_numbers(config):
    point = point_in(config, shared())
    assert point.id == MLP().point(device_type="CPU", **MLP_POINT).id
    assert {type(value) for value in point.values.values()} == {int}


def test_what_is_not_named_has_the_default_of_the_device():
    point = point_in(MLP_POINT, shared(types=("H100", "CPU"), default="H100"))
    assert (point.device_type, point.precision, point.execution) == ("H100", "fp32", "graph")
    point = point_in(MLP_POINT | {"device_type": "CPU"}, shared(types=("H100", "CPU"), default="H100"))
    assert (point.device_type, point.execution) == ("CPU", "eager")


def test_words_stand_for_values_and_choices_have_defaults():
    config = {"batch_size": 2, "sequence_length": "small", "checkpointing": "on"}
    values = point_in(config, shared("llama")).values
    assert values["sequence_length"] == 256
    assert values["checkpointing"] is True
    assert (values["model"], values["weights"], values["attention"]) == ("llama-tiny", "random", "auto")
    values = point_in(config | {"checkpointing": np.bool_(False), "sequence_length": 64}, shared("llama")).values
    assert (values["checkpointing"], values["sequence_length"]) == (False, 64)


def test_a_model_of_a_file_goes_by_its_name_and_brings_its_sizes(tmp_path):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    (tmp_path / "mine.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 128, **sizes}))
    config = {"model": str(tmp_path / "mine.json"), "batch_size": 2, "sequence_length": 32}
    values = point_in(config, shared("causal_lm")).values
    assert values["model"] == "mine"
    assert json.loads(values["model_config"])["hidden_size"] == 64


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"width": 16.5},
            "param_space width: 16.5 is not a whole number; a searcher that draws floats only, such as BayesOpt",
        ),
        ({"width": 16.0}, "param_space width: 16.0 is not a whole number"),
        ({"width": np.float64(16)}, "param_space width: 16.0 is not a whole number"),
        ({"width": np.float32(16.25)}, "param_space width: 16.25 is not a whole number"),
        ({"width": float("nan")}, "param_space width: nan is not a whole number"),
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"width": True}, "width must be a whole number"),
        ({"width": None}, "width is missing: it must be a whole number of at least 1"),
        ({"wdith": 3}, "param_space has 'wdith', unknown in mlp: choose from n_layers, width, tokens, device_type"),
        ({"precision": "fp31"}, "unknown precision 'fp31'"),
        ({"execution": 1}, "unknown execution 1"),
        ({"device_type": "H100"}, "no node has the device_type 'H100', choose from CPU"),
    ],
)
def test_what_is_no_point_is_refused_in_a_line(changes, said):
    with pytest.raises(InputError) as error:
        point_in(MLP_POINT | changes, shared())
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_field_that_is_missing_and_a_type_that_is_not_told_are_refused():
    with pytest.raises(InputError, match="param_space lacks tokens"):
        point_in({"n_layers": 1, "width": 16}, shared())
    with pytest.raises(InputError, match="device_type is missing, choose from A100, H100, CPU"):
        point_in(MLP_POINT, shared(types=("A100", "H100", "CPU"), default=None))


@pytest.mark.parametrize(
    ("workload", "settings", "said"),
    [
        ("mpl", {}, "unknown workload 'mpl': choose from mlp, llama"),
        (3, {}, "workload must be a name, FILE.py:NAME or a Workload, got 3"),
        ("mlp", {"phases": ["prefill"]}, "phases: unknown 'prefill', choose from inference, forward"),
        ("mlp", {"phases": []}, "phases needs at least one"),
        ("mlp", {"instruments": "joules"}, "instruments: unknown 'joules', choose from time, energy, counters"),
        ("mlp", {"max_second": 1}, "unknown setting 'max_second': choose from calibrate, cooldown_c, cpus_per_trial"),
        ("mlp", {"n": [2]}, "target_error: n_layers goes into param_space"),
        ("mlp", {"max_seconds": -1}, "max_seconds must be a positive number"),
        ("mlp", {"point_timeout_s": -1}, "point_timeout_s must be 0 or more"),
        ("mlp", {"cpus_per_trial": 0}, "cpus_per_trial must be at least 1, got 0"),
        ("mlp", {"cpus_per_trial": 1.5}, "cpus_per_trial must be a whole number, got 1.5"),
    ],
)
def test_what_cannot_be_is_refused_before_ray_starts(tmp_path, workload, settings, said):
    with pytest.raises(InputError) as error:
        flopray.sweep.trainable(workload, journal=tmp_path / "x", **settings)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("workload", "settings", "said"),
    [
        (
            "mlp",
            {"phases": ["forward", "backward"]},
            "was measured with phases forward, and now it is forward backward",
        ),
        ("mlp", {"max_seconds": 1.0}, "was measured with max_seconds 3.0, and now it is 1.0"),
        ("mlp", {"seed": 1}, "was measured with seed 0, and now it is 1: name another journal, or measure as before"),
        ("mlp", {"cpus_per_trial": 1}, "was measured with cpus_per_trial 2, and now it is 1"),
        ("llama", {}, "measures mlp, whose name differs: name another journal"),
    ],
)
def test_a_run_of_something_else_is_refused(made, workload, settings, said):
    with pytest.raises(RunError) as error:
        flopray.sweep.trainable(workload, journal=made.path, **{**OWN, **settings})
    assert said in str(error.value)


def test_a_run_of_the_same_goes_on_and_reaches_ray(made):
    with pytest.raises(AssertionError, match="reached for Ray"):
        flopray.sweep.trainable("mlp", journal=made.path, **OWN, cpus_per_trial=2)


def test_a_sweep_a_locked_run_and_a_folder_of_others_are_refused(made, tmp_path):
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {name: (value,) for name, value in MLP_POINT.items()}
    sweep = Sweep(workload=MLP(), axes=axes, settings=SETTINGS, cpus_per_trial={"CPU": 1})
    RunFolder.create(tmp_path, "grid", sweep.to_manifest("grid", {}))
    with pytest.raises(RunError, match="is a sweep of flopray, with its own grid: name another journal"):
        flopray.sweep.trainable("mlp", journal=tmp_path / "grid", **OWN)
    with made.writer(), pytest.raises(RunLocked, match="is being written by process"):
        flopray.sweep.trainable("mlp", journal=made.path, **OWN)
    (tmp_path / "photos").mkdir()
    with pytest.raises(RunError, match="exists"):
        flopray.sweep.trainable("mlp", journal=tmp_path / "photos", **OWN)


def test_the_run_is_read_like_any_other_but_not_resumed_or_merged(made, tmp_path, capsys):
    point = MLP().point(device_type="CPU", **MLP_POINT)
    with made.writer() as journal:
        journal.append([[PhaseRecord.of(trial_id=point.id, phase="forward", **point.fields(), time_s=1e-3)]])
        assert status_of_run(made.path).state == "running"
    assert flopray.load_run(made.path).width.tolist() == [16]
    assert open_run(made.path).workload == MLP()
    status = status_of_run(made.path)
    assert (status.state, status.points, status.finished, status.resume) == ("finished", 1, 1, None)
    assert main(["surfaces", str(made.path), "--formats", "svg", "--no-html"]) == 0
    capsys.readouterr()
    assert main(["resume", str(made.path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be resumed: a Tuner of your own decides on its points; run your script again" in line
    with pytest.raises(RunError, match="run your script again"):
        flopray.resume(made.path)
    assert main(["merge", str(made.path), str(made.path), "--into", str(tmp_path / "m")]) == 2
    with pytest.raises(NotARun, match="has no grid, since a Tuner of your own decides"):
        Sweep.from_manifest(made.manifest)
    assert manifests.of_own_tuner(made.manifest)


def test_a_tuner_of_ones_own_keeps_tunes_loggers_progress_and_ctrl_c(monkeypatch):
    tunes = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "RAY_AIR_NEW_OUTPUT", "TUNE_DISABLE_SIGINT_HANDLER"}
    monkeypatch.setattr(os, "environ", {})
    quiet_ray(own_tuner=True)
    assert not tunes & set(os.environ)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    quiet_ray()
    assert tunes <= set(os.environ)


class NoMetrics:
    def take(self, records):
        pass

    def refresh(self, running):
        pass


def test_the_recorder_answers_what_the_journal_has_and_tells_when_it_takes_no_more():
    schema = RecordSchema(MLP())
    recorder = ResultRecorder("r", set(), SETTINGS, Limits(), metrics=NoMetrics(), end=no_ray)
    point = MLP().point(device_type="CPU", **MLP_POINT)
    records = [
        PhaseRecord.of(
            trial_id=point.id, phase="forward", **point.fields(), time_s=1e-3, findings=("note:no_limit_known",)
        )
    ]
    assert recorder.begin("t0", point, "CPU@n:1", None) == 1
    recorder.push("t0", records)
    assert recorder.journaled(point.id) is None, "pushed is not yet journaled"
    recorder.keep(lines_of(recorder.take().points, schema))
    answer = recorder.journaled(point.id)
    assert answer is not None
    assert records_in(answer, schema) == records
    assert recorder.begin("t1", point, "CPU@n:1", None) is None
    recorder.fail("the disk is full")
    assert recorder.journaled(point.id) == answer
    with pytest.raises(FloprayError, match="the disk is full"):
        recorder.journaled("another")
