"""Addresses of runs: a local or mounted folder, the URI of an object store, or `reference:NAME`."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from flopray.errors import RunExists, SettingError, check_path
from flopray.reference.catalog import folder_of, is_reference
from flopray.store import manifests
from flopray.store.manifests import Manifest
from flopray.store.reference_run import ReferenceRun, output_folder
from flopray.store.remote.mirror import cache_root
from flopray.store.run import RunFolder
from flopray.store.tune_experiment import TuneRun, is_experiment
from flopray.store.uri import Location, is_uri

if TYPE_CHECKING:
    import pandas as pd


def check_new(storage: str, name: str, *, write: bool = True) -> None:
    """Refuse before Ray starts what `create_run` would refuse after.

    Args:
        storage: folder or URI of all runs.
        name: of the new one.
        write: also test whether a store can be written.

    Raises:
        RunExists, InputError: as `create_run`.
    """
    manifests.check_new_name(name)
    if is_uri(storage):
        from flopray.store.remote import run

        _check_writable("the cache", cache_root())
        run.check_new(Location.parse(storage), name, write=write)
        return
    folder = manifests.storage_folder(storage)
    _refuse_copy_of_job(folder.absolute())
    _check_writable("<storage>", folder)
    try:
        taken = (folder / name).exists()
    except OSError as error:
        raise SettingError(f"<storage> {folder!s:.80}: {error.strerror}; choose another folder") from error
    if taken:
        raise RunExists(manifests.taken(folder / name))


def _refuse_copy_of_job(folder: Path) -> None:
    """Refuse a folder in Ray's copy of a submitted job's folder."""
    if "runtime_resources" in folder.parts:
        raise SettingError(
            f"results would go into Ray's copy of the job's folder ({folder}), which Ray deletes: "
            "give <storage> a path of your own that starts with /, or a URI"
        )


def _check_writable(what: str, folder: Path) -> None:
    """Whether a folder, which need not exist, can be written."""
    try:
        existing = next(found for found in (folder, *folder.parents) if found.exists())
    except OSError as error:
        raise SettingError(f"{what} {str(folder)[:80]}: {error.strerror}; choose another folder") from error
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise SettingError(f"{what} {folder}: cannot write to {existing}; choose a folder you may write")


def create_run(storage: str, name: str, manifest: Manifest) -> RunFolder:
    """Make a new run in a folder or store. Raises as `RunFolder.create`, and `RunLocked` in a store."""
    if is_uri(storage):
        from flopray.store.remote.run import RemoteRun

        return RemoteRun.make(Location.parse(storage), name, manifest)
    return RunFolder.create(storage, name, manifest)


def local_folder(path: str | PathLike[str]) -> Path:
    """The folder of a run on this machine; for a run in a store that of its copy, brought up to date.

    Raises:
        FloprayError: as `open_run`, for a URI or `reference:NAME`; a folder is not checked.
    """
    if is_reference(str(path)):
        return folder_of(str(path))
    return open_run(path).path if is_uri(str(path)) else Path(path)


def results_folder(path: str | PathLike[str]) -> Path:
    """The default folder for figures and tables of a run: its own, if it belongs to the user.

    Raises:
        FloprayError: as `local_folder`.
    """
    folder = local_folder(path)
    return output_folder(str(path)) if is_reference(str(path)) else folder


def open_run(path: str | PathLike[str]) -> RunFolder:
    """Open a run to read it, by its folder, URI or `reference:NAME`, or by what Ray Tune wrote of it.

    Raises as `RunFolder.open`, `TuneRun.open` and `ReferenceRun.at`, `RunError` for a store that cannot be read, and
    `InputError` for what is no path.
    """
    check_path("the run", path)
    if is_reference(str(path)):
        return ReferenceRun.at(str(path))
    if is_uri(str(path)):
        from flopray.store.remote.run import RemoteRun

        return RemoteRun.at(Location.parse(str(path)))
    folder = Path(path).expanduser()
    return TuneRun.open(folder) if is_experiment(folder) else RunFolder.open(folder)


def load_run(path: str | PathLike[str]) -> pd.DataFrame:
    """The records of a run as a data frame: a row per point and phase, a column per field of `PhaseRecord`.

    Rows are sorted by specification and phase. Counts are nullable integers (`Int64`), measured values plain floats
    with NaN where missing, `findings` and `kernels` lists of text; `flopray.store.table` has the reasons. Works while
    the run is still being measured. Damaged lines that were left out are reported as a `RunWarning` of
    `flopray.store.journal_index`.

    Args:
        path: its folder, a URI such as `s3://bucket/prefix/run`, or reference data such as `reference:h100-mlp`
            (`flopray reference` lists them); or an experiment folder of Ray Tune, such as
            `tune/session-1` of a run, or its `tune/` with all sessions (`flopray.store.tune_results` says what these
            lack).

    Raises:
        NotARun: the path is not a run's folder.
        SchemaMismatch: it was written with another version of the record's columns.
        RunError: the place that the URI names cannot be read.
    """
    return open_run(path).load()
