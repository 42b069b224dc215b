"""What is known of a running sweep: counts by device type, failures, findings, and what each device does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flopray.records import PhaseRecord, Status
from flopray.sweep.outcome import reason_of, status_of


@dataclass
class TypeState:
    """Points of one device type: all of the sweep, those of earlier sessions, those of this one."""

    total: int = 0
    before: int = 0
    done: int = 0
    begin: float | None = None

    def eta_s(self, now: float) -> float | None:
        """Seconds to go at this session's rate; None before its first point, and where the total is not known."""
        if self.begin is None or not self.done or not self.total:
            return None
        return max(0, self.total - self.before - self.done) * (now - self.begin) / self.done


@dataclass
class SweepState:
    """Collects what the driver learns. Every method is cheap: it runs for every point.

    Attributes:
        types: by device type.
        working_on: the current point by actor.
        last: power, temperature and rate of the last measured window by actor's device type and node.
    """

    types: dict[str, TypeState] = field(default_factory=dict)
    working_on: dict[str, str] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    last: dict[str, PhaseRecord] = field(default_factory=dict)
    window_s: float = 0.0
    wall_s: float = 0.0

    def begin(self, working_on: Mapping[str, str]) -> None:
        """Note what actors began; those that ended are dropped."""
        self.working_on = {actor: label for actor, label in {**self.working_on, **working_on}.items() if label}
        for actor in working_on:
            self._of(actor.split("@")[0])

    def take(self, records: Sequence[PhaseRecord], actor: str | None = None) -> None:
        """Note a point that ended."""
        of = self._of(records[0].device_type)
        of.done += 1
        status = status_of(records)
        if status != Status.OK:
            self.problems[status] += 1
            self.reasons[status, reason_of(records) or "no reason given"] += 1
        for record in records:
            self.findings.update(record.findings)
            self.window_s += record.window_s or 0.0
            if actor and record.time_s is not None:
                self.last[actor] = record
        self.wall_s += records[0].device_wall_s or 0.0

    @property
    def measured_fraction(self) -> float | None:
        """Share of device time since start-up that lay in measured windows."""
        return self.window_s / self.wall_s if self.wall_s and self.window_s else None

    def _of(self, device_type: str) -> TypeState:
        of = self.types.setdefault(device_type, TypeState())
        of.begin = time.monotonic() if of.begin is None else of.begin
        return of
