"""`flopray evaluate`: what is missing is one line with its remedy, before Ray starts."""

from __future__ import annotations

import pytest
from tiny_models import TASKS

from flopray.cli.main import main

OWN = ["--tasks", "kinds", "--include-path", str(TASKS)]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch, tmp_path):
    """Nothing is started: an attempt to reach the cluster fails the test."""

    def refuse(*_, **__):
        pytest.fail("Ray was started")

    monkeypatch.setattr("flopray.cli.session.connected", refuse)
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words) -> str:
    assert main(["evaluate", *map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("--tasks", "--limit", "--num-fewshot", "--batch-size", "--include-path", "sst2", "flopray resume"):
        assert word in text


def test_without_the_extra_it_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setattr("flopray.workloads.evaluation.tasks.find_spec", lambda name: None)
    assert "pip install 'flopray[evaluate]'" in refused(capsys, "org/model")


@pytest.mark.extras("evaluate")
class TestRefusals:
    def test_a_model_is_named_first(self, capsys):
        assert "name the models first" in refused(capsys, *OWN)

    def test_a_task_that_needs_the_network(self, capsys, guessing, no_hub):
        err = refused(capsys, guessing, "--tasks", "rte")
        assert "--tasks rte: its data is not on this machine" in err
        assert "cannot be reached" in err
        assert "--include-path" in err

    def test_a_task_that_is_unknown(self, capsys, guessing, own_tasks_alone):
        err = refused(capsys, guessing, "--tasks", "kindz", "--include-path", TASKS)
        assert "unknown 'kindz'" in err
        assert "did you mean kinds" in err

    def test_the_default_tasks_are_those_of_glue(self, capsys, guessing, no_hub):
        assert "--tasks sst2: its data is not on this machine" in refused(capsys, guessing)

    def test_a_model_that_needs_the_network(self, capsys, no_hub):
        err = refused(capsys, "org/none", *OWN)
        assert err.startswith("error: org/none: no file or folder here")
        assert "cannot be reached" in err

    @pytest.mark.parametrize(
        ("words", "about"),
        [
            (["--tasks", "kinds", "--include-path", "nowhere"], "there is no such folder"),
            ([*OWN, "--limit", "0"], "--limit: 0 is below 1"),
            ([*OWN, "--limit", "0.5"], "--limit: '0.5' is neither a whole number nor 'all'"),
            ([*OWN, "--num-fewshot", "-1"], "--num-fewshot"),
            ([*OWN, "--batch-size", "0"], "--batch-size: 0 is below 1"),
            ([*OWN, "--precision", "int8"], "unknown 'int8'"),
            ([*OWN, "--instruments", "counters"], "unrecognized arguments: --instruments"),
        ],
    )
    def test_values_that_cannot_be(self, capsys, guessing, words, about):
        try:
            code = main(["evaluate", str(guessing), *map(str, words)])
        except SystemExit as ended:
            code = ended.code
        assert code == 2
        assert about in capsys.readouterr().err

    def test_a_folder_without_weights_or_tokenizer(self, capsys, guessing, tmp_path):
        (tmp_path / "bare").mkdir()
        assert "no config.json" in refused(capsys, tmp_path / "bare", *OWN)
        (tmp_path / "bare" / "config.json").write_text((guessing / "config.json").read_text())
        assert "no safetensors" in refused(capsys, tmp_path / "bare", *OWN)
        (tmp_path / "bare" / "model.safetensors").write_bytes((guessing / "model.safetensors").read_bytes())
        assert "no tokenizer" in refused(capsys, tmp_path / "bare", *OWN)

    def test_code_of_a_model_is_never_run(self, capsys, guessing, tmp_path):
        text = (guessing / "config.json").read_text().replace("{", '{"auto_map": {"AutoConfig": "x.Y"},', 1)
        (tmp_path / "config.json").write_text(text)
        assert "never run" in refused(capsys, tmp_path, *OWN)

    def test_a_dry_run_counts_the_points(self, capsys, guessing, knowing):
        assert main(["evaluate", str(guessing), str(knowing), *OWN, "--precision", "fp32", "bf16", "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert "│ 4      │ 4      │ unknown" in out
        assert "not predicted" in out
        assert "nothing was started" in out
