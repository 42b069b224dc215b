"""The points that were reported as finished, recorded during the run and compared with it at its end."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from flopray.store import entry

_EVERY_S = 0.02
_COUNT = re.compile(r"^(\d+)/\d+ points", re.MULTILINE)

#: Trial id to the moment its measurement began, which tells one measurement of a point from another one.
Told = dict[str, float]


class Ledger:
    """Follows a journal while it is written, from a thread.

    A line counts once two readings have found it: a line that is rolled back on a full disk was never reported.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._offset = 0
        self._fresh: Told = {}
        self._stop = threading.Event()
        self.told: Told = {}
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Ledger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def count(self) -> int:
        """Points seen so far."""
        return len(self.told | self._fresh)

    def settle(self) -> None:
        """Read the remaining lines of an ended writer; called before the rig damages anything."""
        self._stop.set()
        self._thread.join()
        self._read()
        self._read()

    def _loop(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._read()

    def _read(self) -> None:
        try:
            with self._journal.open("rb") as file:
                if file.seek(0, 2) < self._offset:  # rolled back
                    self._offset, self._fresh = 0, {}
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return  # not there yet, or taken away
        self.told |= self._fresh
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._fresh = dict(measurements(whole))


def measurements(data: bytes) -> Iterable[tuple[str, float]]:
    """Trial id and beginning of the measurement of each intact line of a journal."""
    for line in data.splitlines():
        content = entry.intact_entry(line)
        if content is not None:
            point = json.loads(content)
            yield point["trial_id"], (point["shared"] | point["phases"][0]).get("started_unix_s")


def lost(told: Mapping[str, float], damaged: set[str], final: Mapping[str, float]) -> set[str]:
    """Points that were reported as finished and whose measurement is missing, also if another one replaced it.

    Args:
        told: the measurements that were reported.
        damaged: points whose lines the rig itself destroyed.
        final: the measurements at the end.
    """
    return {trial_id for trial_id, began in told.items() if trial_id not in damaged and final.get(trial_id) != began}


def duplicates(lines: Iterable[str], rows: Iterable[tuple[str, str]]) -> set[str]:
    """Points that occur twice in the journal or, phase by phase, in the table.

    Args:
        lines: trial ids of the journal's intact lines.
        rows: trial id and phase of the table's rows.
    """
    twice = {trial_id for trial_id, count in Counter(lines).items() if count > 1}
    return twice | {trial_id for (trial_id, _), count in Counter(rows).items() if count > 1}


def printed_ids(output: str) -> set[str]:
    """Points that `--json` reported."""
    lines = (json.loads(line) for line in output.splitlines() if line.startswith('{"event"') and line.endswith("}"))
    return {line["trial_id"] for line in lines if line["event"] == "point"}


def printed_count(output: str) -> int:
    """The highest count of points in a progress line; 0 without one."""
    return max((int(count) for count in _COUNT.findall(output)), default=0)
