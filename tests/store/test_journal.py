"""The journal on real files: what is promised survives torn lines, flipped bytes, full disks and signals."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import random
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopray.errors import RunError, SchemaMismatch, StorageError
from flopray.records import PHASES, READABLE_VERSIONS, PhaseRecord
from flopray.store import entry
from flopray.store.journal import JournalWriter
from flopray.store.journal_index import RunWarning, read_rows, scan
from flopray.store.schema import ColumnType, RecordSchema
from flopray.workloads.mlp import MLP

SCHEMA = RecordSchema(MLP())


def point(i: int, status: str = "ok", phases: int = 2, **columns) -> list[PhaseRecord]:
    common = {"trial_id": f"{i:016x}", "run": "r", "workload": "mlp", "width": i + 1, "status": status}
    return [PhaseRecord.of(phase=p, time_s=0.1 * (i + k), **common, **columns) for k, p in enumerate(PHASES[:phases])]


def ids(*numbers: int) -> list[str]:
    return [f"{i:016x}" for i in numbers]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def open_writer(path: Path) -> JournalWriter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        return JournalWriter(path, SCHEMA)


def filled(path: Path, count: int) -> list[bytes]:
    writer = open_writer(path)
    writer.append([point(i) for i in range(count)])
    writer.close()
    return path.read_bytes().splitlines(keepends=True)


def records_of(path: Path) -> list[PhaseRecord]:
    return [PhaseRecord.of(**row) for rows in read_rows(path, scan(path), SCHEMA) for row in rows]


# -- the format of a line


def values(column: ColumnType) -> st.SearchStrategy:
    # What would do something to a terminal is kept as a visible escape: its own test.
    text = st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"], include_characters="\n\t"), max_size=20
    )
    kinds = {
        str: text,
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        tuple: st.lists(text, max_size=3).map(tuple),
    }
    return st.none() | kinds[column.base] if column.nullable else kinds[column.base]


FREE = {n: values(c) for n, c in SCHEMA.types.items()} | {
    "trial_id": st.just("0123456789abcdef"),
    "schema_version": st.sampled_from(READABLE_VERSIONS),
    "status": st.sampled_from(entry.STATUS_ORDER),
}
RECORD = st.fixed_dictionaries({}, optional=FREE).map(lambda c: PhaseRecord.of(**{"trial_id": "0123456789abcdef", **c}))
POINT = st.lists(RECORD, min_size=1, max_size=4, unique_by=lambda record: record.phase)


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(POINT)
def test_any_point_survives_its_line(phases: list[PhaseRecord]) -> None:
    trial_id, status, line = entry.encode(phases, SCHEMA)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    content = entry.intact_entry(line[:-1])
    assert content is not None
    assert entry.head(content) == (trial_id, status)
    rows = entry.decode(content, SCHEMA)
    assert rows == [SCHEMA.defaults | record.columns() for record in phases]
    assert list(rows[0]) == SCHEMA.names


def test_line_is_plain_json_with_a_standard_checksum() -> None:
    _, _, line = entry.encode(point(3, "out_of_memory", status_reason="Grüße\n2"), SCHEMA)
    parsed = json.loads(line)
    assert parsed["crc32"] == f"{zlib.crc32(line[28:-2]):08x}"
    assert json.loads(line[28:-2]) == parsed["entry"]
    assert parsed["entry"]["status"] == "out_of_memory"
    assert parsed["entry"]["shared"]["width"] == 4
    assert [set(phase) for phase in parsed["entry"]["phases"]] == [{"phase", "time_s"}] * 2
    assert "energy_status" not in line.decode()  # has its default


def test_status_of_a_point_is_its_worst_phase() -> None:
    phases = [point(1, "ok")[0], point(1, "failed")[1]]
    assert entry.encode(phases, SCHEMA)[1] == "failed"
    assert entry.worst_status(["unsupported", "ok", "out_of_memory"]) == "out_of_memory"
    assert entry.worst_status(["ok", "unsupported"]) == "unsupported"


def test_undecodable_text_becomes_visible_escapes(path: Path) -> None:
    writer = open_writer(path)
    writer.append([point(0, traceback="File /tmp/\udcff.py")])
    assert records_of(path)[0].traceback == "File /tmp/\\udcff.py"


WRONG = {
    "NaN": {"energy_j": math.nan},
    "infinity": {"energy_j": math.inf},
    "a float as count": {"model_flops": 2.0},
    "a count above 64 bits": {"model_flops": 2**63},
    "a flag as count": {"model_flops": True},
    "a number as text": {"node": 5},
    "None where a text must be": {"energy_status": None},
    "one text as findings": {"findings": "high"},
    "another schema": {"schema_version": 1},
    "a status that is no word": {"status": "fine"},
    "a trial id with a slash": {"trial_id": "../x"},
    "no trial id": {"trial_id": ""},
}


@pytest.mark.parametrize("columns", WRONG.values(), ids=WRONG)
def test_wrong_record_is_refused_before_anything_is_written(path: Path, columns: dict) -> None:
    filled(path, 1)
    before = path.read_bytes()
    writer = open_writer(path)
    with pytest.raises(ValueError):
        writer.append([point(5), [dataclasses.replace(record, **columns) for record in point(6)]])
    assert path.read_bytes() == before
    assert writer.append([point(5)]).appended == ids(5)


def test_points_that_are_mixed_up_are_refused(path: Path) -> None:
    writer = open_writer(path)
    for phases in ([], [*point(1), *point(2)], [*point(1), *point(1)]):
        with pytest.raises(ValueError):
            writer.append([phases])
    assert path.read_bytes() == b""


def crafted(content: str) -> bytes:
    return b'{"crc32":"%08x","entry":%b}\n' % (zlib.crc32(content.encode()), content.encode())


HEAD = '{"trial_id":"ab","status":"ok","shared":'
FOREIGN = {
    "unknown column": HEAD + '{"joules":1},"phases":[{}]}',
    "text as count": HEAD + '{"width":"9"},"phases":[{}]}',
    "NaN": HEAD + '{"time_s":NaN},"phases":[{}]}',
    "overflow": HEAD + '{"time_s":1e999},"phases":[{}]}',
    "status is not the worst": HEAD + '{"status":"failed"},"phases":[{}]}',
    "no phases": HEAD + '{},"phases":[]}',
    "phases no list": HEAD + '{},"phases":{"a":1}}',
    "second trial id": HEAD + '{},"phases":[{}],"trial_id":"cd"}',
    "trial id in a phase": HEAD + '{},"phases":[{"trial_id":"cd"}]}',
    "other schema": HEAD + '{"schema_version":1},"phases":[{}]}',
    "deep": HEAD + "[" * 100_000 + "]" * 100_000 + ',"phases":[{}]}',
    "unknown status": HEAD.replace("ok", "fine") + '{},"phases":[{}]}',
    "a list": "[1]",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_intact_line_of_another_schema_is_a_typed_error(path: Path, content: str) -> None:
    path.write_bytes(crafted(content))
    with pytest.raises(SchemaMismatch, match="intact but not of schema version 3"):
        records_of(path)


# -- append


def test_append_tells_what_was_there_already(path: Path) -> None:
    writer = open_writer(path)
    assert writer.append([point(0), point(1), point(0)]) == (ids(0, 1), ids(0))
    writer.close()
    again = open_writer(path)
    assert again.append([point(1), point(2)]) == (ids(2), ids(1))
    assert again.append([]) == ([], [])
    assert again.finished == dict.fromkeys(ids(0, 1, 2), "ok")
    assert [record.trial_id for record in records_of(path)] == [i for i in ids(0, 1, 2) for _ in range(2)]


def test_superseding_point_replaces_the_earlier_one(path: Path) -> None:
    writer = open_writer(path)
    writer.append([point(0, "failed"), point(1)])
    assert writer.append([point(0, attempt=2)], supersede=True).appended == ids(0)
    assert scan(path).statuses() == dict.fromkeys(ids(1, 0), "ok")
    assert sorted({(r.trial_id, r.attempt) for r in records_of(path)}) == [(ids(0)[0], 2), (ids(1)[0], 1)]


def test_threads_do_not_mix_their_lines(path: Path) -> None:
    writer = open_writer(path)
    threads = [
        threading.Thread(target=lambda k=k: [writer.append([point(100 * k + i)]) for i in range(20)]) for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index = scan(path)
    assert len(index.places) == 80
    assert not index.damaged


# -- damage


def test_line_torn_at_every_byte_is_repaired(path: Path) -> None:
    lines = filled(path, 3)
    whole = b"".join(lines)
    good = len(whole) - len(lines[-1])
    for cut in range(good + 1, len(whole)):
        path.write_bytes(whole[:cut])
        if cut == len(whole) - 1:  # only the line feed is missing: the point is whole, so it is kept
            assert list(scan(path).places) == ids(0, 1, 2)
            writer = JournalWriter(path, SCHEMA)
        else:
            assert list(scan(path).places) == ids(0, 1)
            with pytest.warns(RunWarning, match="torn line"):
                writer = JournalWriter(path, SCHEMA)
            side = path.with_name("journal.torn-1")
            assert side.read_bytes() == whole[good:cut]
            side.unlink()
        writer.append([point(2)])
        writer.close()
        assert path.read_bytes() == whole


def test_torn_lines_of_several_times_are_all_kept(path: Path) -> None:
    filled(path, 1)
    for number in (1, 2, 3):
        with path.open("ab") as file:
            file.write(b"torn %d" % number)
        open_writer(path).close()
        assert path.with_name(f"journal.torn-{number}").read_bytes() == b"torn %d" % number


def test_flipped_byte_costs_at_most_its_own_point(path: Path) -> None:
    lines = filled(path, 6)
    whole = b"".join(lines)
    line_of = [i for i, line in enumerate(lines) for _ in line]
    generator = random.Random(7)
    feeds = [i for i, byte in enumerate(whole) if byte == 10]
    for position in [*generator.sample(range(len(whole)), 300), *feeds]:
        damaged = bytearray(whole)
        damaged[position] ^= generator.choice([1, 2, 4, 8, 16, 32, 64, 128, 0x0A ^ whole[position] or 1])
        path.write_bytes(damaged)
        index = scan(path)
        lost = set(ids(*range(6))) - set(index.places)
        assert lost <= {ids(line_of[position])[0]}, position
        assert index.damaged or index.torn, position
        for record in records_of(path):
            assert record in point(int(record.trial_id, 16))


def test_damage_is_counted_and_measured_again(path: Path) -> None:
    lines = filled(path, 5)
    lines[1] = lines[1].replace(b"mlp", b"mlq")
    lines[3] = lines[3].replace(b"mlp", b"mlq")
    path.write_bytes(b"".join(lines))
    with pytest.warns(RunWarning, match=r"2 damaged lines in .*first: line 2"):
        writer = JournalWriter(path, SCHEMA)
    assert writer.append([point(i) for i in range(5)]) == (ids(1, 3), ids(0, 2, 4))
    assert sorted(scan(path).places) == ids(0, 1, 2, 3, 4)


def test_a_line_that_is_being_written_is_left_out_and_what_follows_it_too(path: Path, monkeypatch) -> None:
    """A reader may see the beginning of a line, and find the rest of it when it asks for the next one."""
    first, second, third = filled(path, 3)
    seen = contextlib.nullcontext([first, second[:40], second[40:], third])
    monkeypatch.setattr("flopray.store.atomic.open_regular", lambda _: seen)
    index = scan(path)
    assert list(index.places) == ids(0)
    assert (index.damaged, index.size, index.torn) == ([], len(first), second[:40])


def test_whole_point_before_a_torn_end_survives_a_lost_line_feed(path: Path) -> None:
    lines = filled(path, 3)
    path.write_bytes(lines[0] + lines[1][:-1] + b"\x00" + lines[2][:50])
    writer = open_writer(path)
    assert list(writer.finished) == ids(0, 1)
    writer.append([point(2)])
    assert sorted(scan(path).places) == ids(0, 1, 2)


# -- storage that fails


def limited_writer(path: Path, limit: int) -> subprocess.CompletedProcess[str]:
    script = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]); import test_journal as t\n"
        "from pathlib import Path\n"
        "writer = t.open_writer(Path(sys.argv[2]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))\n"
        "try:\n"
        "    for i in range(100): writer.append([t.point(i)]); print(i, flush=True)\n"
        "except t.StorageError as error:\n"
        "    print(error, file=sys.stderr)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    print(*writer.append([t.point(i)]).appended)\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(path), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def test_file_size_limit_leaves_whole_lines_and_writing_goes_on_after_it(path: Path) -> None:
    line = len(filled(path, 1)[0])
    path.unlink()
    done = limited_writer(path, limit=4 * line + line // 2)
    assert "1 point could not be saved" in done.stderr
    assert "File too large" in done.stderr
    assert done.stdout.split() == ["0", "1", "2", "3", *ids(4)]
    index = scan(path)
    assert list(index.places) == ids(0, 1, 2, 3, 4)
    assert not index.damaged
    assert not index.torn


@pytest.fixture
def small_disk(tmp_path: Path):
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    try:
        failed = subprocess.run(command, capture_output=True, check=False).returncode != 0
    except FileNotFoundError:
        failed = True
    if failed:
        pytest.skip("a tmpfs cannot be mounted here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_full_disk_loses_no_point_that_was_saved(small_disk: Path) -> None:
    writer = open_writer(small_disk / "journal.jsonl")
    saved = []

    def fill() -> None:
        for i in range(1000):
            saved.extend(writer.append([point(i, traceback="x" * 700)]).appended)

    with pytest.raises(StorageError, match="No space left on device"):
        fill()
    assert len(saved) > 20
    index = scan(small_disk / "journal.jsonl")
    assert list(index.places) == saved == list(writer.finished)
    assert not index.torn


def test_removed_folder_is_noticed_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    writer = open_writer(folder / "journal.jsonl")
    writer.append([point(0)])
    (folder / "journal.jsonl").unlink()
    folder.rmdir()
    for _ in range(2):
        with pytest.raises(StorageError, match="was removed"):
            writer.append([point(1)])
    assert list(writer.finished) == ids(0)


def test_replaced_or_changed_journal_is_noticed(path: Path) -> None:
    writer = open_writer(path)
    writer.append([point(0)])
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(StorageError, match="something else changed the journal"):
        writer.append([point(1)])
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)
    with pytest.raises(StorageError, match="was replaced"):
        writer.append([point(1)])


def test_failed_sync_does_not_count_and_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(path)
    writer.append([point(0)])
    before = path.read_bytes()
    for error, wanted in ((OSError(5, "Input/output error"), StorageError), (KeyboardInterrupt(), KeyboardInterrupt)):
        with monkeypatch.context() as patch:
            calls = iter([error])

            def fsync(descriptor: int, calls=calls, real=os.fsync) -> None:
                for failure in calls:
                    raise failure
                real(descriptor)

            patch.setattr(os, "fsync", fsync)
            with pytest.raises(wanted):
                writer.append([point(1)])
        assert path.read_bytes() == before
        assert list(writer.finished) == ids(0)
    assert writer.append([point(1)]).appended == ids(1)


def test_rollback_that_fails_is_made_up_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(path)
    writer.append([point(0)])

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(StorageError):
            writer.append([point(1)])
    assert writer.append([point(2)]).appended == ids(2)
    assert list(scan(path).places) == ids(0, 2)


def test_closed_writer_writes_nothing(path: Path) -> None:
    writer = open_writer(path)
    writer.close()
    writer.close()
    with pytest.raises(StorageError):
        writer.append([point(0)])


def test_journal_that_is_a_link_is_not_written(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"")
    (tmp_path / "journal.jsonl").symlink_to(target)
    with pytest.raises(RunError, match="a link, which is not followed"):
        open_writer(tmp_path / "journal.jsonl")
    assert target.read_bytes() == b""


@pytest.mark.slow
def test_a_long_journal_is_read_whole(path: Path) -> None:
    with path.open("wb") as file:
        for i in range(20_000):
            file.write(entry.encode(point(i, phases=1, traceback="x" * 4000), SCHEMA)[2])
    assert len(scan(path).statuses()) == 20_000


@pytest.mark.parametrize(
    ("shared", "phases", "said"),
    [
        ('{"width":1.0}', "[{}]", "width must be a whole number of at most 64 bits, got 1.0"),
        ('{"width":true}', "[{}]", "width must be a whole number of at most 64 bits, got True"),
        (f'{{"width":{2**63}}}', "[{}]", f"width must be a whole number of at most 64 bits, got {2**63}"),
        ('{"width":' + "9" * 5000 + "}", "[{}]", "width must be a whole number of at most 64 bits"),
        ("{}", '[{"width":"a"}]', "width must be a whole number of at most 64 bits, got 'a'"),
        ('{"time_s":"x"}', "[{}]", "time_s must be a finite number, got 'x'"),
        ('{"time_s":NaN}', "[{}]", "time_s must be finite (a missing value is None), got nan"),
        ('{"time_s":-Infinity}', "[{}]", "time_s must be finite (a missing value is None), got -inf"),
        ('{"time_s":1e999}', "[{}]", "time_s must be a finite number"),
        ('{"node":"\\ud800","time_s":1e999}', "[{}]", "time_s must be finite (a missing value is None), got inf"),
        ('{"status":null}', "[{}]", "status must be text, got None"),
        ('{"kernels":["a",1]}', "[{}]", "kernels must be a list of texts, got ['a', 1]"),
        ('{"kernels":' + "[" * 5000 + "]" * 5000 + "}", "[{}]", "kernels must be a list of texts"),
        ('{"zzz":1}', "[{}]", "unknown column 'zzz'"),
        ("[]", "[{}]", "shared is not an object, or phases is not a list of objects"),
        ("{}", "[3]", "shared is not an object, or phases is not a list of objects"),
        ("{}", "[]", "a point has at least one phase"),
        ("{}", '[{}],"more":1', "it has other keys than trial_id, status, shared and phases"),
        ("{}", '[{}],"trial_id":"b"', "the trial id is given twice"),
    ],
    ids=lambda value: value[:30],
)
def test_a_line_of_other_columns_or_types_is_refused_by_name(shared, phases, said):
    line = f'{{"trial_id":"a","status":"ok","shared":{shared},"phases":{phases}}}'
    with pytest.raises(SchemaMismatch) as refused:
        entry.decode(line.encode(), SCHEMA)
    assert str(refused.value).endswith(f"not of schema version 3, 4, 5 or 6: {said}")


def test_a_whole_number_in_a_column_of_floats_is_read_as_a_float():
    (row,) = entry.decode(b'{"trial_id":"a","status":"ok","shared":{"time_s":1},"phases":[{}]}')
    assert row["time_s"] == 1.0
    assert type(row["time_s"]) is float
