"""The local copy of a run in a store: everything works on the copy, and the store is kept equal to it.

    <cache>/<hash of the place>/<name>/
      manifest.json, journal.jsonl, ...   a run's folder as any other (`flopray.store.run`)
      segments/      the journal as the store has it, a file for each object that was fetched or sent
      outbox/        segments that the store may not have yet: written here, synced, sent, then moved to segments/
      mirror.json    which place this is a copy of
      mirror.lock    held while it is brought up to date

The journal is rebuilt from segments and outbox whenever the copy is opened, so nothing else has to be kept in sync.
A driver that writes on this machine keeps its copy newer than the store: then it is read as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flopray.errors import NotARun, RunError
from flopray.store import atomic, lock, manifests
from flopray.store.journal_index import RunWarning
from flopray.store.manifests import Manifest
from flopray.store.remote import segments
from flopray.store.remote.objects import Objects, at_once
from flopray.store.uri import cache_root

_RECORDS = "records.parquet"
_FETCH_TRIES = 5


class Mirror:
    """The local copy of one run.

    Args:
        objects: the run in its store.
    """

    def __init__(self, objects: Objects) -> None:
        location = objects.location
        digest = hashlib.sha256(location.identity.encode()).hexdigest()[:16]
        self._objects = objects
        self.path = cache_root() / digest / location.name
        self._segments = self.path / "segments"
        self._outbox = self.path / "outbox"

    def prepare(self) -> None:
        """Make room for a new run: the copy of an earlier run of this name is renamed, never removed.

        Raises:
            RunError: the cache cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if self.path.exists():
                    self._put_aside()
        except OSError as error:
            raise self._unusable(error) from error

    def fill(self, path: Path) -> None:
        """Write the file that marks a run's folder as a copy."""
        for folder in ("segments", "outbox"):
            (path / folder).mkdir()
        with atomic.replacing(path / manifests.MIRROR_NAME) as file:
            file.write(json.dumps({"copy_of": str(self._objects.location)}).encode() + b"\n")

    def open(self) -> Manifest:
        """Bring the copy up to date, making it where there is none; the run's manifest.

        Raises:
            NotARun, SchemaMismatch: the place holds no run, or one of another schema.
            RunError: the store cannot be read, or the cache cannot be written.
        """
        place = self._objects.location
        try:
            content = self._objects.get(manifests.FILE_NAME)
        except FileNotFoundError:
            raise NotARun(f"there is no run at {place}: it has no {manifests.FILE_NAME}") from None
        except OSError as error:
            raise RunError(f"run {place} cannot be read: {error.strerror}") from error
        manifest = manifests.checked(content, str(place))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if not self._is_written():
                    self._adopt(content)
                    self._fetch()
        except OSError as error:
            raise self._unusable(error) from error
        return manifest

    def refresh(self) -> None:
        """Bring the copy up to date for its writer, who holds the run's lock. Raises as `open`."""
        try:
            with self._alone():
                self._fetch()
        except OSError as error:
            raise self._unusable(error) from error

    def names(self) -> list[str]:
        """All segments that are known here, sorted."""
        return sorted({*_sizes(self._segments), *_sizes(self._outbox)})

    def keep(self, name: str, data: bytes) -> None:
        """Write a segment to the outbox and sync it. Raises `OSError`."""
        with atomic.replacing(self._outbox / name) as file:
            file.write(data)

    def send(self) -> None:
        """Send what is in the outbox, in order. Raises `OSError`; what could not be sent stays in it."""
        for name in sorted(_sizes(self._outbox)):
            path = self._outbox / name
            self._objects.put(f"{segments.FOLDER}/{name}", path.read_bytes())
            path.replace(self._segments / name)

    def merge(self, name: str) -> None:
        """Join the small segments at the end into one, called `name`. Raises `OSError`.

        The new one is written first: a crash before the old ones are gone leaves lines twice, in the same order.
        """
        covered = segments.mergeable(_sizes(self._segments))
        if not covered:
            return
        with atomic.replacing(self._outbox / name) as file:
            _join([self._segments / part for part in covered], file)
        self.send()
        at_once(lambda part: self._objects.delete(f"{segments.FOLDER}/{part}"), covered)
        for part in covered:
            (self._segments / part).unlink()

    @property
    def outbox(self) -> Path:
        """Folder of what the store may not have yet."""
        return self._outbox

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes of this machine from changing the copy; waits for them."""
        # Beside the copy and not in it: the copy may be renamed meanwhile.
        path = self.path.with_name(f".{hashlib.sha256(self.path.name.encode()).hexdigest()[:16]}.lock")
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _is_written(self) -> bool:
        """Whether a driver on this machine writes the run now: then the copy is newer than the store."""
        return self._outbox.is_dir() and lock.holder(self.path / manifests.LOCK_NAME)[0]

    def _adopt(self, manifest: bytes) -> None:
        """Make the folder of the copy, unless there is one of this run."""
        if self.path.exists():
            try:
                if (self.path / manifests.FILE_NAME).read_bytes() == manifest and self._outbox.is_dir():
                    return
            except OSError:
                pass
            self._put_aside()
        manifests.publish_folder(self.path, manifest, self.fill)

    def _put_aside(self) -> None:
        aside = self.path.with_name(f"{self.path.name}.left-{time.time_ns()}")
        self.path.rename(aside)
        if _sizes(aside / "outbox"):
            message = f"{aside} has points of a former run at {self._objects.location} that were never sent there"
            warnings.warn(message, RunWarning, stacklevel=5)

    def _fetch(self) -> None:
        """Fetch what is new in the store and put the journal together."""
        for folder in (self._segments, self._outbox, self.path):
            atomic.remove_unfinished(folder)
        stored = self._fetch_segments()
        own = _sizes(self._outbox)
        parts = [(self._outbox if name in own else self._segments) / name for name in sorted({*stored, *own})]
        with atomic.replacing(self.path / manifests.JOURNAL_NAME) as file:
            _join(parts, file)
        for name in _sizes(self._segments).keys() - stored:  # merged into others since
            (self._segments / name).unlink()
        self._fetch_records()

    def _fetch_segments(self) -> set[str]:
        for tries_left in reversed(range(_FETCH_TRIES)):
            listed = self._objects.list(segments.FOLDER)
            sizes = {name: stored.size for name, stored in listed.items() if segments.is_segment(name)}
            here = _sizes(self._segments)
            try:
                at_once(self._fetch_segment, [name for name, size in sizes.items() if here.get(name) != size])
                return set(sizes)
            except FileNotFoundError:  # merged into another since it was listed
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    def _fetch_segment(self, name: str) -> None:
        self._objects.get_file(f"{segments.FOLDER}/{name}", self._segments / name)

    def _fetch_records(self) -> None:
        """Fetch the table, which makes reading fast; the journal has the same content."""
        there, path = self._objects.find(_RECORDS), self.path / _RECORDS
        if there is None:
            return
        with contextlib.suppress(FileNotFoundError):
            here = path.stat()
            if (here.st_size, here.st_mtime_ns) == there:
                return
        self._objects.get_file(_RECORDS, path)
        os.utime(path, ns=(there.modified_ns, there.modified_ns))

    def _unusable(self, error: OSError) -> RunError:
        reason = atomic.reason(error)
        return RunError(f"run {self._objects.location} cannot be copied to {self.path.parent}: {reason}")


def _sizes(folder: Path) -> dict[str, int]:
    """The segments in a folder of this machine, with their bytes."""
    try:
        return {path.name: path.stat().st_size for path in folder.iterdir() if segments.is_segment(path.name)}
    except FileNotFoundError:
        return {}


def _join(parts: list[Path], into: Any) -> None:
    """Write segments one after the other; one that was cut off must not damage the next line."""
    for path in parts:
        with path.open("rb") as part:
            shutil.copyfileobj(part, into, 1 << 20)
            if part.tell():
                part.seek(-1, os.SEEK_END)
                if part.read(1) != b"\n":
                    into.write(b"\n")
