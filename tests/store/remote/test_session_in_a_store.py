"""How a session ends when its run lives in a store: its output names the store, and its points are sent."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from points import POINTS, row, sweep
from rich.console import Console

import flopray.sweep.driver
from flopray.cli import flags, session
from flopray.cli.audit import main as audit
from flopray.cli.interrupted_run import InterruptedRun
from flopray.cli.request import Options
from flopray.cli.results import finish
from flopray.cli.terminal import LineConsole
from flopray.cluster.devices import Cluster
from flopray.errors import EXIT_NOT_FINISHED, StorageError
from flopray.measurement.start_up import StartUp
from flopray.monitoring.progress import Progress
from flopray.store.journal_index import RunWarning
from flopray.store.location import open_run
from flopray.store.manifests import MIRROR_NAME
from flopray.store.run import RunFolder
from flopray.workloads.mlp import MLP

SCRIPT = Path(__file__).parents[3] / "sweeps" / "mlp_grid.py"


@pytest.fixture
def end_of_session(run, monkeypatch):
    """Ends a session of `run` whose sweep finishes some points, and then what is given; its exit code."""

    def end(numbers, then=None) -> int:
        def run_sweep(_, folder, __, progress, **___):
            points = [row(POINTS[number]) for number in numbers]
            with folder.writer() as journal:
                journal.append(points)
                progress.update(points, {})
                if then is not None:
                    raise then

        monkeypatch.setattr(flopray.sweep.driver, "run_sweep", run_sweep)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--storage", "s3://..."])
        script = MLP()
        of = InterruptedRun(script, flags.parse(script, ["--no-plots", "--resume", run.address]))
        placed = of.on(Cluster({}, 2, {"CPU": 2}, None, True))
        return session._measure(of, placed, of.folder, Console(quiet=True), [], StartUp())

    return end


def test_an_interrupt_prints_a_command_that_a_shell_understands(end_of_session, run, s3, prefix, capsys):
    assert end_of_session([0], KeyboardInterrupt()) == 130
    command = next(line for line in capsys.readouterr().err.splitlines() if "resume" in line)
    assert shlex.split(command)[-2:] == ["resume", run.address]
    assert [name.split("/")[0] for name in s3.names(prefix)] == ["journal", "logs", "manifest.json"]


def test_a_session_that_finishes_leaves_its_results_in_the_store(end_of_session, s3, prefix):
    assert end_of_session([0, 1]) == 0
    assert end_of_session([2, 3, 4]) == 0
    names = s3.names(prefix)
    assert {"records.parquet", "summary.json"} <= set(names)
    logs = [s3.read(f"{prefix}/{name}").decode() for name in names if name.startswith("logs/")]
    assert [log.count(": ok") for log in logs] == [2, 3]


def test_messages_name_the_store_and_not_the_copy(run, monkeypatch, capsys):
    with run.writer() as journal:
        journal.append([row(point) for point in POINTS])
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    script = MLP()
    drawn = lambda _, folder, console: console.print(f"1 figure: {folder}/plots/a/")  # noqa: E731
    monkeypatch.setattr("flopray.cli.run_figures.draw", drawn)
    console = LineConsole(stderr=True, markup=False, width=400)
    finish(script, Options(), console, open_run(run.address), Progress(console, total=len(POINTS)))
    captured = capsys.readouterr()
    place = run.address.partition("?")[0]
    assert f"1 figure: {place}/plots/a/\n" in captured.err
    assert f"records  {place}/records.parquet\n" in captured.out
    assert f"flopray.load_run({run.address!r})" in captured.out
    assert str(run.path) not in captured.out + captured.err
    console.print(f"{run.path} is a path again")
    assert str(run.path) in capsys.readouterr().err


@pytest.mark.parametrize("opened_as", ["a run in a store", "the copy that commands read"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("journal.jsonl", "1 damaged line in the journal of {place} (first: line 6) skipped"),
        ("records.parquet", "{place}/records.parquet is not used"),
    ],
)
def test_a_warning_about_the_copy_names_the_run(run, damage, said, opened_as):
    with run.writer() as journal:
        journal.append([row(point) for point in POINTS])
    opened = open_run(run.address)
    with (opened.path / damage).open("ab") as file:
        file.write(b"no line of a journal\n")
    folder = opened if opened_as == "a run in a store" else RunFolder.open(opened.path)
    with pytest.warns(RunWarning) as warned:
        folder.load()
    text = " ".join(str(one.message) for one in warned)
    assert said.format(place=run.address.partition("?")[0]) in text
    assert str(opened.path) not in text


def test_an_error_of_this_machines_disk_names_the_run_and_the_copy(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flopray.store.table.write_parquet", full)
    with pytest.raises(StorageError) as raised:
        run.compact()
    assert f"{run.address.partition('?')[0]}/records.parquet (its copy is {run.records_path})" in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"copy_of": 7}', b'{"copy_of": "s3://key:secret@bucket/r"}', b"[" * 9000]
)
def test_a_folder_that_claims_to_be_a_copy_of_nothing_goes_by_its_path(run, tmp_path, content):
    folder = RunFolder.create(tmp_path, "r", sweep().to_manifest("r", {}))
    (folder.path / MIRROR_NAME).write_bytes(content)
    assert RunFolder.open(folder.path).place("x") == str(folder.path / "x")


def test_an_audit_that_cannot_be_made_names_the_run_and_not_the_copy(run, capsys):
    assert audit([run.address]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {run.address}: ")
    assert str(run.path) not in error


@pytest.mark.slow
@pytest.mark.parametrize("sent", [True, False])
def test_files_that_could_not_be_sent_are_not_named_by_an_address_of_the_store(run, monkeypatch, capsys, sent):
    def unreachable(*_, **__):
        raise StorageError("the store does not answer")

    with run.writer() as journal:
        journal.append([row(point) for point in POINTS])
    run.plots_path.mkdir()
    (run.plots_path / "a.png").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    monkeypatch.setattr("flopray.cli.run_figures.draw", lambda *_: None)
    if not sent:
        monkeypatch.setattr(type(run), "publish", unreachable)
    script, console = MLP(), LineConsole(stderr=True, markup=False, width=400)
    code = finish(script, Options(), console, run, Progress(console, total=len(POINTS)))
    out = capsys.readouterr().out
    assert code == (0 if sent else EXIT_NOT_FINISHED)
    assert [f"\n{word} " in out for word in ("records", "plots", "load")] == [sent, sent, True]
