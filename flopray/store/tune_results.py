"""A point as one flat result of Ray Tune, and back: the metrics that `ResultGrid`, loggers and searchers see.

| key | what |
|---|---|
| `point_id`, `status`, `findings` | the point, the worst status of its phases, what the audit found in any of them |
| `points`, `point_ids` | how many points the result stands for, and which, the point itself last |
| `point/<column>` | what all phases of a point share: its fields, device, versions |
| `<phase>/<column>` | what is the phase's own, such as `forward/energy_j` |

Every result of a sweep has every key, since `progress.csv` takes its columns from the first one. A missing value is
NaN, also where it would be a text, and never 0. An empty text is a value, such as that nothing throttles the GPU.

Tune cannot hold the columns in `LEFT_OUT`. Standard library only, as Tune's files are read without Ray.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flopray.records import PhaseRecord, Row
from flopray.store.entry import checked_columns, worst_status
from flopray.store.schema import RecordSchema
from flopray.workloads.registry import BUILT_IN

POINT_ID, POINT, STATUS, FINDINGS = "point_id", "point", "status", "findings"
#: How many points a result stands for, and their ids with spaces between.
POINTS, POINT_IDS = "points", "point_ids"
#: The workload's description as JSON, by which a stranger's folder is read without the workload's code.
WORKLOAD = "point/workload_description"
#: Columns that a result does not have: texts of any length, and the tables of kernels, operators and ticks.
LEFT_OUT = ("kernels", "operators", "series", "traceback")
#: Columns that phases of a point share, beside the fields of the point.
_SHARED = (
    *("run", "schema_version", "attempt", "order_index", "seed", "workload", "device_type", "precision", "execution"),
    *("device_name", "device_uuid", "node", "board_part_number", "vbios_version", "driver_version"),
    *("compute_capability", "sm_count", "max_sm_clock_hz"),
    *("power_limit_w", "memory_total_bytes", "cpu_threads"),
    *("flopray_version", "torch_version", "cuda_version", "ray_version", "python_version"),
)
#: Between the findings of a row, which have no spaces.
_BETWEEN = " "
#: A result as Tune passes it on to loggers and searchers: metrics by name, and what Tune adds to them.
Result = dict[str, Any]


class ResultFormat:
    """The keys of a sweep's results, the same for all of them.

    Args:
        schema: the columns of the run.
        phases: of the sweep, in order.
    """

    def __init__(self, schema: RecordSchema, phases: Sequence[str]) -> None:
        self._schema, self.phases = schema, tuple(phases)
        own = ("trial_id", "phase", *LEFT_OUT)
        self._shared = [name for name in schema.names if name in (*_SHARED, *schema.fields)]
        self._own = [name for name in schema.names if name not in (*self._shared, *own)]
        described = schema.workload.to_dict() if schema.workload.name not in BUILT_IN else None
        self._described = json.dumps(described, separators=(",", ":")) if described else ""

    def flat(self, points: Sequence[Sequence[PhaseRecord]]) -> Result:
        """The result of the last of some points, which stands for all of them.

        Args:
            points: the records of each; none gives a result that stands for no point.
        """
        records = {record.phase: record.columns() for record in (points[-1] if points else ())}
        first = next(iter(records.values()), {})
        result: Result = {
            POINT_ID: first.get("trial_id", ""),
            STATUS: worst_status([row["status"] for row in records.values()]) if records else "",
            FINDINGS: _BETWEEN.join(dict.fromkeys(f for row in records.values() for f in row["findings"])),
            POINTS: len(points),
            POINT_IDS: " ".join(rows[0].trial_id for rows in points),
            WORKLOAD: self._described,
        }
        result |= {f"{POINT}/{name}": self._cell(name, first.get(name)) for name in self._shared}
        for phase in self.phases:
            row = records.get(phase, {})
            result |= {f"{phase}/{name}": self._cell(name, row.get(name)) for name in self._own}
        return result

    def _cell(self, name: str, value: Any) -> Any:
        base = self._schema.types[name].base
        if base is tuple:
            return _BETWEEN.join(value or ())
        return math.nan if value is None else value


def ids_of(result: Mapping[str, Any]) -> list[str]:
    """The points that a result stands for."""
    ids = result.get(POINT_IDS)
    return ids.split() if isinstance(ids, str) else []


def rows_of(result: Mapping[str, Any], schema: RecordSchema) -> list[Result]:
    """The rows of a result's point, a phase each, with all columns of the schema; `LEFT_OUT` have their defaults.

    Args:
        result: as Tune wrote it, maybe a stranger's.
        schema: the columns of its run.

    Raises:
        ValueError: a value that no record can have; the message names the column.
    """
    shared: Row = {}
    phases: dict[str, Row] = {}
    for key, value in result.items():
        where, slash, name = key.rpartition("/")
        if not slash or name not in schema.types or "/" in where or where == "config":
            continue
        (shared if where == POINT else phases.setdefault(where, {}))[name] = _value(value, schema.types[name].base)
    shared["trial_id"] = result.get(POINT_ID)
    known = [phase for phase in phases if phase in (schema.workload.phases or phases)]
    rows = []
    for phase in known:
        columns = {name: value for name, value in (shared | phases[phase]).items() if value is not None}
        rows.append(schema.defaults | checked_columns(columns | {"phase": phase}, schema))
    if not rows or worst_status([row["status"] for row in rows]) != result.get(STATUS):
        raise ValueError("its status is not that of its phases")
    return rows


def _value(value: Any, base: type) -> Any:
    """The value of a column; None where it is missing."""
    if base is tuple:
        return tuple(value.split(_BETWEEN)) if isinstance(value, str) and value else ()
    return None if isinstance(value, float) and math.isnan(value) else value
