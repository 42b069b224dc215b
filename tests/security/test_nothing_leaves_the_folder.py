"""Names, paths and a stranger's links lead nowhere outside the storage or the run's folder: with real files."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import hostile
import pytest
from rich.console import Console

import flopray.cli.main as commands
from flopray.cli import compare_flops, compare_gpus, surfaces
from flopray.cli.main import sweep_command
from flopray.cli.run_figures import draw_surfaces
from flopray.errors import FloprayError, InputError, NotARun, RunError, StorageError
from flopray.monitoring.run_log import RunLog
from flopray.store.location import load_run
from flopray.store.run import RunFolder
from flopray.sweep.merge import merge
from flopray.workloads.mlp import MLP

SECRET = b"nobody may write here"
OUTSIDE = ("../out", "a/../../out", "/etc/out", "..", ".", "", "a\\b", "-rf", ".hidden", "a\nb", "a\x1bb", "x" * 300)


@pytest.fixture
def precious(tmp_path) -> Path:
    """A file beside the runs, which no link of a run may lead a writer to."""
    (tmp_path / "outside").mkdir()
    path = tmp_path / "outside" / "precious"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return hostile.make_run(tmp_path / "runs")


def untouched(precious: Path) -> bool:
    return precious.read_bytes() == SECRET and list(precious.parent.iterdir()) == [precious]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_are_no_plain_folder_names(tmp_path, name):
    storage = tmp_path / "storage"
    assert hostile.carry_out(lambda: sweep_command(MLP(), [f"--name={name}", "--storage", str(storage)])) == 2
    with pytest.raises(InputError):
        RunFolder.create(storage, name, {})
    sources = [hostile.make_run(tmp_path / "runs", each) for each in ("a", "b")]
    (tmp_path / "runs" / "a" / "manifest.json").write_text(
        sources[0].manifest_path.read_text().replace('"name": "a"', f'"name": {name!r}'.replace("'", '"'))
    )
    with pytest.raises(NotARun):
        RunFolder.open(sources[0].path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.parametrize("into", ["..", ".", "new/..", "-x", ".x", "a\x1bb"])
def test_a_merge_goes_into_a_folder_with_a_plain_name(tmp_path, monkeypatch, into):
    runs = [str(hostile.make_run(tmp_path / "runs", name).path) for name in ("a", "b")]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert hostile.carry_out(lambda: commands.main(["merge", *runs, f"--into={into}"])) == 2
    assert list((tmp_path / "here").iterdir()) == []


def test_a_new_run_is_not_made_through_a_link(tmp_path, precious):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r").symlink_to(precious.parent)
    with pytest.raises(RunError):
        RunFolder.create(tmp_path / "runs", "r", {})
    assert untouched(precious)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["journal.jsonl", "run.log", "writer.lock", "summary.json", "records.parquet", "kernels.parquet", "tune/x"]
)
@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder link"])
def test_nothing_is_written_through_what_a_stranger_left(run, precious, name, kind):
    place = run.path / name
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(place)
    else:
        targets = {"link": precious, "dangling link": precious.with_name("new"), "folder link": precious.parent}
        place.symlink_to(targets[kind])
    with pytest.raises(RunError, match="nothing is written"), run.writer():
        pass
    with pytest.raises(RunError, match="nothing is written"):
        run.check_unlocked()
    # Also one by one, for what is written without the lock.
    with RunLog(run.log_path, MLP()) as log:
        log.say("hello")
    for write in (run.compact, run.write_kernels, lambda: run.write_summary({"points": 1})):
        hostile.carry_out(write)
    assert untouched(precious)
    assert hostile.carry_out(lambda: commands.main(["status", str(run.path)])) in (0, 2)


@pytest.mark.parametrize("kind", ["plots", "tables", "inside", "file", "fifo"])
def test_figures_and_tables_are_not_drawn_through_links(run, precious, kind):
    if kind in ("plots", "tables"):
        (run.path / kind).symlink_to(precious.parent)
    else:
        (run.path / "plots" / "surfaces").mkdir(parents=True)
        (run.path / "tables").mkdir()
        if kind == "inside":
            (run.path / "plots" / "surfaces" / "CPU_fp32_eager").symlink_to(precious.parent)
        elif kind == "file":
            (run.path / "plots" / "surfaces.html").symlink_to(precious)
        else:
            os.mkfifo(run.path / "plots" / "surfaces.html")
    drawing = [surfaces.main, compare_gpus.main, compare_flops.main]
    refused = drawing[1:2] if kind == "tables" else drawing
    for main in refused:
        assert hostile.carry_out(lambda main=main: main([str(run.path), "--formats", "svg"])) == 2
    if kind != "tables":
        with pytest.raises(FloprayError, match="nothing is written"):
            draw_surfaces(run.path, Console(quiet=True))
    assert untouched(precious)


@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl", "records.parquet"])
@pytest.mark.parametrize("kind", ["link", "endless", "fifo", "folder"])
def test_reading_follows_no_link_and_waits_for_nothing(run, precious, name, kind):
    place = run.path / name
    if place.exists():
        place.unlink()
    if kind == "folder":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to(precious if kind == "link" else "/proc/kcore")
    hostile.read_everything(run.path)
    if name != "records.parquet":
        with pytest.raises(NotARun):
            load_run(run.path)
    assert untouched(precious)


@pytest.mark.parametrize(
    "content", [b'{"pid": Infinity, "host": "x"}', b"[" * 4096, b'{"pid": 1, "host": "\\u001b[2J"}']
)
def test_a_lock_that_a_stranger_signed(run, content):
    (run.path / "writer.lock").write_bytes(content)
    assert hostile.carry_out(lambda: commands.main(["status", str(run.path)])) == 0
    with run.writer():
        pass


def test_a_lock_that_is_a_folder(run):
    (run.path / "writer.lock").unlink()
    (run.path / "writer.lock").mkdir()
    assert hostile.carry_out(lambda: commands.main(["status", str(run.path)])) == 0
    with pytest.raises(RunError), run.writer():
        pass


def test_a_run_reached_through_a_link_of_its_owner_is_as_good_as_any(run, tmp_path):
    (tmp_path / "latest").symlink_to(run.path)
    linked = RunFolder.open(tmp_path / "latest")
    with linked.writer() as writer:
        writer.append([hostile.point(5)])
    assert len(linked.finished()) == 4


def test_a_path_with_an_escape_in_it_reaches_no_terminal(run):
    moved = run.path.with_name("a\x1b[31mb\nc")
    shutil.move(run.path, moved)
    hostile.read_everything(moved)
    hostile.read_everything(run.path.with_name("not there\x1b[2J"))


def test_a_log_that_cannot_be_written_ends_nothing(run, precious):
    run.log_path.symlink_to(precious)
    with RunLog(run.log_path, MLP()) as log:
        log.say("hello", level=logging.WARNING)
    assert untouched(precious)


def test_a_merge_reads_its_sources_and_nothing_beside_them(tmp_path, precious):
    runs = [hostile.make_run(tmp_path / "runs", name) for name in ("a", "b")]
    (runs[0].path / "plots").symlink_to(precious.parent)
    merged = merge([run.path for run in runs], tmp_path / "runs" / "both")
    assert not (merged.path / "plots").exists()
    assert untouched(precious)
    with pytest.raises((StorageError, RunError)), runs[0].writer():
        pass
