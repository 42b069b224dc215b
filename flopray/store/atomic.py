"""Files that are either the old or the new one, even after a power cut: write aside, sync, rename, sync the folder.

All functions raise plain `OSError`; callers say what it means for their file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
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


def unfinished_name(name: str) -> str:
    """A fresh hidden name for something that will be renamed to `name` once it is complete."""
    return f".{name[:32]}{_UNFINISHED}{secrets.token_hex(6)}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that replaces `path` if the block ends without an error, and is removed otherwise."""
    unfinished = path.with_name(unfinished_name(path.name))
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    fsync_folder(path.parent)


@contextlib.contextmanager
def making(path: Path) -> Iterator[Path]:
    """A name to write what can be made again: the file becomes `path` if the block ends without an error. Not synced.

    On a full disk, or after a kill, an older file stays. A link is followed, and what is no regular file, such as
    `/dev/stdout`, is written as it is.

    Raises:
        OSError: it cannot be written; its `filename` is the path.
    """
    place = path.resolve()
    in_place = place.exists() and not (place.is_file() and os.access(place.parent, os.W_OK))
    unfinished = path if in_place else place.with_name(unfinished_name(place.name))
    try:
        yield unfinished
        if not in_place:
            if place.exists():
                unfinished.chmod(stat.S_IMODE(place.stat().st_mode))
            unfinished.replace(place)
    except BaseException as error:
        if not in_place:
            with contextlib.suppress(OSError):
                unfinished.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def write(path: Path, content: str | bytes) -> None:
    """Write what can be made again, whole or not at all, as `making` does.

    Raises:
        OSError: it cannot be written; its `filename` is the path.
    """
    with making(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def is_unfinished(path: Path) -> bool:
    """Whether it is a file that a killed process left, or that another one is writing."""
    return path.name.startswith(".") and _UNFINISHED in path.name


def remove_unfinished(folder: Path) -> None:
    """Remove unfinished files that killed processes left."""
    for path in folder.glob(f".*{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            path.unlink()


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
