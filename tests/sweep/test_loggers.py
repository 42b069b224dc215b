"""Which loggers a run has, where they are, and what is refused before Ray starts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import flopray
from flopray.cli import session
from flopray.cli.main import sweep_command
from flopray.errors import InputError, NotARun, SettingError
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep import loggers as loggers_module
from flopray.sweep.definition import Sweep
from flopray.sweep.loggers import Loggers, given_tracking_uri, name_of, varied_axes
from flopray.sweep.merge import united
from flopray.sweep.never_fatal import reason
from flopray.workloads.mlp import MLP

NOWHERE = "http://127.0.0.1:9"


def sweep(**fields) -> Sweep:
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1,), "width": (16, 32), "tokens": (8,)}
    settings = MeasureSettings(phases=("forward",))
    return Sweep(workload=MLP(), axes=axes, settings=settings, cpus_per_trial={"CPU": 1}, **fields)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command line in this process, in an empty folder and for a user who has sent nothing anywhere."""

    def no_ray(*_, **__):
        pytest.fail("this would have reached for Ray")

    monkeypatch.setattr(session, "connected", no_ray)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(line) -> tuple[int, str]:
        code = sweep_command(MLP(), shlex.split(line))
        return code, capsys.readouterr().err

    return run


GRID = "--n 1 --d 16 --m 8 --name r --storage ."


def one_line(outcome: tuple[int, str]) -> str:
    code, text = outcome
    assert code == 2
    assert text.count("\n") == 1
    assert not Path("r").exists()
    return text


def test_a_logger_that_there_is_not_is_named(command):
    text = one_line(command(f"{GRID} --log-to mlflow tensorbord"))
    assert "--log-to: unknown 'tensorbord', choose from tensorboard, mlflow, wandb" in text
    assert "--log-to needs at least one logger of: tensorboard, mlflow, wandb" in one_line(command(f"{GRID} --log-to"))


@pytest.mark.parametrize("more", ["", " --dry-run"])
def test_a_missing_package_is_named_with_its_extra(command, monkeypatch, more):
    monkeypatch.setattr(loggers_module, "find_spec", lambda name: None if name != "tensorboardX" else object())
    text = one_line(command(f"{GRID} --log-to tensorboard mlflow wandb{more}"))
    assert text == "error: --log-to mlflow wandb needs an extra: pip install 'flopray[mlflow,wandb]'\n"


@pytest.mark.extras("mlflow")
def test_a_server_that_does_not_answer_is_refused_before_ray_starts(command, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    text = one_line(command(f"{GRID} --log-to mlflow"))
    assert "http://***@127.0.0.1:9 does not answer: set MLFLOW_TRACKING_URI to a server that does" in text
    assert "secret" not in text


@pytest.mark.extras("mlflow")
def test_behind_a_ray_client_mlflow_needs_a_server(command):
    text = one_line(command(f"{GRID} --log-to mlflow --address ray://head:10001"))
    assert "--log-to mlflow with ray:// needs a server that the cluster reaches: set MLFLOW_TRACKING_URI" in text


@pytest.mark.extras("wandb")
def test_weights_and_biases_needs_a_key_or_to_be_offline(command, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nowhere")
    assert "no key of yours: set WANDB_API_KEY, or WANDB_MODE=offline" in one_line(command(f"{GRID} --log-to wandb"))


def test_a_trial_is_a_point_for_loggers_that_make_a_run_of_each():
    assert sweep(log_to=("tensorboard",)).trial_shape == "slab"
    assert sweep(log_to=("mlflow",)).trial_shape == sweep(log_to=("tensorboard", "wandb")).trial_shape == "point"
    assert sweep(log_to=("mlflow",), trial="slab").trial_shape == "slab"
    assert sweep(log_to=("mlflow",), points_per_trial=2).trial_shape == "slab"
    with pytest.raises(SettingError, match="log_to has a logger twice"):
        sweep(log_to=("mlflow", "mlflow"))


def test_a_manifest_keeps_where_results_go_but_no_password(monkeypatch):
    monkeypatch.setattr(loggers_module, "find_spec", lambda name: object())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracking.example/base")
    monkeypatch.setenv("WANDB_PROJECT", "costs")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    asked = sweep(log_to=("mlflow", "wandb"))
    new = Loggers.new(asked.log_to, "r")
    assert (new.tracking_uri, new.experiment, new.project) == ("https://me:secret@tracking.example/base", "r", "costs")
    manifest = json.loads(json.dumps(asked.to_manifest("r", {}) | new.to_manifest()))
    assert "secret" not in json.dumps(manifest)
    again = Sweep.from_manifest(manifest)
    assert again.log_to == ("mlflow", "wandb")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.delenv("WANDB_PROJECT")
    kept = Loggers.of_manifest(manifest, again.log_to)
    assert (kept.run_id, kept.experiment, kept.project) == (new.run_id, "r", "costs")
    assert kept.tracking_uri == "https://***@tracking.example/base"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://moved.example")
    assert Loggers.of_manifest(manifest, again.log_to).tracking_uri == "https://moved.example"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "costs of training")
    assert Loggers.new(asked.log_to, "r").experiment == "costs of training"
    for damaged in ({}, {"loggers": None}, {"loggers": {"run_id": 7}}):
        with pytest.raises(NotARun, match="does not say where it logs to"):
            Loggers.of_manifest(asked.to_manifest("r", {}) | {"name": "r"} | damaged, again.log_to)


def test_a_local_store_is_kept_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, expected in (
        ("sqlite:///runs.db", f"sqlite:///{tmp_path}/runs.db"),
        (f"sqlite:///{tmp_path}/runs.db", f"sqlite:///{tmp_path}/runs.db"),
        ("mlruns", f"file://{tmp_path}/mlruns"),
        ("http://host:5000", "http://host:5000"),
        ("databricks", "databricks"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        assert given_tracking_uri() == expected


def interrupted_run(tmp_path, uri=NOWHERE) -> None:
    asked = sweep(log_to=("mlflow",))
    place = Loggers(names=("mlflow",), run="r", run_id="1", tracking_uri=uri, experiment="r")
    RunFolder.create(tmp_path, "r", asked.to_manifest("r", {}) | place.to_manifest())


@pytest.mark.extras("mlflow")
def test_a_strangers_run_does_not_choose_where_results_are_sent(command, tmp_path):
    interrupted_run(tmp_path)
    code, text = command("--resume r")
    assert code == 2
    assert f"where nothing was sent from here: if you know it, set MLFLOW_TRACKING_URI={NOWHERE}" in text


@pytest.mark.extras("mlflow")
def test_a_resume_needs_the_password_that_the_manifest_does_not_have(command, tmp_path):
    interrupted_run(tmp_path, "http://me:secret@127.0.0.1:9")
    code, text = command("--resume r")
    assert code == 2
    assert "logs to MLflow at http://***@127.0.0.1:9: set MLFLOW_TRACKING_URI with its password" in text


@pytest.mark.extras("mlflow")
def test_a_resume_measures_although_the_server_is_gone(command, tmp_path, monkeypatch):
    interrupted_run(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    with pytest.raises(pytest.fail.Exception, match="reached for Ray"):
        command("--resume r")


def test_python_takes_loggers_as_a_word_or_several(command, monkeypatch):
    monkeypatch.setattr(loggers_module, "find_spec", lambda name: None)
    asked = {"axes": {"n_layers": [1], "width": [16], "tokens": [8]}}
    with pytest.raises(InputError, match=r"pip install 'flopray\[tensorboard\]'"):
        flopray.Sweep("mlp", **asked, log_to="tensorboard").run("r")
    with pytest.raises(InputError, match=r"pip install 'flopray\[tensorboard,wandb\]'"):
        flopray.Sweep("mlp", **asked, log_to=["tensorboard", "wandb"]).run("r")


def test_a_merged_run_logs_nowhere():
    merged, reason = united([sweep(log_to=("mlflow",)), sweep()])
    assert (merged.log_to, reason) == (None, None)


def test_what_a_library_raised_becomes_a_line_without_secrets():
    request = "API request to http://me:secret@host/api failed with exception HTTPConnectionPool(host='host')"
    assert reason(OSError(f"{request}\nand more")) == "API request to http://***@host/api failed"
    assert reason(KeyError()) == "KeyError"


def test_an_entry_is_called_by_what_varies():
    assert varied_axes(sweep()) == ("width",)
    assert name_of({"width": 16, "tokens": 8}, ("width", "tokens")) == "width 16 tokens 8"
