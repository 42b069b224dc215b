"""Columns, their types in Arrow, Parquet and pandas, and the Parquet file as a thing that may be damaged."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flopray.point import PRECISIONS
from flopray.records import PHASES, SCHEMA_VERSION, PhaseRecord
from flopray.store import entry, table
from flopray.store.journal_index import Coverage
from flopray.store.schema import RecordSchema
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

SCHEMA = RecordSchema(MLP())
BIG = 2**53 + 1  # the first whole number that a float cannot hold


def rows(n_layers: int, width: int, precision: str = "fp32", **columns) -> list[dict]:
    spec = make_point(workload="mlp", device_type="CPU", precision=precision, n_layers=n_layers, width=width, tokens=16)
    fields = spec.fields()
    phases = [PhaseRecord.of(trial_id=spec.id, phase=p, **fields, **columns) for p in reversed(PHASES[:2])]
    return entry.decode(entry.encode(phases, SCHEMA)[2][28:-2], SCHEMA)


def table_of(*points: list[dict]) -> pa.Table:
    return table.from_batches(table.batches(points, SCHEMA), schema=SCHEMA)


def test_columns_are_the_fields_with_their_descriptions() -> None:
    fields = [f for f in dataclasses.fields(PhaseRecord) if f.name != "extra"]
    schema = table.arrow_schema()
    assert schema.names == [f.name for f in fields]
    own = [f.name for f in MLP.fields]
    assert [name for name in table.arrow_schema(SCHEMA).names if name not in own] == schema.names
    for arrow, f in zip(schema, fields, strict=True):
        assert arrow.metadata[b"doc"].decode() == f.metadata["doc"]
        assert arrow.nullable == ("None" in str(f.type))
    expected = {"order_index": "int64", "time_s": "double", "status": "string", "time_converged": "bool"}
    assert {name: str(schema.field(name).type) for name in expected} == expected
    assert pa.types.is_list(schema.field("findings").type)


def test_frame_has_one_type_per_kind_whatever_is_missing() -> None:
    full = {"executed_flops": BIG, "time_s": 0.5, "time_converged": True, "node": "a", "findings": ("note:x", "y")}
    frames = {
        "all": table.to_frame(table_of(rows(1, 8, **full))),
        "some": table.to_frame(table_of(rows(1, 8, **full), rows(2, 8))),
        "none": table.to_frame(table_of(rows(2, 8))),
        "empty": table.to_frame(table_of()),
    }
    for frame in frames.values():
        assert frame.dtypes.equals(frames["all"].dtypes)
    dtypes = frames["all"].dtypes
    assert dtypes["executed_flops"] == pd.Int64Dtype()
    assert dtypes["time_s"] == np.dtype("float64")
    assert dtypes["time_converged"] == pd.BooleanDtype()
    assert dtypes["node"] == pd.StringDtype("pyarrow")
    assert len(frames["empty"]) == 0

    some = frames["some"]
    assert some["executed_flops"].tolist() == [BIG, BIG, pd.NA, pd.NA]
    assert some["node"].isna().tolist() == [False, False, True, True]
    assert some["findings"].tolist() == [["note:x", "y"], ["note:x", "y"], [], []]
    assert np.isnan(some["time_s"].to_numpy()).tolist() == [False, False, True, True]


def test_frame_is_friendly_to_arithmetic_and_arrays() -> None:
    frame = table.to_frame(table_of(rows(1, 8, executed_flops=100, time_s=0.5), rows(2, 8, time_s=0.5), rows(3, 8)))
    rate = frame["executed_flops"] / frame["time_s"]
    assert rate.isna().tolist() == [False, False, True, True, True, True]
    assert rate[0] == 200.0
    as_floats = frame["executed_flops"].to_numpy(float, na_value=np.nan)
    assert as_floats[:2].tolist() == [100.0, 100.0]
    assert np.isnan(as_floats[2:]).all()
    assert len(frame[frame["node"] == "a"]) == 0
    grid = frame[frame["phase"] == "forward"].pivot_table(index="n_layers", columns="width", values="time_s")
    assert grid.to_numpy().ravel().tolist() == [0.5, 0.5]


def test_rows_are_sorted_by_specification_then_phase() -> None:
    points = [rows(n, d, p) for n in (2, 10) for d in (8, 128, 1024) for p in PRECISIONS]
    random.Random(1).shuffle(points)
    ordered = table.ordered(table_of(*points), SCHEMA)
    assert ordered["phase"].to_pylist() == list(PHASES[:2]) * len(points)
    keys = list(
        zip(*(ordered[name].to_pylist() for name in ("precision", "n_layers", "width")), strict=True),
    )[::2]
    assert keys == [(p, n, d) for p in PRECISIONS for n in (2, 10) for d in (8, 128, 1024)]


def test_records_come_back_equal() -> None:
    point = rows(1, 8, executed_flops=BIG, findings=("a",), status="failed", traceback="line\nline é \x00")
    assert table.to_records(table_of(point)) == [PhaseRecord.of(**row) for row in point]


def test_status_of_points_is_the_worst_of_their_phases() -> None:
    mixed = rows(2, 8)
    mixed[1] |= {"status": "failed"}
    statuses = table.point_statuses(table_of(rows(1, 8, status="unsupported"), mixed))
    assert statuses == {rows(1, 8)[0]["trial_id"]: "unsupported", mixed[0]["trial_id"]: "failed"}


def test_many_points_are_written_in_several_batches_of_bounded_size() -> None:
    point = rows(1, 8)
    sizes = [batch.num_rows for batch in table.batches((point for _ in range(5000)), SCHEMA)]
    assert sizes == [8192, 1808]


COVERED = Coverage(1234, 99)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    path = tmp_path / "records.parquet"
    content = table.batches([rows(n, 8, time_s=n / 7, node="node") for n in range(1, 200)], SCHEMA)
    table.write_parquet(path, "my run", COVERED, content, SCHEMA)
    return path


def test_parquet_tells_what_it_covers_and_explains_its_columns(parquet: Path) -> None:
    file = table.RecordsFile(parquet, SCHEMA)
    assert (file.run, file.coverage) == ("my run", COVERED)
    assert file.read().num_rows == 2 * 199
    plain = pq.read_table(parquet)  # as any other tool would
    assert plain.schema.equals(table.arrow_schema(SCHEMA))
    assert plain.schema.field("mfu").metadata[b"doc"].startswith(b"flops_per_s / dense peak")
    assert plain.schema.metadata[b"flopray.schema_version"] == str(SCHEMA_VERSION).encode()


def test_failing_write_leaves_the_old_file_and_no_other(parquet: Path) -> None:
    before = parquet.read_bytes()

    def failing():
        yield from table.batches([rows(1, 8)], SCHEMA)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        table.write_parquet(parquet, "my run", COVERED, failing(), SCHEMA)
    assert parquet.read_bytes() == before
    assert list(parquet.parent.iterdir()) == [parquet]


def test_damaged_parquet_is_an_error_or_the_same_rows(parquet: Path) -> None:
    whole, good = parquet.read_bytes(), table.RecordsFile(parquet, SCHEMA).read()
    generator = random.Random(3)
    caught = 0
    for position in generator.sample(range(len(whole)), 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << generator.randrange(8)
        parquet.write_bytes(damaged)
        try:
            file = table.RecordsFile(parquet, SCHEMA)
            columns = file.read()
        except (OSError, ValueError):
            caught += 1
        else:
            # Statistics and offsets that nobody needs may differ; a value must not, where pages have checksums.
            assert columns.equals(good) or position > len(whole) - pq.read_metadata(parquet).serialized_size - 8
    assert caught > 12
    for length in range(0, len(whole), 2999):
        parquet.write_bytes(whole[:length])
        with pytest.raises((OSError, ValueError)):
            table.RecordsFile(parquet, SCHEMA).read()


@pytest.mark.parametrize("kind", ["no metadata", "other version", "column missing", "other type", "no number"])
def test_parquet_of_somebody_else_is_not_taken(tmp_path: Path, kind: str) -> None:
    metadata = {
        "flopray.run": "r",
        "flopray.schema_version": "1" if kind == "other version" else str(SCHEMA_VERSION),
        "flopray.journal_bytes": "many" if kind == "no number" else "1",
        "flopray.journal_tail_crc32": "1",
    }
    content = table_of(rows(1, 8))
    if kind == "column missing":
        content = content.drop_columns(["mfu"])
    if kind == "other type":
        content = content.set_column(8, "workload", pa.array([1, 2]))
    content = content.replace_schema_metadata(None if kind == "no metadata" else metadata)
    pq.write_table(content, tmp_path / "records.parquet")
    with pytest.raises(ValueError):
        table.RecordsFile(tmp_path / "records.parquet", SCHEMA)
