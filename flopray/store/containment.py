"""Checks that files written into a run's folder stay in it: a folder from a stranger may contain links.

With a link in the place of a figure or a log, whoever made the folder would choose which file of its reader is
overwritten, and a FIFO would make the writer wait for ever. So nothing is written through them.
"""

from __future__ import annotations

import os
from pathlib import Path

from flopray.errors import RunError

_MEND = "and nothing is written into a run's folder through it: remove it"


def check_own(folder: Path) -> Path:
    """A folder within a run's folder, which need not exist, if neither it nor anything in it is a link or a device.

    Raises:
        RunError: there is one, or a folder cannot be opened.
    """
    if folder.is_symlink():
        raise RunError(f"{folder} is a link, {_MEND}")
    if folder.is_dir():
        check_contents(folder)
    return folder


def check_contents(folder: Path) -> None:
    """Check everything in a run's folder, at any depth; the folder itself was named by the user and may be a link.

    Raises:
        RunError: as `check_own`.
    """
    todo = [os.fspath(folder)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        raise RunError(f"{entry.path} is a link, {_MEND}")
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        raise RunError(f"{entry.path} is neither a file nor a folder, {_MEND}")
        except OSError as error:
            raise RunError(f"{error.filename or folder} cannot be written: {error.strerror}") from error
