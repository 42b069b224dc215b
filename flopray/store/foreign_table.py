"""Checks that a Parquet file of records is safe to read whole, and holds only what a line of the journal could hold."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flopray.store.entry import HIDDEN, STATUS_ORDER

#: Bytes of a column chunk before compression for each byte of the file; 30,000 points that all failed alike had 2.0.
_MOST_EXPANSION = 1000
#: RE2, which Arrow has, writes `\x{2028}` where Python writes `\u2028`.
_HIDDEN = re.sub(r"\\u([0-9a-f]{4})", r"\\x{\1}", HIDDEN)


def check_size(metadata: pq.FileMetaData, file_bytes: int) -> None:
    """Refuse a file that would fill the memory by its own metadata.

    A trial id is a hash of which no part follows from another, and a point has at most eight phases: a row cannot take
    less than a byte. That bounds the rows; the length of their texts is known only when Arrow reads them.

    Args:
        metadata: of the file.
        file_bytes: its length.

    Raises:
        ValueError: it would.
    """
    if metadata.num_rows > file_bytes:
        raise ValueError(f"it claims {metadata.num_rows:.3g} rows in {file_bytes} bytes")
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = sum(max(0, group.total_byte_size) for group in groups)
    if size > _MOST_EXPANSION * file_bytes or any(group.num_rows < 0 for group in groups):
        raise ValueError(f"it claims {size:.3g} bytes of content in {file_bytes} bytes")


def check_values(table: pa.Table) -> None:
    """Check the values of a table of records by the rules of `flopray.store.entry`, where its types do not.

    Raises:
        ValueError: infinity or NaN, an unknown status, or text with control characters.
    """
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_floating(column.type) and not _all(pc.call_function("is_finite", [column])):
            raise ValueError(f"{name} has a value that is not finite")
        texts = _flattened(column) if pa.types.is_list(column.type) else column
        if pa.types.is_string(texts.type) and _has_hidden(texts):
            raise ValueError(f"{name} has a text with control characters")
    if "status" in table.column_names:
        known = pc.call_function("is_in", [table["status"]], pc.SetLookupOptions(pa.array(STATUS_ORDER)))
        if not _all(known):
            raise ValueError("status has an unknown word")


def _all(flags: pa.ChunkedArray) -> bool:
    """Whether no value is false; missing values count as true."""
    return pc.call_function("all", [flags]).as_py() is not False


def _flattened(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.call_function("list_flatten", [column])


def _has_hidden(texts: pa.ChunkedArray) -> bool:
    plain = pc.call_function("utf8_is_printable", [texts])
    suspect = texts.filter(pc.call_function("invert", [plain]))  # a traceback has line feeds
    options = pc.MatchSubstringOptions(_HIDDEN)
    return bool(pc.call_function("any", [pc.call_function("match_substring_regex", [suspect], options)]).as_py())
