"""Reads a table from elsewhere, cell by cell, so that one word in a column does not turn its numbers into texts."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopray.audit.device_counts import DEVICE_NAMES, counts_devices, says_which_device
from flopray.audit.findings import KNOWN
from flopray.audit.foreign import NUMBER_COLUMNS, sounds_measured
from flopray.audit.hardware import find_gpu
from flopray.audit.likely_columns import likely_column
from flopray.errors import InputError
from flopray.mappings import Json
from flopray.records import Row
from flopray.units import counted

_SEPARATORS = {".csv": (";", "\t", "|"), ".tsv": ("\t",)}
#: Name of a frame's attribute: what stands between the cells of its file.
SEPARATOR = "separator"
#: How files that are no text begin.
_PACKED = {
    b"\x1f\x8b": "packed by gzip",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"PK\x03\x04": "a ZIP archive or a workbook of Excel",
    b"PAR1": "a Parquet file under another name",
}
#: Rows of an aggregated table: values, and spreads or numbers of values.
_VALUES = {"mean", "average", "avg", "median", "min", "max", "50%"}
_SPREADS = {"std", "stdev", "stddev", "sd", "sem", "stderr", "var", "variance", "cv", "iqr", "range", "count", "n"}
#: Rows that are of all devices, among rows of one each, which are numbered: `0`, `cuda:1`, `rank 2`.
_SUMS = {"sum", "total", "all", "overall", "aggregate", "aggregated", "combined"}
_PLACE = re.compile(r"(?:(?:gpu|cuda|device|rank|nvidia|card)[\s:_#-]*)?\d+")


def read_table(path: Path) -> pd.DataFrame:
    """Rows of a .parquet, .csv, .tsv, .jsonl or .json file.

    Raises:
        InputError: another kind of file, or one that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        kinds = ", ".join(_READERS)
        hint = "; save it as CSV" if suffix in (".xlsx", ".xls", ".ods") else ""
        raise InputError(f"{path}: not a run's folder, and not a table ({kinds}){hint}")
    if path.is_dir():
        raise InputError(f"{path}: a folder, and no table: name a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: neither a file nor a folder: save what it gives as a file first")
    try:
        if suffix != ".parquet":
            _refuse_other_encodings(path)
        return _READERS[suffix](path)
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({(str(error).splitlines() or ['?'])[0]})") from error


def _refuse_other_encodings(path: Path) -> None:
    """Refuse what is no text in UTF-8, with what makes it so.

    Raises:
        InputError: it is none.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    start = content[:4]
    if packed := next((kind for magic, kind in _PACKED.items() if start.startswith(magic)), None):
        raise InputError(f"{path}: {packed}, and no text: unpack it, or save it as CSV")
    wide = _wide_encoding(start)
    try:
        content.decode("utf-8")
        place = start.find(b"\0") if wide else None
    except UnicodeDecodeError as error:
        place = error.start
    if place is not None:
        raise InputError(
            f"{path}: not UTF-8 at byte {place}: convert it first, such as iconv -f {wide or 'LATIN1'} -t UTF-8"
        )


def _wide_encoding(start: bytes) -> str | None:
    """The encoding of two or four bytes a character that a text begins in; None of one that begins otherwise.

    Without a mark at its beginning it has zeros, since the first characters of a table are ASCII.
    """
    if start in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "UTF-32"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    zeros = [byte == 0 for byte in start]
    return {(False, True, False, True): "UTF-16LE", (True, False, True, False): "UTF-16BE"}.get(tuple(zeros))  # type: ignore[arg-type]


def _read_csv(path: Path) -> pd.DataFrame:
    """All cells as text: each is read by itself, whatever the rest of its column contains."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        before, head = _head(stream)
        marks = _SEPARATORS[path.suffix.lower()]
        separator = next((mark for mark in marks if mark in head and "," not in head), ",")
        names = [name.strip() for name in next(csv.reader([head], delimiter=separator), [])]
        if not names:
            said = "it is empty" if not path.stat().st_size else "it has no names of columns"
            raise InputError(f"{path}: cannot be read ({said})")
        stream.seek(0)
        lines = csv.reader(islice(stream, before, None), delimiter=separator)
        _refuse_ragged(path, lines, len(names), before)
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise InputError(
            f"{path}: column {twice!r} appears twice: if the names stand in several rows, join them in one, such as "
            "forward_time_ms"
        )
    if len(names) == 1 and len(names[0].split()) > 1 and any(map(_is_known, names[0].split())):
        raise InputError(f"{path}: {names[0]!r:.60} is one column: separate cells by commas, semicolons, tabs or |")
    encoding = "utf-8-sig"
    frame = pd.read_csv(
        path, dtype=str, keep_default_na=False, sep=separator, encoding=encoding, index_col=False, skiprows=before
    )
    named = [name or f"column {place} without a name" for place, name in enumerate(names, 1)]
    frame = frame.set_axis(named, axis="columns")
    frame.attrs[SEPARATOR] = separator
    counting = [str(place) for place in range(len(frame))]
    if names and not names[0] and list(frame.iloc[:, 0]) == counting:  # the index that pandas writes
        return frame.iloc[:, 1:]
    return frame


