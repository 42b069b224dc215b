"""Columns that are no measurement of an iteration: time axes, readings of counters, and sums over the steps so far."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, pairwise

from flopray.audit.cells import identities, names_of
from flopray.audit.findings import KEY_COLUMNS, KNOWN, Finding, Row, Severity, number
from flopray.audit.foreign import sounds_measured, telling_apart
from flopray.audit.limit_rules import ANY_BOARD_W

_FLOPS = ("model_flops", "executed_flops", "dispatched_flops")
_ENERGIES = ("energy_j", "active_energy_j")
#: What an axis is, in words.
AXIS = {
    "time_s": "looks like a time axis, not like the time of an iteration",
    **dict.fromkeys(_ENERGIES, "only rises: a counter, not the energy of an iteration"),
    **dict.fromkeys(_FLOPS, "rises with the steps: a sum over all of them so far, not the FLOPs of one"),
}
#: From here on a number of seconds is a date (1999 or later): nothing that is measured takes so long.
_UNIX_TIME_S = 9.0e8
#: Fewest moments of a trace in equal steps, and how much these may differ from the usual one.
_FEWEST_MOMENTS, _STEP_TOLERANCE = 6, 0.25
#: Fewest moments of a trace in unequal steps, by how much it rises in all, and how far its steps may be apart.
_FEWEST_UNEQUAL, _LEAST_RISE, _STEP_RANGE = 4, 2.0, 10.0
#: Most traces whose rows may alternate without a column that tells them apart, and fewest rows of each.
_MOST_TRACES, _FEWEST_OF_TRACE = 16, 4
#: Sizes and counts with which the cost of an iteration grows.
_SIZES = (
    *("model_flops", "dispatched_flops", "executed_flops", "gemm_flops", "tokens_per_iteration"),
    *("n_layers", "width", "tokens", "batch_size", "sequence_length"),
)
#: Names of what counts rows or steps of a log: `step`, `trainer/global_step`, `epoch`, `batch_idx`. Not `steps`, which
#: is a number of them, and so a size.
_COUNTERS = re.compile(
    r"(?:.*[\s_./-])?_?(step|iteration|iter|it|epoch|idx|index|row|line|rep|repeat|repetition|round)", re.IGNORECASE
)
_MOMENT = re.compile(r"\d{1,4}[-/:.]\d{1,2}[-/:.]\d{1,4}.*")


def axes_of(rows: Sequence[Row], further: int = 2) -> list[str]:
    """The columns that are a time axis, the readings of a counter, or a sum over the steps of a log so far.

    A trace starts at 0, falls only back to 0 (the next trace of a table), and has further values; rows that share a
    moment (one for each GPU) and cells that are not numbers do not change that. A trace that starts elsewhere rises in
    equal steps, or along with the steps of a log, or in unequal ones by more than scatter explains, while no size
    grows along with it, as one would in a sweep, and nothing else tells the rows apart. FLOPs only rise along with the
    steps of a log, or by those of one step in each row. A table may have several traces: of devices or runs, one after
    the other or in turn, or from the last moment to the first.

    Args:
        rows: of the table.
        further: fewest values above 0.

    Returns:
        Some of `AXIS`.
    """
    own = any("schema_version" in row for row in rows)  # flopray's own rows are no traces of several kinds
    by_column = cache(lambda: [] if own else list(_by_column(rows)))
    caused = cache(lambda: own or any(_causes(rows)))

    def is_axis(column: str) -> bool:
        if not any(number(row, column) is not None for row in rows):
            return False
        if _is_trace(rows, column, further) or _is_reversed(rows, column):
            return True
        others = chain(by_column(), () if caused() else _in_turn(rows, column))
        return any(all(_is_trace(part, column, further) for part in parts) for parts in others)

    return [column for column in AXIS if is_axis(column)]


def _by_column(rows: Sequence[Row]) -> Iterator[list[list[Row]]]:
    """The rows of a table in parts, for each column that tells few kinds of them apart."""
    for name in dict.fromkeys((*telling_apart(rows), *KEY_COLUMNS, "device_name", "device_uuid", "node")):
        groups: dict[str | None, list[Row]] = {}
        for row, value in zip(rows, identities(rows, name), strict=True):
            groups.setdefault(value, []).append(row)
        if 1 < len(groups) <= len(rows) / _FEWEST_OF_TRACE:
            yield list(groups.values())


def _in_turn(rows: Sequence[Row], column: str) -> Iterator[Sequence[Sequence[Row]]]:
    """Ways in which nothing but their place tells the rows of several traces apart: one after the other, or in turn."""
    values = [number(row, column) for row in rows]
    if None in values:
        return
    falls = [place for place, (a, b) in enumerate(pairwise(values), 1) if b < a]  # type: ignore[operator]
    if 0 < len(falls) < len(rows) / _FEWEST_OF_TRACE:
        yield [rows[start:end] for start, end in pairwise([0, *falls, len(rows)])]
    for count in range(2, min(_MOST_TRACES, len(rows) // _FEWEST_OF_TRACE) + 1):
        yield [rows[place::count] for place in range(count)]


def _is_reversed(rows: Sequence[Row], column: str) -> bool:
    """Whether the rows are one trace from the last moment to the first, in equal steps or down to 0."""
    values = [value for row in rows[::-1] if (value := number(row, column)) is not None]
    steps = [after - before for before, after in pairwise(values)]
    if column in _FLOPS or min(steps, default=0) <= 0 or any(_causes(rows)) or _grows_along(rows, column):
        return False
    return _in_equal_steps(values) or (values[0] == 0 and len(values) >= _FEWEST_UNEQUAL)


def _is_trace(rows: Sequence[Row], column: str, further: int) -> bool:
    """Whether the rows are one trace, in the order of time."""
    values = [value for row in rows if (value := number(row, column)) is not None]
    if not values:
        return False
    if column in _FLOPS:
        return (_accumulates(rows, column) or _are_multiples(rows, values)) and not _grows_along(rows, column)
    if column == "time_s" and min(values) > _UNIX_TIME_S:
        return True
    rises = all(after >= before or after == 0 for before, after in pairwise(values))
    if values[0] == 0:
        return rises and len(set(values)) > further
    found = _in_equal_steps(values) or _accumulates(rows, column) or _rises_without_cause(rows, column, values)
    return found and not _grows_along(rows, column)


def _moments(values: Sequence[float]) -> list[float]:
    """Values without those that repeat the one before."""
    return [value for place, value in enumerate(values) if place == 0 or value != values[place - 1]]


def _in_equal_steps(values: Sequence[float]) -> bool:
    """Whether values only rise, by about the same from one to the next; those that are equal count once."""
    moments = _moments(values)
    steps = [after - before for before, after in pairwise(moments)]
    return len(moments) >= _FEWEST_MOMENTS and _are_about_equal(steps)


def _are_about_equal(steps: Sequence[float]) -> bool:
    if min(steps) <= 0:
        return False
    usual = sorted(steps)[len(steps) // 2]
    return all(abs(step - usual) <= _STEP_TOLERANCE * usual for step in steps)


def _accumulates(rows: Sequence[Row], column: str) -> bool:
    """Whether a column at least doubles and rises by about the same for each count of a log's steps."""
    for counter in filter(_COUNTERS.fullmatch, map(str, names_of(rows))):
        seen = [
            (count, value)
            for row in rows
            if (count := number(row, counter)) is not None and (value := number(row, column)) is not None
        ]
        if any((after[0] > before[0]) != (after[1] > before[1]) for before, after in pairwise(seen)):
            continue
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(seen) if b[0] > a[0]]
        values = [value for _, value in seen]
        if len(slopes) > 1 and max(values) >= _LEAST_RISE * min(values) and _are_about_equal(slopes):
            return True
    return False


