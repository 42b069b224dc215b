"""The manifest of a run, and its folder: published whole or not at all, and checked when read."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from flopray.description import Description
from flopray.errors import InputError, NotARun, RunError, RunExists, SchemaMismatch, SpecError, resume_command
from flopray.records import READABLE_VERSIONS, SCHEMA_VERSION
from flopray.reference.catalog import PREFIX, is_reference
from flopray.store import atomic
from flopray.store.schema import OWN_SINCE, RecordSchema
from flopray.store.uri import is_uri
from flopray.workloads.registry import BUILT_IN

FILE_NAME = "manifest.json"
JOURNAL_NAME = "journal.jsonl"
LOCK_NAME = "writer.lock"
#: Only in the local copy of a run that lives elsewhere (`flopray.store.remote.mirror`).
MIRROR_NAME = "mirror.json"
#: Where runs are made unless --storage says otherwise.
DEFAULT_STORAGE = "results"
_LONGEST_NAME_BYTES = 200
#: A grid of a million points has a manifest of some ten MB at the most.
_LARGEST_BYTES = 64 * 2**20
#: The JSON object of a manifest. Whoever reads a part of it decodes that part by msgspec (`Sweep.from_manifest`, say).
Manifest = dict[str, Any]


class _Head(msgspec.Struct):
    """Fields that the manifest of every kind of run begins with, besides its name."""

    schema_version: int


def check_name(name: Any) -> None:
    """Accept a name that is one plain folder name, on any file system and in any command line.

    Raises:
        InputError: it is not; the message says why.
    """
    mend = "choose a name of letters, digits, - and _"
    if not isinstance(name, str) or not name:
        raise InputError(f"the name of a run must be text and not empty: {mend}")
    shown = repr(name if len(name) <= 80 else name[:80] + "...")
    if "/" in name or "\\" in name or name in (".", ".."):
        raise InputError(f"the name {shown} is a path, not the name of a folder: {mend}")
    if name[0] in "-." or name != name.strip():
        raise InputError(f"the name {shown} begins with - or ., or has spaces at an end: {mend}")
    if not name.isprintable():
        raise InputError(f"the name {shown} has characters that cannot be printed: {mend}")
    if len(name.encode("utf-8", "replace")) > _LONGEST_NAME_BYTES:
        raise InputError(f"the name {shown} is longer than {_LONGEST_NAME_BYTES} bytes: {mend}")


def check_new_name(name: Any) -> None:
    """Accept a name for a new run. Raises as `check_name`, also for one that would be taken for reference data."""
    check_name(name)
    if is_reference(name):
        raise InputError(f"the name {name!r:.80} would mean data that come with flopray: choose one without {PREFIX}")


def check_free(storage: str | PathLike[str], name: str) -> Path:
    """The folder that a new run would have.

    Raises:
        RunExists: the place is taken.
        InputError: the name or the storage cannot be one.
    """
    check_new_name(name)
    path = storage_folder(storage) / name
    try:
        if path.is_symlink() or path.exists():
            raise RunExists(taken(path))
    except OSError as error:
        raise RunError(f"storage {path.parent} cannot be written: {atomic.reason(error)}") from error
    return path


def publish(
    storage: str | PathLike[str], name: str, manifest: Manifest, fill: Callable[[Path], None] | None = None
) -> tuple[Path, Manifest]:
    """Make the folder of a new run with its complete manifest and an empty journal, or nothing at all.

    Args:
        storage: folder of all runs.
        name: of the run.
        manifest: its content.
        fill: writes more into the folder, whose path it gets, before it appears under its name.

    Returns:
        The absolute path of the folder, and the manifest as a reader will see it.

    Raises:
        RunExists, InputError, ValueError, TypeError: as `RunFolder.create`.
    """
    path = check_free(storage, name)
    manifest = {**manifest, "name": name, "schema_version": SCHEMA_VERSION}
    text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    try:
        _check_texts(manifest)  # else the run could not be opened
    except ValueError as error:
        raise InputError(f"the run cannot be described: {error}; use another name for it") from error
    folder = path.parent
    try:
        with _new_folders(folder):
            publish_folder(path, text.encode(), fill)
    except OSError as error:
        raise RunError(f"storage {folder} cannot be written: {atomic.reason(error)}") from error
    return path, json.loads(text)


def read(path: str | PathLike[str]) -> tuple[Path, Manifest]:
    """The absolute path of a run's folder and its manifest.

    Raises:
        NotARun, SchemaMismatch: as `RunFolder.open`.
    """
    given, path = Path(path), Path(path).absolute()
    try:
        with atomic.open_regular(path / FILE_NAME) as file:
            content = file.read(_LARGEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_dir():
            raise NotARun(f"{path} is not a run of flopray: {_holds(given)}") from None
        hint = meant_run(given)
        if hint is None and given.is_file():
            hint = f"it is a file, and a run is a folder with a {FILE_NAME}; `flopray audit` judges tables"
        hint = hint or f"give the folder that holds its {FILE_NAME}"
        raise NotARun(f"there is no run at {path}: {hint}") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise NotARun(f"{str(path / FILE_NAME)!r} cannot be read: {atomic.reason(error)}") from error
    return path, checked(content, str(path))


def meant_run(given: Path) -> str | None:
    """A question after the run that was meant by its bare name, by a file in its folder, or by a name like its own.

    Args:
        given: which leads to no run.
    """
    with contextlib.suppress(OSError, ValueError):
        beside = (given.parent, Path(DEFAULT_STORAGE) / given.parent)
        alike = [folder / near for folder in beside for near in get_close_matches(given.name, _runs_in(folder), n=1)]
        for meant in (given.parent if given.is_file() else Path(DEFAULT_STORAGE) / given, *alike):
            if (meant / FILE_NAME).is_file():
                return f"did you mean {shlex.quote(str(meant))}?"
    return None


def _holds(given: Path) -> str:
    """What a folder is that is no run."""
    runs: list[str] = []
    with contextlib.suppress(OSError):
        runs = _runs_in(given)
    if not runs:
        return f"it has no {FILE_NAME}"
    latest = max(runs, key=lambda name: (given / name / FILE_NAME).stat().st_mtime)
    return f"it holds {len(runs)} of them: name one, such as {shlex.quote(str(given / latest))}"


def _runs_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if (path / FILE_NAME).is_file()) if folder.is_dir() else []


def checked(content: bytes, place: str) -> Manifest:
    """The manifest that a file or object holds.

    Args:
        content: of the file.
        place: the run, for messages.

    Raises:
        NotARun, SchemaMismatch: as `RunFolder.open`.
    """
    try:
        if len(content) > _LARGEST_BYTES:
            raise ValueError(f"it is larger than {_LARGEST_BYTES // 2**20} MiB")
        manifest = msgspec.json.decode(content)  # refuses NaN, numbers too large for a float, and half a surrogate pair
        _check_texts(manifest)
    except (ValueError, RecursionError) as error:
        reason = atomic.reason(error)[:120]
        raise NotARun(f"{f'{place}/{FILE_NAME}'!r} is torn or not JSON: {reason}") from error
    if not isinstance(manifest, dict):
        raise NotARun(f"{place}/{FILE_NAME} is not a JSON object")
    try:
        version = msgspec.convert(manifest, _Head).schema_version
    except msgspec.ValidationError:
        raise NotARun(f"{place} is not a run of flopray: its {FILE_NAME} has no schema_version") from None
    if version not in READABLE_VERSIONS:
        which = "a newer" if version > SCHEMA_VERSION else "an older"
        known = f"{', '.join(map(str, READABLE_VERSIONS[:-1]))} and {READABLE_VERSIONS[-1]}"
        raise SchemaMismatch(
            f"run {place} has record schema version {version}, this flopray reads versions {known}: "
            f"use {which} flopray for it"
        )
    try:
        check_name(manifest.get("name"))
    except InputError as error:
        raise NotARun(f"{place} is not a run of flopray: in its {FILE_NAME}, {error}") from error
    return manifest


def _check_texts(value: Any) -> None:
    """Refuse text with control characters, or that cannot be encoded as UTF-8.

    Raises:
        ValueError: there is one.
        RecursionError: the value is nested deeply.
    """
    if isinstance(value, str):
        if not value.isprintable():
            raise ValueError(f"the text {value[:80]!r} has characters that cannot be printed")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_texts(key)
            _check_texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_texts(item)


def schema_of(manifest: Mapping[str, object]) -> RecordSchema:
    """The columns of a run: those of every record, and those of the workload that its manifest describes.

    Up to version 3 a workload from elsewhere could fill any column, so such a run keeps them all, as does one whose
    manifest names no workload.

    Raises:
        NotARun: the manifest describes no workload.
    """
    try:
        workload, version = workload_in(manifest), msgspec.convert(manifest, _Head).schema_version
        former = not workload.name or (version < OWN_SINCE and workload.name not in BUILT_IN)
        return RecordSchema(workload, version=version, former=former)
    except SpecError as error:
        raise NotARun(f"the manifest of run {manifest.get('name')!s:.80} does not describe a sweep: {error}") from error


def workload_in(manifest: Mapping[str, object]) -> Description:
    """The workload of a manifest: a built-in one, or the description of another one, whose code is not loaded.

    For a manifest without a sweep, the description has no fields.

    Raises:
        SpecError: the manifest does not describe a workload.
    """
    sweep = manifest.get("sweep")
    name = sweep.get("workload") if isinstance(sweep, dict) else None
    if isinstance(name, str) and name in BUILT_IN:
        return BUILT_IN[name]()
    if "workload" not in manifest:
        if name is not None:
            raise SpecError(f"it describes no workload {name!r:.60}")
        return Description()
    found = Description.from_dict(manifest["workload"])
    if found.name != name:
        raise SpecError(f"it describes a workload {found.name}, and its sweep is of {name!r:.60}")
    return found


def of_own_tuner(manifest: Mapping[str, object]) -> bool:
    """Whether a user's own Tuner decides on the points of a run (`flopray.sweep.trainable`), so that it has no grid."""
    return "tuner" in manifest


