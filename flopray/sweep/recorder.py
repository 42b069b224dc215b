"""The actor between trials and the driver: trials push what they measured, the driver drains it into the journal.

It lets the driver be the only writer of a run wherever it runs (in the cluster, or outside through `ray://`), and tells
trials which points are finished already. It also knows which point each trial measures and since when: a point whose
process died is tried again or given up by its cause and the attempts so far, and never takes its neighbours along; a
process that hangs beyond its own alarm is ended from here.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flopray.point import Point
from flopray.records import PhaseRecord
from flopray.settings import MeasureSettings
from flopray.sweep.circuit_breaker import Breaker
from flopray.sweep.failures import Cause, death_of, failed_records
from flopray.sweep.limits import Limits
from flopray.sweep.metrics import SweepMetrics

#: Devices of a type that cannot be opened, one after the other, before its points are recorded as failed.
MAX_UNOPENED = 3
#: How often gauges are set again, so that they do not age out of Ray's agent.
_REFRESH_S = 1.0
#: A trial ends itself when a point takes too long; where even that hangs, it is ended from here so much later.
_OVERDUE_S = 30.0


@dataclass
class Events:
    """What happened since the last drain.

    Attributes:
        points: the records of each finished point.
        working_on: label of the current point by actor; only actors that began one. Empty for one that died.
        notices: lines for the terminal.
        retries: lines about points that are tried again, for the log.
        said: what libraries said in trials' processes, for the log.
        stop: why the sweep has to stop; None while it may go on.
    """

    points: list[list[PhaseRecord]] = field(default_factory=list)
    working_on: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    stop: str | None = None


@dataclass
class _Running:
    """What a trial measures."""

    spec: Point
    actor: str
    handle: Any
    since: float

    @property
    def device(self) -> str:
        """The actor's name without its process: the next process on this device is the same device."""
        return self.actor.rpartition(":")[0]


@ray.remote(num_cpus=0)
class Recorder:
    """Holds finished points until the driver has them. Its name in the dashboard is that of the sweep."""

    def __init__(self, name: str, finished: set[str], settings: MeasureSettings, limits: Limits) -> None:
        self._name, self._finished = name, set(finished)
        self._settings, self._limits = settings, limits
        self._attempts: Counter[str] = Counter()
        self._unopened: dict[str, int] = {}
        self._events = Events()
        self._metrics = SweepMetrics(name)
        self._breaker = Breaker(limits.stop_after)
        self._stopped = False
        self._running: dict[str, _Running] = {}  # by Tune's id of the trial
        self._types: set[str] = set()
        self._refresh_at = 0.0

    def __repr__(self) -> str:
        """The dashboard's name of the actor."""
        return f"sweep {self._name}"

    def begin(self, trial: str, spec: Point, actor: str, handle: Any) -> int | None:
        """Ask to measure a point: the number of this attempt, or None when it is finished, or the sweep has stopped.

        Args:
            trial: Tune's id of the trial.
            spec: the point.
            actor: `type@node:process` of who asks.
            handle: the actor itself, to end it where it hangs.
        """
        if self._stopped or spec.id in self._finished:
            return None
        self._attempts[spec.id] += 1
        self._events.working_on[actor] = spec.label()
        running = self._running[trial] = _Running(spec, actor, handle, time.monotonic())
        self._breaker.begin(running.device)
        return self._attempts[spec.id]

    def died(self, trial: str, text: str) -> None:
        """Tell that the process of a trial died: its point is tried again, or recorded with the reason.

        Args:
            trial: Tune's id of the trial.
            text: what Ray says about it.
        """
        running = self._running.pop(trial, None)
        if running is None:
            return
        self._events.working_on[running.actor] = ""
        if running.spec.id in self._finished:
            return
        death = death_of(text, time.monotonic() - running.since, self._limits)
        if death.cause is Cause.NODE_LOST:
            self._breaker.forget(running.device)
        spec, attempt = running.spec, self._attempts[running.spec.id]
        allowed = death.attempts(self._limits)
        if attempt < allowed:
            line = (
                f"{spec.label()} is tried again after attempt {attempt} of {allowed} on {running.actor}: {death.reason}"
            )
            self._events.retries.append(line)
            return
        reason = f"{death.reason} while it was measured, in attempt {attempt} of {allowed}"
        rows = failed_records(spec, self._settings, self._name, reason, attempt=attempt, status=death.status)
        self._take(rows, running)

    def working(self, label: str, actor: str) -> None:
        """Tell what an actor does that is no point."""
        self._events.working_on[actor] = label

    def unfinished(self, trial_ids: list[str]) -> set[str]:
        """Which of some points are not finished yet."""
        return {trial_id for trial_id in trial_ids if trial_id not in self._finished}

    def unopened(self, device_type: str) -> int:
        """Tell that a device could not be opened; how often in a row none of its type could."""
        self._unopened[device_type] = self._unopened.get(device_type, 0) + 1
        return self._unopened[device_type]

    def opened(self, device_type: str) -> None:
        """Tell that a device was opened."""
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
        """Hand over what libraries said in an actor's process."""
        self._events.said += [f"{actor}: {line}" for line in lines]

    def drain(self) -> Events:
        """Everything since the last drain."""
        events, self._events = self._events, Events()
        if time.monotonic() >= self._refresh_at:
            self._refresh_at = time.monotonic() + _REFRESH_S
            self._refresh()
            self._end_overdue()
        return events

    def _take(self, records: list[PhaseRecord], running: _Running | None) -> None:
        self._finished.add(records[0].trial_id)
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
            if time.monotonic() - running.since > limit_s + _OVERDUE_S:
                with contextlib.suppress(RayError):
                    ray.kill(running.handle)


def start_recorder(run: str, finished: set[str], settings: MeasureSettings, limits: Limits, *, actor_name: str) -> Any:
    """Start the recorder of a sweep under a name that its trials look up, beside the driver.

    Ray would put it on any node, and the sweep would end with that node. The driver's own is lost with the driver. Soft
    affinity would not do: an actor without resources goes to a random node for all that it wishes.
    https://github.com/ray-project/ray/pull/25360

    Args:
        run: name of the run.
        finished: trial ids that need no measuring.
        settings: of the sweep, for the rows of points that are given up.
        limits: of the sweep.
        actor_name: unique in the namespace.

    Returns:
        The actor's handle.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"name": actor_name, "scheduling_strategy": here}
    return Recorder.options(**options).remote(run, finished, settings, limits)  # type: ignore[attr-defined]
