"""A Parquet file from a stranger is read, or skipped with a warning: Arrow does not end the process on these."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import hostile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopray.store import journal_index, table

with tempfile.TemporaryDirectory() as _folder:
    _run = hostile.make_run(Path(_folder))
    WHOLE = _run.compact().read_bytes()
    _run.write_kernels()
    KERNELS = _run.kernels_path.read_bytes()
    SCHEMA = _run.schema
METADATA = pq.read_schema(pa.BufferReader(WHOLE)).metadata


def use(content: bytes, *, without_journal: bool = False, kernels: bytes | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = hostile.make_run(Path(folder))
        run.records_path.write_bytes(content)
        if kernels is not None:
            run.kernels_path.write_bytes(kernels)
        if without_journal:
            run.journal_path.write_bytes(b"")
        hostile.read_everything(run.path)
        run.records_path.write_bytes(content)  # a compaction has replaced it
        other = hostile.make_run(Path(folder), "other", points=2)
        hostile.resume_and_merge(run.path, other.path, Path(folder) / "merged")


@pytest.mark.slow
@settings(max_examples=10, **hostile.BOUNDED)
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda middle: b"PAR1" + middle + b"PAR1"))
def test_anything_in_its_place(content: bytes) -> None:
    use(content, kernels=content)


@pytest.mark.slow
@settings(max_examples=10, **hostile.BOUNDED)
@given(st.data())
def test_bits_that_are_flipped_and_bytes_that_are_gone(data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    footer = len(WHOLE) - 8 - int.from_bytes(WHOLE[-8:-4], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        # the footer decides what Arrow allocates and where it looks
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(footer, len(content) - 1))
        content[min(at, len(content) - 1)] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(content)))
        del content[start : start + data.draw(st.integers(1, 2000))]
    use(bytes(content), without_journal=data.draw(st.booleans()), kernels=KERNELS[: len(content) // 9])


def rows(**columns: list) -> pa.Table:
    good = pq.read_table(pa.BufferReader(WHOLE)).slice(0, 2)
    schema = table.arrow_schema(SCHEMA)
    for name, values in columns.items():
        place, field = schema.get_field_index(name), schema.field(name)
        good = good.set_column(place, field, pa.array(values, field.type))
    return good.replace_schema_metadata(METADATA)


@pytest.mark.slow
@pytest.mark.parametrize(
    "columns",
    [
        {"time_s": [float("nan"), float("inf")]},
        {"status": ["ok", "splendid"]},
        {"status_reason": ["\x1b[2J", "\u202e"]},
        {"kernels": [["\x9b2J"], []]},
        {"findings": [["\x07"], []]},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_values_that_no_line_could_hold_are_passed_by(tmp_path, columns):
    pq.write_table(rows(**columns), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=next(iter(columns))):
        table.RecordsFile(tmp_path / "x.parquet", SCHEMA).read()
    use((tmp_path / "x.parquet").read_bytes())
    use((tmp_path / "x.parquet").read_bytes(), without_journal=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "columns",
    [
        {"trial_id": ["", "-2"]},
        {"trial_id": ["x" * 5000, "../../out"]},
        {"phase": ["forward", "forward"]},
        {"phase": ["../..", "[/red]"]},
        {"schema_version": [1, 4]},
        {"device_wall_s": [1e308, 1e308]},
        {"precision": ["$x", "fp7"]},
        {"kernels": [['{"name":"\\ud800","class":"","launches":1e999,"tensor_flops":0,"cuda_flops":0}'], ["[" * 9999]]},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_values_that_fit_the_columns_and_mean_nothing(tmp_path, columns):
    pq.write_table(rows(**columns), tmp_path / "x.parquet")
    use((tmp_path / "x.parquet").read_bytes())
    use((tmp_path / "x.parquet").read_bytes(), without_journal=True)


@pytest.mark.slow
def test_other_columns_and_types_are_passed_by(tmp_path):
    for other in (
        pa.table({"trial_id": ["a"]}).replace_schema_metadata(METADATA),
        rows().drop_columns(["phase"]),
        rows().set_column(0, "run", pa.array([1, 2])),
        rows().append_column("further", pa.array([1, 2])),
        rows().replace_schema_metadata({**METADATA, b"flopray.journal_bytes": b"9" * 5000}),
        rows().replace_schema_metadata({**METADATA, b"flopray.run": b"\xff\x1b"}),
    ):
        pq.write_table(other, tmp_path / "x.parquet")
        use((tmp_path / "x.parquet").read_bytes())


def varint(number: int) -> bytes:
    """An integer as Thrift's compact protocol has it: zigzag, seven bits a byte."""
    number, content = number << 1, bytearray()
    while number >= 0x80:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])


def with_rows(claimed: int) -> bytes:
    """`WHOLE` with another number of rows in its footer."""
    length = int.from_bytes(WHOLE[-8:-4], "little")
    footer, true = WHOLE[-8 - length : -8], pq.read_metadata(pa.BufferReader(WHOLE)).num_rows
    # Fields of one byte a type: num_rows is an i64 (0x16) behind the schema, and again in each row group.
    changed = footer.replace(b"\x16" + varint(true), b"\x16" + varint(claimed))
    return WHOLE[: -8 - length] + changed + len(changed).to_bytes(4, "little") + b"PAR1"


def test_a_file_that_claims_a_trillion_rows_takes_no_memory(tmp_path):
    content = with_rows(10**12)
    assert pq.read_metadata(pa.BufferReader(content)).num_rows == 10**12
    run = hostile.make_run(tmp_path)
    run.records_path.write_bytes(content)
    script = (
        "import resource, sys, warnings\n"
        "from flopray import load_run\n"
        "warnings.simplefilter('ignore')\n"
        "import pandas, pyarrow.parquet\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))\n"
        "print(len(load_run(sys.argv[1])))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(run.path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr
    with pytest.warns(journal_index.RunWarning, match="claims 1e\\+12 rows"):
        run.load()
