"""A place in an object store, as a URI names it: `s3://bucket/prefix/run?endpoint_override=localhost:9000&scheme=http`.

What follows `?` belongs to the store and not to the run, so it stays at the end when a name is added. URIs are printed,
logged and kept in shells' histories: one with credentials is refused, and no error repeats it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from flopray.errors import InputError

#: `s3://...`, which `Path` would silently turn into a folder called `s3:`.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_ENDPOINT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?")
_SECRET = re.compile(r"key|secret|token|password|credential", re.IGNORECASE)
#: Options of an S3 URI, as `pyarrow.fs.FileSystem.from_uri` names them, with what their values look like.
_S3_OPTIONS = {
    "endpoint_override": _ENDPOINT,
    "region": re.compile(r"[A-Za-z0-9-]+"),
    "scheme": re.compile(r"https?"),
}


def is_uri(text: str) -> bool:
    """Whether a text names a place elsewhere and not a folder of this file system."""
    return _URI.match(text) is not None


@dataclass(frozen=True)
class Location:
    """A folder of an object store.

    Attributes:
        scheme: such as `s3`.
        bucket: the part between `//` and the next `/`.
        path: below the bucket, without `/` at either end; as it is, not percent-encoded.
        options: what follows `?`, in its order.
    """

    scheme: str
    bucket: str
    path: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read a URI.

        Raises:
            InputError: it has credentials in it, or is not a URI of a store.
        """
        if not text.isprintable() or not is_uri(text):
            raise InputError(f"{text[:80]!r} is not a URI: give one such as s3://bucket/prefix")
        scheme, bucket, path, options = _split(text)
        parts = [part for part in unquote(path).split("/") if part]
        if not unquote(path).isprintable() or {".", ".."} & set(parts):
            raise InputError(f"the path of the {scheme}: URI has . or .. in it, or what cannot be printed: mend it")
        if scheme == "s3":
            _check_s3(bucket, options)
        return cls(scheme, bucket, "/".join(parts), options)

    @property
    def name(self) -> str:
        """The last part: of a run, the name of its folder."""
        return self.path.rpartition("/")[2] or self.bucket

    @property
    def key(self) -> str:
        """Bucket and path, as Arrow's file systems take them."""
        return "/".join(filter(None, (self.bucket, self.path)))

    @property
    def identity(self) -> str:
        """The same for all URIs of one place, whatever region or scheme they give for it."""
        return f"{self.scheme}://{dict(self.options).get('endpoint_override', '')}/{self.key}"

    def child(self, name: str) -> Location:
        """The place called `name` in this one."""
        return replace(self, path="/".join(filter(None, (self.path, name))))

    def __str__(self) -> str:
        end = "?" + urlencode(self.options, safe=":/[]") if self.options else ""
        return f"{self.scheme}://{'/'.join(filter(None, (self.bucket, quote(self.path))))}{end}"


def _split(text: str) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    """Scheme, bucket, path and options, once it is sure that there are no credentials among them."""
    scheme = text.partition(":")[0].lower()
    if scheme == "file":
        raise InputError("a file: URI names a folder of this machine: give its path alone")
    try:
        url = urlsplit(text)
        options = tuple(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    except ValueError:
        raise InputError(f"the {scheme}: URI cannot be read: give one such as s3://bucket/prefix") from None
    bucket, at, host = url.netloc.rpartition("@")
    # A secret may have a / in it, and then ends what looks like the bucket.
    secret = ":" in bucket or (":" in url.netloc and "@" in url.path)
    if secret or (at and scheme == "s3") or any(_SECRET.search(name) for name, _ in options):
        raise InputError(
            f"the {scheme}: URI has credentials in it, and URIs are printed and logged: leave them out, and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or what that store takes) in the environment"
        )
    if not host or url.fragment or not text.lower().startswith(f"{scheme}://"):
        raise InputError(f"the {scheme}: URI names no bucket, or has a # in it: give one such as s3://bucket/prefix")
    return scheme, url.netloc, url.path, options


def _check_s3(bucket: str, options: tuple[tuple[str, str], ...]) -> None:
    if not _BUCKET.fullmatch(bucket):
        raise InputError("the part after s3:// is not the name of a bucket: give s3://bucket/prefix")
    for name, value in options:
        if name not in _S3_OPTIONS:
            raise InputError(f"unknown option {name[:40]!r} in the s3: URI, there are {', '.join(_S3_OPTIONS)}")
        if not _S3_OPTIONS[name].fullmatch(value):
            raise InputError(
                f"the value of {name} in the s3: URI is wrong: give it as in endpoint_override=localhost:9000"
            )


def cache_root() -> Path:
    """Where local copies are kept: `$FLOPRAY_CACHE`, else `flopray` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    if own := os.environ.get("FLOPRAY_CACHE"):
        return Path(own).absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "flopray"
