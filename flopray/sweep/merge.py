"""Unites runs of several clusters, or the shards of one sweep, in a new run. The sources are only read.

Of a point that was measured more than once with other values, every measurement is kept; nothing is averaged or
replaced: the first one keeps the point's id, the next ones get `-2`, `-3` and so on appended. Ones that are ok come
first, then the order is that of time; so the ids do not depend on the order in which the runs are named, and each
measurement has its device, node and times in its rows. Measurements that are equal in every column are one. The new
run's summary says how far boards of one type differ, and so how well the mean of the type is known.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flopray.errors import InputError, NotARun
from flopray.point import point_of
from flopray.records import PhaseRecord, Status
from flopray.report.boards.comparable import comparable, remarks
from flopray.report.boards.data import NEEDED, boards_of
from flopray.report.boards.statement import statement, summary_of
from flopray.store import entry, manifests
from flopray.store.journal import JournalWriter
from flopray.store.location import open_run
from flopray.store.resumption import not_resumable
from flopray.store.run import RunFolder
from flopray.store.schema import RecordSchema
from flopray.sweep.definition import Sweep
from flopray.sweep.manifest import difference
from flopray.sweep.summary import summarise, summary_columns

#: Points that are written and synced together.
_BATCH = 1000


class Merged(NamedTuple):
    """The outcome of a merge.

    Attributes:
        path: folder of the new run.
        points: distinct points.
        measurements: of these points; more than `points` where some were measured more than once.
        identical: measurements that were in several runs, and are kept once.
        not_resumable: why the new run cannot be resumed; None when it can.
        boards: lines on the boards of each type of device, and how far they are apart.
        empty: addresses of sources that have no point, such as one whose table is damaged and whose journal is missing.
    """

    path: Path
    points: int
    measurements: int
    identical: int
    not_resumable: str | None
    boards: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


def merge(sources: Sequence[str | Path], into: Path) -> Merged:
    """Unite runs in a new one, whose folder appears complete or not at all.

    Args:
        sources: folders or URIs of at least two runs of one workload.
        into: folder of the new run, which must not exist.

    Raises:
        InputError: nothing to merge, several workloads, or an impossible name.
        RunExists: `into` exists.
        NotARun, SchemaMismatch: of a source.
        StorageError: it could not be written; nothing is left of it.
    """
    if len(sources) < 2:
        raise InputError("merge needs at least two runs")
    folders = [open_run(source) for source in sources]
    sweeps = [Sweep.from_manifest(folder.manifest) for folder in folders]
    workloads = sorted({sweep.workload.name for sweep in sweeps})
    if len(workloads) > 1:
        raise InputError(f"the runs are sweeps of {' and '.join(workloads)}: merge those of one workload")
    if any(difference(sweeps[0].workload, sweep.workload) for sweep in sweeps):
        raise InputError(f"the workloads of the runs share the name {workloads[0]} and differ in fields or columns")
    sweep, reason = united(sweeps)
    reason = next((r for folder in folders if (r := not_resumable(folder.manifest, folder.address))), reason)
    manifest = sweep.to_manifest(into.name, {})
    manifest["merged"] = {"from": [_origin(folder.manifest) for folder in folders], "not_resumable": reason}
    manifests.check_free(into.parent, into.name)  # before reading, which may take minutes
    schema = manifests.schema_of(manifest)
    ids, identical, empty = _choose_ids(folders, schema)

    boards: list[str] = []

    def fill(path: Path) -> None:
        new = RunFolder(path, manifest)
        _write(folders, ids, new)
        new.compact()
        new.write_kernels()
        new.write_operators()
        new.write_series()
        summary = summarise(new.load(summary_columns(new)), None)
        rows = comparable(new.load(NEEDED))  # for the summary alone: what is stored stays as it was measured
        devices = list(boards_of(rows))
        boards.extend([*(line for device in devices for line in statement(device)), *remarks(rows)])
        new.write_summary({**summary, "boards": [summary_of(device) for device in devices]})

    path, _ = manifests.publish(into.parent, into.name, manifest, fill)
    points = len({point_of(trial_id) for trial_id in ids.values()})
    return Merged(path, points, len(ids), identical, reason, tuple(boards), empty)


def united(sweeps: Sequence[Sweep]) -> tuple[Sweep, str | None]:
    """The sweep whose grid is that of all sweeps together, and why a resume could not follow it, if so.

    A grid is a product of axes. Sweeps that differ in one axis (such as the device type) or are shards of one grid make
    a product again; others do not, and a resume would measure points that were not asked for.
    """
    first = sweeps[0]
    axes = {name: tuple(dict.fromkeys(v for s in sweeps for v in s.axes[name])) for name in first.axes}
    axes |= {f.name: tuple(sorted(axes[f.name])) for f in first.workload.dimensions}
    joined = {
        name: {key: value for s in reversed(sweeps) for key, value in getattr(s, name).items()}
        for name in ("cpus_per_trial", "implied")
    }
    shards = _united_shards(sweeps)
    sweep = dataclasses.replace(first, axes=axes, shards=shards, log_to=None, **joined)
    for name in ("settings", "search", "samples", "objective"):
        if any(getattr(s, name) != getattr(first, name) for s in sweeps):
            return sweep, f"its sources differ in {name}"
    for name, values in joined.items():
        if any(values[key] != value for s in sweeps for key, value in getattr(s, name).items()):
            return sweep, f"its sources differ in {name}"
    if first.search != "grid":
        same = all(dict(s.axes) == dict(first.axes) for s in sweeps)
        return sweep, None if same else f"its sources are {first.search} searches of several grids"
    asked = {point.id for s in sweeps for point in s.points()}
    if asked != {point.id for point in sweep.points()}:
        return sweep, "the grids of its sources make no grid together"
    return sweep, None


def _united_shards(sweeps: Sequence[Sweep]) -> tuple[str, ...]:
    """All shards of the sweeps; none where one is whole, or where they are complete together."""
    if any(not sweep.shards for sweep in sweeps):
        return ()
    shards = {shard for sweep in sweeps for shard in sweep.shards}
    parts: dict[str, int] = {}
    for shard in shards:
        parts[shard.partition("/")[2]] = parts.get(shard.partition("/")[2], 0) + 1
    return () if any(count == int(whole) for whole, count in parts.items()) else tuple(sorted(shards))


def _origin(manifest: Mapping[str, object]) -> dict[str, object]:
    kept = ("name", "created_unix_s", "flopray_version", "versions", "sweep", "merged")
    return {name: manifest[name] for name in kept if name in manifest}


class _Measurement(NamedTuple):
    """A measurement of a point, ordered as `choose_ids` numbers them; `digest` is of everything in its rows."""

    point: str
    failed: bool
    started_unix_s: float
    digest: bytes


def _measurement(records: Sequence[PhaseRecord], schema: RecordSchema) -> _Measurement:
    point = point_of(records[0].trial_id)
    try:
        _, status, line = entry.encode([dataclasses.replace(record, trial_id=point) for record in records], schema)
    except ValueError as error:  # a line or a table that fits the schema but makes no point
        raise NotARun(f"a point of run {records[0].run[:80]!r} cannot be merged: {error}") from error
    started_s = min((r.started_unix_s for r in records if r.started_unix_s is not None), default=0.0)
    return _Measurement(point, status != Status.OK, started_s, hashlib.sha256(line).digest())


def _choose_ids(
    folders: Sequence[RunFolder], schema: RecordSchema
) -> tuple[dict[_Measurement, str], int, tuple[str, ...]]:
    """The trial id of each measurement in the merged run, how many were duplicates, and sources without a point.

    Args:
        folders: of the sources.
        schema: of the merged run, which a line of each measurement must fit.
    """
    by_folder = [[_measurement(records, schema) for records in folder.points()] for folder in folders]
    empty = tuple(str(folder.address) for folder, found in zip(folders, by_folder, strict=True) if not found)
    read = list(itertools.chain.from_iterable(by_folder))
    ids = {}
    for point, group in itertools.groupby(sorted(set(read)), key=lambda measurement: measurement.point):
        for number, measurement in enumerate(group, start=1):
            ids[measurement] = point if number == 1 else f"{point}-{number}"
    return ids, len(read) - len(ids), empty


def _write(folders: Sequence[RunFolder], ids: dict[_Measurement, str], new: RunFolder) -> None:
    """Append every measurement once."""
    writer = JournalWriter(new.journal_path, new.schema)
    try:
        points = _numbered(folders, dict(ids), new.schema)
        while batch := list(itertools.islice(points, _BATCH)):
            writer.append(batch)
    finally:
        writer.close()


def _numbered(
    folders: Sequence[RunFolder], ids: dict[_Measurement, str], schema: RecordSchema
) -> Iterator[list[PhaseRecord]]:
    for folder in folders:
        for records in folder.points():
            # Points that a source measured after its ids were chosen are left to the next merge.
            trial_id = ids.pop(_measurement(records, schema), None)
            if trial_id is not None:
                yield [dataclasses.replace(record, trial_id=trial_id) for record in records]