def _are_multiples(rows: Sequence[Row], values: Sequence[float]) -> bool:
    """Whether values are one, two, three, ... times the first one, and nothing else tells the rows apart."""
    steps = [after - before for before, after in pairwise(values)]
    return len(values) >= _FEWEST_UNEQUAL and _are_about_equal([values[0], *steps]) and not any(_causes(rows))


def _rises_without_cause(rows: Sequence[Row], column: str, values: Sequence[float]) -> bool:
    """Whether values of rows that nothing tells apart only rise, in unequal steps and by more than scatter explains.

    Steps that grow from one to the next are those of a sweep (1, 2, 4, 8). A counter of energy may have started long
    ago, so that it rises by little; then its values are more than any board takes in the time of the row.
    """
    moments = _moments(values)
    steps = [after - before for before, after in pairwise(moments)]
    if column in _ENERGIES and _counts_up(rows, column) and not any(_causes(rows)):
        return True
    if len(moments) < _FEWEST_UNEQUAL or min(steps) <= 0:
        return False
    doubles = moments[-1] >= _LEAST_RISE * moments[0] and max(steps) <= _STEP_RANGE * min(steps)
    sweeps = all(after > before for before, after in pairwise(steps))
    beyond = column in _ENERGIES and _beyond_any_board(rows, column)
    return ((doubles and not sweeps) or beyond) and not any(_causes(rows))


