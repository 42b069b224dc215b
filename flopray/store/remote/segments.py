"""A journal in a store without append: immutable objects whose names, sorted, give the order of the lines.

    journal/<ns>-<writer>-<number>.jsonl

`ns` is when its session began (Unix time in ns), but always after that of every segment it found: so the lines of a
later session come later, as a point that is measured again requires, even where the clocks of two machines differ.
`writer` is random, so that two writers never write the same object, and `number` counts within the session.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Mapping

from flopray.errors import RunError

FOLDER = "journal"
_NAME = re.compile(r"([0-9]{20})-([0-9a-f]{8})-([0-9]{8})\.jsonl")
_LATEST_NS = 10**20 - 1
#: Segments at the end of a journal are merged while they are smaller than this: what is merged once is then left alone,
#: and a reader of 100,000 points fetches tens of objects instead of thousands.
_SMALL_BYTES = 8 << 20


def is_segment(name: str) -> bool:
    """Whether an object's name is one of a segment, and so also a plain file name; all others are skipped."""
    return _NAME.fullmatch(name) is not None


class SegmentNames:
    """The names of a session's segments, one after the other."""

    def __init__(self, existing: Iterable[str]) -> None:
        """Begin a session after all segments that exist.

        Raises:
            RunError: an existing name leaves no room for a later one.
        """
        latest = max((int(name[:20]) for name in existing), default=0)
        if latest >= _LATEST_NS:
            raise RunError("the journal has a segment of the year 5138: no later one can be written")
        self._start_ns, self._writer, self._number = max(time.time_ns(), latest + 1), secrets.token_hex(4), 0

    @property
    def session(self) -> str:
        """The prefix of all names of this session."""
        return f"{self._start_ns:020d}-{self._writer}"

    def next(self) -> str:
        """A name that sorts after all earlier ones."""
        self._number += 1
        return f"{self.session}-{self._number:08d}.jsonl"


def mergeable(sizes: Mapping[str, int]) -> list[str]:
    """The small segments at the end of a journal, in order; none where there is nothing to merge.

    Only those at the end: one from the middle would come after lines that replace its own.
    """
    found: list[str] = []
    for name in sorted(sizes, reverse=True):
        if sizes[name] >= _SMALL_BYTES:
            break
        found.insert(0, name)
    return found if len(found) > 1 else []
