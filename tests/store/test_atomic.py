"""Results are the complete new ones or the older ones."""

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
