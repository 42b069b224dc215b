"""Results are the complete new ones or the older ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flopray.store import atomic


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


def test_a_writer_that_is_killed_leaves_the_older_result_whole(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("older")
    code = f"""
import os, signal
from pathlib import Path
from flopray.store import atomic
with atomic.making(Path({str(path)!r})) as unfinished:
    unfinished.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    root = str(Path(__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=60).returncode == -9
    assert path.read_text() == "older"
    (left,) = (other for other in tmp_path.iterdir() if other != path)
    assert atomic.is_unfinished(left)
    assert not atomic.is_unfinished(path)
    atomic.remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
