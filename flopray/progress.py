"""What a person sees while a sweep runs: a live line in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flopray.entry import worst_status
from flopray.records import PhaseRecord, Status

_PLAIN_EVERY_S = 5.0


class Progress:
    """Counts points and shows the count.

    Args:
        console: where to; a terminal gets a live view, anything else plain lines.
        total: points of the sweep.
        finished: points that an earlier session of the run has measured.
    """

    def __init__(self, console: Console, *, total: int, finished: int = 0) -> None:
        self._console, self._total, self._before = console, total, finished
        self.done = 0
        self.problems: Counter[str] = Counter()
        self._working_on: dict[str, str] = {}
        self._window_s = self._wall_s = 0.0
        self._begin: float | None = None
        self._next_plain = 0.0
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Progress:
        """Start showing."""
        if self._live:
            self._live.start()
            self._live.update(self._view())
        return self

    def __exit__(self, *_: object) -> None:
        """Stop showing; the last state stays as one plain line."""
        if self._live:
            self._live.stop()
        self._console.print(self.line(), highlight=False, soft_wrap=True)

    def update(self, points: Sequence[Sequence[PhaseRecord]], working_on: dict[str, str]) -> None:
        """Take in finished points and what each actor does now."""
        if self._begin is None and (working_on or points):
            self._begin = time.monotonic()
        self._working_on |= working_on
        for records in points:
            self.done += 1
            status = worst_status([record.status for record in records])
            if status != Status.OK:
                self.problems[status] += 1
            self._window_s += sum(r.window_s or 0.0 for r in records)
            self._wall_s += records[0].device_wall_s or 0.0
        self._show()

    def notice(self, line: str) -> None:
        """A line above the progress."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    @property
    def measured_fraction(self) -> float | None:
        """Share of device time since start-up that lay in measured windows."""
        return self._window_s / self._wall_s if self._wall_s and self._window_s else None

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the rate so far; None before the first point."""
        if self._begin is None or not self.done:
            return None
        left = self._total - self._before - self.done
        return left * (time.monotonic() - self._begin) / self.done

    def line(self) -> str:
        """The state in one line."""
        done = self._before + self.done
        parts = [f"{done}/{self._total} points"]
        if self._begin is not None and self.done:
            parts.append(f"{self.done / max(time.monotonic() - self._begin, 1e-9):.2f} points/s")
        if self.eta_s is not None and done < self._total:
            parts.append(f"ETA {_clock(self.eta_s)}")
        if self.measured_fraction is not None:
            parts.append(f"{self.measured_fraction:.0%} of device time measured")
        parts.extend(f"{count} {status}" for status, count in sorted(self.problems.items()))
        return " | ".join(parts)

    def _show(self) -> None:
        if self._live:
            self._live.update(self._view())
        elif time.monotonic() >= self._next_plain:
            self._next_plain = time.monotonic() + _PLAIN_EVERY_S
            now = next(iter(self._working_on.values()), None)
            self._console.print(self.line() + (f" | now {now}" if now else ""), highlight=False, soft_wrap=True)

    def _view(self) -> Table:
        view = Table.grid(padding=(0, 1))
        top = Table.grid(padding=(0, 1))
        top.add_row(ProgressBar(self._total, self._before + self.done, width=24), Text(self.line()))
        view.add_row(top)
        for actor, label in sorted(self._working_on.items())[:8]:
            view.add_row(Text(f"  {actor}  {label}", style="dim"))
        return view


def _clock(seconds: float) -> str:
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
