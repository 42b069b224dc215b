"""What a person or a program sees while a sweep runs: a live view, plain lines in a pipe, or JSON events."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live

from flopray.description import Description
from flopray.monitoring.live_view import LiveView, clock
from flopray.monitoring.run_log import RunLog
from flopray.monitoring.state import SweepState, TypeState
from flopray.records import PhaseRecord, label_of
from flopray.sweep.outcome import reason_of, status_of
from flopray.units import counted

#: Seconds between plain lines at first; later each 5 % of the time that has passed, at most one a minute.
_PLAIN_EVERY_S, _PLAIN_AT_MOST_S = 5.0, 60.0
_JSON_COLUMNS = ("phase", "status", "time_s", "energy_j", "power_w", "flops_per_s", "flops_per_j", "findings")


class Progress:
    """Counts points and shows the count.

    Args:
        console: where to; a terminal gets a live view, anything else plain lines.
        total: points of the sweep.
        workload: of the sweep, whose points it names.
        finished: points that an earlier session of the run has measured.
        types: points by device type: of the sweep, and of earlier sessions.
        log: the run's log.
        events: print one JSON line an event to standard output.
    """

    def __init__(
        self,
        console: Console,
        *,
        total: int,
        workload: Description | None = None,
        finished: int = 0,
        types: Mapping[str, tuple[int, int]] | None = None,
        log: RunLog | None = None,
        events: bool = False,
    ) -> None:
        self._console, self._total, self._before, self._log = console, total, finished, log
        self._events, self._workload = events, workload or Description()
        self.done = 0
        self.state = SweepState({name: TypeState(*counts) for name, counts in (types or {}).items()})
        self._begin: float | None = None
        self._next_plain = 0.0
        self._waits = False
        shown = console.is_terminal and not console.quiet
        view: Any = LiveView(self.state, self.line)
        self._live = Live(view, console=console, refresh_per_second=4, transient=True) if shown else None

    @property
    def problems(self) -> Mapping[str, int]:
        """Points that are not ok, by status."""
        return self.state.problems

    @property
    def measured_fraction(self) -> float | None:
        """Share of device time since start-up that lay in measured windows."""
        return self.state.measured_fraction

    def __enter__(self) -> Progress:
        """Start showing."""
        self.event("started", points=self._total, finished=self._before)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop showing; the last state stays as one plain line."""
        if self._live:
            self._live.stop()
        self._print(self.line())
        if self._log:
            self._log.say(self.line())
        self.event("stopped", points=self._total, finished=self._before + self.done)

    def update(self, points: Sequence[Sequence[PhaseRecord]], working_on: Mapping[str, str]) -> None:
        """Take in finished points and what each actor does now."""
        if self._begin is None and (working_on or points):
            self._begin = time.monotonic()
        labels = {label: actor for actor, label in self.state.working_on.items()}
        labels |= {label: actor for actor, label in working_on.items()}
        self.state.begin(working_on)
        for actor, label in working_on.items():
            self.event("working", actor=actor, on=label or None)
        for records in points:
            self.done += 1
            self.state.take(records, labels.get(label_of(records[0], self._workload)))
            self._tell_point(records)
        if not self._live and time.monotonic() >= self._next_plain:
            self._print_plain()

    def notice(self, line: str) -> None:
        """A line above the progress."""
        self._print(line)
        if self._log:
            self._log.say(line, level=logging.WARNING)
        self.event("notice", text=line)

    def waiting(self, line: str) -> None:
        """No trial can start yet: a line above the progress, and a word in it until one does."""
        self._waits = True
        self.notice(line)

    def retried(self, line: str) -> None:
        """Points are tried again: for the log and for programs."""
        if self._log:
            self._log.say(line, level=logging.WARNING)
        self.event("retry", text=line)

    def said(self, line: str) -> None:
        """What a library printed in a trial's process: for the log alone."""
        if self._log:
            self._log.say(line, level=logging.WARNING)

    def spent(self, line: str) -> None:
        """Time of a part of a trial that is not a point: for the log alone."""
        if self._log:
            self._log.say(line)

    def event(self, kind: str, **fields: Any) -> None:
        """One JSON line on standard output, where that was asked for."""
        if self._events:
            print(json.dumps({"event": kind, "unix_s": round(time.time(), 3), **fields}), flush=True, file=sys.stdout)

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
        parts = [f"{done}/{counted(self._total, 'point')}"]
        if self._waits and self._begin is None:
            parts.append("waiting for a device")
        if self._begin is not None and self.done:
            parts.append(f"{self.done / max(time.monotonic() - self._begin, 1e-9):.2f} points/s")
        if self.eta_s is not None and done < self._total:
            parts.append(f"ETA {clock(self.eta_s)}")
        if self.measured_fraction is not None:
            parts.append(f"{self.measured_fraction:.0%} of device time measured")
        parts.extend(f"{count} {status}" for status, count in sorted(self.problems.items()))
        return " | ".join(parts)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _print_plain(self) -> None:
        now = time.monotonic()
        passed_s = now - self._begin if self._begin is not None else 0.0
        self._next_plain = now + min(max(_PLAIN_EVERY_S, passed_s / 20), _PLAIN_AT_MOST_S)
        label = next(iter(self.state.working_on.values()), None)
        # Before that a process starts, imports torch, opens the device and waits until it is idle.
        now_on = f" | now {label}" if label else " | the first trial starts" if not (self.done or self._waits) else ""
        self._print(self.line() + now_on)

    def _tell_point(self, records: Sequence[PhaseRecord]) -> None:
        if self._log:
            self._log.point(records)
        if not self._events:
            return
        first = records[0]
        phases = [{name: getattr(record, name) for name in _JSON_COLUMNS} for record in records]
        fields = {
            "trial_id": first.trial_id,
            "point": label_of(first, self._workload),
            "device_type": first.device_type,
        }
        fields |= {"node": first.node, "status": status_of(records), "reason": reason_of(records)}
        self.event("point", **fields, seconds=first.device_wall_s, phases=phases)
