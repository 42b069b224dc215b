"""Additivity: the phases of one point, measured apart, against the whole that contains them.

Each phase is measured repeated by itself, so the sum of the parts is an independent estimate of the whole. It need not
be equal. A whole that costs more than its parts did work that nobody accounts for, or one of the windows missed some:
that is implausible. A whole that costs less is implausible when the device alone sets the time (CUDA graphs). In eager
and compiled mode on a GPU it is only a note, because launches of one phase hide behind the kernels of another, as long
as the whole costs at least as much as its most expensive part. On a CPU a difference is a note either way: a phase
that is repeated by itself finds its operands in caches that the whole step evicts, and the whole allocates gradients
anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flopray.audit.findings import Finding, Severity, Unjudged, is_usable, keys_of, number, rel_error, si, text

#: What must add up to what.
COMPOSITIONS = (
    ("forward_backward", ("forward", "backward")),
    ("train_step", ("forward", "backward", "optimizer_step")),
    ("train_step", ("forward_backward", "optimizer_step")),
)
#: Relative difference that is allowed besides the stated errors: thermal drift between the windows, the accumulation of
#: gradients that only the whole does, and, where the host launches every kernel, its jitter.
TOLERANCE = {"graph": 0.05, "eager": 0.10, "compile": 0.10}
#: On a CPU, measured on MLPs of 0.1 to 4 M parameters: the whole costs 0 to 25 % more than its parts.
CPU_TOLERANCE = 0.25
_QUANTITIES = (("time_s", "time_rel_error", "s"), ("energy_j", "energy_rel_error", "J"))

Row = Mapping[str, Any]


def audit_point(rows: Sequence[Row]) -> list[Finding]:
    """Findings on the phases of one point.

    Args:
        rows: the phases, measured on one device at one precision and execution; of a phase that occurs twice,
            the last row counts.

    Returns:
        Findings whose `rows` are positions in `rows`, the whole first, then its parts.
    """
    return [verdict for verdict in judge_point(rows) if isinstance(verdict, Finding)]


def judge_point(rows: Sequence[Row]) -> list[Finding | Unjudged]:
    """As `audit_point`, with an `Unjudged` when nothing could be added up."""
    places = {phase: place for place, row in enumerate(rows) if (phase := text(row, "phase"))}
    verdicts: list[Finding | Unjudged] = []
    compared = 0
    for whole, parts in COMPOSITIONS:
        if whole not in places or any(part not in places for part in parts):
            continue
        chosen = tuple(places[phase] for phase in (whole, *parts))
        for column, error_column, unit in _QUANTITIES:
            found = [number(rows[place], column) for place in chosen]
            values = [value for value in found if value is not None and value > 0]
            errors = [number(rows[place], error_column) or 0.0 for place in chosen]
            if len(values) < len(chosen) or not all(map(is_usable, errors)):
                continue
            compared += 1
            spreads = [v * rel_error(rows[place], error_column) for v, place in zip(values, chosen, strict=True)]
            finding = _compare(rows, chosen, column, unit, values, spreads)
            verdicts += [finding] if finding else []
    if not compared:
        return [Unjudged("additivity", "no whole phase has numbers beside all of its parts")]
    return verdicts


def _compare(
    rows: Sequence[Row],
    chosen: tuple[int, ...],
    column: str,
    unit: str,
    values: Sequence[float],
    spreads: Sequence[float],
) -> Finding | None:
    whole, parts = values[0], values[1:]
    total, largest = sum(parts), max(parts)
    execution = text(rows[chosen[0]], "execution") or "eager"
    on_cpu = text(rows[chosen[0]], "device_type") == "CPU"
    tolerance = CPU_TOLERANCE if on_cpu else TOLERANCE.get(execution, max(TOLERANCE.values()))
    error = math.hypot(*spreads)  # the windows are apart, so their errors are taken as independent
    allowed = tolerance * total + error
    if abs(whole - total) <= allowed:
        return None
    launched = execution != "graph" and not on_cpu
    overlapped = launched and largest * (1 - tolerance) - error <= whole < total
    names = " + ".join(str(rows[place]["phase"]) for place in chosen[1:])
    sentence = (
        f"{rows[chosen[0]]['phase']} takes {si(whole, unit)}, {names} take {si(total, unit)} "
        f"({whole / total - 1:+.1%}, allowed {allowed / total:.1%})"
    )
    if overlapped:
        sentence += "; in this execution, launches of one phase may hide behind kernels of another"
    if on_cpu:
        sentence += "; on a CPU, caches favour a phase that is repeated by itself"
    return Finding(
        "additivity",
        Severity.NOTE if overlapped or on_cpu else Severity.IMPLAUSIBLE,
        sentence,
        numbers={f"whole_{column}": whole, f"parts_{column}": total, "allowed_rel": allowed / total},
        rows=chosen,
        keys=keys_of(rows[chosen[0]]),
        excess=abs(whole - total) / allowed if allowed > 0 else math.inf,
    )
