"""The operators of a run as a table of their own: a row for each operator and region of each phase of each point.

The records hold them as JSON texts in the column `operators`, so that they are as safe as the rest of a row. Whoever
wrote the run is not trusted: text that does not describe an operator is skipped.

`energy_estimate_j` is an estimate: the phase's energy, divided by the operators' shares of its time. An operator that
draws more power than the phase's mean, as products do, takes more of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flopray.records import Row
from flopray.store import atomic
from flopray.store.entry import integer, text

#: Columns beside the operator: the measurement that it belongs to.
KEYS = ("trial_id", "phase", "device_type", "precision", "execution")
#: Columns of the records that are read.
COLUMNS = (*KEYS, "energy_j", "operators")
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in KEYS),
        pa.field("region", pa.string(), metadata={"doc": "named stretches of code around it, joined by /"}),
        pa.field("operator", pa.string(), metadata={"doc": "of torch, such as aten::addmm"}),
        pa.field("calls", pa.int64(), metadata={"doc": "in one iteration of the phase"}),
        pa.field("device_time_s", pa.float64(), metadata={"doc": "of its kernels, in one iteration"}),
        pa.field("host_time_s", pa.float64(), metadata={"doc": "on the CPU, made longer by the profiler"}),
        pa.field("time_share", pa.float64(), metadata={"doc": "of all device time; on a CPU of all host time"}),
        pa.field("energy_estimate_j", pa.float64(), metadata={"doc": "time_share of energy_j: an estimate"}),
        pa.field("flops", pa.int64(), metadata={"doc": "at the dispatcher; missing without a formula"}),
        pa.field("device_memory_bytes", pa.int64(), metadata={"doc": "allocated on the device, less what was freed"}),
        pa.field("host_memory_bytes", pa.int64(), metadata={"doc": "the same on the host"}),
    ]
)


def operator_rows(records: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Rows of `SCHEMA`.

    Args:
        records: rows with the columns `COLUMNS`.
    """
    for record in records:
        keys = {name: record[name] for name in KEYS}
        found = [one for line in record["operators"] or () if (one := _operator(line)) is not None]
        times = {name: sum(one[name] for one in found) for name in ("device_time_s", "host_time_s")}
        what = "device_time_s" if times["device_time_s"] else "host_time_s"
        energy_j = record["energy_j"]
        for one in found:
            share = one[what] / times[what] if times[what] else None
            estimate_j = None
            if share is not None and energy_j is not None and math.isfinite(energy_j):
                estimate_j = share * energy_j
            yield keys | one | {"time_share": share, "energy_estimate_j": estimate_j}


def _operator(line: str) -> Row | None:
    try:
        one = json.loads(line)
        whole = ("calls", "device_memory_bytes", "host_memory_bytes")
        found: Row = {name: integer(one[name]) for name in whole}
        found |= {"region": text(one["region"]), "operator": text(one["name"])}
        found["flops"] = None if one["flops"] is None else integer(one["flops"])
        for name in ("device_time_s", "host_time_s"):
            found[name] = float(one[name])
            if not (math.isfinite(found[name]) and found[name] >= 0):
                return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> bool:
    """Write the table atomically; nothing where there are no operators.

    Returns:
        Whether there were any.

    Raises:
        OSError: it could not be written; an older file is as it was.
    """
    rows = list(operator_rows(records))
    if rows:
        with atomic.replacing(path) as file:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, compression="zstd")
    return bool(rows)
