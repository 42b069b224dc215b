"""One writer for each run in a store without locks: writers announce themselves, and withdraw if they find another.

    writers/<random>.json    process, host, since when; written again every 15 s while its writer lives

Each writer announces itself first and looks second, so of two that begin at once at least one sees the other and
withdraws (both may; then the user tries again). This needs a store whose listings show what was written before, as
those of S3 do since December 2020. Whether a claim is alive is judged by the clock of the store alone, which dates both
claims in one listing; a claim of a process of this machine that has ended does not count.

Its limit: a writer that was suspended for more than a minute (a closed laptop) has lost its claim and learns so when it
next renews it, unless both happen at the same moment. Until then two may write. Segments of two writers are never the
same objects, so nothing is lost or overwritten; a point may be measured twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from pathlib import Path

from flopray.errors import RunError, RunLocked
from flopray.store.remote.objects import Objects, Stored

_FOLDER = "writers"
_NAME = re.compile(r"[0-9a-f]{16}\.json")
_BEAT_S, _STALE_S = 15.0, 60.0


class Claim:
    """Makes this process the writer of a run inside the block; a thread renews the claim.

    Args:
        objects: the run.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._name = f"{secrets.token_hex(8)}.json"
        self._path = f"{_FOLDER}/{self._name}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="flopray-claim", daemon=True)
        #: Another writer considered this claim stale: this writer must not go on.
        self.lost = False

    def __enter__(self) -> Claim:
        """Announce this writer.

        Raises:
            RunLocked: another writer is active; the message names its process and host.
            RunError: the store cannot be written.
        """
        place = self._objects.location
        try:
            self._announce()
            claims = _claims(self._objects)
            mine = claims.pop(self._name, None)
            if mine is None:
                raise OSError(None, "the store does not list what was just written to it")
            for name, claim in claims.items():
                self._judge(name, claim, mine)
        except OSError as error:
            self._withdraw()
            raise RunError(f"run {place} cannot be written: {error.strerror}") from error
        except BaseException:
            self._withdraw()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._withdraw()

    def _judge(self, name: str, claim: Stored, mine: Stored) -> None:
        """Remove the claim of a writer that has ended; raise `RunLocked` for that of an active one."""
        holder = _read(self._objects, name)
        age_s = (mine.modified_ns - claim.modified_ns) / 1e9
        if age_s < _STALE_S and holder is not None and not _is_dead(holder):
            since = f", last renewed {max(0.0, age_s):.0f} s ago"
            raise RunLocked(
                f"run {self._objects.location} is being written by {described(holder)}{since}: wait until it ends, or "
                f"stop it (it counts as ended {_STALE_S:.0f} s after it was last renewed), and try again"
            )
        self._objects.delete(f"{_FOLDER}/{name}")

    def _announce(self) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "machine": _machine()}
        # Always of one length, since it may be read while it is replaced.
        self._objects.put(self._path, json.dumps(holder | {"beat_unix_ns": time.time_ns()}).encode())

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT_S):
            # Writing points handles a store that cannot be reached for a while.
            with contextlib.suppress(OSError):
                if self._objects.find(self._path) is None:
                    self.lost = True
                    return
                self._announce()

    def _withdraw(self) -> None:
        with contextlib.suppress(OSError):
            self._objects.delete(self._path)


def current(objects: Objects) -> tuple[bool, str | None]:
    """Whether a writer is active, and who it is or was; only for display, since this machine's clock decides.

    Raises:
        OSError: the store cannot be read.
    """
    who = None
    for name, claim in _claims(objects).items():
        holder = _read(objects, name)
        if holder is not None:
            who = described(holder)
            if time.time() - claim.modified_ns / 1e9 < _STALE_S and not _is_dead(holder):
                return True, who
    return False, who


def described(holder: dict[str, object]) -> str:
    """The process and host of a claim, which a stranger may have written."""
    host, pid = str(holder.get("host", "?"))[:253], str(holder.get("pid", "?"))[:20]
    return "".join(c for c in f"process {pid} on {host}" if c.isprintable())


def _claims(objects: Objects) -> dict[str, Stored]:
    """All claims by name; objects with other names are skipped."""
    return {name: stored for name, stored in objects.list(_FOLDER).items() if _NAME.fullmatch(name)}


def _read(objects: Objects, name: str) -> dict[str, object] | None:
    """Content of a claim; None if it is gone by now."""
    try:
        content = objects.get(f"{_FOLDER}/{name}")
    except FileNotFoundError:
        return None
    try:
        holder = json.loads(content)
    except (ValueError, RecursionError):
        holder = {}
    return holder if isinstance(holder, dict) else {}


def _is_dead(holder: dict[str, object]) -> bool:
    """Whether the process of a claim ran on this machine and has ended; False where that cannot be known."""
    pid = holder.get("pid")
    if type(pid) is not int or holder.get("machine") != _machine():
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # ended, but not yet waited for


def _machine() -> str:
    """This boot of this machine and this container, in which process ids mean something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"unknown-{secrets.token_hex(8)}"  # equal to no other
