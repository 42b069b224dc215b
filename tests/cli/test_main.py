"""The command `flopray`: each subcommand does the same as the script of that name."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flopray import __main__
from flopray.cli import main as command
from flopray.cli.main import main
from flopray.sweep.definition import Sweep
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import find_workload


@pytest.fixture
def swept(monkeypatch):
    """The arguments of a sweep's command line."""
    calls = []
    monkeypatch.setattr(
        "flopray.cli.main.sweep_command", lambda workload, argv: calls.append((workload.name, argv)) or 0
    )
    return calls


def test_a_sweep_by_the_name_of_its_workload(swept):
    assert main(["sweep", "mlp", "--n", "2"]) == 0
    assert main(["sweep", "llama"]) == 0
    assert swept == [("mlp", ["--n", "2"]), ("llama", [])]


@pytest.mark.parametrize("workload", ["mlp", "llama"])
def test_a_resume_finds_the_workload_in_the_manifest(swept, monkeypatch, workload):
    monkeypatch.setattr(command, "_workload_of", lambda run, named: find_workload(workload))
    assert main(["resume", "results/r", "--address", "auto"]) == 0
    assert swept == [(workload, ["--resume", "results/r", "--address", "auto"])]


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (
            ["sweep"],
            "the workload first: mlp, causal_lm, llama, the name of an installed workload, or FILE.py:NAME",
        ),
        (["sweep", "resnet"], "unknown workload 'resnet': choose from mlp, llama"),
        (["resume"], "name the run first"),
        (["resume", "--address", "auto"], "name the run first"),
        (["resume", "no/such/run"], "no/such/run"),
    ],
)
def test_what_is_wrong_is_one_line(capsys, swept, words, about):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert about in err
    assert err.count("\n") == 1
    assert swept == []


def test_the_tools_take_their_own_flags(capsys):
    assert main(["audit", "no/such/table.csv"]) == 2
    assert "no/such/table.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["compare-gpus", "--help"])
    assert end.value.code == 0
    assert "--published" in capsys.readouterr().out


@pytest.mark.parametrize("script", sorted((Path(__file__).parents[2] / "analysis").glob("*.py")), ids=lambda p: p.stem)
def test_a_script_of_analysis_is_a_command(script):
    assert runpy.run_path(str(script))["main"] is __main__.main
    (name,) = re.findall(r'sys\.exit\(main\("([\w-]+)"\)\)', script.read_text())
    assert name in command._COMMANDS


def test_help_lists_every_command():
    outcome = subprocess.run([sys.executable, "-m", "flopray", "--help"], capture_output=True, text=True, check=True)
    commands = ("sweep", "resume", "status", "doctor", "merge", "explain", "surfaces", "series", "audit")
    for word in (*commands, "compare-flops"):
        assert word in outcome.stdout


def test_the_workload_of_a_run_is_read_from_its_manifest(tmp_path):
    from flopray.settings import MeasureSettings
    from flopray.store.run import RunFolder

    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1,), "width": (16,), "tokens": (8,)}
    sweep = Sweep(workload=MLP(), axes=axes, settings=MeasureSettings(), cpus_per_trial={"CPU": 1})
    folder = RunFolder.create(tmp_path, "r", sweep.to_manifest("r", {}))
    assert command._workload_of(str(folder.path), None).name == "mlp"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["sweep", "mlp", "--instrument", "time"],
            "unrecognized arguments: --instrument time: did you mean --instruments?",
        ),
        (["sweep", "mlp", "--presicion", "fp32"], "did you mean --precision?"),
        (["status", "results/x", "--jsno"], "unrecognized arguments: --jsno: did you mean --json?"),
        (["sweep", "mlp", "--qqqq"], "unrecognized arguments: --qqqq (--help"),
    ],
)
def test_a_flag_is_written_in_full(capsys, words, said):
    """An abbreviation would change its meaning with a new flag that begins with the same letters."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_help_of_a_file_names_the_command_as_it_is_typed(capsys):
    conv = Path(__file__).parents[1] / "workloads" / "models" / "conv.py"
    with pytest.raises(SystemExit):
        main(["sweep", f"{conv}:ConvNet", "--help"])
    assert "flopray sweep conv.py:ConvNet" in capsys.readouterr().out


def test_an_interrupt_during_imports_is_no_traceback(monkeypatch, capsys):
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(
        sys.modules, "flopray.cli.main", SimpleNamespace(main=interrupted, as_process=command.as_process)
    )
    assert __main__.main() == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize("entry", ["main('sweep', 'mlp')", "sweep_script('mlp')"])
def test_a_second_interrupt_while_the_process_ends_does_not_change_its_code(entry):
    """As while Ray clears up: here what clears up sends it."""
    code = f"""
import atexit, os, signal, sys, types
import flopray.cli.main
def work(*_):
    sys.modules["ray"] = types.ModuleType("ray")
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
    return 130
flopray.cli.main.sweep_command = work
from flopray.__main__ import main, sweep_script
sys.exit({entry})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["swep", "mlp"], "there is no command 'swep': did you mean sweep?"),
        (["reprot", "results/r"], "there is no command 'reprot': did you mean report?"),
        (["compare_flops", "results/r"], "did you mean compare-flops?"),
        (["xyzzy"], "there is no command 'xyzzy': the commands are sweep, resume, "),
        (["mlp", "--n", "2"], "'mlp' is a workload and no command: did you mean flopray sweep mlp?"),
        (["net.py:Net"], "did you mean flopray sweep net.py:Net?"),
        (["sweep", "lama"], "unknown workload 'lama': choose from mlp, llama, causal_lm, evaluation"),
        (["sweep", "lama"], "or name a class as FILE.py:NAME: did you mean llama?"),
        (["explain", "launch_windw"], "unknown rule 'launch_windw': did you mean launch_window?"),
        (["explain", "xyzzy"], "unknown rule 'xyzzy': choose from not_positive, "),
    ],
)
def test_a_mistyped_word_gets_a_hint(capsys, words, about):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert about in err
    assert err.count("\n") == 1
