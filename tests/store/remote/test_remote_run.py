"""A run in a store promises what a folder does: no point lost, none overwritten, one writer, readable from anywhere."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import warnings

import pytest
from points import POINTS, row, sweep

from flopray import load_run
from flopray.cli import main as commands
from flopray.errors import InputError, NotARun, RunError, RunExists, RunLocked, SchemaMismatch, StorageError
from flopray.monitoring.status import status_of_run
from flopray.store import entry, journal_index, table
from flopray.store.journal_index import RunWarning
from flopray.store.location import check_new, create_run, open_run
from flopray.store.remote import claim, objects, segments
from flopray.store.run import RunFolder
from flopray.sweep.merge import merge


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(objects, "_PUT_PAUSE_S", 0.01)


def measure(run, *numbers, **changes) -> None:
    """Finish points by their numbers in one session, an append each."""
    with run.writer() as journal:
        for number in numbers:
            journal.append([row(POINTS[number], **changes)], supersede=bool(changes))


def finished(run) -> set[int]:
    return {number for number, point in enumerate(POINTS) if point.id in run.finished()}


@pytest.mark.slow
def test_another_machine_reads_and_goes_on(run, on_machine):
    measure(run, 0, 1)
    on_machine("second")
    elsewhere = open_run(run.address)
    assert elsewhere.path != run.path
    assert finished(elsewhere) == {0, 1}
    measure(elsewhere, 1, 2)
    on_machine("first")
    frame = load_run(run.address)
    assert sorted(frame.width) == [16, 32, 64]
    assert finished(open_run(run.address)) == {0, 1, 2}


def test_a_point_is_in_the_store_when_append_returns(run, s3, prefix):
    with run.writer() as journal:
        for number in (0, 1):
            journal.append([row(POINTS[number])])
            assert POINTS[number].id.encode() in s3.journal(prefix)
        assert len([name for name in s3.names(prefix) if name.startswith("journal/")]) == 2


def test_what_a_session_leaves_is_one_segment_and_the_same_lines(run, s3, prefix):
    with run.writer() as journal:
        for number in range(4):
            journal.append([row(POINTS[number])])
        before = s3.journal(prefix)
    assert s3.journal(prefix) == before == run.journal_path.read_bytes()
    assert [name.split("/")[0] for name in s3.names(prefix)] == ["journal", "manifest.json"]


def test_a_crash_between_merging_and_removing_counts_nothing_twice(run, s3, prefix, monkeypatch, on_machine):
    monkeypatch.setattr(objects.Objects, "delete", lambda *_: (_ for _ in ()).throw(OSError(None, "crash")))
    measure(run, 0, 1, 2)
    monkeypatch.undo()
    for name in [name for name in s3.names(prefix) if name.startswith("writers/")]:
        s3.delete(f"{prefix}/{name}")
    assert len(s3.names(f"{prefix}/journal")) == 4
    on_machine("second")
    again = open_run(run.address)
    assert len(again.load()) == 3
    measure(again, 3)
    assert len(s3.names(f"{prefix}/journal")) == 1
    assert finished(open_run(run.address)) == {0, 1, 2, 3}


def test_a_point_that_is_tried_again_replaces_the_failed_one_whatever_the_clock_says(run, on_machine, monkeypatch):
    measure(run, 0, status="failed", status_reason="first")
    monkeypatch.setattr(segments.time, "time_ns", lambda: 5)  # a machine whose clock stands at 1970
    on_machine("second")
    measure(open_run(run.address), 0, status="ok")
    on_machine("third")
    assert list(load_run(run.address).status) == ["ok"]


def test_only_the_end_of_a_journal_is_merged():
    small, large = 10, 8 << 20
    assert segments.mergeable({"a": small, "b": large, "c": small, "d": small}) == ["c", "d"]
    assert segments.mergeable({"a": small, "b": small, "c": large}) == []
    assert segments.mergeable({"a": small}) == []


@pytest.mark.slow
def test_a_store_that_is_gone_loses_nothing(run, s3, on_machine):
    measure(run, 0)
    with run.writer() as journal:
        s3.stop()
        with pytest.raises(StorageError, match=r"1 point could not be saved to s3://.*kept in .*outbox") as caught:
            journal.append([row(POINTS[1])])
        s3.start_again()
        run._names = None  # as where it does not come back in time: nothing more is sent
    assert "\n" not in str(caught.value)
    assert POINTS[1].id not in journal.finished
    on_machine("second")
    assert finished(open_run(run.address)) == {0}
    on_machine("first")
    again = open_run(run.address)
    assert finished(again) == {0, 1}
    measure(again, 2)
    on_machine("third")
    assert finished(open_run(run.address)) == {0, 1, 2}


def test_points_that_were_not_sent_do_not_replace_later_ones(run, s3, on_machine, monkeypatch):
    def unreachable(*_):
        raise OSError(None, "down")

    with monkeypatch.context() as patch, run.writer() as journal:
        patch.setattr(objects.Objects, "put", unreachable)
        with pytest.raises(StorageError):
            journal.append([row(POINTS[0], time_s=1.0)])
        run._names = None  # as where the driver dies now: nothing is merged and sent
    on_machine("second")
    measure(open_run(run.address), 0, time_s=2.0)
    on_machine("first")
    again = open_run(run.address)
    assert list(again.load().time_s) == [2.0]  # before it is sent, and after
    measure(again, 1)
    assert dict(zip(*load_run(run.address)[["width", "time_s"]].to_numpy().T, strict=True)) == {16: 2.0, 32: 1.0}


def test_a_driver_that_died_between_the_outbox_and_the_store(run, on_machine):
    names = segments.SegmentNames([])
    run._mirror.keep(names.next(), b"")
    run._mirror.keep(names.next(), entry.encode(row(POINTS[3]), run.schema)[2])
    assert finished(open_run(run.address)) == {3}
    measure(open_run(run.address), 4)
    on_machine("second")
    assert finished(open_run(run.address)) == {3, 4}


def test_one_writer_on_all_machines(run, on_machine, capsys):
    with run.writer():
        on_machine("second")
        other = open_run(run.address)
        who = f"process {os.getpid()} on {socket.gethostname()}"
        for attempt in (other.check_unlocked, lambda: measure(other, 0)):
            with pytest.raises(RunLocked, match=who):
                attempt()
        status = status_of_run(run.address)
        assert (status.state, status.driver, status.resume) == ("running", who, None)
    other.check_unlocked()
    status = status_of_run(run.address)
    assert (status.state, status.driver) == ("interrupted", None)
    assert status.resume is not None
    assert status.resume.endswith(f"resume '{run.address}'")  # in quotes: a shell would split at the &
    assert commands.main(["status", run.address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == run.address


def test_of_two_that_begin_at_once_at_most_one_writes(run, s3, prefix, on_machine):
    barrier, inside, most, others = threading.Barrier(4), [], [], []

    def try_to_write():
        barrier.wait()
        try:
            with claim.Claim(objects.Objects(run._objects.location)):
                inside.append(1)
                most.append(len(inside))
                barrier.wait(20)
                inside.pop()
        except RunLocked:
            barrier.wait(20)
        except Exception as error:
            others.append(error)
            barrier.abort()

    threads = [threading.Thread(target=try_to_write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert others == []
    assert max(most, default=0) <= 1
    assert not [name for name in s3.names(prefix) if name.startswith("writers/")]


def foreign_claim(s3, prefix, **changes) -> str:
    name = f"{prefix}/writers/{'ab' * 8}.json"
    s3.write(name, json.dumps({"pid": 1, "host": "else\nwhere", "machine": "another", **changes}).encode())
    return name


def test_a_writer_on_another_machine_counts_as_dead_after_a_while(run, s3, prefix, monkeypatch):
    foreign_claim(s3, prefix)
    with pytest.raises(RunLocked, match=r"process 1 on elsewhere, last renewed [0-9]+ s ago"):
        measure(run, 0)
    monkeypatch.setattr(claim, "_STALE_S", -1.0)
    measure(run, 0)
    assert finished(run) == {0}
    assert not [name for name in s3.names(prefix) if name.startswith("writers/")]


def test_a_process_of_this_machine_that_has_ended_holds_nothing(run, s3, prefix):
    ended = subprocess.Popen(["true"], stdout=subprocess.PIPE)
    assert ended.stdout is not None
    ended.stdout.read()
    for number, wait in enumerate((lambda: os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT), ended.wait)):
        wait()  # first it is dead and still has its number, then it has not
        foreign_claim(s3, prefix, pid=ended.pid, machine=claim._machine())
        measure(run, number)
    foreign_claim(s3, prefix, pid=os.getpid(), machine=claim._machine())
    with pytest.raises(RunLocked):
        measure(run, 2)


def test_a_claim_that_is_no_json_still_holds(run, s3, prefix):
    s3.write(f"{prefix}/writers/{'cd' * 8}.json", b"[1, 2")
    with pytest.raises(RunLocked, match="process"):
        run.check_unlocked()


def test_a_writer_whose_claim_was_taken_stops(run, s3, prefix, monkeypatch):
    monkeypatch.setattr(claim, "_BEAT_S", 0.05)
    with run.writer() as journal:
        journal.append([row(POINTS[0])])
        while run._claim._thread.is_alive():  # a beat that was under way writes it again
            for name in [name for name in s3.names(prefix) if name.startswith("writers/")]:
                s3.delete(f"{prefix}/{name}")
        with pytest.raises(StorageError, match="another writer considered this one ended"):
            journal.append([row(POINTS[1])])
    assert finished(open_run(run.address)) == {0, 1}  # kept here, sent by the next session


def test_a_claim_stays_while_its_writer_lives(run, s3, prefix, monkeypatch):
    monkeypatch.setattr(claim, "_BEAT_S", 0.05)
    with run.writer():
        (name,) = [name for name in s3.names(prefix) if name.startswith("writers/")]
        first = s3.read(f"{prefix}/{name}")
        for _ in range(400):
            if s3.read(f"{prefix}/{name}") != first:
                break
        assert s3.read(f"{prefix}/{name}") != first
    assert not [name for name in s3.names(prefix) if name.startswith("writers/")]


def test_a_name_is_taken_once(run, storage, on_machine):
    for machine in ("first", "second"):
        on_machine(machine)
        with pytest.raises(RunExists, match="resume 's3://"):
            check_new(storage, "r")
        with pytest.raises(RunExists):
            create_run(storage, "r", sweep().to_manifest("r", {}))
    assert finished(open_run(run.address)) == set()


def test_checking_a_new_run_leaves_nothing(storage, s3, prefix, on_machine, tmp_path):
    check_new(storage, "r", write=False)
    assert s3.names(prefix) == []
    check_new(storage, "r")
    assert s3.names(prefix) == []
    assert not (tmp_path / "first").exists()


def test_a_run_that_was_made_anew_does_not_get_points_of_the_old_one(run, s3, prefix, storage, on_machine):
    run._mirror.keep(segments.SegmentNames([]).next(), b"of the old run\n")
    s3.delete(f"{prefix}/manifest.json")
    on_machine("second")
    measure(create_run(storage, "r", sweep().to_manifest("r", {})), 0)
    on_machine("first")
    with pytest.warns(RunWarning, match=r"r\.left-[0-9]+ has points of a former run .* never sent"):
        again = open_run(run.address)
    assert finished(again) == {0}
    measure(again, 1)
    assert b"of the old run" not in s3.journal(prefix)


def test_results_are_sent_and_read_fast(run, s3, prefix, on_machine):
    measure(run, 0, 1)
    run.log_path.write_text("what happened\n")
    run.compact()
    run.write_summary({"points": 2})
    (run.plots_path / "surfaces").mkdir(parents=True)
    (run.plots_path / "surfaces" / "a b.png").write_bytes(b"png")
    run.publish()
    names = s3.names(prefix)
    assert {"records.parquet", "summary.json", "plots/surfaces/a b.png"} <= set(names)
    (log,) = [name for name in names if name.startswith("logs/")]
    assert s3.read(f"{prefix}/{log}") == b"what happened\n"
    on_machine("second")
    elsewhere = open_run(run.address)
    file = table.RecordsFile(elsewhere.records_path, elsewhere.schema)
    assert file.coverage == journal_index.coverage(elsewhere.journal_path)
    assert len(elsewhere.load()) == 2


def test_the_copy_is_not_written_as_a_run_of_its_own(run):
    copy = RunFolder.open(run.path)
    with pytest.raises(RunError, match="only a copy of a run that is kept elsewhere"), copy.writer():
        pass
    assert len(copy.load()) == 0


def test_a_reader_beside_a_driver_of_this_machine_changes_nothing(run):
    with run.writer() as journal:
        journal.append([row(POINTS[0])])
        before = run.journal_path.stat()
        assert finished(open_run(run.address)) == {0}
        assert run.journal_path.stat().st_ino == before.st_ino
        journal.append([row(POINTS[1])])
    assert finished(open_run(run.address)) == {0, 1}


def test_names_from_a_listing_stay_in_the_copy(run, s3, prefix, on_machine, tmp_path):
    measure(run, 0)
    line = s3.journal(prefix)
    for name in ("..", "../../evil.jsonl", "x.jsonl", "00000000000000000001-abcdefgh-00000001.jsonl"):
        s3.write(f"{prefix}/journal/{name}", line)
    on_machine("second")
    assert finished(open_run(run.address)) == {0}
    assert not list(tmp_path.rglob("evil*"))
    assert len(list((open_run(run.address).path / "segments").iterdir())) == 1


def test_a_damaged_segment_costs_its_own_points_only(run, s3, prefix, on_machine):
    with run.writer() as journal:
        for number in range(3):
            journal.append([row(POINTS[number])])
        names = [f"{prefix}/{name}" for name in s3.names(prefix) if name.startswith("journal/")]
        s3.write(names[1], s3.read(names[1])[:-20])
        run._mirror.merge = lambda name: None
    on_machine("second")
    with pytest.warns(RunWarning, match="1 damaged line"):
        assert finished(open_run(run.address)) == {0, 2}


def test_a_merge_of_runs_in_a_store_and_in_a_folder(run, tmp_path, capsys):
    measure(run, 0, 1)
    here = RunFolder.create(tmp_path, "here", sweep().to_manifest("here", {}))
    with here.writer() as journal:
        journal.append([row(POINTS[2])])
    assert merge([run.address, here.path], tmp_path / "both").points == 3
    assert commands.main(["merge", run.address, str(here.path), "--into", str(tmp_path / "again")]) == 0
    assert len(load_run(tmp_path / "again")) == 3
    assert commands.main(["merge", run.address, str(here.path), "--into", run.address]) == 2
    assert "is a URI: give a local or mounted folder" in capsys.readouterr().err


def test_what_is_not_a_run_is_told_so(s3, storage, prefix, on_machine, tmp_path):
    for content, error in ((None, NotARun), (b"{", NotARun), (b'{"schema_version": 1}', SchemaMismatch)):
        if content is not None:
            s3.write(f"{prefix}/manifest.json", content)
        with pytest.raises(error, match="s3://") as caught:
            open_run(s3.uri(prefix))
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("first/*/r"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "about"),
    [
        ("s3://no-bucket/x?endpoint_override=127.0.0.1:{port}&scheme=http", "there is no bucket no-bucket"),
        ("s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http", "Could not connect"),
        ("s3://bucket/x?endpoint_override=nowhere.invalid&scheme=http", "not resolve"),
        ("foo://bar/x", "Unrecognized filesystem type"),
        ("s3://key:hidden@bucket/x", "has credentials in it"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line(uri, about, s3, on_machine, tmp_path):
    for attempt in (lambda text: check_new(text, "r"), open_run):
        with pytest.raises(InputError, match=about) as caught:
            attempt(uri.format(port=s3.port))
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_wrong_is_one_line(s3, storage, on_machine):
    s3.let_in(everybody=False)
    try:
        with pytest.raises(RunError, match="AWS_ACCESS_KEY_ID") as caught:
            check_new(storage, "r")
    finally:
        s3.let_in(everybody=True)
    assert "\n" not in str(caught.value)
    check_new(storage, "r")


def test_a_cache_that_cannot_be_written_is_one_line(run, storage, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path / "file"))
    for attempt in (lambda: open_run(run.address), lambda: create_run(storage, "new", sweep().to_manifest("new", {}))):
        with pytest.raises(RunError, match="cannot be copied to"):
            attempt()
    with pytest.raises(InputError, match=r"the cache .* cannot write to"):
        check_new(storage, "new")
    monkeypatch.setenv("FLOPRAY_CACHE", str(tmp_path / "first"))
    check_new(storage, "new")


def test_a_copy_that_was_removed_is_made_again(run):
    measure(run, 0)
    shutil.rmtree(run.path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert finished(open_run(run.address)) == {0}


def test_no_secret_reaches_a_file(run, s3, prefix, tmp_path):
    measure(run, 0)
    run.publish()
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    content += b"".join(s3.read(f"{prefix}/{name}") for name in s3.names(prefix))
    assert run.address.encode() in content
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert os.environ[name].encode() not in content
