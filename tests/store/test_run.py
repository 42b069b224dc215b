"""Run folders with real files, processes and signals: made whole, written by one, and nothing that counted is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest

from flopray.errors import (
    InputError,
    NotARun,
    RunError,
    RunExists,
    RunLocked,
    SchemaMismatch,
    StorageError,
)
from flopray.records import PHASES, SCHEMA_VERSION, PhaseRecord
from flopray.store import atomic, manifests
from flopray.store.journal_index import RunWarning
from flopray.store.location import check_new, load_run
from flopray.store.run import RunFolder
from flopray.workloads.registry import make_point


def python(script: str, *arguments: object, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def point(i: int, status: str = "ok", **columns) -> list[PhaseRecord]:
    spec = make_point(workload="mlp", device_type="CPU", n_layers=2, width=8 + i, tokens=16)
    common = {"trial_id": spec.id, "run": "r", "workload": "mlp", "device_type": "CPU", "precision": "fp32"}
    common |= {"execution": "eager", "n_layers": 2, "width": 8 + i, "tokens": 16, "status": status}
    return [PhaseRecord.of(phase=p, time_s=i + 0.5, **{**common, **columns}) for p in PHASES[:2]]


def trial_id(i: int) -> str:
    return point(i)[0].trial_id


def flat(*numbers: int) -> list[PhaseRecord]:
    return [record for i in numbers for record in point(i)]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "r", {"seed": 7})


def append(run: RunFolder, *numbers: int, **columns) -> None:
    with run.writer() as writer:
        writer.append([point(i, **columns) for i in numbers])


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        yield


# -- create


def test_created_run_is_complete_and_opens(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "new" / "storage", "my-run_1", {"space": {"d": [1, 2]}, "seed": 7})
    assert run.path == tmp_path / "new" / "storage" / "my-run_1"
    again = RunFolder.open(str(run.path))
    assert again.manifest == run.manifest == {
        "space": {"d": [1, 2]}, "seed": 7, "name": "my-run_1", "schema_version": SCHEMA_VERSION,
    }  # fmt: skip
    assert again.name == "my-run_1"
    assert again.finished() == {}
    assert sorted(p.name for p in run.path.iterdir()) == ["journal.jsonl", "manifest.json"]
    assert [p.name for p in run.path.parent.iterdir()] == ["my-run_1"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o777 & ~umask
    for name in ("manifest", "journal", "records", "plots", "tune", "log", "summary"):
        assert getattr(run, f"{name}_path").parent == run.path


def test_relative_paths_survive_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create("results", "r", {})
    again = RunFolder.open("results/r")
    monkeypatch.chdir("/")
    append(run, 1)
    assert set(again.finished()) == {trial_id(1)}


def test_existing_run_is_never_touched(run: RunFolder) -> None:
    append(run, 1)
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    with pytest.raises(RunExists, match=f"resume {run.path}"):
        RunFolder.create(run.path.parent, "r", {})
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before
    for make in (Path.mkdir, Path.touch):
        other = run.path.parent / make.__name__
        make(other)
        with pytest.raises(RunExists, match="is not a run of flopray"):
            RunFolder.create(run.path.parent, other.name, {})


BAD_NAMES = ["", ".", "..", "a/b", "/abs", "../up", "a\\b", "-rf", ".hidden", " a", "a ", "a\nb", "a\x00b", "a\x1b[31m"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "a" * 201, "é" * 101, "a\u202eb", "a\udcff", None, 5], ids=repr)
def test_bad_names_write_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        RunFolder.create(tmp_path / "storage", name, {})
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "Ünïcode 名前", "a.b", "x" * 200, "é" * 100, "run,1=2"])
def test_good_names_become_folders(tmp_path: Path, name: str) -> None:
    assert RunFolder.open(RunFolder.create(tmp_path, name, {}).path).name == name
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_storage_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for storage in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing", "s3://bucket/x", "a\x00b", ""):
        with pytest.raises(InputError) as caught:
            RunFolder.create(storage, "r", {})
        assert len(str(caught.value).splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b""


def test_manifest_that_is_not_json_writes_nothing(tmp_path: Path) -> None:
    for manifest in ({"a": float("nan")}, {"a": object()}):
        with pytest.raises((TypeError, ValueError)):
            RunFolder.create(tmp_path / "s", "r", manifest)
    assert list(tmp_path.iterdir()) == []


def test_create_that_fails_at_any_step_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = {"fsync": os.fsync, "mkdir": os.mkdir, "rename": os.rename, "replace": os.replace}
    for step in range(100):
        calls = iter(range(100))

        def failing(name: str, calls=calls, step=step):
            def call(*args, **kwargs):
                if next(calls) == step:
                    raise OSError(28, "No space left on device")
                return real[name](*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, failing(name))
            try:
                RunFolder.create(tmp_path / "deep" / "storage", "r", {})
            except RunError as error:
                assert "No space left on device" in str(error)  # noqa: PT017
            else:
                break
        left = [p for p in tmp_path.rglob("*") if p.is_file()]
        if left:  # only the very last syncs come after the folder has got its name, and then it is complete
            assert RunFolder.open(tmp_path / "deep" / "storage" / "r").finished() == {}
            for file in left:
                file.unlink()
            for folder in sorted(tmp_path.rglob("*"), reverse=True):
                folder.rmdir()
        assert list(tmp_path.iterdir()) == []
    assert step >= 8
    assert RunFolder.open(tmp_path / "deep" / "storage" / "r").manifest["name"] == "r"


MAKER = """
import sys
from flopray.errors import RunExists
from flopray.store.run import RunFolder
sys.stdin.readline()
for i in range(40):
    try:
        RunFolder.create(sys.argv[1], f"r{i}", {"maker": int(sys.argv[2])})
        print(i, flush=True)
    except RunExists:
        pass
