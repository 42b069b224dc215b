"""Which points a trial counts beside its own, so that few ncu processes count all points of a device type.

Starting Nsight Compute takes as long as counting a hundred points, and slabs are made for measuring. So a trial that
has to count for its slab also counts for slabs that begin later, and hands their counts over; a trial whose points were
all counted starts no ncu. It takes points from the end of the order, which other devices reach last, and no more than
its device's share. Counts that are needed before they are ready are made again, not waited for.

Counts arrive chunk by chunk and are kept here until their points are finished. An interrupt of a sweep that measures
time too loses those that wait, at most `MOST_S` a device.
They are handed over only between equal devices: `environment` has what decides the choice of kernels.

A plain class, which knows no Ray and no torch; the recorder holds it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flopray.flops.executed.counts import NotCounted, PhaseCounts

#: One round of counting ahead takes no longer than this, like a trial's measuring.
MOST_S = 120.0

#: The properties of a device and its software that decide the choice of kernels.
Environment = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Counts:
    """Counts of a point.

    Attributes:
        phases: by phase, what was counted or why nothing was.
        ncu_version: Nsight Compute that counted.
    """

    phases: Mapping[str, PhaseCounts | NotCounted]
    ncu_version: str | None


@dataclass(frozen=True)
class Expected:
    """A point that will be counted.

    Attributes:
        id: of the point.
        device_type: that it is measured on.
        fields: of the point.
        seconds: that counting it takes, beside ncu's start.
    """

    id: str
    device_type: str
    fields: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Claim:
    """What a trial is to count.

    Attributes:
        counted: existing counts of its own points, by id.
        own: ids of its own points that it has to count.
        others: fields of later points that it counts with them.
    """

    counted: dict[str, Counts] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    others: tuple[Mapping[str, Any], ...] = ()


class CountingPlan:
    """Hands out points to count, and keeps their counts until the points are finished.

    Args:
        expected: all points, in the order in which trials begin them.
        devices: by type.
    """

    def __init__(self, expected: Sequence[Expected] = (), devices: Mapping[str, int] | None = None) -> None:
        self._expected = {one.id: one for one in expected}
        self._share_s = {
            device_type: _share(sum(one.seconds for one in expected if one.device_type == device_type), count)
            for device_type, count in (devices or {}).items()
        }
        self._counted: dict[Environment, dict[str, Counts]] = {}
        self._claimed: dict[str, set[str]] = {}

    def claim(self, trial: str, environment: Environment, own: Collection[str]) -> Claim:
        """Say what a trial counts before it measures.

        Args:
            trial: Tune's id of it.
            environment: of its device.
            own: ids of its points that are not finished.
        """
        self.release(trial)
        there = self._counted.get(environment, {})
        missing = frozenset(own) - set(there)
        others = self._others(there, own) if missing else []
        self._claimed[trial] = {one.id for one in others} | missing
        return Claim({i: there[i] for i in own if i in there}, missing, tuple(one.fields for one in others))

    def store(self, trial: str, environment: Environment, counts: Mapping[str, Counts], *, over: bool = True) -> None:
        """Keep what a trial has counted, for others and in case its process ends; `over` when it has counted all."""
        if over:
            self.release(trial)
        kept = {point: found for point, found in counts.items() if point in self._expected}
        self._counted.setdefault(environment, {}).update(kept)

    def release(self, trial: str) -> None:
        """Drop what a trial was to count: it has counted, or never will."""
        self._claimed.pop(trial, None)

    def finish(self, point: str) -> None:
        """Drop the counts of a finished point."""
        self._expected.pop(point, None)
        for there in self._counted.values():
            there.pop(point, None)

    def _others(self, there: Collection[str], own: Collection[str]) -> list[Expected]:
        mine = [self._expected[point] for point in own if point in self._expected]
        if not mine:
            return []
        device_type = mine[0].device_type
        taken = set(own).union(there, *self._claimed.values())
        left = [one for one in self._expected.values() if one.device_type == device_type and one.id not in taken]
        own_s = sum(one.seconds for one in mine if one.id not in there)
        share_s = self._share_s.get(device_type, 0.0)
        others: list[Expected] = []
        for one in reversed(left):
            if own_s >= share_s * (1 - 1e-9) or own_s + one.seconds > MOST_S:
                break
            own_s += one.seconds
            others.append(one)
        return others


def _share(seconds: float, devices: int) -> float:
    """What one start of ncu counts: a device's share, in equal pieces where that takes too long."""
    share_s = seconds / max(1, devices)
    return share_s / max(1, math.ceil(share_s / MOST_S))
