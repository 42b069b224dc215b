"""Damage to the files of a run: to the journal, its disk, its folder."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ledger import measurements

_DISK = "64m"


def torn(journal: Path, chance: random.Random) -> set[str]:
    """Cut the last line at a random byte; returns its point, if there was one."""
    data = journal.read_bytes()
    begin = data.rfind(b"\n", 0, -1) + 1
    if not data:
        return set()
    os.truncate(journal, chance.randint(begin + 1, max(begin + 1, len(data) - 2)))
    return {trial_id for trial_id, _ in measurements(data[begin:])}


def flipped(journal: Path, chance: random.Random) -> set[str]:
    """Flip a bit of a random byte in all lines but the last, without line feeds; returns the point of that line."""
    data = bytearray(journal.read_bytes())
    places = data.rfind(b"\n", 0, -1) + 1
    if places < 2:
        return set()
    place = chance.randrange(places)
    while data[place] == ord("\n"):
        place = chance.randrange(places)
    begin, end = data.rfind(b"\n", 0, place) + 1, data.find(b"\n", place)
    hit = {trial_id for trial_id, _ in measurements(bytes(data[begin:end]))}
    data[place] ^= 1 << chance.randrange(8)
    journal.write_bytes(data)
    return hit


def emptied(journal: Path, _: random.Random | None = None) -> set[str]:
    """Empty the journal; returns all of its points."""
    hit = {trial_id for trial_id, _ in measurements(journal.read_bytes())}
    os.truncate(journal, 0)
    return hit


@contextlib.contextmanager
def small_disk(at: Path) -> Iterator[Path]:
    """A separate file system; needs root.

    Raises:
        PermissionError: this machine does not permit mounting one.
    """
    at.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", at], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def fill(disk: Path, spare_bytes: int) -> None:
    """Fill a disk except for some bytes, so that a line may or may not fit."""
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 65536):
            pass
    with contextlib.suppress(OSError):
        os.truncate(disk / "ballast", max(0, (disk / "ballast").stat().st_size - spare_bytes))


def freeze(folder: Path, *, frozen: bool) -> None:
    """Make a folder and its files immutable, for root too, or writable again.

    Raises:
        PermissionError: this machine or its file system does not support it.
    """
    paths = [path for path in (folder, *folder.iterdir()) if path.is_file() or path == folder]
    sign = "+i" if frozen else "-i"
    done = subprocess.run(["chattr", sign, *map(str, paths)], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(f"files cannot be made immutable here: {done.stderr.strip()[:200]}")


def little_memory() -> dict[str, str]:
    """Let Ray's memory monitor act when 9 GB more than now are in use: no test should fill the whole machine.

    That is much more than the sweeps of other lanes take. If the monitor acted because of them, it would also end
    small processes of this sweep, such as its recorder.
    """
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kilobytes = {words[0]: int(words[1]) for words in lines}
    used = kilobytes["MemTotal:"] - kilobytes["MemAvailable:"] + 9e6
    if used > 0.9 * kilobytes["MemTotal:"]:
        raise PermissionError("fewer than 9 GB of memory are free")
    return {"RAY_memory_usage_threshold": f"{used / kilobytes['MemTotal:']:.3f}"}