"""


@pytest.mark.slow
def test_of_several_runs_of_one_name_exactly_one_is_made(tmp_path: Path) -> None:
    makers = [python(MAKER, tmp_path / "s", number, stdin=subprocess.PIPE) for number in range(3)]
    time.sleep(0.3)  # until all wait for their line
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    made = {number: [int(i) for i in maker.communicate()[0].split()] for number, maker in enumerate(makers)}
    assert sorted(i for names in made.values() for i in names) == list(range(40))
    for number, names in made.items():
        assert {RunFolder.open(tmp_path / "s" / f"r{i}").manifest["maker"] for i in names} <= {number}
    assert {p.name for p in (tmp_path / "s").iterdir()} == {f"r{i}" for i in range(40)}


def test_run_made_by_somebody_else_in_between_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def slow(folder: Path):
        monkeypatch.undo()
        RunFolder.create(folder, "r", {"maker": "other"})
        yield

    monkeypatch.setattr(manifests, "_new_folders", slow)
    with pytest.raises(RunExists, match="flopray resume"):
        RunFolder.create(tmp_path, "r", {"maker": "me"})
    assert RunFolder.open(tmp_path / "r").manifest["maker"] == "other"
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


# -- open


def test_what_is_not_a_run_is_told_so(run: RunFolder, tmp_path: Path) -> None:
    manifest = run.manifest_path.read_text()
    bad = ["", "null", "[]", "5", '"x"', "{}", '{"schema_version": "1"}', '{"schema_version": true, "name": "r"}']
    bad += ['{"schema_version": 4}', '{"schema_version": 4, "name": "../x"}', "\xff", "[" * 100_000]
    bad += [manifest[:cut] for cut in range(len(manifest) - 1)]
    for text in bad:
        run.manifest_path.write_text(text, encoding="latin-1")
        with pytest.raises(NotARun):
            RunFolder.open(run.path)
    run.manifest_path.unlink()
    with pytest.raises(NotARun, match=r"has no manifest\.json"):
        RunFolder.open(run.path)
    os.mkfifo(run.manifest_path)
    with pytest.raises(NotARun, match="not a regular file"):
        RunFolder.open(run.path)
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file", "/dev/null", "a\x00b", "x" * 5000):
        with pytest.raises(NotARun) as caught:
            load_run(path)
        assert len(str(caught.value).splitlines()) == 1


def test_other_schema_version_is_told_with_both_versions(run: RunFolder) -> None:
    for version in (2, SCHEMA_VERSION + 1):
        run.manifest_path.write_text(json.dumps(run.manifest | {"schema_version": version}))
        with pytest.raises(
            SchemaMismatch, match=rf"schema version {version}, this flopray reads versions 3, 4, 5 and 6"
        ):
            load_run(run.path)


# -- records in, records out


def test_points_come_back_sorted_from_journal_and_from_parquet(run: RunFolder) -> None:
    append(run, 5, 3)
    append(run, 4)
    before = load_run(run.path)
    assert run.records() == flat(3, 4, 5)
    assert run.compact() == run.records_path
    run.journal_path.rename(run.path / "aside")  # so that it must be the Parquet file that is read
    (run.path / "aside").rename(run.journal_path)
    pd.testing.assert_frame_equal(load_run(str(run.path)), before)
    assert run.records() == flat(3, 4, 5)
    assert before["width"].tolist() == [11, 11, 12, 12, 13, 13]
    assert before["phase"].tolist() == list(PHASES[:2]) * 3
    assert run.finished() == dict.fromkeys([trial_id(i) for i in (5, 3, 4)], "ok")


def test_empty_run_loads_as_empty_frame_with_all_columns(run: RunFolder) -> None:
    empty = run.load()
    append(run, 1)
    assert len(empty) == 0
    assert empty.dtypes.equals(run.load().dtypes)
    assert run.records()[0] == point(1)[0]


def test_parquet_older_than_the_journal_hides_nothing(run: RunFolder) -> None:
    append(run, 1)
    run.compact()
    append(run, 2)
    assert run.records() == flat(1, 2)
    with run.writer() as writer:
        writer.append([point(1, attempt=2)], supersede=True)
    assert sorted({(r.width, r.attempt) for r in run.records()}) == [(9, 2), (10, 1)]


def test_up_to_date_parquet_is_what_is_read(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    append(run, 1)
    run.compact()
    monkeypatch.setattr(run, "_index", lambda: pytest.fail("the journal was read"))
    assert run.records() == flat(1)


def test_journal_that_lost_points_gets_them_from_parquet(run: RunFolder) -> None:
    append(run, 1, 2, 3)
    run.compact()
    whole = run.journal_path.read_bytes()
    for damaged in (b"", whole[:-30], whole.replace(b'"width":10', b'"width":99'), None):
        run.journal_path.unlink()
        if damaged is not None:
            run.journal_path.write_bytes(damaged)
        with quiet():
            assert run.records() == flat(1, 2, 3)
            assert set(run.finished()) == {trial_id(i) for i in (1, 2, 3)}
            with run.writer() as writer:
                assert writer.append([point(i) for i in (1, 2, 3, 4)]).appended == [trial_id(4)]
            run.compact()
            assert run.records() == flat(1, 2, 3, 4)
        run.journal_path.write_bytes(whole)
        run.records_path.unlink()
        run.compact()


def test_journal_of_the_same_length_with_other_points_is_not_mistaken(run: RunFolder) -> None:
    append(run, 2)
    compacted = run.compact().read_bytes()
    size = run.journal_path.stat().st_size
    run.journal_path.write_bytes(b"")
    run.records_path.unlink()
    append(run, 3)
    run.records_path.write_bytes(compacted)
    assert run.journal_path.stat().st_size == size
    assert run.records() == flat(2, 3)


def test_damaged_or_foreign_parquet_is_passed_by_with_a_warning(run: RunFolder, tmp_path: Path) -> None:
    append(run, 1)
    other = RunFolder.create(tmp_path, "other", {})
    append(other, 9)
    foreign = other.compact().read_bytes()
    own = run.compact().read_bytes()
    for content in (b"", b"PAR1", foreign, own[:500], own[:200] + b"\x00" * 50 + own[250:]):
        run.records_path.write_bytes(content)
        with pytest.warns(RunWarning, match=r"records\.parquet is not used"):
            assert run.records() == flat(1)
        with quiet():
            assert set(run.finished()) == {trial_id(1)}
            run.compact()
        assert run.records() == flat(1)


def test_damaged_line_warns_when_it_is_read(run: RunFolder) -> None:
    append(run, 1, 2)
    run.journal_path.write_bytes(run.journal_path.read_bytes().replace(b'"width":10', b'"width":99'))
    for read in (run.finished, run.load, run.records):
        with pytest.warns(RunWarning, match="1 damaged line "):
            assert len(read()) in (1, 2)
    with quiet():
        assert run.records() == flat(1)


def test_summary_is_replaced_as_a_whole(run: RunFolder) -> None:
    run.write_summary({"points": 1})
    with pytest.raises(ValueError):
        run.write_summary({"points": float("nan")})
    run.write_summary({"points": 2})
    assert json.loads(run.summary_path.read_text()) == {"points": 2}
    assert not list(run.path.glob(".*"))


def test_storage_that_is_gone_is_a_storage_error(run: RunFolder) -> None:
    for file in run.path.iterdir():
        file.unlink()
    run.path.rmdir()
    for write in (run.compact, lambda: run.write_summary({})):
        with pytest.raises(StorageError, match="could not be written: No such file"):
            write()
    with pytest.raises(RunError, match="cannot be written"), run.writer():
        pass


# -- one writer, real processes and signals

WRITER = """
import sys
from flopray.records import PHASES, PhaseRecord
from flopray.store.run import RunFolder
def point(i):
    return [PhaseRecord.of(trial_id=f"{i:016x}", phase=p, width=i, traceback="x" * 3000) for p in PHASES]
