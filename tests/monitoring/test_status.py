"""`flopray status` and the run's log tell the truth about a run's folder."""

from __future__ import annotations

import io
import json
import logging
import os
from pathlib import Path

import pytest
from rich.console import Console

from flopray.cli import main as commands
from flopray.cluster.doctor.preflight import Preflight, tell
from flopray.errors import ClusterError, InputError, resume_command
from flopray.monitoring.progress import Progress
from flopray.monitoring.run_log import RunLog
from flopray.monitoring.status import status_of_run
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.metrics import linger_s
from flopray.workloads.mlp import MLP


def sweep() -> Sweep:
    axes = {"device_type": ("CPU",), "precision": ("fp32",), "execution": ("eager",)}
    axes |= {"n_layers": (1,), "width": (16, 32, 64, 128), "tokens": (8,)}
    return Sweep(workload=MLP(), axes=axes, settings=MeasureSettings(phases=("forward",)), cpus_per_trial={"CPU": 1})


def row(point, **changes):
    fields = {"trial_id": point.id, "phase": "forward", "device_wall_s": 2.0, "window_s": 1.0, **point.fields()}
    return [PhaseRecord.of(**{**fields, **changes})]


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder.create(tmp_path, "a run", sweep().to_manifest("a run", {}) | {"script": "sweeps/mlp_grid.py"})
    first, second, *_ = sweep().points()
    with folder.writer() as journal:
        failed = {"status": "failed", "status_reason": "it [broke]\nmore", "findings": ("error:above_limit",)}
        journal.append([row(first), row(second, **failed)])
    return folder


def test_a_run_that_stands_still(run):
    status = status_of_run(run.path)
    assert (status.state, status.driver, status.points, status.finished) == ("interrupted", None, 4, 2)
    assert status.points_per_s == pytest.approx(0.5)
    assert status.eta_s == pytest.approx(4.0)
    assert status.measured_fraction == pytest.approx(0.5)
    assert status.failures == [{"status": "failed", "reason": "it [broke]", "points": 1}]
    assert status.findings == {"error:above_limit": 1}
    assert status.resume == resume_command(str(run.path))


def test_a_run_that_is_being_written_and_one_that_was_killed(run):
    with run.writer():
        status = status_of_run(run.path)
        assert (status.state, status.resume) == ("running", None)
        assert f"process {os.getpid()} on " in (status.driver or "")
    (run.path / "writer.lock").write_text('{"pid": 7, "host": "elsewhere"}')
    status = status_of_run(run.path)
    assert (status.state, status.driver) == ("killed", "process 7 on elsewhere (seen from another host)")


def test_a_run_that_is_done(run, capsys):
    with run.writer() as journal:
        journal.append([row(point) for point in sweep().points()[2:]])
    status = status_of_run(run.path)
    assert (status.state, status.eta_s, status.resume) == ("finished", None, None)
    assert status.retry == f"{resume_command(str(run.path))} --retry-failed"  # one point crashed
    commands.main(["status", str(run.path)])
    assert capsys.readouterr().out.endswith(f"\nretry    {status.retry}\n")


def test_a_merged_run_of_differing_settings_waits_for_nothing(run, capsys):
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["merged"] = {"sources": [], "not_resumable": "the runs differ in target_error"}
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    status = status_of_run(run.path)
    assert (status.state, status.eta_s, status.resume, status.retry) == ("merged", None, None, None)
    commands.main(["status", str(run.path)])
    out = capsys.readouterr().out
    said = "cannot be resumed: the runs differ in target_error; "
    said += "resume the sources that can be resumed, or measure the missing points in a new run, and merge again"
    assert f"state    merged, {said}\npoints   2 of 4 (50%)\n" in out
    assert "to go" not in out


def test_the_command(run, capsys, tmp_path):
    assert commands.main(["status", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] == 2
    assert commands.main(["status", str(run.path)]) == 0
    assert "failed   1 failed: it [broke]" in capsys.readouterr().out
    assert commands.main(["status", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: there is no run at")


def test_looking_does_not_keep_a_driver_out(run):
    for _ in range(20):
        status_of_run(run.path)
        with run.writer():
            pass


def test_the_log_has_failures_retries_and_the_chatter_of_libraries(tmp_path, capfd):
    first, second, *_ = sweep().points()
    path = tmp_path / "run.log"
    with RunLog(path, MLP()) as log, Progress(Console(quiet=True), total=2, log=log) as progress:
        progress.retried("attempt 2 of n=1 on CPU@x:1: its process died")
        progress.update([row(first, node="x"), row(second, node="x", status="failed", status_reason="why")], {})
        logging.getLogger("ray.tune").warning("chatter")
    text = path.read_text()
    assert "attempt 2 of n=1" in text
    assert "on CPU@x: failed; why" in text
    assert text.count("chatter") == 1
    assert "chatter" not in "".join(capfd.readouterr())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_log_that_cannot_be_written_says_nothing(capfd):
    with RunLog(Path("/dev/full"), MLP()) as log:
        log.say("lost")
        logging.getLogger("ray.tune").warning("lost too")
    assert capfd.readouterr() == ("", "")


def test_what_tune_logs_at_length_stays_out_of_the_terminal(tmp_path):
    terminal = logging.StreamHandler(io.StringIO())
    logging.getLogger("ray").addHandler(terminal)
    try:
        with RunLog(tmp_path / "run.log", MLP()):
            logging.getLogger("ray.tune").error("Trial task failed")
    finally:
        logging.getLogger("ray").removeHandler(terminal)
    assert terminal.stream.getvalue() == ""
    assert "Trial task failed" in (tmp_path / "run.log").read_text()


def test_events_are_one_json_object_a_line(capsys):
    with Progress(Console(quiet=True), total=2, events=True) as progress:
        progress.update([row(sweep().points()[0])], {"CPU@x:1": "n=1"})
        progress.notice("hear")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["started", "working", "point", "notice", "stopped"]
    assert lines[2]["status"] == "ok"


def test_seconds_that_the_recorder_lives_on_are_checked(monkeypatch):
    monkeypatch.setenv("FLOPRAY_METRICS_LINGER_S", "soon")
    with pytest.raises(InputError, match="FLOPRAY_METRICS_LINGER_S must be 0 or more seconds, got 'soon'"):
        linger_s()


@pytest.mark.parametrize("width", [30, 60, 120])
def test_the_live_view_fits_its_window(width):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    point = sweep().points()[0]
    progress = Progress(terminal, total=9, types={"CPU": (9, 3)}, workload=MLP())
    progress.update([], {"CPU@node:1": point.label()})
    progress.update([row(point, time_s=1.0, power_w=300.0, status="failed", status_reason="why " * 50)], {})
    with terminal.capture() as shown:
        terminal.print(progress._live.renderable)
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= width
    assert "4/9" in shown.get()
    assert ("300 W" in shown.get()) == (width == 120)


def test_strict_refuses_what_is_else_only_shown():
    out = Console(file=io.StringIO(), width=100)
    found = Preflight(2, [("a", "no torch")], ["torch: 1 on a; 2 on b"], 0.1)
    assert tell(out, found, strict=False) == ["a: no torch", "nodes differ in torch: 1 on a; 2 on b"]
    with pytest.raises(ClusterError, match=r"^strict: a: no torch"):
        tell(out, found, strict=True)
    assert tell(out, Preflight(2, [], [], 0.1), strict=True)[0].startswith("pre-flight: 2 nodes")