def _head(lines: Iterable[str]) -> tuple[int, str]:
    """How many lines of remarks a file begins with (`# made by ...`, `sep=;`), and the first line that has names."""
    for place, line in enumerate(lines):
        if line.strip() and not line.startswith("#") and not re.fullmatch(r"sep=.\s*", line):
            return place, line
    return 0, ""


def _refuse_ragged(path: Path, lines: Any, columns: int, before: int) -> None:
    """Refuse a line with too many or too few cells: they would come under the wrong names."""
    for cells in lines:
        if cells and len(cells) != columns and any(cells):
            raise InputError(
                f"{path}, line {before + lines.line_num}: {counted(len(cells), 'cell')} under {columns} column names: "
                "quote cells that have a separator in them, and leave a missing cell empty"
            )


def _read_parquet(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    frame.columns = ["_".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns]
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    texts = [name for name in frame.columns if frame[name].dtype == object]
    if any(isinstance(cell, dict) for name in texts for cell in frame[name]):
        frame = _of_objects(frame.to_dict("records"))
    for name in frame.columns:
        if any(isinstance(cell, (bytes, np.ndarray)) for cell in frame[name]):
            frame[name] = pd.Series([_plain_cell(cell) for cell in frame[name]], index=frame.index, dtype=object)
    return frame


def _plain_cell(cell: Any) -> Any:
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell


def _read_lines(path: Path) -> pd.DataFrame:
    """JSON lines: an object each, with the fields of objects within it under dotted names."""
    rows = []
    for place, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            rows.append(_object(f"{path}, line {place}", line))
    return _of_objects(rows)


def _read_json(path: Path) -> pd.DataFrame:
    """A list of objects, also within an object; an object of columns; or an object that is one row."""
    text = path.read_text(encoding="utf-8-sig")
    if _is_lines(text):  # as Ray Tune's result.json
        return _read_lines(path)
    content = _of_pandas(parsed(str(path), text))
    if isinstance(content, dict):
        lists = [part for part in content.values() if isinstance(part, list) and part and isinstance(part[0], dict)]
        if len(lists) == 1:
            content = _with_what_holds_for_all(content, lists[0])
        elif not any(isinstance(part, list) for part in content.values()):
            content = [content]
    if isinstance(content, dict):
        lengths = {len(cells) if isinstance(cells, list) else None for cells in content.values()}
        if len(lengths) == 1 and None not in lengths:
            return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in content.items()})
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise InputError(f"{path}: neither a list of objects, one for each row, nor an object of columns of one length")
    return _of_objects(content)


def _is_lines(text: str) -> bool:
    """Whether the first two lines of a text are an object each."""
    first = [line for line in islice(text.splitlines(), 2) if line.startswith("{")]
    try:
        return len(first) == 2 and all(isinstance(json.loads(line), dict) for line in first)
    except (ValueError, RecursionError):
        return False


def _with_what_holds_for_all(content: Mapping[str, Any], rows: list[Any]) -> list[Any]:
    """Rows with what stands once beside them: names of devices, settings, numbers of devices.

    Quantities beside the rows are sums or means of them, and are left.
    """
    beside = {name: part for name, part in content.items() if part is not rows}
    shared = {name: cell for name, cell in _flat(beside).items() if _holds_for_all(name, cell)}
    return [{**shared, **row} if isinstance(row, dict) else row for row in rows]


def _holds_for_all(name: str, cell: Any) -> bool:
    if isinstance(cell, list) or sounds_measured(name) or name in NUMBER_COLUMNS:
        return False
    return isinstance(cell, str | bool) or (isinstance(cell, int) and counts_devices(name, in_all=False))