with RunFolder.open(sys.argv[1]).writer() as writer:
    print("open", flush=True)
    for i in range(int(sys.argv[2]), 10**9, 3):
        print(*writer.append([point(k) for k in range(i, i + 3)]).appended, flush=True)
"""


def start_writer(run: RunFolder, first: int = 0) -> subprocess.Popen[str]:
    writer = python(WRITER, run.path, first)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    return writer


def test_second_writer_is_told_who_the_first_is(run: RunFolder) -> None:
    first = start_writer(run)
    try:
        with pytest.raises(RunLocked, match=f"by process {first.pid} on {socket.gethostname()}"), run.writer():
            pass
        run.finished()  # reading needs no lock
        run.load()
    finally:
        first.kill()
        first.communicate()
    with quiet(), run.writer(), pytest.raises(RunLocked, match=f"by process {os.getpid()} "), run.writer():
        pass
    with run.writer():
        pass


@pytest.mark.slow
def test_killed_writers_lose_nothing_that_was_saved(run: RunFolder) -> None:
    generator = random.Random(11)
    saved: list[str] = []
    for round_ in range(4):
        writer = start_writer(run, first=100_000 * round_)
        time.sleep(generator.uniform(0.0, 0.25))
        os.kill(writer.pid, signal.SIGKILL)
        out, _ = writer.communicate()
        printed = out.split()
        saved += printed if out.endswith("\n") else printed[:-1]
        with quiet():
            finished = run.finished()
            if round_ % 2:
                run.compact()
            with run.writer() as again:
                assert again.finished.keys() >= set(saved)
        assert set(saved) <= set(finished)
        assert len(finished) <= len(saved) + 3 * (round_ + 1)  # at most the append that was under way
    assert len(saved) > 100
    frame = load_run(run.path)
    assert not frame.duplicated(["trial_id", "phase"]).any()
    assert set(saved) <= set(frame["trial_id"])
    lines = run.journal_path.read_bytes().splitlines()
    assert len(lines) == len({json.loads(line)["entry"]["trial_id"] for line in lines})


@pytest.mark.slow
def test_killed_compaction_leaves_the_old_file(run: RunFolder) -> None:
    append(run, *range(30))
    run.compact()
    script = "import sys; from flopray.store.run import RunFolder; run = RunFolder.open(sys.argv[1])\n"
    script += "while True: print(run.compact(), flush=True)"
    for delay_s in (0.0, 0.007, 0.019):
        compactor = python(script, run.path)
        assert compactor.stdout is not None
        compactor.stdout.readline()
        time.sleep(delay_s)
        compactor.kill()
        compactor.communicate()
        assert run.records() == flat(*range(30))
    with run.writer():
        assert not list(run.path.glob(".*"))  # what was half written is cleared away


AS_NOBODY = """
import os, sys
from flopray.store.location import check_new, load_run
from flopray.store.run import RunFolder
from flopray.workloads.registry import make_point
storage, run = sys.argv[1], RunFolder.open(sys.argv[2])
load_run(run.path)  # whoever may not read the installation cannot import from it later
if os.getuid() == 0:  # root may write everywhere
    os.setgid(65534)
    os.setuid(65534)
