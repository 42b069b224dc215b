"""Records as Arrow tables, Parquet files and data frames: the one place that says which column has which type.

| field of `PhaseRecord` | Arrow and Parquet | pandas |
|---|---|---|
| `int`, `int | None` | int64 | `Int64` (nullable; a missing count is `<NA>` and never turns the column into floats) |
| `float`, `float | None` | float64 | `float64`, missing is NaN (a record cannot hold NaN: the two never mix) |
| `bool | None` | bool | `boolean` |
| `str`, `str | None` | string | `string`, missing is `<NA>` |
| `tuple[str, ...]` | list of string | `object`: Python lists, empty when there are none |

The reasons: floats are plotted and fitted, and plain float64 works with every library; counts must stay exact above
2**53 where some are missing, which only nullable integers do. `df.model_flops / df.time_s` is a nullable float with
missing where either was; `.to_numpy(float)` or matplotlib turn any of the numbers into floats with NaN.

Parquet files carry the description of each column, and in their metadata the run, the schema version and how much of
the journal they cover.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flopray.point import EXECUTIONS, PRECISIONS
from flopray.records import PHASES, READABLE_VERSIONS, SCHEMA_VERSION, PhaseRecord, Row
from flopray.store import atomic, foreign_table
from flopray.store.entry import STATUS_ORDER
from flopray.store.journal_index import Coverage
from flopray.store.schema import COMMON, RecordSchema

if TYPE_CHECKING:
    import pandas as pd

_ARROW_TYPES: dict[type, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    tuple: pa.list_(pa.string()),
}


@cache
def arrow_schema(schema: RecordSchema = COMMON) -> pa.Schema:
    """The columns of a run in Arrow, in order."""
    return pa.schema(
        [
            pa.field(name, _ARROW_TYPES[column.base], column.nullable, metadata={"doc": schema.docs[name]})
            for name, column in schema.types.items()
        ]
    )


#: Rows that are held as Python objects at once, when a journal becomes a table.
_BATCH_POINTS = 4096
#: Columns that are sorted in the order of their vocabulary and not of the alphabet.
_VOCABULARIES = {"precision": PRECISIONS, "execution": EXECUTIONS, "phase": PHASES}


def order_columns(schema: RecordSchema = COMMON) -> tuple[str, ...]:
    """Columns that rows are sorted by: the fields of the point, its choices before its shape, then its phase."""
    dimensions = [name for name in schema.fields if schema.types[name].base is int]
    choices = [name for name in schema.fields if name not in dimensions]
    return ("workload", "device_type", *choices, "precision", "execution", *dimensions, "trial_id", "phase")


def batches(points: Iterable[list[Row]], schema: RecordSchema = COMMON) -> Iterator[pa.RecordBatch]:
    """Points (each a list of rows with all columns, as `entry.decode` gives) as Arrow batches of bounded size."""
    arrow = arrow_schema(schema)
    values_of = itemgetter(*arrow.names)
    iterator = iter(points)
    while chunk := list(itertools.islice(iterator, _BATCH_POINTS)):
        columns = zip(*(values_of(row) for rows in chunk for row in rows), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, arrow, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=arrow)


def from_batches(
    content: Iterable[pa.RecordBatch], columns: list[str] | None = None, schema: RecordSchema = COMMON
) -> pa.Table:
    """One table of batches, with all or some columns; an empty one of the right types where there are none."""
    if columns is None:
        return pa.Table.from_batches(list(content), schema=arrow_schema(schema))
    some = pa.schema([arrow_schema(schema).field(name) for name in columns])
    return pa.Table.from_batches([batch.select(columns) for batch in content], schema=some)


def without_points(table: pa.Table, trial_ids: Container[str]) -> pa.Table:
    """The rows whose point is not among `trial_ids`."""
    return table.filter(pa.array([trial_id not in trial_ids for trial_id in table["trial_id"].to_pylist()], pa.bool_()))


def point_statuses(table: pa.Table) -> dict[str, str]:
    """Trial id to the worst status of its phases."""
    statuses: dict[str, str] = {}
    for status in STATUS_ORDER:
        having = table["trial_id"].filter(pc.call_function("equal", [table["status"], pa.scalar(status)]))
        statuses.update(dict.fromkeys(having.unique().to_pylist(), status))
    return statuses


def ordered(table: pa.Table, schema: RecordSchema = COMMON) -> pa.Table:
    """The rows sorted by specification (workload, device type, precision, execution, shape), then by phase."""
    keys = {}
    for name in order_columns(schema):
        vocabulary = _VOCABULARIES.get(name)
        keys[name] = table[name] if vocabulary is None else _ranks(table[name], vocabulary)
    order = pa.table({**keys, "row": pa.array(range(table.num_rows), pa.int64())})
    return table.take(order.sort_by([(name, "ascending") for name in keys])["row"])


def _ranks(column: pa.ChunkedArray, vocabulary: tuple[str, ...]) -> pa.ChunkedArray:
    """Place of each value in its vocabulary; an unknown word has none and sorts last."""
    options = pc.SetLookupOptions(pa.array(vocabulary))
    return pc.call_function("index_in", [column], options)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A data frame with the types of the table at the head of this module."""
    import pandas as pd

    dtypes = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype("pyarrow")}
    frame = table.to_pandas(types_mapper=dtypes.get, ignore_metadata=True)
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            lists = pd.Series(table.column(index).to_pylist(), index=frame.index, dtype=object)
            frame[field.name] = lists
    return frame


