"""The series of a window as a record holds it: one JSON text, so that it is as safe as the rest of a row.

Whoever wrote a run is not trusted: text that does not describe a series is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from flopray.records import Row

_WINDOW = ("start_unix_s", "window_s", "ticks")
_TICK = ("time_s", "energy_j", "power_w", "temperature_c", "sm_clock_hz", "memory_used_bytes", "used")


class WindowSeries(msgspec.Struct, frozen=True):
    """Ticks of a window; lists have an element for each kept tick, None where a value is not known.

    Attributes:
        start_unix_s: when the window began, seconds since 1970 UTC, clock of the node.
        window_s: its length.
        ticks: that were seen; more than are kept where the series is thinned.
        time_s: middle of the interval that holds the tick, from the start of the window.
        energy_j: the counter, from the first tick on; it starts again at 0 after a reset or a jump.
        power_w: mean since the tick that is kept before; None for the first one, and across a reset or a jump.
        temperature_c: of the device, between the readings at neighbouring ticks.
        sm_clock_hz, memory_used_bytes: of the device, read just after the tick.
        used: whether the measured power comes from the tick.
    """

    start_unix_s: float
    window_s: float
    ticks: int
    time_s: list[float]
    energy_j: list[float]
    power_w: list[float | None]
    temperature_c: list[float | None]
    sm_clock_hz: list[float | None]
    memory_used_bytes: list[int | None]
    used: list[bool]

    def to_json(self) -> str:
        """Compact text, as a record holds it."""
        return msgspec.json.encode(self).decode()

    def rows(self) -> Iterator[Row]:
        """A row a tick."""
        window = {name: getattr(self, name) for name in _WINDOW}
        for values in zip(*(getattr(self, name) for name in _TICK), strict=True):
            yield window | dict(zip(_TICK, values, strict=True))


def series_in(texts: Iterable[str] | None) -> list[WindowSeries]:
    """The series that a record holds; text that does not describe one is skipped."""
    found = []
    for line in texts or ():
        try:
            one = msgspec.json.decode(line, type=WindowSeries)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            continue
        if len({len(getattr(one, name)) for name in _TICK}) == 1 and one.time_s and _fits(one):
            found.append(one)
    return found


def _fits(one: WindowSeries) -> bool:
    """Whether its whole numbers fit into the table's columns."""
    return all(number is None or 0 <= number < 2**63 for number in (one.ticks, *one.memory_used_bytes))
