"""Removes secrets of addresses from what is kept: `s3://key:secret@bucket` becomes `s3://***@bucket`."""

from __future__ import annotations

import re

#: User and password of an address (RFC 3986, section 3.2.1): all between `//` and the last `@` before the path.
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
#: A value in the query of an address, or behind a flag, whose name says that it is a secret.
_NAMED = re.compile(
    r"(?i)([\w-]*(?:token|secret|password|passwd|credential|signature|api_?key|access_?key)[\w-]*=)[^&\s'\"]+"
)


def redacted(text: str) -> str:
    """The text without users and passwords of addresses, and without values whose names mark them as secrets."""
    return _NAMED.sub(r"\1***", _USER.sub("***@", text))
