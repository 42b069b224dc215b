"""Between trials and the driver: trials push finished points, and the driver drains them into the journal.

It lets the driver be the only writer of a run wherever it runs (in the cluster, or outside through `ray://`), and tells
trials which points are finished already. It also knows which point each trial measures and since when: a point whose
process ended is tried again or abandoned by the cause and the attempts so far, without its neighbours; a process that
hangs beyond its own alarm is ended from here.

A plain class, which knows no Ray; `recorder_actor` makes an actor of it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flopray.point import Point
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.sweep.circuit_breaker import CircuitBreaker
from flopray.sweep.counting_plan import Claim, CountingPlan, Counts, Environment, Expected
from flopray.sweep.failures import Cause, failed_records, process_failure_of
from flopray.sweep.limits import Limits

#: Devices of a type that cannot be opened, one after the other, before its points are recorded as failed.
MAX_UNOPENED = 3
#: How often gauges are set again, so that they do not age out of Ray's agent.
_REFRESH_S = 1.0
#: A trial ends itself when a point takes too long; if that hangs too, it is ended from here this much later.
_OVERDUE_S = 30.0


@dataclass
class Events:
    """What happened since the recorder was last drained.

    Attributes:
        points: the records of each finished point.
        working_on: label of the current point by actor; only actors that began one. Empty for one that ended.
        notices: lines for the terminal.
        retries: lines about points that are tried again, for the log.
        said: what libraries printed in trials' processes, for the log.
        spent: times of parts of trials that are not points, for the log.
        started: whether a trial's process has started.
        stop: why the sweep has to stop; None while it may go on.
    """

    points: list[list[PhaseRecord]] = field(default_factory=list)
    working_on: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    spent: list[str] = field(default_factory=list)
    started: bool = False
    stop: str | None = None


@dataclass
class _Running:
    """What a trial measures."""

    spec: Point
    actor: str
    since: float

    @property
    def device(self) -> str:
        """The actor's name without its process: the next process on this device is the same device."""
        return self.actor.rpartition(":")[0]


class Metrics(Protocol):
    """Where the recorder counts events: `metrics.SweepMetrics`."""

    def take(self, records: Sequence[PhaseRecord]) -> None:
        """Count a finished point."""
        ...

    def refresh(self, running: Mapping[str, int]) -> None:
        """Set all gauges again; points that are being measured, by device type."""
        ...


