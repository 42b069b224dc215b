"""The loggers of a command line: checked before Ray starts, and kept in the run for its resumes."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flopray.cli.request import Options
from flopray.cli.trust import is_trusted_server, trust_server
from flopray.errors import InputError, SettingError
from flopray.store.journal_index import RunWarning
from flopray.store.redaction import redacted
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep

if TYPE_CHECKING:  # `sweep.loggers` is imported only where there are some
    from flopray.sweep.loggers import Loggers


def loggers_of_new(names: Sequence[str] | None, run: str, options: Options) -> Loggers | None:
    """The loggers of a run that begins; None for none. A plan reaches no server.

    Raises:
        InputError: a package is missing, or a server does not answer.
    """
    if not names:
        return None
    from flopray.sweep.loggers import Loggers, check_packages

    if options.dry_run:
        check_packages(names)
        return None
    loggers = Loggers.new(names, run)
    _check(loggers, options)
    return loggers


def loggers_of_run(folder: RunFolder, names: Sequence[str] | None, options: Options) -> Loggers | None:
    """The loggers that a run began with, for a resume; None for none.

    If a server does not answer now, the run is measured all the same: a `RunWarning` says so, and a later resume adds
        what the server lacks.

    Raises:
        InputError: a package is missing, or nothing was ever sent from here to the server of the manifest.
        NotARun: the manifest does not say where they are.
    """
    if not names:
        return None
    from flopray.sweep.loggers import Loggers, check_packages, given_tracking_uri

    if options.dry_run:
        check_packages(names)
        return None
    loggers = Loggers.of_manifest(folder.manifest, names)
    if "mlflow" in names and given_tracking_uri() is None:
        uri = loggers.tracking_uri
        if "***" in uri:
            raise InputError(f"run {folder.address} logs to MLflow at {uri}: set MLFLOW_TRACKING_URI with its password")
        if not is_trusted_server(uri):
            again = f"if you know it, set MLFLOW_TRACKING_URI={shlex.quote(uri)}"
            raise InputError(f"run {folder.address} logs to MLflow at {uri}, where nothing was sent from here: {again}")
    try:
        _check(loggers, options)
    except SettingError as error:
        from flopray.sweep.mlflow_logger import NoAnswer  # MLflow is an extra

        if not isinstance(error, NoAnswer):
            raise
        warnings.warn(f"{error}; it lacks points until a later resume", RunWarning, stacklevel=2)
    return loggers


def mended_loggers(folder: RunFolder, sweep: Sweep, loggers: Loggers | None) -> str | None:
    """What was corrected in the loggers of a complete run, in a line; None where nothing was.

    Raises:
        RunLocked: another process writes the run.
    """
    if loggers is None or "mlflow" not in loggers.names:
        return None
    from flopray.sweep.mlflow_reconciliation import reconcile_or_tell

    folder.check_unlocked()
    told: list[str] = []
    if reconcile_or_tell(folder, sweep, loggers, told.append):
        return told[0]
    for line in told:
        warnings.warn(line, RunWarning, stacklevel=2)
    return None


def told_places(loggers: Loggers | None, folder: RunFolder, options: Options) -> list[str]:
    """Where to look while the run is measured, a line a logger."""
    return loggers.places(None if _behind_client(options) else str(folder.tune_path)) if loggers else []


def _check(loggers: Loggers, options: Options) -> None:
    from flopray.sweep.tune_loggers import check

    check(loggers, behind_client=_behind_client(options))
    trust_server(redacted(loggers.tracking_uri))


def _behind_client(options: Options) -> bool:
    return (options.address or "").startswith("ray://")
