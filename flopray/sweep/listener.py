"""The protocol of a sweep's listeners. They are in `flopray.monitoring`; a sweep knows only this protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from flopray.records import PhaseRecord


class SweepListener(Protocol):
    """Told of a sweep while it runs, in the driver's process."""

    def update(self, points: Sequence[Sequence[PhaseRecord]], working_on: Mapping[str, str]) -> None:
        """Points that are finished and in the journal, and what each actor works on now, by its name."""
        ...

    def notice(self, line: str) -> None:
        """Something that a person should read."""
        ...

    def waiting(self, line: str) -> None:
        """No trial can start yet, for the reason in the line; the first update with content ends this."""
        ...

    def retried(self, line: str) -> None:
        """Points are tried again."""
        ...

    def said(self, line: str) -> None:
        """What a library printed in a trial's process."""
        ...

    def spent(self, line: str) -> None:
        """Time of a part of a trial that is not a point."""
        ...

    def __exit__(self, *_: object) -> None:
        """The process is about to end: leave the terminal in order."""
        ...
