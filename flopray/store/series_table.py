"""The series of a run as a table of their own: a row for each tick that is kept of each window.

The records hold a series as one JSON text in the column `series` (`flopray.store.window_series` says what its parts
are), so that it is as safe as the rest of a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flopray.records import Row
from flopray.store import atomic
from flopray.store.window_series import series_in

#: Columns beside the tick: the window that it belongs to.
KEYS = ("trial_id", "phase", "device_type", "precision", "execution")
#: Columns of the records that are read.
COLUMNS = (*KEYS, "series")
#: A run may have millions of ticks.
_ROWS_AT_ONCE = 200_000
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in KEYS),
        pa.field("start_unix_s", pa.float64(), metadata={"doc": "of the window, seconds since 1970 UTC"}),
        pa.field("window_s", pa.float64(), metadata={"doc": "length of the window"}),
        pa.field("ticks", pa.int64(), metadata={"doc": "seen in the window; more than its rows where it is thinned"}),
        pa.field("time_s", pa.float64(), metadata={"doc": "of the tick, from the start of the window"}),
        pa.field("energy_j", pa.float64(), metadata={"doc": "the counter, from the first tick or reset on"}),
        pa.field("power_w", pa.float64(), metadata={"doc": "mean since the row before"}),
        pa.field("temperature_c", pa.float64(), metadata={"doc": "of the device"}),
        pa.field("sm_clock_hz", pa.float64(), metadata={"doc": "of the streaming multiprocessors"}),
        pa.field("memory_used_bytes", pa.int64(), metadata={"doc": "of the device, by all processes"}),
        pa.field("used", pa.bool_(), metadata={"doc": "whether the measured power comes from the tick"}),
    ]
)


def series_rows(records: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Rows of `SCHEMA`.

    Args:
        records: rows with the columns `COLUMNS`.
    """
    for record in records:
        keys = {name: record[name] for name in KEYS}
        for one in series_in(record["series"]):
            for row in one.rows():
                yield keys | row


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> bool:
    """Write the table atomically; nothing where there is no series.

    Returns:
        Whether there was any.

    Raises:
        OSError: it could not be written; an older file is as it was.
    """
    rows = series_rows(records)
    part = list(itertools.islice(rows, _ROWS_AT_ONCE))
    if not part:
        return False
    with atomic.replacing(path) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        while part:
            writer.write_table(pa.Table.from_pylist(part, SCHEMA))
            part = list(itertools.islice(rows, _ROWS_AT_ONCE))
    return True