class Recorder:
    """Holds finished points until the driver has them. Its name in the dashboard is that of the sweep.

    Args:
        name: of the run.
        finished: trial ids that need no measuring.
        settings: of the sweep, for the rows of abandoned points.
        limits: of the sweep.
        metrics: where points are counted.
        end: ends the process behind the handle that a trial gave to `started`.
        clock: monotonic seconds.
        about: what is measured, for the dashboard.
    """

    def __init__(
        self,
        name: str,
        finished: set[str],
        settings: MeasureSettings,
        limits: Limits,
        *,
        metrics: Metrics,
        end: Callable[[Any], object],
        clock: Callable[[], float] = time.monotonic,
        about: str = "",
    ) -> None:
        self._name, self._about, self._finished = name, about, set(finished)
        self._settings, self._limits = settings, limits
        self._metrics, self._end, self._clock = metrics, end, clock
        self._counting = CountingPlan()
        self._attempts: Counter[str] = Counter()
        self._unopened: dict[str, int] = {}
        self._events = Events()
        self._breaker = CircuitBreaker(limits.stop_after)
        self._stopped = False
        self._running: dict[str, _Running] = {}  # by Tune's id of the trial
        self._handles: dict[str, object] = {}  # by actor
        self._types: set[str] = set()
        self._refresh_at = -math.inf

    def __repr__(self) -> str:
        """The dashboard's name of the actor: the run, and what it measures."""
        return f"sweep {self._name}" + (f": {self._about}" if self._about else "")

    def begin(self, trial: str, spec: Point, actor: str, measured: list[PhaseRecord] | None = None) -> int | None:
        """Ask to measure a point: the number of this attempt, or None when it is finished, or the sweep has stopped.

        Args:
            trial: Tune's id of the trial.
            spec: the point.
            actor: `type@node:process` of the caller.
            measured: a point that the trial has finished and not pushed: one call instead of two, where points are
                short.
        """
        if measured:
            self.push(trial, measured)
        if self._stopped or spec.id in self._finished:
            return None
        self._attempts[spec.id] += 1
        self._events.working_on[actor] = spec.label()
        running = self._running[trial] = _Running(spec, actor, self._clock())
        self._breaker.begin(running.device)
        return self._attempts[spec.id]

    def died(self, trial: str, text: str) -> None:
        """Report that the process of a trial ended: its point is tried again, or recorded with the reason.

        Args:
            trial: Tune's id of the trial.
            text: Ray's message about it.
        """
        self._counting.release(trial)
        running = self._running.pop(trial, None)
        if running is None:
            return
        self._events.working_on[running.actor] = ""
        self._handles.pop(running.actor, None)
        if running.spec.id in self._finished:
            return
        failure = process_failure_of(text, self._clock() - running.since, self._limits)
        gone = failure.cause is Cause.NODE_LOST
        if gone:
            self._breaker.forget(running.device)
        spec, attempt = running.spec, self._attempts[running.spec.id]
        allowed = failure.attempts(self._limits)
        if attempt < allowed:
            tried = f"{spec.label()} is tried again after attempt {attempt} of {allowed}"
            line = f"{tried} on {running.actor}: {failure.reason}"
            self._events.retries.append(line)
            return
        reason = f"{failure.reason} while it was measured, in attempt {attempt} of {allowed}"
        rows = failed_records(spec, self._settings, self._name, reason, attempt=attempt, status=failure.status)
        self._take(rows, None if gone else running)  # a device that is gone does not count in whether the sweep stops

    def started(self, actor: str, handle: Any) -> None:
        """Report that a trial's process has started, and so has a device.

        Args:
            actor: its `type@node:process`.
            handle: the actor itself, to end it where it hangs. It is sent once and not with each point: to pack and
                unpack one takes as long as the rest of a call.
        """
        self._handles[actor] = handle
        self._events.started = True

    def working(self, label: str, actor: str) -> None:
        """Report what an actor does between points."""
        self._events.working_on[actor] = label

    def unfinished(self, trial_ids: list[str]) -> set[str]:
        """Those of the given points that are not finished yet."""
        return {trial_id for trial_id in trial_ids if trial_id not in self._finished}

    def expect(self, expected: Sequence[Expected], devices: Mapping[str, int]) -> None:
        """Set which points will be counted, in the order in which trials begin them, on how many devices of a type."""
        self._counting = CountingPlan([one for one in expected if one.id not in self._finished], devices)

    def claim_counting(self, trial: str, environment: Environment, trial_ids: Sequence[str]) -> Claim:
        """Ask what to count before the points of a trial are measured; see `CountingPlan.claim`."""
        return self._counting.claim(trial, environment, self.unfinished(list(trial_ids)))

    def counted(self, trial: str, environment: Environment, counts: Mapping[str, Counts], over: bool = True) -> None:
        """Hand over counts of points, and whether the trial has counted all that it was to count."""
        unfinished = {point: found for point, found in counts.items() if point not in self._finished}
        self._counting.store(trial, environment, unfinished, over=over)

    def unopened(self, device_type: str) -> int:
        """Report that a device could not be opened; returns how often in a row none of its type could."""
        self._unopened[device_type] = self._unopened.get(device_type, 0) + 1
        return self._unopened[device_type]

    def opened(self, device_type: str) -> None:
        """Report that a device was opened."""
        self._unopened.pop(device_type, None)

    def push(self, trial: str, records: list[PhaseRecord]) -> None:
        """Hand over the finished point of a trial; a second one of the same id is dropped."""
        running = self._running.pop(trial, None)
        if records[0].trial_id not in self._finished:
            self._take(records, running)

    def notice(self, line: str) -> None:
        """Hand over a line for the terminal."""
        if line not in self._events.notices:
            self._events.notices.append(line)

    def said(self, actor: str, lines: list[str]) -> None:
        """Hand over warnings and errors of libraries in an actor's process."""
        self._events.said += [f"{actor}: {line}" for line in lines]

    def spent(self, actor: str, lines: list[str]) -> None:
        """Hand over the time of a part of a trial that is not a point."""
        self._events.spent += [f"{actor}: {line}" for line in lines]

    def take(self) -> Events:
        """Everything since the last call."""
        events, self._events = self._events, Events()
        if self._clock() >= self._refresh_at:
            self._refresh_at = self._clock() + _REFRESH_S
            self._refresh()
            self._end_overdue()
        return events

    def _take(self, records: list[PhaseRecord], running: _Running | None) -> None:
        self._finished.add(records[0].trial_id)
        self._counting.finish(records[0].trial_id)
        self._events.points.append(records)
        self._metrics.take(records)
        if running:
            self._events.stop = self._events.stop or self._breaker.take(running.device, records)
            self._stopped |= self._events.stop is not None

    def _refresh(self) -> None:
        running = Counter(one.spec.device_type for one in self._running.values())
        self._types |= set(running)
        self._metrics.refresh({device_type: running[device_type] for device_type in self._types})

    def _end_overdue(self) -> None:
        limit_s = self._limits.point_timeout_s
        for running in self._running.values() if limit_s else ():
            if self._clock() - running.since > limit_s + _OVERDUE_S and running.actor in self._handles:
                self._end(self._handles[running.actor])
