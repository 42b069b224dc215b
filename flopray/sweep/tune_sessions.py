"""Keeps Tune's results of a run complete: journaled points without a result are added.

The journal is the source of truth. A point whose process or driver ended between the journal and Tune's files has no
result there; it gets one in a folder beside those of the session's trials. A result whose point never reached the
journal is measured again by the next session, and readers take the last one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path

from flopray.records import PhaseRecord
from flopray.store import atomic
from flopray.store.run import RunFolder
from flopray.store.tune_experiment import RESULTS, reported_ids, sessions_in
from flopray.store.tune_results import Result, ResultFormat

#: The trial that Tune never ran.
FROM_JOURNAL = "from-journal"


def add_missing(folder: RunFolder, session: str, phases: Sequence[str], finished: Collection[str]) -> int:
    """Write results of the points that no session has reported; returns how many there were.

    Args:
        folder: the run.
        session: name of the experiment that gets them.
        phases: of the sweep.
        finished: trial ids of all points of the journal.

    Raises:
        OSError: they could not be written.
    """
    missing = set(finished) - reported_ids(sessions_in(folder.tune_path))
    if not missing:
        return 0
    results = ResultFormat(folder.schema, phases)
    points = (records for records in folder.points() if records[0].trial_id in missing)
    lines = [_result(results, records, number) for number, records in enumerate(points, start=1)]
    _write(folder.tune_path / session / FROM_JOURNAL, lines)
    return len(lines)


def _result(results: ResultFormat, records: Sequence[PhaseRecord], number: int) -> Result:
    """The result with the fields that Tune would have added."""
    ended = max((r.ended_unix_s or r.started_unix_s or 0.0 for r in records), default=0.0)
    own = {"trial_id": FROM_JOURNAL, "training_iteration": number, "timestamp": int(ended), "done": True}
    return {**own, **results.flat([records])}


def _write(trial: Path, lines: Sequence[Result]) -> None:
    """The files of a trial, as Tune's loggers name and write them."""
    trial.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(trial / RESULTS) as file:
        file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, lines[0])
    table.writeheader()
    table.writerows(lines)
    atomic.write(trial / "progress.csv", text.getvalue())
    atomic.write(trial / "params.json", "{}\n")
