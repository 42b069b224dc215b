"""What this user trusts on this machine: files of workloads, which a resume runs, and servers that it sends results to.

A run's folder may come from a stranger, and its manifest names a file of Python. It is never run because of the
manifest alone: the file must have the content that the run began with, and this user must have swept that content here,
or name it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path

import msgspec

from flopray.errors import InputError, NotARun, SpecError, resume_command
from flopray.store.manifests import workload_in
from flopray.store.resumption import check_resumable
from flopray.store.uri import cache_root
from flopray.workloads.base import Workload
from flopray.workloads.package import Package, package_of
from flopray.workloads.registry import find_workload


def trust(workload: Workload) -> None:
    """Remember that this user swept the file of a workload, so that a resume needs only the run."""
    if workload.source is None:
        return
    with contextlib.suppress(OSError):  # a resume will ask for the file
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / workload.source.sha256).touch()


def trust_code(workload: Workload, axes: Mapping[str, tuple[object, ...]]) -> None:
    """Remember that this user ran the code that values of a sweep name, such as the tasks of an evaluation."""
    if (digest := workload.code_of(axes)) is not None:
        with contextlib.suppress(OSError):  # a resume will ask for it
            _folder().mkdir(parents=True, exist_ok=True)
            (_folder() / digest).touch()


def check_code(workload: Workload, axes: Mapping[str, tuple[object, ...]], address: str) -> None:
    """Refuse to run code that a run names if this user never ran it here, or it changed since.

    Raises:
        InputError: the code is not trusted.
    """
    digest = workload.code_of(axes)
    if digest is not None and not _is_trusted(digest):
        where = ", ".join(str(value) for value in axes.get("include_path", ()))
        raise InputError(
            f"run {address} takes tasks from {where}, which were not run here before in this form: a task may run "
            "Python. Put back what changed; of a stranger's run, read them and evaluate one with --include-path first"
        )


def trust_server(address: str) -> None:
    """Remember that this user sent results to a server, so that a resume needs only the run."""
    with contextlib.suppress(OSError):  # a resume will ask for it
        _servers().mkdir(parents=True, exist_ok=True)
        (_servers() / _digest(address)).touch()


def is_trusted_server(address: str) -> bool:
    """Whether this user sent results there: a run's manifest may come from a stranger, and so may the address in it."""
    return (_servers() / _digest(address)).is_file()


def workload_of_run(manifest: Mapping[str, object], address: str, named: str | None = None) -> Workload:
    """The workload of a run, with its code, to go on with it.

    Args:
        manifest: of the run.
        address: of the run, for messages.
        named: what the command line names, such as `models.py:ConvNet`; None takes what the run began with.

    Raises:
        InputError: there is no such code, it is not that of the run, or it was not run here before.
        NotARun: the manifest describes no workload.
        RunError: the run cannot be resumed.
    """
    check_resumable(manifest, address)
    try:
        described = workload_in(manifest)
    except SpecError as error:
        raise NotARun(f"the manifest of run {address}: {error}") from error
    if not described.name:
        raise NotARun(f"the manifest of run {address} describes no sweep")
    source = manifest.get("workload_source")
    if isinstance(described, Workload) and named is None:
        return described
    if source is None:
        return _installed(manifest, named or described.name)
    began = _source_of(source)
    reference = named or f"{began.path}:{began.class_name}"
    if named is None and not _is_trusted(began.sha256):
        again = f"{resume_command(address)} --workload {shlex.quote(reference)}"
        raise InputError(f"run {address} measures code that was not run here before: read it, then {again}")
    workload = find_workload(_unchanged(reference, began))
    trust(workload)
    return workload


def _installed(manifest: Mapping[str, object], name: str) -> Workload:
    """The workload of an installed package, if its code is that of the run; older manifests do not say.

    Raises:
        InputError: the package is not installed, or changed since the run began.
        NotARun: the manifest describes no package.
    """
    content = manifest.get("workload_package")
    try:
        began = None if content is None else Package.from_dict(content)
    except TypeError as error:
        raise NotARun(f"the manifest does not say which package the workload was in: {error}") from error
    try:
        workload = find_workload(name)
    except InputError as error:
        raise InputError(f"{error} (the run measures code of the package {began})" if began else str(error)) from error
    if began and (changed := began.difference(package_of(workload))):
        raise InputError(
            f"the code of the workload changed since the run began: {changed}; install it as it was, or start a new run"
        )
    trust(workload)
    return workload


def _unchanged(reference: str, began: _Source) -> str:
    """The reference, if its file is that of the run. It is compared before it is run."""
    path = Path(reference.rpartition(":")[0]).expanduser()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        raise InputError(f"there is no file {path}: name where it is now with --workload FILE.py:NAME") from None
    if digest != began.sha256:
        raise InputError(f"{path} changed since the run began: put it back as it was, or start a new run")
    return reference


class _Source(msgspec.Struct):
    """The file of a workload, by a manifest."""

    path: str
    class_name: str
    sha256: str


def _source_of(source: object) -> _Source:
    try:
        return msgspec.convert(source, _Source)
    except msgspec.ValidationError:
        raise NotARun("the manifest does not say which file the workload was in") from None


def _is_trusted(digest: str) -> bool:
    return digest.isalnum() and (_folder() / digest).is_file()


def _folder() -> Path:
    return cache_root() / "workloads"


def _servers() -> Path:
    return cache_root() / "servers"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
