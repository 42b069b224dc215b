"""A model's configuration and files from a model hub, or in one line why they are missing."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from flopray.errors import SettingError

#: Variable of the libraries: https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
_ENDPOINT = ("HF_ENDPOINT", "https://huggingface.co")
#: A hub that does not accept a connection within this time counts as unreachable.
_CONNECT_S = 5.0
_TALKATIVE = ("huggingface_hub", "transformers")


def config(name: str) -> dict[str, object]:
    """The `config.json` of a model, from the hub or from its cache on this machine.

    Raises:
        InputError: there is none, or the hub cannot be reached.
    """
    from transformers import PretrainedConfig

    content = _asked(
        name,
        lambda here: PretrainedConfig.get_config_dict(name, local_files_only=here)[0],
        "the hub gives no configuration",
    )
    if not content:
        raise SettingError(f"<model> {name}: the hub gives no configuration (it has no config.json)")
    return content


def has_any(name: str, files: Sequence[str]) -> bool:
    """Whether a model of the hub, or a folder, has one of some files.

    Raises:
        InputError: the hub does not answer.
    """
    from transformers.utils.hub import has_file

    def found(here: bool) -> bool:
        return any(has_file(name, file, local_files_only=here) for file in files)

    return found(True) if Path(name).is_dir() else _asked(name, found, "the hub does not tell what it has")


def _asked(name: str, ask: Callable[[bool], Any], failed: str) -> Any:
    """The hub's answer, or its cache where the hub cannot be reached: the libraries would try for half a minute."""
    reason = unreachable()
    with _silent():
        try:
            found = ask(reason is not None)
        except Exception as error:
            found, why = None, first_line(error)
        else:
            why = ""
    if reason is not None and not found:
        raise SettingError(
            f"<model> {name}: no file or folder here, {reason}, and its files are not in the cache of this machine: "
            "connect it, or give a folder with the model's config.json"
        )
    if found is None:
        raise SettingError(f"<model> {name}: {failed} ({why})")
    return found


def unreachable() -> str | None:
    """Why no hub can be reached from here; None where one takes connections, or where a proxy decides that."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    url = urlsplit(os.environ.get(*_ENDPOINT) or _ENDPOINT[1])
    if url.scheme in getproxies() or "all" in getproxies():
        return None
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        socket.create_connection((url.hostname or "", port), timeout=_CONNECT_S).close()
    except (OSError, ValueError) as error:
        return f"the hub {url.netloc} cannot be reached ({first_line(error)})"
    return None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence the libraries, which print their attempts: one line of ours is enough."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, short enough for a message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
