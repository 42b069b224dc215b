"""`python analysis/audit.py PATH`: what it prints, and its exit code."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from flopray.audit import audit
from flopray.cli.audit import main, show
from flopray.cli.terminal import LineConsole
from flopray.records import PhaseRecord
from flopray.store.run import RunFolder
from flopray.workloads.registry import make_point

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT.parent / "shared" / "published"
RESULTS = PUBLISHED / "architecture" / "results_optimized"
ROW = {"device_name": "NVIDIA H100 80GB HBM3", "precision": "fp32", "phase": "forward", "model_flops": 5e10}


def table(tmp_path, *times, suffix=".parquet"):
    frame = pd.DataFrame([ROW | {"time_s": time_s} for time_s in times])
    path = tmp_path / f"records{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_exit_code_tells_whether_something_is_impossible(tmp_path, capsys, suffix):
    assert main([str(table(tmp_path, 1e-3, suffix=suffix))]) == 0
    assert "0 impossible" in capsys.readouterr().out
    assert main([str(table(tmp_path, 1e-3, 1e-4, suffix=suffix))]) == 1
    out = capsys.readouterr().out
    assert "rate_above_limit" in out
    assert "H100 SXM" in out
    assert "not judged" in out


def test_a_bare_name_of_a_run_leads_to_its_folder(tmp_path, capsys, monkeypatch):
    RunFolder.create(tmp_path / "results", "monday", {})
    monkeypatch.chdir(tmp_path)
    assert main(["monday"]) == 2
    assert capsys.readouterr().err == "error: monday: no such file or folder: did you mean results/monday?\n"
    assert main(["other"]) == 2
    assert capsys.readouterr().err == "error: other: no such file or folder\n"


def test_a_run_folder_is_loaded_and_its_whole_phases_are_added_up(tmp_path, capsys):
    spec = make_point(workload="mlp", device_type="H100", n_layers=2, width=512, tokens=64, execution="graph")
    shared = {"workload": "mlp", "device_type": "H100", "device_name": ROW["device_name"], "precision": "fp32"}
    times = {"forward": 1.0, "backward": 2.0, "forward_backward": 4.0}
    phases = [
        PhaseRecord.of(run="r", trial_id=spec.id, phase=p, execution="graph", time_s=t, **shared, **spec.shape())
        for p, t in times.items()
    ]
    folder = RunFolder.create(tmp_path, "r", {})
    with folder.writer() as writer:
        writer.append([phases])
    assert main([str(folder.path), "--json"]) == 0
    found = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["rule"] == "additivity"]
    assert [(f["severity"], f["numbers"]["whole_time_s"], f["numbers"]["parts_time_s"]) for f in found] == [
        ("implausible", 4.0, 3.0)
    ]
    assert found[0]["keys"]["phase"] == "forward_backward"


def test_json_is_one_object_with_every_finding(tmp_path, capsys):
    assert main([str(table(tmp_path, 1e-3, 1e-4)), "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["rows"] == 2
    assert content["findings"][0]["rule"] == "rate_above_limit"
    assert content["findings"][0]["rows"] == [1]
    assert set(content["rules"]) >= {finding["rule"] for finding in content["findings"]}


def test_csv_has_a_line_for_each_finding(tmp_path, capsys):
    file = tmp_path / "findings.csv"
    assert main([str(table(tmp_path, 1e-4)), "--csv", str(file)]) == 1
    written = pd.read_csv(file)
    assert list(written.columns) == ["severity", "rule", "where", "sentence", "rows", "numbers"]
    assert written.iloc[0]["severity"] == "impossible"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "absent", "no such file"),
        (lambda folder: folder, "manifest"),
        (lambda folder: _text(folder / "x.txt", "hello"), "not a run's folder"),
        (lambda folder: _text(folder / "x.parquet", "hello"), "cannot be read"),
        (lambda folder: _text(folder / "x.csv", ""), "cannot be read"),
        (lambda folder: _text(folder / "x.csv", "a,b\n1,2\n"), "none of the columns"),
        (lambda folder: _text(folder / "x.csv", "time_s,energy_j\n"), "no rows"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, make, says):
    assert main([str(make(tmp_path))]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err


def test_a_csv_that_cannot_be_written_is_bad_input(tmp_path, capsys):
    assert main([str(table(tmp_path, 1e-3)), "--csv", str(tmp_path / "absent" / "f.csv")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(not RESULTS.is_dir(), reason="flopmetrics' published results are not in ../shared/published")
def test_the_published_folder_as_a_command():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "analysis/audit.py", str(RESULTS)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    forward = next(line for line in done.stdout.splitlines() if line.startswith("│ forward"))
    assert [cell.strip() for cell in forward.strip("│").split("│")] == ["forward", "45", "36", "43", "45"]
    assert "launch_window" in done.stdout


def _text(path, content):
    path.write_text(content)
    return path


def test_rules_that_could_not_judge_are_no_findings(tmp_path, capsys):
    assert main([str(table(tmp_path, 1e-3))]) == 0
    out = capsys.readouterr().out
    assert "no finding\n" in out
    assert "0 impossible, 0 implausible, 0 notes; " in out
    assert f"; {out.count('not judged: ')} rules could not judge all rows\n" in out
    assert "python -m flopray explain RULE\n" in out


@pytest.mark.parametrize("width", [80, 160])
def test_no_word_of_a_finding_is_broken(tmp_path, width):
    frame = pd.read_csv(table(tmp_path, 1e-3, 1e-4, suffix=".csv"))
    console = LineConsole(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show(console, "t", frame, audit(frame))
    out = console.file.getvalue()
    for word in ("impossible", "rate_above_limit", "PFLOP/s" if "PFLOP/s" in out else "TFLOP/s"):
        assert word in out
    assert "1 impossible, 0 implausible, 0 notes" in out
