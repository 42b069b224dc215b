"""Files that are either the old one or the new one, also after a power cut: write aside, sync, rename, sync the folder.

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

#: Part of the name of every unfinished file, so that leftovers of a killed process can be told from results.
_UNFINISHED = ".unfinished-"


def reason(error: BaseException) -> str:
    """What went wrong, short, for the end of a one-line message: `No space left on device`."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable; file systems that cannot sync a folder (some FUSE ones) are let pass."""
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
    """Write a file that takes the place of `path` when the block ends without an error, and is removed otherwise."""
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


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of files they were still writing."""
    for path in folder.glob(f".*{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def open_regular(path: Path) -> BinaryIO:
    """Open a file of a folder that may come from a stranger: a FIFO or device in its place must not hang the reader.

    Raises:
        OSError: as `open`; `EINVAL` when it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb", buffering=1 << 20)
    except BaseException:
        os.close(descriptor)
        raise
