"""A run in an object store, with the same methods and guarantees as a `RunFolder`."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

from flopray.errors import RunError, RunExists, StorageError
from flopray.store import atomic, lock, manifests
from flopray.store.journal import JournalWriter
from flopray.store.manifests import Manifest
from flopray.store.remote import claim
from flopray.store.remote.claim import Claim
from flopray.store.remote.mirror import Mirror
from flopray.store.remote.objects import Objects, at_once
from flopray.store.remote.segments import SegmentNames
from flopray.store.run import RunFolder
from flopray.store.uri import Location

#: Files of a finished session beside the journal, in the store under the same names.
_RESULTS = (
    *("records.parquet", "kernels.parquet", "operators.parquet", "series.parquet"),
    *("summary.json", "report.html", "plots", "tables"),
)


class RemoteRun(RunFolder):
    """An existing run in a store. `path` and all other paths are those of its local copy."""

    def __init__(self, objects: Objects, mirror: Mirror, manifest: Manifest) -> None:
        """For `make` and `at` only."""
        super().__init__(mirror.path, manifest)
        self._copy_of = dataclasses.replace(objects.location, options=())
        self._objects, self._mirror = objects, mirror
        self.address = str(objects.location)
        self._claim: Claim | None = None
        self._names: SegmentNames | None = None
        self._log_from = self.log_path.stat().st_size if self.log_path.exists() else 0

    @classmethod
    def make(cls, storage: Location, name: str, manifest: Manifest) -> RemoteRun:
        """Make a new run: it exists once its manifest is in the store.

        Raises:
            RunExists: the store has a run of this name.
            RunLocked: another process is making it.
            RunError: the store, or the cache of this machine, cannot be written.
        """
        objects = Objects(storage.child(name))
        mirror = Mirror(objects)
        with Claim(objects):
            _check_free(objects)
            mirror.prepare()
            path, content = manifests.publish(mirror.path.parent, name, manifest, mirror.fill)
            try:
                objects.put(manifests.FILE_NAME, (path / manifests.FILE_NAME).read_bytes())
            except BaseException as error:
                with contextlib.suppress(OSError):  # whether it was written is not known
                    objects.delete(manifests.FILE_NAME)
                shutil.rmtree(path, ignore_errors=True)
                if not isinstance(error, OSError):
                    raise
                raise RunError(f"run {objects.location} cannot be written: {error.strerror}") from error
        return cls(objects, mirror, content)

    @classmethod
    def at(cls, location: Location) -> RemoteRun:
        """Open a run, bringing its local copy up to date.

        Raises:
            NotARun, SchemaMismatch: there is no run, or one of another schema.
            RunError: the store cannot be read.
        """
        objects = Objects(location)
        mirror = Mirror(objects)
        return cls(objects, mirror, mirror.open())

    @contextlib.contextmanager
    def writer(self) -> Iterator[JournalWriter]:
        """As `RunFolder.writer`; segments that an earlier session of this machine could not send are sent first.

        Raises:
            RunLocked, RunError, NotARun, SchemaMismatch: as there; also when the store cannot be written.
        """
        with super().writer() as journal:
            try:
                yield journal
            except StorageError:
                raise  # and does not wait for the store again
            except BaseException:
                self._merge()
                raise
            self._merge()

    def _merge(self) -> None:
        """Join small objects, which are slow to read; a failure is ignored, since nothing depends on it."""
        with contextlib.suppress(OSError):
            if self._names is not None and self._claim is not None and not self._claim.lost:
                self._mirror.merge(self._names.next())

    def driver(self) -> tuple[bool, str | None]:
        """As `RunFolder.driver`, on any machine."""
        here = super().driver()
        try:
            return here if here[0] else claim.current(self._objects)
        except OSError:
            return here

    def has_results(self) -> bool:
        """As `RunFolder.has_results`; the journal of the copy is always younger."""
        try:
            return self._objects.find(self.summary_path.name) is not None
        except OSError:
            return self.summary_path.exists()

    def publish(self, *, results: bool = True) -> None:
        """As `RunFolder.publish`: every point is in the store's journal whether this succeeds or not."""
        try:
            self._publish_log()
            if results:
                paths = (path for name in _RESULTS for path in (self.path / name, *(self.path / name).rglob("*")))
                whole = [path for path in paths if path.is_file() and not atomic.is_unfinished(path)]
                names = [path.relative_to(self.path).as_posix() for path in whole]
                at_once(lambda name: self._objects.put(name, (self.path / name).read_bytes()), names)
        except OSError as error:
            raise StorageError(
                f"tables and figures could not be saved to {self.address}: {atomic.reason(error)}; every point is in "
                f"its journal, and they are in {self.path}"
            ) from error

    def _publish_log(self) -> None:
        """Each session's log is an object of its own: the logs of two machines do not replace one another."""
        if self._names is not None and self.log_path.exists():
            with self.log_path.open("rb") as file:
                file.seek(self._log_from)
                self._objects.put(f"logs/{self._names.session}.log", file.read())

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        with lock.exclusive(self._lock_path, self.address), Claim(self._objects) as self._claim:
            yield

    def _open_journal(self) -> JournalWriter:
        assert self._claim is not None
        self._mirror.refresh()
        self._names = SegmentNames(self._mirror.names())
        try:
            self._mirror.send()
        except OSError as error:
            raise RunError(f"run {self.address} cannot be written: {atomic.reason(error)}") from error
        return _SentJournal(self.journal_path, self, self._mirror, self._names, self._claim)


class _SentJournal(JournalWriter):
    """Appends points to the local journal and to the store: they count when both have them."""

    def __init__(self, path: Path, run: RemoteRun, mirror: Mirror, names: SegmentNames, held: Claim) -> None:
        super().__init__(path, run.schema, run._journal_said)
        self.run, self._mirror, self._names, self._claim = run.address, mirror, names, held

    def _write(self, data: bytes, count: int) -> None:
        what = f"{count} point" + ("s" if count > 1 else "")
        try:
            # The outbox comes first: the journal of the copy is made of it when the run is opened again.
            self._mirror.keep(self._names.next(), data)
        except OSError as error:
            reason = atomic.reason(error)
            where = f"{self._mirror.outbox}, from where they go to {self.run}"
            raise StorageError(f"{what} could not be saved to {where}: {reason}") from error
        super()._write(data, count)
        try:
            if self._claim.lost:
                raise OSError(None, "another writer considered this one ended and went on with the run")
            self._mirror.send()
        except OSError as error:
            raise StorageError(
                f"{what} could not be saved to {self.run}: {atomic.reason(error)}; kept in {self._mirror.outbox}, "
                "from where the next resume on this machine sends what is there"
            ) from error


def check_new(storage: Location, name: str, *, write: bool) -> None:
    """Refuse before Ray starts what `RemoteRun.make` would refuse after.

    Args:
        storage: where all runs are.
        name: of the run.
        write: also try whether the store can be written.

    Raises:
        RunExists, RunLocked, RunError: as `RemoteRun.make`.
    """
    objects = Objects(storage.child(name))
    _check_free(objects)
    if write:
        with Claim(objects):
            pass


def _check_free(objects: Objects) -> None:
    place = objects.location
    try:
        found = objects.find(manifests.FILE_NAME)
    except OSError as error:
        raise RunError(f"run {place} cannot be read: {error.strerror}") from error
    if found is not None:
        raise RunExists(manifests.exists_message(str(place), place.name))
