"""Calibrations of boards, kept in the user's cache: a folder a board and a file a calibration, never replaced."""

from __future__ import annotations

import json
import re
import secrets
import time
from pathlib import Path

from flopray.energy.calibration import Calibration
from flopray.errors import InputError, StorageError
from flopray.store import atomic
from flopray.store.uri import cache_root

#: How long a calibration of a board is valid: how boards age within a month is unknown.
MOST_AGE_S = 30 * 86_400.0
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z-]{1,80}")


def calibrations_folder() -> Path:
    """Where calibrations are kept on this machine."""
    return cache_root() / "calibrations"


def keep(calibration: Calibration, folder: Path | None = None) -> Path:
    """Write a calibration beside the older ones of its board.

    Args:
        calibration: of a board.
        folder: by default `calibrations_folder`.

    Returns:
        Its file.

    Raises:
        StorageError: it cannot be written.
    """
    own = _own(calibration.device_uuid, folder)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(calibration.measured_unix_s))
    path = own / f"{stamp}-{secrets.token_hex(3)}.json"
    try:
        own.mkdir(parents=True, exist_ok=True)
        atomic.remove_unfinished(own)
        with atomic.replacing(path) as file:
            file.write(json.dumps(calibration.to_dict(), indent=1, allow_nan=False).encode())
    except OSError as error:
        raise StorageError(f"the calibration cannot be kept in {own}: {atomic.reason(error)}") from error
    return path


def kept(device_uuid: str, folder: Path | None = None) -> tuple[list[Calibration], list[str]]:
    """All calibrations of a board, oldest first, and files that are not calibrations.

    Args:
        device_uuid: of the board, as NVML says it.
        folder: by default `calibrations_folder`.
    """
    found: list[Calibration] = []
    damaged: list[str] = []
    for path in sorted(_own(device_uuid, folder).glob("*.json")):
        try:
            with atomic.open_regular(path) as file:
                calibration = Calibration.from_dict(json.load(file))
        except (OSError, ValueError, InputError):
            damaged.append(str(path))
            continue
        (found.append(calibration) if calibration.device_uuid == device_uuid else damaged.append(str(path)))
    return sorted(found, key=lambda calibration: calibration.measured_unix_s), damaged


def latest(
    device_uuid: str,
    driver_version: str | None,
    reference_c: float,
    *,
    most_age_s: float = MOST_AGE_S,
    folder: Path | None = None,
) -> Calibration | None:
    """The newest calibration of a board that is still valid; None where there is none.

    Args:
        device_uuid: of the board.
        driver_version: that is in use; calibrations under another one are left out.
        reference_c: reference temperature that the calibration must have.
        most_age_s: older ones are left out.
        folder: by default `calibrations_folder`.
    """
    since_s = time.time() - most_age_s
    serving = [
        calibration
        for calibration in kept(device_uuid, folder)[0]
        if calibration.driver_version == driver_version
        and calibration.reference_temperature_c == reference_c
        and calibration.measured_unix_s >= since_s
    ]
    return serving[-1] if serving else None


def _own(device_uuid: str, folder: Path | None) -> Path:
    if not _UUID.fullmatch(device_uuid):
        raise InputError(f"{device_uuid[:60]!r} is not the UUID of a GPU")
    return (folder or calibrations_folder()) / device_uuid
