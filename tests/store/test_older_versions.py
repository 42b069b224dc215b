"""Runs that older versions of the record's columns wrote: read with the same values, resumed, and merged with new ones.

The runs of version 3 below `tests/data/schema3` are measurements of that version: two points, two phases each.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flopray import load_run
from flopray.description import Description
from flopray.errors import InputError, NotARun
from flopray.records import COLUMN_NAMES, DERIVED, FORMER_NAMES, SCHEMA_VERSION, PhaseRecord
from flopray.report.flops.data import load_runs
from flopray.store import entry, table
from flopray.store import schema as schemas
from flopray.store.run import RunFolder
from flopray.store.schema import RecordSchema
from flopray.sweep.definition import Sweep
from flopray.sweep.merge import merge
from flopray.workloads.registry import BUILT_IN

OLD = Path(__file__).parents[1] / "data" / "schema3"
RESULTS = Path(__file__).parents[2] / "docs" / "results"
NAMES = ("mlp", "llama", "conv")
OWN = {
    "mlp": {"n_layers", "width", "tokens"},
    "llama": FORMER_NAMES - {"n_layers", "width", "tokens"},
    "conv": FORMER_NAMES | {"channels", "image_size", "images", "kernel"},
}
DTYPES = {str: "string", int: "Int64", float: "float64", bool: "boolean", tuple: "object"}


def copy_of(name: str, folder: Path) -> RunFolder:
    shutil.copytree(OLD / name, folder / name)
    return RunFolder.open(folder / name)


def written(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The values in the journal, by point and phase."""
    lines = [json.loads(line)["entry"] for line in (OLD / name / "journal.jsonl").read_text().splitlines()]
    rows = [{"trial_id": e["trial_id"]} | e["shared"] | phase for e in lines for phase in e["phases"]]
    return {(row["trial_id"], row["phase"]): row for row in rows}


