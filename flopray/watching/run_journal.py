"""The journal of watched programs: a JSON object a line, appended and synced, never rewritten."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flopray.errors import InputError


def append_entry(journal: Path, entry: Mapping[str, Any]) -> None:
    """Add a line. A line that a crash tore is ended first, so that it damages no other.

    Raises:
        InputError: the file cannot be written.
    """
    line = json.dumps(entry, allow_nan=False).encode() + b"\n"
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"cannot write {journal}: {error.strerror or error}") from error