def write():
    with run.writer():
        pass
for action in (write, run.compact, lambda: RunFolder.create(storage, "s", {}), lambda: len(load_run(run.path))):
    try:
        print(action())
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_read_only_folder_can_be_read_and_not_written() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        run = RunFolder.create(folder, "r", {})
        append(run, 1)
        run.compact()
        for path in (*run.path.iterdir(), run.path, Path(folder)):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            write, compact, create, load = python(AS_NOBODY, folder, run.path).communicate(timeout=60)[0].splitlines()
        finally:
            Path(folder).chmod(0o755)
            run.path.chmod(0o755)
    assert write.startswith("RunError: run r cannot be written")
    assert compact.startswith("StorageError: ")
    assert create.startswith("RunError: storage ")
    assert load == "2"


# -- imports and strangers


def test_making_and_opening_a_run_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys; from flopray.store.run import RunFolder\n"
        "run = RunFolder.create(sys.argv[1], 'r', {})\n"
        "with RunFolder.open(run.path).writer() as writer: writer.finished\n"
        "run.finished()\n"
        "print(*{'torch', 'ray', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_unfinished_names_fit_any_file_system(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 100)
    with atomic.making(path) as one, atomic.making(path) as other:
        assert one != other
        assert len(one.name.encode()) < 255


def test_some_columns_come_with_those_that_rows_are_sorted_by(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "columns", {})
    with run.writer() as journal:
        for width in (32, 16):
            fields = {"trial_id": f"{width:016x}", "workload": "mlp", "width": width, "time_s": 1.0 / width}
            journal.append([[PhaseRecord.of(run="columns", phase="forward", **fields)]])
    for _ in range(2):  # from the journal, then from the Parquet file
        frame = run.load(["time_s"])
        assert frame.width.tolist() == [16, 32]
        assert frame.time_s.tolist() == [1 / 16, 1 / 32]
        assert "energy_j" not in frame
        assert frame.equals(run.load()[frame.columns])
        assert [[record.width for record in records] for records in run.points()] == [[32], [16]]
        run.compact()


@pytest.mark.parametrize("storage", ["x" * 300, "y/" * 3000])
def test_a_storage_that_no_file_system_takes_is_refused_in_a_line(tmp_path, storage):
    with pytest.raises(InputError, match="File name too long; choose another folder"):
        check_new(str(tmp_path / storage), "n")