def present(frame: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The values of a frame that are not missing, by point and phase."""
    rows = [{k: v for k, v in row.items() if isinstance(v, list) or v == v} for row in frame.to_dict("records")]
    found = [{k: v for k, v in row.items() if v is not None and repr(v) != "<NA>"} for row in rows]
    return {(row["trial_id"], row["phase"]): row for row in found}


def stored(frame: Any) -> Any:
    """A frame without the columns that are computed when a run is loaded; all of them are there."""
    return frame.drop(columns=list(DERIVED))


def again(folder: RunFolder, number: int, **changes: Any) -> list[PhaseRecord]:
    """A point of the run as this version would measure it."""
    records = list(folder.points())[number]
    return [dataclasses.replace(record, schema_version=SCHEMA_VERSION, **changes) for record in records]


@pytest.mark.parametrize("name", NAMES)
def test_its_rows_have_the_values_of_the_journal_and_the_columns_of_its_workload(tmp_path, name):
    run = copy_of(name, tmp_path)
    frame = stored(load_run(run.path))
    assert set(frame) == COLUMN_NAMES | OWN[name]
    assert set(frame["schema_version"]) == {3}
    assert {column: str(frame[column].dtype) for column in frame} == {
        column: DTYPES[column_type.base] for column, column_type in run.schema.types.items()
    }
    defaults = {n: v for n, v in run.schema.defaults.items() if v is not None}
    defaults |= {"kernels": [], "operators": [], "series": [], "findings": []}
    expected = {key: defaults | row for key, row in written(name).items()}
    assert len(expected) == 4
    assert present(frame) == expected


@pytest.mark.parametrize("run", ["h100_mlp_fp32", "h200_counters_bf16", "h100_llama", "llama_again"])
def test_its_table_is_read_without_the_columns_that_were_always_empty(run):
    before = table.to_frame(pq.read_table(RESULTS / run / "records.parquet"))
    frame = stored(load_run(RESULTS / run))
    gone = [column for column in before if column not in frame]
    assert set(gone) == FORMER_NAMES - OWN["llama" if "llama" in run else "mlp"]
    assert before[gone].isna().all(axis=None)
    later = [name for name in frame if name not in before]
    assert set(later) == {f.name for f in dataclasses.fields(PhaseRecord) if f.metadata.get("since", 1) > 3}
    # A list is empty and a status says so where there is none.
    told = ["operators", "operators_status", "series", "series_status"]
    assert frame[[name for name in later if name not in told]].isna().all(axis=None)
    for name in ("operators", "series"):
        assert not any(map(len, frame[name]))
        assert set(frame[f"{name}_status"]) == {"not_requested"}
    kept = [name for name in frame if name in before]
    key = ["trial_id", "phase"]
    pd.testing.assert_frame_equal(*(f.sort_values(key, ignore_index=True) for f in (frame[kept], before[kept])))


def test_a_table_of_a_workload_from_elsewhere_is_read_where_the_journal_lost_its_points(tmp_path):
    run = copy_of("conv", tmp_path)
    whole = present(load_run(run.path))
    run.journal_path.write_bytes(b"")
    found = present(load_run(run.path))
    assert found == {key: row for key, row in whole.items() if key in found}
    assert len(found) == 2


@pytest.mark.parametrize(("change", "taken"), [("", True), ("less", False), ("more", False), ("type", False)])
def test_a_table_of_version_3_has_exactly_its_columns(tmp_path, change, taken):
    content = pq.read_table(RESULTS / "h100_mlp_fp32" / "records.parquet")
    metadata = content.schema.metadata
    if change == "less":
        content = content.drop_columns(["loss_flops"])
    if change == "more":
        content = content.append_column("further", pa.nulls(len(content), pa.string()))
    if change == "type":
        place = content.schema.get_field_index("loss_flops")
        content = content.set_column(place, "loss_flops", pa.nulls(len(content), pa.float64()))
    pq.write_table(content.replace_schema_metadata(metadata), tmp_path / "x.parquet")
    schema = RecordSchema(BUILT_IN["mlp"](), version=3)
    if taken:
        assert table.RecordsFile(tmp_path / "x.parquet", schema).read().num_rows == len(content)
    else:
        with pytest.raises(ValueError, match="other columns than this schema version"):
            table.RecordsFile(tmp_path / "x.parquet", schema)


def test_a_column_that_came_later_has_its_default(tmp_path, monkeypatch):
    later = {"mfu": None, "energy_status": "not_requested"}
    content = pq.read_table(RESULTS / "h100_mlp_fp32" / "records.parquet")
    parts = [
        SimpleNamespace(name=n, metadata={"since": 4 if n in later or n not in content.column_names else 1})
        for n in COLUMN_NAMES
    ]
    monkeypatch.setattr(schemas, "_COMMON", parts)
    metadata = content.schema.metadata
    pq.write_table(content.drop_columns(list(later)).replace_schema_metadata(metadata), tmp_path / "x.parquet")
    found = table.RecordsFile(tmp_path / "x.parquet", RecordSchema(BUILT_IN["mlp"](), version=3)).read()
    assert {name: set(found[name].to_pylist()) for name in later} == {n: {v} for n, v in later.items()}
    assert found["time_s"].to_pylist() == content["time_s"].to_pylist()


@pytest.mark.parametrize("name", ["mlp", "llama"])
def test_a_new_run_has_the_columns_of_every_record_and_its_workloads(tmp_path, name):
    manifest = json.loads((OLD / name / "manifest.json").read_text())
    new = RunFolder.create(tmp_path, "new", Sweep.from_manifest(manifest).to_manifest("new", {}))
    with new.writer() as journal:
        journal.append([again(copy_of(name, tmp_path), 0)])
    for frame in (stored(load_run(new.path)), table.to_frame(pq.read_table(new.compact()))):
        assert set(frame) == COLUMN_NAMES | OWN[name]
        assert set(frame["schema_version"]) == {SCHEMA_VERSION}
    assert b'"schema_version"' not in new.journal_path.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_goes_on_has_rows_of_both_versions(tmp_path, name):
    run = copy_of(name, tmp_path)
    before = run.journal_path.read_bytes()
    old, other = present(load_run(run.path)), "fedcba9876543210"
    with run.writer() as journal:
        journal.append([again(run, 0, trial_id=other)])
    assert run.journal_path.read_bytes().startswith(before)
    for compact in (False, True):
        if compact:
            run.compact()
            run.journal_path.write_bytes(b"")
        found = present(RunFolder.open(run.path).load())
        assert {key: row for key, row in found.items() if key[0] != other} == old
        assert {row["schema_version"] for key, row in found.items() if key[0] == other} == {SCHEMA_VERSION}
    assert RunFolder.open(run.path).manifest["schema_version"] == 3


@pytest.mark.parametrize("name", NAMES)
def test_it_is_merged_with_a_run_of_this_version(tmp_path, name):
    old = copy_of(name, tmp_path)
    new = RunFolder.create(tmp_path, "new", Sweep.from_manifest(old.manifest).to_manifest("new", {}))
    with new.writer() as journal:
        journal.append([again(old, 0, run="new", started_unix_s=1.0), list(old.points())[1]])
    done = merge([old.path, new.path], tmp_path / "both")
    assert (done.points, done.measurements, done.identical, done.not_resumable) == (2, 3, 1, None)
    frame = load_run(tmp_path / "both")
    assert set(frame) == set(load_run(new.path))
    assert sorted(frame["schema_version"]) == [3] * 4 + [SCHEMA_VERSION] * 2
    own = {key: row for key, row in present(load_run(new.path)).items() if row["run"] == "new"}
    assert present(frame[frame["run"] == "new"]) == own
    assert RunFolder.open(tmp_path / "both").manifest["schema_version"] == SCHEMA_VERSION


def test_what_a_workload_filled_without_naming_it_is_kept_and_refused_by_name(tmp_path):
    """Version 3 took any column that some workload had; a merged run has those that its workload names."""
    run = copy_of("conv", tmp_path)
    first, *others = run.journal_path.read_bytes().splitlines(keepends=True)
    content = first[len(b'{"crc32":"00000000","entry":') : -2].replace(b'"shared":{', b'"shared":{"attention_flops":7,')
    line = b'{"crc32":"%08x","entry":%b}\n' % (zlib.crc32(content), content)
    run.journal_path.write_bytes(b"".join([line, *others]))
    assert set(load_run(run.path)["attention_flops"].dropna()) == {7}
    with pytest.raises(NotARun, match="a point of run 'conv' cannot be merged: unknown column 'attention_flops'"):
        merge([run.path, copy_of("conv", tmp_path / "other").path], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_a_column_that_the_workload_does_not_name_is_no_record():
    described = Description.from_dict(json.loads((OLD / "conv" / "manifest.json").read_text())["workload"])
    record = PhaseRecord.of(trial_id="a", phase="forward", attention_flops=7, parameters=None)
    with pytest.raises(ValueError, match="unknown column 'attention_flops': a workload states its own as columns"):
        entry.encode([record], RecordSchema(described))


def test_runs_of_llama_have_no_rows_of_an_mlp():
    with pytest.raises(InputError, match="no rows of an MLP with n_layers, width and tokens"):
        load_runs([RESULTS / "h100_llama"])