def to_records(table: pa.Table) -> list[PhaseRecord]:
    """The rows as records."""
    # By column: `Table.to_pylist` takes three times as long.
    columns = [column.to_pylist() for column in table.columns]
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            columns[index] = [tuple(texts) for texts in columns[index]]
    return [PhaseRecord.of(**dict(zip(table.column_names, row, strict=True))) for row in zip(*columns, strict=True)]


class RecordsFile:
    """An existing Parquet file of records; its data is read only when asked for."""

    def __init__(self, path: Path, schema: RecordSchema = COMMON) -> None:
        """Open the file and check that it is one of this schema.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, or is not a file of records of this schema version.
            OSError: it cannot be read.
        """
        with atomic.open_regular(path) as file:
            content = pa.py_buffer(file.read())
        try:
            self._file = pq.ParquetFile(content, page_checksum_verification=True)
            foreign_table.check_size(self._file.metadata, len(content))
            found = self._file.schema_arrow
            metadata = {key.decode(): value.decode() for key, value in (found.metadata or {}).items()}
            self._schema, self._names = schema, set(found.names)
            if not any(_is_of(version, found, metadata, schema) for version in READABLE_VERSIONS):
                raise ValueError("it has other columns than this schema version")
            self.run = metadata["flopray.run"]
            self.coverage = Coverage(
                int(metadata["flopray.journal_bytes"]), int(metadata["flopray.journal_tail_crc32"])
            )
        except KeyError as error:
            raise ValueError("it was not written by flopray") from error
        except pa.ArrowException as error:
            raise ValueError(atomic.reason(error)) from error

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All rows, of all or some columns.

        Raises:
            ValueError: the data is damaged.
        """
        wanted = arrow_schema(self._schema)
        names = columns if columns is not None else wanted.names
        try:
            table = self._file.read(columns=[name for name in names if name in self._names])
            table.validate(full=True)
            foreign_table.check_values(table)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(atomic.reason(error)) from error
        arrays = [
            # A column that an older version did not have is its default in every row.
            table[name] if name in self._names else _default(table, wanted.field(name), self._schema.defaults[name])
            for name in names
        ]
        return pa.table(arrays, schema=pa.schema([wanted.field(name) for name in names]))


def _is_of(version: int, found: pa.Schema, metadata: dict[str, str], schema: RecordSchema) -> bool:
    """Whether a file has the columns of a run as its version wrote them; those of this version in order."""
    if metadata["flopray.schema_version"] != str(version):
        return False
    if version == SCHEMA_VERSION:
        return found.equals(arrow_schema(schema))
    types = {name: (_ARROW_TYPES[column.base], column.nullable) for name, column in schema.types_in(version).items()}
    return len(found) == len(types) and {field.name: (field.type, field.nullable) for field in found} == types


def _default(table: pa.Table, field: pa.Field, value: Any) -> pa.Array:
    return pa.repeat(pa.scalar(value, field.type), table.num_rows)


def write_parquet(
    path: Path, run: str, covered: Coverage, content: Iterable[pa.RecordBatch], schema: RecordSchema = COMMON
) -> None:
    """Write a Parquet file of records atomically, batch by batch.

    Args:
        path: of the file; an older one stays in place until the new one is complete and synced.
        run: name of the run.
        covered: the journal up to where the content was taken from.
        content: batches of the schema.
        schema: the columns of the run.

    Raises:
        OSError: it could not be written; the older file is as it was.
    """
    metadata = {
        "flopray.run": run,
        "flopray.schema_version": str(SCHEMA_VERSION),
        "flopray.journal_bytes": str(covered.journal_bytes),
        "flopray.journal_tail_crc32": str(covered.tail_crc32),
    }
    arrow = arrow_schema(schema).with_metadata(metadata)
    with (
        atomic.replacing(path) as file,
        pq.ParquetWriter(file, arrow, compression="zstd", write_page_checksum=True) as writer,
    ):
        for batch in content:
            writer.write_batch(batch.replace_schema_metadata(metadata))
