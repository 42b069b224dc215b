"""Writes docs/records.md, the table of every column of a record, from `PhaseRecord` and the built-in workloads.

python docs/make_records.py             write the page
python docs/make_records.py --check     write nothing; exit code 1 when the page is out of date
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from flopray.records import DERIVED, READABLE_VERSIONS, SCHEMA_VERSION, PhaseRecord
from flopray.store.entry import STATUS_ORDER
from flopray.store.schema import COLUMN_TYPES, COMMON, RecordSchema
from flopray.store.table import arrow_schema
from flopray.workloads.registry import BUILT_IN

PAGE = Path(__file__).with_name("records.md")

_READABLE = " and ".join(str(version) for version in READABLE_VERSIONS if version != SCHEMA_VERSION)
_STATUSES = textwrap.fill(
    ", ".join(f"`{status}`" for status in STATUS_ORDER) + ".", 120, initial_indent="  ", subsequent_indent="  "
)
_INTRODUCTION = f"""\
# The record

<!-- Written by `python docs/make_records.py` from flopray/records.py and the workloads; change the columns there. -->

The measurement of one phase of one point is one row. A run's `records.parquet` and `flopray.load_run(RUN)` have the
same columns: those of every record, which this page lists in their order, and those of the run's workload, which follow
at the end of the page. In a table, the fields of a workload come after `execution`, its other columns after
`optimizer_flops`. `flopray.load_run(RUN)` adds a few columns that are
[computed from these](#computed-when-a-run-is-loaded) and not stored.

This is schema version {SCHEMA_VERSION}. Runs of version {_READABLE} are read too, with the columns of this version; the
columns that were removed belonged to other workloads and were always empty. A run of any other version is refused with
the versions named, and never read in part.

- Names end in their unit: `_s` seconds, `_j` joules, `_w` watts, `_hz` hertz, `_c` degrees Celsius, `_bytes`;
  `_flops` are counts, `_flops_per_s` and `_per_j` are rates. `rel` is relative: 0.01 is 1 %.
- A value that was not measured is missing (NaN in float columns, `<NA>` elsewhere), never 0. The reason is
  in a `*_status` or `*_reason` column, or in `status` if the whole phase failed.
- Types are those of Arrow. In pandas, `int64` becomes `Int64` (counts stay exact when others are missing), `float64`
  stays plain `float64`, `bool` becomes `boolean`, `string` a pandas string, and a list an ordinary Python list.
- "always" in the last column means that the column is never missing.
- A point's status is the worst of its phases', in the order of this vocabulary, best first:
{_STATUSES}
"""


def page() -> str:
    """The text of docs/records.md."""
    parts = [_INTRODUCTION, *(_section(title[0].upper() + title[1:], names, COMMON) for title, names in _groups())]
    parts.append(_section_of_derived())
    for name, workload in BUILT_IN.items():
        schema = RecordSchema(workload())
        parts.append(_section(f"Of the workload `{name}`", schema.own, schema))
    return "\n".join(parts)


def _section(title: str, names: Sequence[str], schema: RecordSchema) -> str:
    head = "| column | type | what it is | |\n|---|---|---|---|"
    return f"## {title}\n\n" + "\n".join([head, *(_row(name, schema) for name in names)]) + "\n"


def _section_of_derived() -> str:
    """Columns that `load_run` adds; the types are those of Arrow for the same in pandas."""
    rows = [
        f"| `{name}` | {'string' if name.endswith('_reason') else 'float64'} | {doc} |  |"
        for name, doc in DERIVED.items()
    ]
    head = "| column | type | what it is | |\n|---|---|---|---|"
    return "## Computed when a run is loaded\n\n" + "\n".join([head, *rows]) + "\n"


def _groups() -> list[tuple[str, list[str]]]:
    """Columns by the comments above them in the source of the record."""
    groups: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(PhaseRecord).splitlines():
        comment = re.fullmatch(r"    # (.+)", line)
        column = re.match(r"    (\w+): .+ = _column\(", line)
        if comment and not comment[1].startswith("of the workload"):
            groups.append((comment[1], []))
        elif column:
            groups[-1][1].append(column[1])
    found = [name for _, names in groups for name in names]
    expected = list(COLUMN_TYPES)
    if found != expected:
        raise SystemExit("error: the columns read from the source of PhaseRecord are not its fields")
    return groups


def _row(name: str, schema: RecordSchema) -> str:
    field, column = arrow_schema(schema).field(name), schema.types[name]
    doc = (field.metadata[b"doc"].decode() + _letter_and_words(name, schema)).replace("|", "\\|")
    # Arrow's own names of the other types differ between its versions, or are not the usual ones.
    shown = {"double": "float64"}.get(str(field.type), "list of string" if column.base is tuple else str(field.type))
    return f"| `{name}` | {shown} | {doc} | {'' if column.nullable else 'always'} |"


def _letter_and_words(name: str, schema: RecordSchema) -> str:
    """The short name of a workload's field, and its values if these are words."""
    found = next((f for f in schema.workload.fields if f.name == name), None)
    if found is None:
        return ""
    if found.is_dimension:
        return f" ({found.letter})"
    return "" if found.free or found.type is bool else f": {', '.join(found.words)}"


def main() -> int:
    """Write or check the page; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/records.md from flopray/records.py.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when the page is out of date")
    if not parser.parse_args().check:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        print(f"{PAGE.name} is out of date: python docs/make_records.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
