"""The objects below one place of a store: put, get, list, delete; each whole or not at all, with errors of one line.

All functions raise plain `OSError`; callers say what it means for their object. Arrow is imported when a store is
connected, so that importing this module is cheap.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from flopray.errors import RunError
from flopray.store import atomic
from flopray.store.uri import Location

_CONNECT_S, _REQUEST_S, _GS_RETRY_S = 3.0, 5.0, 5
#: Requests the SDK makes for one call before it fails; writing is tried again on top of that.
_ATTEMPTS = 2
_PUT_TRIES, _PUT_PAUSE_S = 3, 1.0
_AT_ONCE = 16
_LONGEST_REASON = 200
_AWS_ERROR = re.compile(r"AWS Error (\w+) during (\w+) operation: (.*?)( \(Request ID.*)?$")
_WHAT_IT_MEANS = {
    "ACCESS_DENIED": "access denied: are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set, and may they do this?",
    "INVALID_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID is not known there",
    "INVALID_CLIENT_TOKEN_ID": "AWS_ACCESS_KEY_ID is not known there",
    "SIGNATURE_DOES_NOT_MATCH": "AWS_SECRET_ACCESS_KEY is wrong",
    "NO_SUCH_BUCKET": "there is no such bucket",
}


class Stored(NamedTuple):
    """What a listing tells of an object: bytes, and when it was written by the clock of the store."""

    size: int
    modified_ns: int


class Objects:
    """The objects below a location.

    Args:
        location: where.

    Raises:
        RunError: the store cannot be reached, or has no such bucket.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        try:
            self._filesystem, self._base = _connect(location)
            self._check_bucket()
        except OSError as error:
            raise RunError(f"{location} cannot be used: {atomic.reason(error)}{_endpoint_hint(location)}") from error

    def _check_bucket(self) -> None:
        """Ask for the bucket itself: the listing of one that does not exist is empty."""
        from pyarrow.fs import FileType

        if self.location.scheme != "s3":
            return
        with _plain_errors():
            try:
                info = self._filesystem.get_file_info(self.location.bucket)
            except OSError as error:
                if "ACCESS_DENIED" in str(error):
                    return  # a key for a part of the bucket: its rights show there
                raise
        if info.type == FileType.NotFound:
            raise OSError(None, f"there is no bucket {self.location.bucket}: make it, or mend the URI")

    def put(self, name: str, data: bytes) -> None:
        """Write an object, or replace it. Tried several times: writing the same twice does no harm."""
        for tries_left in reversed(range(_PUT_TRIES)):
            try:
                with _plain_errors():
                    self._put(self._key(name), data)
                return
            except OSError:
                if not tries_left:
                    raise
                time.sleep(_PUT_PAUSE_S)

    def _put(self, key: str, data: bytes) -> None:
        if self.location.scheme not in ("s3", "gs", "gcs"):  # stores with folders need them made
            self._filesystem.create_dir(key.rpartition("/")[0], recursive=True)
        with self._filesystem.open_output_stream(key) as stream:
            # In one call: when a stream is closed, Arrow completes what it has, which after an interrupt is half an
            # object.
            stream.write(data)

    def get(self, name: str) -> bytes:
        """Raises `FileNotFoundError` where there is no such object."""
        with self._opened(name) as stream:
            return stream.read()

    def get_file(self, name: str, path: Path) -> None:
        """Fetch an object into a file, which is whole when it appears. Raises as `get`."""
        with self._opened(name) as stream, atomic.replacing(path) as file:
            shutil.copyfileobj(stream, file, 1 << 20)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        try:
            with _plain_errors(), self._filesystem.open_input_stream(self._key(name)) as stream:
                yield stream
        except FileNotFoundError:
            raise
        except OSError:
            if self.find(name) is None:  # removed just now, which Arrow calls an internal failure
                raise FileNotFoundError(errno.ENOENT, "no such object", name) from None
            raise

    def find(self, name: str) -> Stored | None:
        """Size and time of an object; None where there is none."""
        with _plain_errors():
            return _stored(self._filesystem.get_file_info(self._key(name)))

    def list(self, folder: str) -> dict[str, Stored]:
        """The objects directly in a folder, by their names in it, sorted. Names are the store's: check them."""
        from pyarrow.fs import FileSelector

        with _plain_errors():
            found = self._filesystem.get_file_info(FileSelector(self._key(folder), allow_not_found=True))
        stored = {info.base_name: _stored(info) for info in sorted(found, key=lambda info: info.base_name)}
        return {name: info for name, info in stored.items() if info is not None}

    def delete(self, name: str) -> None:
        """Remove an object; one that is gone already is not missed."""
        try:
            with _plain_errors():
                self._filesystem.delete_file(self._key(name))
        except FileNotFoundError:
            pass

    def _key(self, name: str) -> str:
        return f"{self._base}/{name}"


def at_once(work: Callable[[str], object], names: Iterable[str]) -> None:
    """Do the same for many objects, several at a time, since each takes a round trip to the store. Raises as `work`."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(work, names):
            pass


def _stored(info: Any) -> Stored | None:
    return Stored(info.size, info.mtime_ns or 0) if info.is_file else None


def _endpoint_hint(location: Location) -> str:
    """What to write where the environment names another server than Amazon's: workers have another environment."""
    name = next((name for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(name)), None)
    if name is None or location.scheme != "s3" or "endpoint_override" in dict(location.options):
        return ""
    scheme, _, server = os.environ[name].rpartition("://")
    said = f"?endpoint_override={server.rstrip('/')}" + (f"&scheme={scheme}" if scheme == "http" else "")
    return f"; {name} is not read, since workers may not have it: add {said} to the URI"


def _connect(location: Location) -> tuple[Any, str]:
    """Arrow's file system, with timeouts, and the key of the location in it."""
    from pyarrow import fs

    with _plain_errors():
        if location.scheme != "s3":
            uri = str(location)
            if location.scheme in ("gs", "gcs") and "retry_limit_seconds" not in dict(location.options):
                uri += ("&" if location.options else "?") + f"retry_limit_seconds={_GS_RETRY_S}"  # else 15 minutes
            return fs.FileSystem.from_uri(uri)
        options = dict(location.options)
        region, endpoint = options.get("region"), options.get("endpoint_override")
        if region is None and endpoint is None:
            region = fs.resolve_s3_region(location.bucket)
        filesystem = fs.S3FileSystem(
            region=region,
            endpoint_override=endpoint,
            scheme=options.get("scheme"),
            connect_timeout=_CONNECT_S,
            request_timeout=_REQUEST_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            allow_delayed_open=True,  # one request for a small object, and not three
        )
        return filesystem, location.key


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn Arrow's errors into `OSError` with one short line; `FileNotFoundError` is kept."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        from pyarrow import ArrowException

        if not isinstance(error, OSError | ArrowException):
            raise
        raise OSError(None, _short(error)) from error


def _short(error: BaseException) -> str:
    text = atomic.reason(error)
    if found := _AWS_ERROR.search(text):
        code, operation, details = found[1], found[2], found[3]
        text = _WHAT_IT_MEANS.get(code, f"{details.rpartition('Details: ')[2]} ({code} in {operation})")
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "..."