def _of_pandas(content: Any) -> Any:
    """Rows of a frame as pandas writes it with an orient other than `records`, or W&B's tables; others as they are.

    `{"time_s": {"0": 1}}` has columns, `{"0": {"time_s": 1}}` rows: whichever level has names that the audit knows.
    """
    if not isinstance(content, dict):
        return content
    columns, cells = content.get("columns"), content.get("data")
    if isinstance(columns, list) and isinstance(cells, list) and all(_has_length(row, len(columns)) for row in cells):
        return [dict(zip(map(str, columns), row, strict=True)) for row in cells]
    parts = list(content.values())
    if len(parts) < 2 or not all(isinstance(part, dict) and part for part in parts):
        return content
    labels = [tuple(part) for part in parts]
    if _known(content) > max(map(_known, labels)) and len(set(labels)) == 1:
        return [{name: part[label] for name, part in content.items()} for label in labels[0]]
    return parts if min(map(_known, labels)) > _known(content) else content


def _has_length(row: Any, length: int) -> bool:
    return isinstance(row, list) and len(row) == length


def _known(names: Iterable[Any]) -> int:
    """How many of the names are a column of the audit, or likely to be one."""
    return sum(_is_known(name) or likely_column(str(name)) is not None for name in names)


def _is_known(name: Any) -> bool:
    return name in KNOWN or name in NUMBER_COLUMNS


def _object(where: str, text: str) -> Mapping[str, Any]:
    content = parsed(where, text)
    if not isinstance(content, dict):
        raise InputError(f"{where}: {text.strip()!r:.40} is not an object")
    return content


def parsed(where: str, text: str) -> Any:
    """The content of a JSON text.

    Args:
        where: it stands, for the message.
        text: in which no object has a name twice, and which is text: half of a surrogate pair is none.

    Raises:
        InputError: it is not.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unique)
        if "\\ud" in text.lower():
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise InputError(
            f"{where}: has {half.encode('ascii', 'backslashreplace').decode()}, which is no text"
        ) from error
    except (ValueError, RecursionError) as error:
        said = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise InputError(f"{where}: not JSON ({said.splitlines()[0]:.100})") from error
    return content


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice!r:.60} appears twice")
    return dict(pairs)


def _of_objects(rows: list[Any]) -> pd.DataFrame:
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    return pd.DataFrame({name: pd.Series([row.get(name) for row in flat], dtype=object) for name in names})


def _flat(fields: Mapping[str, Any], before: str = "") -> Row:
    found: Row = {}
    for name, value in fields.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found


def without_spreads(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A table without the numbers of rows that are spreads or counts, and a line that says so.

    Such tables are what pandas' `describe` and aggregations write.
    """
    for name in [str(column) for column in frame.columns if column not in NUMBER_COLUMNS]:
        words = [cell.strip().lower() if isinstance(cell, str) else "" for cell in frame[name]]
        spreads = sorted(set(words) & _SPREADS)
        if not spreads or not set(words) & _VALUES:
            continue
        emptied = {}
        for column in [column for column in NUMBER_COLUMNS if column in frame.columns]:
            cells = [None if word in _SPREADS else cell for word, cell in zip(words, frame[column], strict=True)]
            emptied[column] = pd.Series(cells, index=frame.index, dtype=object)
        said = f"rows whose {name} is {' or '.join(spreads)} are not measurements and were not judged"
        return frame.assign(**emptied), [said]
    return frame, []


def without_sums(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A table without the numbers of rows that sum up the rows of its devices, and a line that says so."""
    for name in map(str, frame.columns):
        if not (says_which_device(name) or name in DEVICE_NAMES):
            continue
        words = [str(cell).strip().lower() for cell in frame[name]]
        others = [word for word in words if word not in _SUMS]
        if len(others) == len(words) or not all(_PLACE.fullmatch(word) or find_gpu(word) for word in others):
            continue
        emptied = {}
        for column in [column for column in NUMBER_COLUMNS if column in frame.columns]:
            cells = [None if word in _SUMS else cell for word, cell in zip(words, frame[column], strict=True)]
            emptied[column] = pd.Series(cells, index=frame.index, dtype=object)
        said = ", ".join(sorted(_SUMS.intersection(words)))
        return frame.assign(**emptied), [f"rows whose {name} is {said} are of several devices and were not judged"]
    return frame, []


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    **{".parquet": _read_parquet, ".csv": _read_csv, ".tsv": _read_csv},
    **{".jsonl": _read_lines, ".ndjson": _read_lines, ".json": _read_json},
}