def of_reference(manifest: Mapping[str, object]) -> bool:
    """Whether a run comes with flopray (`flopray.reference`)."""
    return "reference" in manifest


def of_tune_results(manifest: Mapping[str, object]) -> bool:
    """Whether the manifest is that of Tune's results (`flopray.store.tune_experiment`), which have no grid either."""
    return "tune_results" in manifest


def storage_folder(storage: str | PathLike[str]) -> Path:
    """The absolute path of a folder of runs, which need not exist.

    Raises:
        InputError: it is not a path of this file system.
    """
    text = str(storage)
    if not text or not text.isprintable():
        raise InputError(f"storage {text[:80]!r} is not a path: give a local folder")
    if is_uri(text):
        raise InputError(f"{text[:80]!r} is a URI: give a local or mounted folder")
    return Path(text).absolute()


def exists_message(place: str, name: str) -> str:
    """Why a new run cannot be made where one exists."""
    return f"run {name} exists: continue it with {resume_command(place)}, or choose another name"


def taken(path: Path) -> str:
    """Why a new run cannot be made at a path that exists."""
    if (path / FILE_NAME).exists():
        return exists_message(str(path), path.name)
    return f"{path} exists and is not a run of flopray: choose another name"


@contextlib.contextmanager
def _new_folders(folder: Path) -> Iterator[None]:
    """Make a folder with its parents for the block, and remove what is new if the block fails."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    made: list[Path] = []
    try:
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            made.append(new)
            atomic.fsync_folder(new.parent)
        yield
    except BaseException:
        for new in reversed(made):
            # Fails, as it should, if another process has put something into the folder since.
            with contextlib.suppress(OSError):
                new.rmdir()
        raise


def publish_folder(path: Path, manifest: bytes, fill: Callable[[Path], None] | None) -> None:
    """Make the complete folder of a run under another name, then rename it: it is never seen half made.

    Raises:
        RunExists: `path` exists.
        OSError: it could not be written; nothing is left of it.
    """
    with atomic.filling(path) as new:
        with atomic.replacing(new / FILE_NAME) as file:
            file.write(manifest)
        with atomic.replacing(new / JOURNAL_NAME):
            pass
        if fill:
            fill(new)
        _rename(new, path)


def _rename(new: Path, path: Path) -> None:
    try:
        new.rename(path)
    except OSError as error:
        # Two runs of one name at the same moment: a folder that is not empty is never replaced.
        if path.exists():
            raise RunExists(taken(path)) from error
        raise
