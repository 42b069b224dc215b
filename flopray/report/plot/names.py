"""Names of files for what data name: models, boards, types of devices, phases."""

from __future__ import annotations

import hashlib
import re

#: A file system takes 255 bytes, of which a figure's own words and its ending need some.
_LONGEST = 120
#: What separates words of a title; other signs are lost, and then another text could have the same name.
_SEPARATORS = " _,=/.-"


def file_name(text: str) -> str:
    """A name without separators, leading dots or letters beyond ASCII; texts that differ in these have different names.

    Example:
        >>> file_name("llama-3.2-1b, eager")
        'llama-3.2-1b_eager'
        >>> file_name("modèle, eager") == file_name("modéle, eager")
        False
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace(", ", "_")).strip("-.")
    lost = re.search(rf"[^A-Za-z0-9{re.escape(_SEPARATORS)}]", text) or len(plain) > _LONGEST or not plain
    if not lost:
        return plain
    mark = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
    return "-".join(filter(None, (plain[:_LONGEST].rstrip("-."), mark)))