def _powers(rows: Sequence[Row], column: str) -> list[tuple[float, float]]:
    """Energies over times, and energies gained since the row before over times."""
    seen = [
        (energy_j, time_s)
        for row in rows
        if (energy_j := number(row, column)) is not None and (time_s := number(row, "time_s"))
    ]
    gained = [math.nan, *(after[0] - before[0] for before, after in pairwise(seen))]
    return [(energy_j / time_s, more_j / time_s) for (energy_j, time_s), more_j in zip(seen, gained, strict=False)]


def _beyond_any_board(rows: Sequence[Row], column: str) -> bool:
    powers = _powers(rows, column)
    return bool(powers) and min(power_w for power_w, _ in powers) > ANY_BOARD_W


def _counts_up(rows: Sequence[Row], column: str) -> bool:
    """Whether each row's energy is more than any board takes in its time, and what it gained is what one may take."""
    gained = [more_w for _, more_w in _powers(rows, column)[1:]]
    return bool(gained) and _beyond_any_board(rows, column) and all(0 < more_w <= ANY_BOARD_W for more_w in gained)


def _causes(rows: Sequence[Row]) -> Iterator[str]:
    """Columns by which rows differ other than by their place in a log: models, devices, kernels, settings."""
    for name in (*telling_apart(rows), *KEY_COLUMNS, "device_name", "device_uuid"):
        seen = {value for value in identities(rows, name) if value is not None}
        if len(seen) > 1 and not _COUNTERS.fullmatch(name) and not all(map(_MOMENT.fullmatch, seen)):
            yield name


def _grows_along(rows: Sequence[Row], column: str) -> bool:
    """Whether a size varies that costs time: a known size or count, or whole numbers other than a count of steps."""
    seen = [row for row in rows if number(row, column) is not None]
    for name in names_of(seen):
        if (
            name == column
            or (column in _FLOPS and name in _FLOPS)
            or (name in KNOWN and name not in _SIZES)
            or _COUNTERS.fullmatch(str(name))
        ):
            continue
        values = [number(row, name) for row in seen]
        if None in values or len(set(values)) < 2:
            continue
        if name in _SIZES:
            return True
        steps = {after - before for before, after in pairwise(values)}  # type: ignore[operator]
        whole = all(value == int(value) for value in values)  # type: ignore[arg-type]
        if whole and not sounds_measured(name) and not steps <= {0, 1} and (min(steps) >= 0 or max(steps) <= 0):
            return True
    return False


def without_axes(rows: Sequence[Row]) -> tuple[Sequence[Row], list[Finding]]:
    """Rows without columns that are axes of a trace, and notes that say so."""
    axes = axes_of(rows)
    if not axes:
        return rows, []
    notes = [Finding("not_understood", Severity.NOTE, f"{column} {AXIS[column]}: it was not judged") for column in axes]
    return [{name: value for name, value in row.items() if name not in axes} for row in rows], notes
