"""One writer for each run: an advisory lock, which the kernel releases when its holder ends, however it ends.

`flock` on a file of its own, which is never removed (removing it would let two holders lock two files of one name).
On NFS, Linux maps it to a byte-range lock of the server, so that it also works between hosts if the export supports
locks; where it does not, taking the lock fails with an error and not silently.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from flopray.errors import RunError, RunLocked
from flopray.store import atomic

_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_TRIES, _TRY_AGAIN_S = 10, 0.02


@contextlib.contextmanager
def exclusive(path: Path, run: str) -> Iterator[None]:
    """Hold the lock file `path` of a run inside the block.

    Raises:
        RunLocked: another writer holds it; the message names its process and host.
        RunError: the lock file cannot be written, or the file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise RunError(f"run {run} cannot be written ({path}: {atomic.reason(error)})") from error
    try:
        try:
            _take(descriptor)
        except OSError as error:
            if error.errno in _HELD:
                raise RunLocked(_locked_message(descriptor, run)) from None
            raise RunError(f"run {run} cannot be locked ({path}: {atomic.reason(error)})") from error
        _sign(descriptor)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder(path: Path) -> tuple[bool, str | None]:
    """Whether a lock file is held, and who signed it: a writer removes its signature at its end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False, None
    try:
        try:
            who, elsewhere = _signature(os.pread(descriptor, 4096, 0))
        except OSError:  # a folder in its place
            return False, None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True, who or "another process"
        return False, f"{who} (seen from another host)" if who and elsewhere else who
    finally:
        os.close(descriptor)


def _signature(content: bytes) -> tuple[str | None, bool]:
    """The writer that a lock file names, and whether it is on another host."""
    try:
        signed = json.loads(content)
        host = "".join(c for c in str(signed["host"])[:253] if c.isprintable())
        return f"process {int(signed['pid'])} on {host}", host != socket.gethostname()
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None, False


def _take(descriptor: int) -> None:
    """Take the lock. A process that checks the lock holds it for a moment, so try for a while."""
    for tries_left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD or not tries_left:
                raise
            time.sleep(_TRY_AGAIN_S)
        else:
            return


def _sign(descriptor: int) -> None:
    """Say who holds the lock; only for the message, so a full disk must not stop the run here."""
    signature = {"pid": os.getpid(), "host": socket.gethostname(), "since_unix_s": round(time.time(), 3)}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(signature).encode() + b"\n", 0)


def _locked_message(descriptor: int, run: str) -> str:
    who = "another process"
    # The holder signs just after it locks, so a new lock may be unsigned for a moment.
    for _ in range(5):
        with contextlib.suppress(OSError):
            if signed := _signature(os.pread(descriptor, 4096, 0))[0]:
                who = signed
                break
        time.sleep(0.02)
    return f"run {run} is being written by {who}: wait until it ends, or stop it, and try again"
