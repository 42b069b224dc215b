"""Results are the complete new ones or the older ones."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from flopray.report.plot.figures import save_figure
from flopray.store import atomic
from flopray.store.manifests import publish_folder


def test_a_result_that_does_not_fit_leaves_the_older_one(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    atomic.write(path, "first ±")
    assert path.read_text(encoding="utf-8") == "first ±"
    whole = Path.write_bytes

    def full(self, data):
        whole(self, data[: len(data) // 2])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        atomic.write(path, b"second")
    assert caught.value.filename == str(path)
    assert path.read_text(encoding="utf-8") == "first ±"
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_goes_through_a_link_and_keeps_the_mode(tmp_path):
    path, link = tmp_path / "there.csv", tmp_path / "link.csv"
    path.write_text("first")
    path.chmod(0o600)
    link.symlink_to(path)
    atomic.write(link, "second")
    assert link.is_symlink()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("second", 0o600)


def test_what_is_no_regular_file_is_written_as_it_is(tmp_path):
    atomic.write(Path("/dev/null"), "words")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="No space left on device"):
        atomic.write(Path("/dev/full"), "words")


#: In a process of its own: no file may become larger than 20 kB, as on a disk that is nearly full.
_FULL = """
import resource, sys
from pathlib import Path
{setup}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    {write}
except OSError as error:
    print(type(error).__name__, error.filename)
"""
_FIGURE = """import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt, numpy as np
from flopray.report.plot.figures import save_figure
figure, axes = plt.subplots()
axes.scatter(*np.random.default_rng(0).random((2, 3000)))"""
_READINGS = """from flopray.flops.executed.readings import Reading
from flopray.report.counts.readings import write_readings
found = [Reading(i, 1, 0, "r", f"kernel{i * i}", "inst", "inst", float(i)) for i in range(5000)]"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "setup", "write"),
    [
        ("a.html", "from flopray.report.page import write_text", "write_text('x' * 50_000, Path('a.html'))"),
        ("a.png", _FIGURE, "save_figure(figure, Path('a'), ['png'])"),
        ("a.svg", _FIGURE, "save_figure(figure, Path('a'), ['svg'])"),
        ("a.pdf", _FIGURE, "save_figure(figure, Path('a'), ['pdf'])"),
        ("a.csv", _READINGS, "write_readings(found, Path('a.csv'))"),
        ("a.parquet", _READINGS, "write_readings(found, Path('a.parquet'))"),
    ],
)
def test_a_full_disk_leaves_the_older_result_whole(tmp_path, name, setup, write):
    (tmp_path / name).write_text("older")
    code = _FULL.format(setup=setup, write=write)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "MPLCONFIGDIR": str(tmp_path.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    assert (ended.stdout, ended.stderr) == (f"OSError {name}\n", "")
    assert (tmp_path / name).read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == [name]


#: In a process of its own: it writes half of something, says so, and waits.
_HALF = """
import sys, time
from pathlib import Path
from flopray.store import atomic
with atomic.{how}(Path(sys.argv[1])) as unfinished:
    {write}
    print("half", flush=True)
    time.sleep(600)
"""
_WAYS = {
    "making": "unfinished.write_text('half')",
    "replacing": "unfinished.write(b'half'); unfinished.flush()",
    "filling": "(unfinished / 'manifest.json').write_text('half')",
}


@pytest.fixture
def writer():
    """Starts writers, by how they write, which are killed at the end."""
    started = []

    def start(path: Path, how: str) -> subprocess.Popen:
        code = _HALF.format(how=how, write=_WAYS[how])
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        one = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, env=environment)
        started.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == b"half\n"
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate(timeout=60)


@pytest.mark.parametrize("how", ["making", "replacing"])
def test_a_writer_that_is_killed_leaves_the_older_result_whole(tmp_path, writer, how):
    path = tmp_path / "a.csv"
    path.write_text("older")
    one = writer(path, how)
    one.kill()
    one.wait(60)
    assert path.read_text() == "older"
    (left,) = (other for other in tmp_path.iterdir() if other != path)
    assert atomic.is_unfinished(left)
    assert not atomic.is_unfinished(path)
    atomic.remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("how", _WAYS)
def test_the_next_writer_removes_what_a_kill_left_and_nothing_of_a_live_one(tmp_path, writer, how):
    dead, live = writer(tmp_path / "dead", how), writer(tmp_path / "live", how)
    dead.kill()
    dead.wait(60)
    assert len(list(tmp_path.iterdir())) == 2
    for _ in range(2):
        atomic.write(tmp_path / "next", "words")
        (left,) = (path for path in tmp_path.iterdir() if path.name != "next")
        assert left.name.startswith(".live")
    live.kill()
    live.wait(60)
    figure = Figure()
    save_figure(figure, tmp_path / "next", ["png"])
    assert {path.name for path in tmp_path.iterdir()} == {"next", "next.png"}


def test_a_new_run_removes_what_a_kill_left_of_another(tmp_path, writer):
    one = writer(tmp_path / "run", "filling")
    with pytest.raises(RuntimeError), atomic.filling(tmp_path / "other"):
        raise RuntimeError
    assert len(list(tmp_path.iterdir())) == 1
    one.kill()
    one.wait(60)
    publish_folder(tmp_path / "run", b"{}", None)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_writer_whose_file_was_taken_for_a_leftover_begins_again(tmp_path, monkeypatch):
    """Another process looks between the making of a file and its lock."""
    whole, removed = Path.touch, []

    def touch(self, **how):
        whole(self, **how)
        if not removed:
            removed.append(self)
            atomic.remove_unfinished(tmp_path)

    monkeypatch.setattr(Path, "touch", touch)
    with atomic.making(tmp_path / "a") as unfinished:
        assert removed == [other for other in removed if other != unfinished]
        unfinished.write_text("words")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_without_locks_nothing_is_removed_as_a_leftover(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOTSUP, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with atomic.making(tmp_path / "a") as one:
        one.write_text("a")
        atomic.write(tmp_path / "b", "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_only_has_the_name_of_a_leftover_is_left_alone(tmp_path):
    """A link in a stranger's folder: neither it nor what it leads to is opened or removed."""
    kept = tmp_path / "kept"
    kept.write_text("words")
    link = tmp_path / ".a.unfinished-0123456789ab"
    link.symlink_to(kept)
    atomic.remove_unfinished(tmp_path)
    assert link.is_symlink()
    assert kept.read_text() == "words"


def test_a_text_that_names_a_path_which_is_not_utf8_is_written(tmp_path):
    atomic.write(tmp_path / "page", os.fsdecode(b"caf\xe9"))
    assert (tmp_path / "page").read_text() == r"caf\udce9"
