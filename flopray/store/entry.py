r"""One point as one line of the journal, and back; every line carries its own checksum.

    {"crc32":"9ae0daaf","entry":{"trial_id":"4f1c...","status":"ok","shared":{...},"phases":[{...},{...}]}}\n

The line is valid JSON, and at the same time fixed in its first 28 bytes, so that the entry can be cut out and checked
without parsing: CRC-32 (`zlib.crc32`, eight lower-case hexadecimal digits) is over the bytes of the entry, UTF-8.
`shared` has the columns that are equal in all phases of the point, `phases` the others, one object a phase; a column
that has its default value is written in neither. Defaults are therefore part of the schema version; a line that names
no version has the one that the run began with.

Only JSON is read, and each value is checked against the type of its field, so a line from a stranger gives records or
a typed error. NaN and infinity are not values: a record that has one is refused before it is written.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import operator
import re
import zlib
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Annotated, Any

import msgspec

from flopray.errors import SchemaMismatch
from flopray.records import READABLE_VERSIONS, PhaseRecord, Row
from flopray.store.schema import COMMON, ColumnType, RecordSchema

#: The versions of columns that are read, for messages.
VERSIONS = f"{', '.join(map(str, READABLE_VERSIONS[:-1]))} or {READABLE_VERSIONS[-1]}"
#: How every intact line begins; it cannot occur inside an entry, where quotes are escaped.
LINE_START = b'{"crc32":"'
_ENTRY_AT = len(LINE_START) + 8 + len(b'","entry":')
_HEAD = re.compile(rb'\{"trial_id":"([0-9A-Za-z_-]{1,64})","status":"([a-z_]{1,32})","shared":')
_TRIAL_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
#: Control characters except tab and line feed, line separators, and characters that change the direction of writing:
#: escape sequences in a text could move a reader's cursor, or hide text. A class of a regular expression.
HIDDEN = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
#: Lone surrogates (undecodable file names in a traceback) besides.
_HIDDEN = re.compile(HIDDEN[:-1] + r"\ud800-\udfff]")

#: The status of a point is the worst of its phases; this is the order, best first.
STATUS_ORDER = (
    "ok",
    "not_requested",
    "no_energy_source",
    "no_counter_permission",
    "unsupported",
    "out_of_memory",
    "failed",
)
_RANK = {status: rank for rank, status in enumerate(STATUS_ORDER)}


def text(value: Any) -> str:
    """A text, with visible escapes for what has no UTF-8 or controls a terminal (`HIDDEN`).

    Raises:
        ValueError: it is not a text.
    """
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value if value.isprintable() else _HIDDEN.sub(lambda m: m[0].encode("unicode_escape").decode(), value)


def integer(value: Any) -> int:
    """A whole number of at most 64 bits.

    Raises:
        ValueError: it is not such a number.
    """
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError("must be a whole number of at most 64 bits")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, float) and type(value) is not int:
        raise ValueError("must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be finite (a missing value is None)")
    return number


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of texts")
    return tuple(text(item) for item in value)


_CHECKS: dict[type, Callable[[Any], Any]] = {str: text, int: integer, float: _number, bool: _flag, tuple: _texts}


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


@cache
def _checks_of(schema: RecordSchema) -> dict[str, Callable[[Any], Any]]:
    """The check of a value of each column; it returns the value as it is kept."""
    return {
        name: _or_none(_CHECKS[column.base]) if column.nullable else _CHECKS[column.base]
        for name, column in schema.types.items()
    }


def checked_columns(columns: Row, schema: RecordSchema) -> Row:
    """The columns with values of their types.

    Raises:
        ValueError: an unknown column or a value of another type; the message names the column.
    """
    checks, checked = _checks_of(schema), {}
    for name, value in columns.items():
        check = checks.get(name)
        if check is None:
            raise ValueError(f"unknown column {name[:80]!r}: a workload states its own as columns")
        try:
            checked[name] = check(value)
        except ValueError as error:
            raise ValueError(f"{name} {error}, got {value!r:.80}") from None
    return checked


def worst_status(statuses: Sequence[str]) -> str:
    """The worst of some phases' statuses, by `STATUS_ORDER`.

    Raises:
        ValueError: no status, or one that is not a word of the vocabulary.
    """
    unknown = [status for status in statuses if status not in _RANK]
    if unknown or not statuses:
        raise ValueError(f"unknown status {unknown[0]!r:.80}" if unknown else "a point has at least one phase")
    return str(max(statuses, key=_RANK.__getitem__))


def encode(phases: Sequence[PhaseRecord], schema: RecordSchema = COMMON) -> tuple[str, str, bytes]:
    r"""The line of one point.

    Args:
        phases: all records of the point, one a phase.
        schema: the columns of the run.

    Returns:
        Its trial id, its status (`worst_status`), and the line with its final `\n`.

    Raises:
        ValueError: a mistake of the caller, found before anything is written: no phases, phases of several points, the
            same phase twice, another schema version, NaN or infinity, a value that is not of its field's type.
    """
    if not phases:
        raise ValueError("a point has at least one phase")
    trial_id = phases[0].trial_id
    if not isinstance(trial_id, str) or not _TRIAL_ID.fullmatch(trial_id):
        raise ValueError(f"a trial id is 1 to 64 letters, digits, - or _, got {trial_id!r:.80}")
    if any(record.trial_id != trial_id for record in phases):
        raise ValueError(f"the phases given as point {trial_id} belong to several points")
    if len({record.phase for record in phases}) != len(phases):
        raise ValueError(f"point {trial_id} has the same phase twice")
    if any(record.schema_version not in READABLE_VERSIONS for record in phases):
        raise ValueError(f"a record of point {trial_id} is not of schema version {VERSIONS}")
    status = worst_status([record.status for record in phases])
    # A column that the schema does not know has the default None too, which is not written.
    default = schema.defaults.get
    written = [{n: v for n, v in r.columns().items() if v != default(n)} for r in phases]
    rows = [checked_columns(columns, schema) for columns in written]
    for row in rows:
        del row["trial_id"]
    shared = {n: v for n, v in rows[0].items() if all(n in row and row[n] == v for row in rows)}
    own = [{n: v for n, v in row.items() if n not in shared} for row in rows]
    content = {"trial_id": trial_id, "status": status, "shared": shared, "phases": own}
    entry = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return trial_id, status, b'%b%08x","entry":%b}\n' % (LINE_START, zlib.crc32(entry), entry)


def intact_entry(line: bytes) -> bytes | None:
    r"""The bytes of the entry when the line (without its `\n`) is whole and its checksum holds, else None."""
    entry = line[_ENTRY_AT:-1]
    if line[:_ENTRY_AT] == b'%b%08x","entry":' % (LINE_START, zlib.crc32(entry)) and line.endswith(b"}"):
        return entry
    return None


def entry_offset() -> int:
    """Where the entry begins in its line, in bytes."""
    return _ENTRY_AT


def head(entry: bytes) -> tuple[str, str]:
    """Trial id and status of an intact entry, without parsing the rest.

    Raises:
        SchemaMismatch: it does not begin as entries of this schema do.
    """
    match = _HEAD.match(entry)
    if match is None or match[2].decode() not in _RANK:
        raise SchemaMismatch(_foreign("it does not begin with a trial id and a known status"))
    return match[1].decode(), match[2].decode()


def decode(entry: bytes, schema: RecordSchema = COMMON) -> list[Row]:
    """All rows of an intact entry, one a phase, with every column (defaults filled in) in the order of the record.

    An unknown column is an error: columns change only together with the schema version, so another program wrote the
        line, and leaving the column out would hide a measurement.

    Raises:
        SchemaMismatch: the entry is not one of this schema version.
    """
    try:
        trial_id, status = head(entry)
        content = _parsed(entry, schema)
        if content.trial_id != trial_id:
            raise ValueError(_GIVEN_TWICE)
        parts = [msgspec.to_builtins(part) for part in (content.shared, *content.phases)]
        if b"\\" in entry or not entry.decode().isprintable():
            parts = [_visible(part) for part in parts]
        return _rows(trial_id, status, parts[0], parts[1:], schema)
    except msgspec.ValidationError as error:
        raise SchemaMismatch(_foreign(_explained(error, entry, schema))) from error
    except (ValueError, RecursionError) as error:
        raise SchemaMismatch(_foreign(str(error))) from error


#: What a column holds as msgspec reads it; a float that JSON can write is finite.
_READ_AS: dict[type, Any] = {
    str: str,
    int: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    float: float,
    bool: bool,
    tuple: tuple[str, ...],
}
#: The same in words, for messages.
_MUST_BE = {
    str: "must be text",
    int: "must be a whole number of at most 64 bits",
    float: "must be a finite number",
    bool: "must be true or false",
    tuple: "must be a list of texts",
}


def _entry_type(schema: RecordSchema) -> type[msgspec.Struct]:
    """An entry with the columns of a schema and no others; a column that is not written is UNSET."""
    return _type_with(tuple(schema.types.items()))


@lru_cache(maxsize=64)
def _type_with(types: tuple[tuple[str, ColumnType], ...]) -> type[msgspec.Struct]:
    # By columns: each run that is opened has a schema of its own, and a type takes milliseconds.
    columns = []
    for name, column in types:
        options = [_READ_AS[column.base], msgspec.UnsetType, *([None] if column.nullable else [])]
        columns.append((name, functools.reduce(operator.or_, options), msgspec.UNSET))
    part = msgspec.defstruct("Columns", columns, forbid_unknown_fields=True, gc=False)
    fields = [("trial_id", str), ("status", Any), ("shared", part), ("phases", list[part])]
    return msgspec.defstruct("Entry", fields, forbid_unknown_fields=True)


@lru_cache(maxsize=64)
def _decoder(schema: RecordSchema) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_entry_type(schema))


def _parsed(entry: bytes, schema: RecordSchema) -> Any:
    """The entry as `_entry_type`.

    Raises:
        ValueError: it is not JSON, or a value is not of its column's type (`msgspec.ValidationError`).
        RecursionError: it is nested deeply.
    """
    try:
        return _decoder(schema).decode(entry)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Half a surrogate pair, which `text` makes visible; NaN, whose column the message names; or not JSON.
        content: Any = msgspec.convert(json.loads(entry), _entry_type(schema))
        for part in (content.shared, *content.phases):
            for name, value in msgspec.to_builtins(part).items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise ValueError(f"{name} must be finite (a missing value is None), got {value}") from None
        return content


def _visible(columns: Row) -> Row:
    """The columns with visible escapes in their texts (`text`)."""
    checks: dict[type, Callable[[Any], Any]] = {str: text, tuple: _texts}
    return {name: checks[type(value)](value) if type(value) in checks else value for name, value in columns.items()}


_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_PLACE = re.compile(r" - at `\$\.(?:shared|phases\[(\d+)\])\.([A-Za-z0-9_]+)(?:\[[\d.]+\])?`$")


def _explained(error: msgspec.ValidationError, entry: bytes, schema: RecordSchema) -> str:
    """What is wrong with an entry: the column, what it must be, and what it is."""
    message = str(error)
    place = _PLACE.search(message)
    if place is not None and place[2] in schema.types:
        phase, name = place[1], place[2]
        why = f"{name} {_MUST_BE[schema.types[name].base]}"
        # A number too large for a float, or deep nesting, has no value to show.
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            content = msgspec.json.decode(entry)
            part = content["shared"] if phase is None else content["phases"][int(phase)]
            why += f", got {part[name]!r:.80}"
        return why
    message, _, where = message.partition(" - at `$")
    unknown = _UNKNOWN.match(message)
    if unknown is not None:
        return f"unknown column {unknown[1][:80]!r}" if where else _OTHER_KEYS
    if message.startswith("Object missing required field"):
        return _OTHER_KEYS
    if where == ".trial_id`":  # `head` has read one already
        return _GIVEN_TWICE
    return "shared is not an object, or phases is not a list of objects"


_GIVEN_TWICE = "the trial id is given twice"
_OTHER_KEYS = "it has other keys than trial_id, status, shared and phases"


def _rows(trial_id: str, status: str, shared: Row, phases: list[Row], schema: RecordSchema) -> list[Row]:
    common = schema.defaults | shared
    rows = []
    for phase in phases:
        row = common | phase
        if row["trial_id"] or row["schema_version"] not in READABLE_VERSIONS:
            raise ValueError("a phase has its own trial id or schema version")
        row["trial_id"] = trial_id
        rows.append(row)
    if worst_status([row["status"] for row in rows]) != status:
        raise ValueError("the status of the point is not the worst of its phases")
    return rows


def _foreign(why: str) -> str:
    why = " ".join(why.split())[:200]
    return f"a line of the journal is intact but not of schema version {VERSIONS}: {why}"
