"""The kernels of a run as a table of their own: a row for each kernel of each phase of each counted point.

The records hold them as JSON texts in the column `kernels`, so that they are as safe as the rest of a row; this table
is made from those, for pandas, DuckDB and the like. Whoever wrote the run is not trusted: text that does not describe a
kernel is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flopray.records import Row
from flopray.store import atomic
from flopray.store.entry import integer, text

#: Columns beside the kernel: the measurement that it belongs to.
KEYS = ("trial_id", "phase", "device_type", "precision", "execution")
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in KEYS),
        pa.field("kernel", pa.string(), metadata={"doc": "short name"}),
        pa.field("kernel_class", pa.string(), metadata={"doc": "what it does"}),
        pa.field("launches", pa.int64(), metadata={"doc": "in one iteration of the phase"}),
        pa.field("tensor_flops", pa.int64(), metadata={"doc": "of all launches, on tensor cores"}),
        pa.field("cuda_flops", pa.int64(), metadata={"doc": "of all launches, on CUDA cores"}),
    ]
)


def kernel_rows(records: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Rows of `SCHEMA`.

    Args:
        records: rows with the columns `KEYS` and `kernels`.
    """
    for record in records:
        keys = {name: record[name] for name in KEYS}
        for line in record["kernels"] or ():
            try:
                kernel = json.loads(line)
                counts = {name: integer(kernel[name]) for name in ("launches", "tensor_flops", "cuda_flops")}
                words = {"kernel": text(kernel["name"]), "kernel_class": text(kernel["class"])}
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            yield keys | words | counts


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> bool:
    """Write the table atomically; nothing where there are no kernels.

    Returns:
        Whether there were any.

    Raises:
        OSError: it could not be written; an older file is as it was.
    """
    rows = list(kernel_rows(records))
    if rows:
        with atomic.replacing(path) as file:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, compression="zstd")
    return bool(rows)
