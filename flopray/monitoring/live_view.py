"""The live view of a sweep in a terminal, from its state; it fits narrow windows by leaving columns out."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flopray.monitoring.state import SweepState
from flopray.records import PhaseRecord
from flopray.units import prefixed

_NARROW = 70
#: Most devices and reasons that are listed; the rest is only counted.
_DEVICES, _REASONS = 8, 3


class LiveView:
    """Rendered at each refresh, whose rate Rich limits; a finished point draws nothing by itself."""

    def __init__(self, state: SweepState, line: Callable[[], str]) -> None:
        self._state, self._line = state, line

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """The parts that are not empty."""
        narrow = options.max_width < _NARROW
        parts = [Text(self._line(), overflow="ellipsis", no_wrap=True), self._types(narrow), self._devices(narrow)]
        yield Group(*parts, *self._troubles())

    def _types(self, narrow: bool) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        now = time.monotonic()
        for name, of in sorted(self._state.types.items()):
            done, eta = of.before + of.done, of.eta_s(now)
            cells = [Text(name, "bold"), f"{done}/{of.total or '?'}", f"ETA {clock(eta)}" if eta else ""]
            bar = [] if narrow else [ProgressBar(of.total or None, done, width=24)]
            table.add_row(*cells[:1], *bar, *cells[1:])
        return table

    def _devices(self, narrow: bool) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        actors = sorted(self._state.working_on.items())
        for actor, label in actors[:_DEVICES]:
            values = [] if narrow else [Text(text, no_wrap=True) for text in values_of(self._state.last.get(actor))]
            table.add_row(Text(actor, "dim", no_wrap=True, overflow="ellipsis"), Text(label, no_wrap=True), *values)
        if len(actors) > _DEVICES:
            table.add_row(Text(f"and {len(actors) - _DEVICES} more devices", "dim"))
        return table

    def _troubles(self) -> list[Text]:
        found = [Text(f"{n} {s}: {r}", "red") for (s, r), n in self._state.reasons.most_common(_REASONS)]
        audit = [f"{count} {name}" for name, count in self._state.findings.most_common(4)]
        found += [Text("audit  " + ", ".join(audit), "yellow")] if audit else []
        for text in found:
            text.no_wrap, text.overflow = True, "ellipsis"
        return found


def values_of(record: PhaseRecord | None) -> list[str]:
    """Power, temperature and rate of a device's last window; empty where they were not measured."""
    if record is None:
        return []
    return [
        "" if record.power_w is None else f"{record.power_w:.0f} W",
        "" if record.temperature_end_c is None else f"{record.temperature_end_c:.0f} °C",
        "" if record.flops_per_s is None else prefixed(record.flops_per_s, "FLOP/s"),
    ]


def clock(seconds: float) -> str:
    """Seconds as a clock: `1:15`, `1:00:00`."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
