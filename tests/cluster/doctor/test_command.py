"""The command line, without Ray's cluster."""

from __future__ import annotations

import json

import pytest

from flopray.cli import doctor as command
from flopray.cli import endings
from flopray.cli.main import main
from flopray.errors import ClusterError


@pytest.fixture
def found(monkeypatch, gpu_node):
    """What the doctor finds, without looking at machines."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(command, "_look", lambda address: [gpu_node()])
    monkeypatch.setattr(endings.signal, "signal", lambda *_: None)


def test_the_report_is_a_success_whatever_it_finds(found, capsys):
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert "GPU energy" in out
    assert "\x1b" not in out
    assert err == ""


def test_json_is_one_object_and_nothing_else(found, capsys):
    assert main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["nodes"][0]["name"] == "gpu-1"
    assert err == ""


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [(ClusterError("nothing answers"), 2, "nothing answers"), (KeyboardInterrupt(), 130, "")],
)
def test_errors_are_one_line_and_an_exit_code(found, monkeypatch, capsys, raised, code, words):
    def look(address):
        raise raised

    monkeypatch.setattr(command, "_look", look)
    assert main(["doctor", "--address", "h:1"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


def test_a_mistyped_command_is_one_line(capsys):
    assert main(["docter"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "did you mean doctor?" in err


@pytest.mark.parametrize("arguments", [[], ["doctor", "--adress", "auto"]])
def test_bad_flags_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in ("doctor", "merge", "status"))])
def test_help_teaches_and_fits(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"  python -m flopray {arguments[0] if len(arguments) > 1 else 'doctor'}" in out  # an example
    assert max(map(len, out.splitlines())) <= 80
