"""Files that are either the old or the new one, even after a power cut: write aside, sync, rename, sync the folder.

What is being written has a hidden name and a lock, which the kernel releases when its writer ends, however it ends. So
leftovers of killed processes are told from what others are writing.

All functions raise plain `OSError`; callers say what it means for their file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

#: Part of the name of every unfinished file, to tell leftovers of a killed process from results.
_UNFINISHED = ".unfinished-"


def reason(error: BaseException) -> str:
    """What went wrong, short, for the end of a one-line message: `No space left on device`."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable; file systems that cannot sync a folder (some FUSE ones) are tolerated."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _beside(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Something new beside `path`, under a hidden name: locked inside the block, and removed if the block fails.

    Args:
        path: what it will be renamed to once it is complete.
        make: makes an empty file or folder of a name.
    """
    descriptor = None
    while descriptor is None:
        new = path.with_name(f".{path.name[:32]}{_UNFINISHED}{secrets.token_hex(6)}")
        make(new)
        descriptor = _locked(new)
    try:
        yield new
    except BaseException:
        _remove(new)
        raise
    finally:
        os.close(descriptor)


def _locked(new: Path) -> int | None:
    """A descriptor with the lock of something new; None if it was taken for a leftover before it was locked.

    A file system without locks gives none, and then nothing is removed as a leftover.
    """
    try:
        descriptor = _open_to_lock(new)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), new.stat()):
            return descriptor
    os.close(descriptor)
    return None


def _open_to_lock(path: Path) -> int:
    # On NFS, only what is open for writing can be locked exclusively.
    way = os.O_RDONLY if stat.S_ISDIR(path.lstat().st_mode) else os.O_RDWR
    return os.open(path, way | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _remove(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    with contextlib.suppress(OSError):
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that replaces `path` if the block ends without an error, and is removed otherwise."""
    with _beside(path, _touch) as unfinished:
        with unfinished.open("r+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    fsync_folder(path.parent)


@contextlib.contextmanager
def filling(path: Path) -> Iterator[Path]:
    """A new folder that the block fills and renames to `path`; it is removed if the block fails.

    What killed processes left beside it is removed first.
    """
    remove_unfinished(path.parent)
    with _beside(path, Path.mkdir) as unfinished:
        yield unfinished
    fsync_folder(path.parent)


@contextlib.contextmanager
def making(path: Path) -> Iterator[Path]:
    """A name to write what can be made again: the file becomes `path` if the block ends without an error. Not synced.

    On a full disk, or after a kill, an older file stays, and what the kill left is removed by the next writer there. A
    link is followed, and what is no regular file, such as `/dev/stdout`, is written as it is.

    Raises:
        OSError: it cannot be written; its `filename` is the path.
    """
    place = path.resolve()
    try:
        if place.exists() and not (place.is_file() and os.access(place.parent, os.W_OK)):
            yield path
            return
        remove_unfinished(place.parent)
        with _beside(place, _touch) as unfinished:
            yield unfinished
            if place.exists():
                unfinished.chmod(stat.S_IMODE(place.stat().st_mode))
            unfinished.replace(place)
    except OSError as error:
        error.filename = str(path)
        raise


def _touch(path: Path) -> None:
    path.touch(exist_ok=False)


def write(path: Path, content: str | bytes) -> None:
    """Write what can be made again, whole or not at all, as `making` does.

    Raises:
        OSError: it cannot be written; its `filename` is the path.
    """
    with making(path) as unfinished:
        # a path that is not UTF-8 may be named in a text
        unfinished.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def is_unfinished(path: Path) -> bool:
    """Whether it is a file that a killed process left, or that another one is writing."""
    return path.name.startswith(".") and _UNFINISHED in path.name


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished files and folders that killed processes left, and none that a live one is writing."""
    for path in folder.glob(f".*{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            descriptor = _open_to_lock(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(descriptor)


def open_regular(path: Path) -> BinaryIO:
    """Open a file of a folder that may come from a stranger: a FIFO or a device in its place must not block the reader.

    Links are not followed: one could lead to an endless file on the reader's machine, or to one that belongs to no run.

    Raises:
        OSError: as `open`; `ELOOP` or `EINVAL` when it is not a regular file.
    """
    return os.fdopen(_open_regular(path, os.O_RDONLY), "rb", buffering=1 << 20)


def append_regular(path: Path) -> BinaryIO:
    """Open a file to append to it, made where it is missing, with the same care as `open_regular`; not synced.

    Raises:
        OSError: as `open_regular`.
    """
    return os.fdopen(_open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def _open_regular(path: Path, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a link, which is not followed", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor
