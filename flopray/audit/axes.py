"""Columns that are no measurement of an iteration: time axes, readings of counters, and sums over the steps so far."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from flopray.audit.cells import identities, names_of
from flopray.audit.findings import KEY_COLUMNS, KNOWN, Finding, Row, Severity, number
from flopray.audit.foreign import sounds_measured, telling_apart
from flopray.audit.limit_rules import ANY_BOARD_W

#: What an axis is, in words.
AXIS = {
    "time_s": "looks like a time axis, not like the time of an iteration",
    "energy_j": "only rises: a counter, not the energy of an iteration",
    "model_flops": "rises with the steps: a sum over all of them so far, not the FLOPs of one",
}
#: From here on a number of seconds is a date (1999 or later): nothing that is measured takes so long.
_UNIX_TIME_S = 9.0e8
#: Fewest moments of a trace in equal steps, and how much these may differ from the usual one.
_FEWEST_MOMENTS, _STEP_TOLERANCE = 6, 0.25
#: Fewest moments of a trace in unequal steps, by how much it rises in all, and how far its steps may be apart.
_FEWEST_UNEQUAL, _LEAST_RISE, _STEP_RANGE = 4, 2.0, 10.0
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


def is_axis(rows: Sequence[Row], column: str, further: int = 2) -> bool:
    """Whether a column is a time axis, the readings of a counter, or a sum over the steps of a log so far.

    A trace starts at 0, falls only back to 0 (the next trace of a table), and has further values; rows that share a
    moment (one for each GPU) and cells that are not numbers do not change that. A trace that starts elsewhere rises in
    equal steps, or along with the steps of a log, or in unequal ones by more than scatter explains, while no size
    grows along with it, as one would in a sweep, and nothing else tells the rows apart.

    Args:
        rows: of the table.
        column: one of `AXIS`; FLOPs only rise along with the steps of a log.
        further: fewest values above 0.
    """
    values = [value for row in rows if (value := number(row, column)) is not None]
    if not values:
        return False
    if column == "model_flops":
        return _accumulates(rows, column) and not _grows_along(rows, column)
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


def _rises_without_cause(rows: Sequence[Row], column: str, values: Sequence[float]) -> bool:
    """Whether values of rows that nothing tells apart only rise, in unequal steps and by more than scatter explains.

    Steps that grow from one to the next are those of a sweep (1, 2, 4, 8). A counter of energy may have started long
    ago, so that it rises by little; then its values are more than any board takes in the time of the row.
    """
    moments = _moments(values)
    steps = [after - before for before, after in pairwise(moments)]
    if len(moments) < _FEWEST_UNEQUAL or min(steps) <= 0:
        return False
    doubles = moments[-1] >= _LEAST_RISE * moments[0] and max(steps) <= _STEP_RANGE * min(steps)
    sweeps = all(after > before for before, after in pairwise(steps))
    return ((doubles and not sweeps) or (column == "energy_j" and _beyond_any_board(rows))) and not any(_causes(rows))


def _beyond_any_board(rows: Sequence[Row]) -> bool:
    powers = [
        energy_j / time_s
        for row in rows
        if (energy_j := number(row, "energy_j")) is not None and (time_s := number(row, "time_s"))
    ]
    return bool(powers) and min(powers) > ANY_BOARD_W


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
        if name == column or (name in KNOWN and name not in _SIZES) or _COUNTERS.fullmatch(str(name)):
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
    axes = [column for column in AXIS if is_axis(rows, column)]
    if not axes:
        return rows, []
    notes = [Finding("not_understood", Severity.NOTE, f"{column} {AXIS[column]}: it was not judged") for column in axes]
    return [{name: value for name, value in row.items() if name not in axes} for row in rows], notes
