"""The actor between trials and the driver: trials push what they measured, the driver drains it into the journal.

It lets the driver be the only writer of a run wherever it runs (in the cluster, or outside through `ray://`), tells
trials which points are finished already, and counts attempts, so that a point that kills its actor is tried twice and
then recorded as failed instead of taking its neighbours along.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flopray.records import PhaseRecord
from flopray.watch.metrics import SweepMetrics

#: A point that took its process down this often is recorded as failed.
MAX_ATTEMPTS = 2
#: Devices of a type that cannot be opened, one after the other, before its points are recorded as failed.
MAX_UNOPENED = 3
#: How often gauges are set again, so that they do not age out of Ray's agent.
_REFRESH_S = 1.0


@dataclass(frozen=True)
class Events:
    """What happened since the last drain.

    Attributes:
        points: the records of each finished point.
        working_on: label of the current point by actor; only actors that began one.
        notices: lines for the terminal.
        retries: lines about points that are tried again, for the log.
    """

    points: list[list[PhaseRecord]] = field(default_factory=list)
    working_on: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)


@ray.remote(num_cpus=0)
class Recorder:
    """Holds finished points until the driver has them. Its name in the dashboard is that of the sweep."""

    def __init__(self, name: str, finished: set[str]) -> None:
        self._name, self._finished = name, set(finished)
        self._attempts: dict[str, int] = {}
        self._unopened: dict[str, int] = {}
        self._events = Events()
        self._metrics = SweepMetrics(name)
        self._running: dict[str, str] = {}  # trial id by actor
        self._types: set[str] = set()
        self._refresh_at = 0.0

    def __repr__(self) -> str:
        """The dashboard's name of the actor."""
        return f"sweep {self._name}"

    def begin(self, trial_id: str, label: str, actor: str) -> int | None:
        """Ask to measure a point: the number of this attempt, or None when the point is finished already."""
        if trial_id in self._finished:
            return None
        self._attempts[trial_id] = self._attempts.get(trial_id, 0) + 1
        self._events.working_on[actor] = label
        self._running[actor] = trial_id
        if self._attempts[trial_id] > 1:
            self._events.retries.append(f"attempt {self._attempts[trial_id]} of {label} on {actor}: its process died")
        return self._attempts[trial_id]

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

    def push(self, records: list[PhaseRecord]) -> None:
        """Hand over a finished point; a second one of the same id is dropped."""
        if records[0].trial_id not in self._finished:
            self._finished.add(records[0].trial_id)
            self._events.points.append(records)
            self._metrics.take(records)

    def notice(self, line: str) -> None:
        """Hand over a line for the terminal."""
        if line not in self._events.notices:
            self._events.notices.append(line)

    def drain(self) -> Events:
        """Everything since the last drain."""
        events, self._events = self._events, Events()
        if time.monotonic() >= self._refresh_at:
            self._refresh_at = time.monotonic() + _REFRESH_S
            self._refresh()
        return events

    def _refresh(self) -> None:
        running = Counter(actor.split("@")[0] for actor, point in self._running.items() if point not in self._finished)
        self._types |= set(running)
        self._metrics.refresh({device_type: running[device_type] for device_type in self._types})


def start_recorder(run: str, finished: set[str], *, actor_name: str) -> Any:
    """Start the recorder of a sweep under a name that its trials look up, beside the driver.

    Ray would put it on any node, and the sweep would end with that node. The driver's own is lost with the driver.

    Args:
        run: name of the run.
        finished: trial ids that need no measuring.
        actor_name: unique in the namespace.

    Returns:
        The actor's handle.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options = {"name": actor_name, "scheduling_strategy": here}
    return Recorder.options(**options).remote(run, finished)  # type: ignore[attr-defined]
