"""Additivity: the phases of one point, measured apart, against the whole that contains them.

Each phase is measured repeated by itself, so the sum of the parts is an independent estimate of the whole. The two need
not be equal. A difference beyond a tolerance and the stated errors is one of three things:

* `phases_interact`, a note: the difference is one that a cache can explain (`flopray.audit.cache_bounds`). It is real
  and comes back when measured again; the finding has time and energy side by side.
* `additivity`, a note: launches of one phase may hide behind kernels of another (eager and compiled mode on a GPU, and
  a whole that costs less than its parts and at least as much as its most expensive part); or the device is a CPU,
  where a phase repeated by itself finds its operands in caches that the whole step evicts, and the whole allocates
  gradients anew.
* `additivity`, implausible: one of the windows missed work, or has too much in it.

Energies are compared at the reference temperature where all rows have them at the same one, with the errors that they
have there; otherwise as they were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from flopray.audit.cache_bounds import energy_bound_j, time_bound_s
from flopray.audit.findings import Finding, Row, Severity, Unjudged, is_usable, keys_of, number, rel_error, text
from flopray.point import is_captured
from flopray.units import prefixed

#: What must add up to what.
COMPOSITIONS = (
    ("forward_backward", ("forward", "backward")),
    ("train_step", ("forward", "backward", "optimizer_step")),
    ("train_step", ("forward_backward", "optimizer_step")),
)
#: Relative difference that is allowed besides the stated errors: thermal drift between the windows, the accumulation of
#: gradients that only the whole does, and, where the host launches every kernel, its jitter.
TOLERANCE = {"graph": 0.05, "eager": 0.10, "compile": 0.10, "compile_graph": 0.05}
#: On a CPU, measured on MLPs of 0.1 to 4 M parameters: the whole costs 0 to 25 % more than its parts.
CPU_TOLERANCE = 0.25
#: Relative difference that the FLOPs of a whole may have from those of its parts: what some closed forms leave out.
FLOPS_TOLERANCE = 0.1


class _Sum(NamedTuple):
    """One quantity of a whole beside the sum of its parts."""

    column: str
    unit: str
    whole: float
    parts: tuple[float, ...]
    error: float

    @property
    def total(self) -> float:
        return sum(self.parts)

    @property
    def difference(self) -> float:
        return self.whole - self.total

    @property
    def rel_difference(self) -> float:
        return self.whole / self.total - 1

    @property
    def quantity(self) -> str:
        return self.column.partition("_")[0]


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
    compared = False
    for whole, parts in COMPOSITIONS:
        if whole not in places or any(part not in places for part in parts):
            continue
        chosen = tuple(places[phase] for phase in (whole, *parts))
        own = [rows[place] for place in chosen]
        if _are_of_other_work(own):
            verdicts.append(Unjudged("additivity", "the FLOPs of parts and whole do not add up: other work", chosen))
            compared = True
            continue
        sums = [each for each in (_sum(own, "time_s", "time_rel_error", "s"), _energy(own)) if each is not None]
        compared = compared or bool(sums)
        verdicts += _compare(own, chosen, sums)
    if not compared:
        return [Unjudged("additivity", "no whole phase has numbers beside all of its parts")]
    return verdicts


def _are_of_other_work(rows: Sequence[Row]) -> bool:
    """Whether the FLOPs of the parts are not those of the whole, the first row: something unknown tells rows apart.

    Where all rows have the same FLOPs, they are those of a step and not of a phase.
    """
    flops = [number(row, "model_flops") for row in rows]
    known = [value for value in flops if value is not None and value > 0]
    if len(known) < len(rows) or len(set(known)) == 1:
        return False
    return abs(known[0] - sum(known[1:])) > FLOPS_TOLERANCE * max(known[0], sum(known[1:]))


def _energy(rows: Sequence[Row]) -> _Sum | None:
    """Energies at one reference temperature where all rows have them, else as measured."""
    references = {number(row, "reference_temperature_c") for row in rows}
    if len(references) == 1 and None not in references:
        at_reference = _sum(rows, "energy_at_reference_j", "energy_at_reference_rel_error", "J")
        if at_reference is not None:
            return at_reference
    return _sum(rows, "energy_j", "energy_rel_error", "J")


def _sum(rows: Sequence[Row], column: str, error_column: str, unit: str) -> _Sum | None:
    """A column of the whole, the first row, beside its parts; None where a value or a usable error is missing."""
    found = [number(row, column) for row in rows]
    values = [value for value in found if value is not None and value > 0]
    if len(values) < len(rows) or not all(is_usable(number(row, error_column) or 0.0) for row in rows):
        return None
    # The windows are apart, so their errors are taken as independent. What several rows share, such as the error of
    # the temperature coefficient, is mostly on both sides and cancels.
    error = math.hypot(*(value * rel_error(row, error_column) for value, row in zip(values, rows, strict=True)))
    return _Sum(column, unit, values[0], tuple(values[1:]), error)


def _compare(rows: Sequence[Row], chosen: tuple[int, ...], sums: Sequence[_Sum]) -> list[Finding]:
    """Findings on one whole: one for each quantity, or one for all of them where a cache can explain it."""
    execution = text(rows[0], "execution") or "eager"
    on_cpu = text(rows[0], "device_type") == "CPU"
    tolerance = CPU_TOLERANCE if on_cpu else TOLERANCE.get(execution, max(TOLERANCE.values()))
    found: list[Finding] = []
    interacting: dict[str, float] = {}
    for each in sums:
        allowed = tolerance * each.total + each.error
        if abs(each.difference) <= allowed:
            continue
        launched = not is_captured(execution) and not on_cpu
        least = max(each.parts) * (1 - tolerance) - each.error
        overlapped = launched and least <= each.whole < each.total
        explained = 0.0 if on_cpu or overlapped else _cache_bound(rows, each, sums) + each.error
        if abs(each.difference) <= explained:
            interacting[each.column] = explained
        else:
            excuse = "launches" if overlapped else "cpu" if on_cpu else None
            found.append(_not_additive(rows, chosen, each, max(allowed, explained), excuse))
    if interacting and not any(finding.severity is Severity.IMPLAUSIBLE for finding in found):
        found.append(_interaction(rows, chosen, sums, interacting))
    return found


def _cache_bound(rows: Sequence[Row], each: _Sum, sums: Sequence[_Sum]) -> float:
    whole, parts, more = rows[0], rows[1:], each.difference > 0
    if each.quantity == "time":
        return time_bound_s(whole, parts, each.total, costs_more=more)
    apart_s = next((other.difference for other in sums if other.quantity == "time"), 0.0)
    return energy_bound_j(whole, parts, each.total, apart_s, costs_more=more)


def _not_additive(
    rows: Sequence[Row], chosen: tuple[int, ...], each: _Sum, allowed: float, excuse: str | None
) -> Finding:
    names = " + ".join(str(row["phase"]) for row in rows[1:])
    sentence = (
        f"{rows[0]['phase']} takes {prefixed(each.whole, each.unit)}, {names} take {prefixed(each.total, each.unit)}"
        f"{_at_reference(rows, each)} ({each.rel_difference:+.1%}, allowed {allowed / each.total:.1%})"
    )
    if excuse == "launches":
        sentence += "; in this execution, launches of one phase may hide behind kernels of another"
    if excuse == "cpu":
        sentence += "; on a CPU, caches favour a phase that is repeated by itself"
    sentence += _temperatures(rows, each)
    return Finding(
        "additivity",
        Severity.NOTE if excuse else Severity.IMPLAUSIBLE,
        sentence,
        numbers={
            f"whole_{each.column}": each.whole,
            f"parts_{each.column}": each.total,
            "allowed_rel": allowed / each.total,
        },
        rows=chosen,
        keys=keys_of(rows[0]),
        excess=abs(each.difference) / allowed if allowed > 0 else math.inf,
    )


def _interaction(
    rows: Sequence[Row], chosen: tuple[int, ...], sums: Sequence[_Sum], explained: dict[str, float]
) -> Finding:
    """The note that phases cost more or less together than apart, with every quantity that was compared."""
    names = " + ".join(str(row["phase"]) for row in rows[1:])
    told, numbers = [], {}
    for each in sums:
        errors = each.error / each.total
        told.append(
            f"{each.quantity}{_at_reference(rows, each)} {each.rel_difference:+.1%} ± {errors:.1%}"
            f" ({prefixed(each.whole, each.unit)}, apart {prefixed(each.total, each.unit)})"
        )
        numbers |= {f"whole_{each.column}": each.whole, f"parts_{each.column}": each.total}
        if each.column in explained:
            numbers[f"explained_{each.quantity}_rel"] = explained[each.column] / each.total
    limits = " and ".join(
        f"{explained[each.column] / each.total:.1%} of {each.quantity}" for each in sums if each.column in explained
    )
    sentence = (
        f"{rows[0]['phase']} does not cost what {names} cost apart: {', '.join(told)}; what a phase finds in the cache "
        f"depends on the phase before it, which explains up to {limits}"
    )
    sentence += next((words for each in sums if (words := _temperatures(rows, each))), "")
    excess = max(abs(each.difference) / explained[each.column] for each in sums if each.column in explained)
    return Finding(
        "phases_interact", Severity.NOTE, sentence, numbers=numbers, rows=chosen, keys=keys_of(rows[0]), excess=excess
    )


def _at_reference(rows: Sequence[Row], each: _Sum) -> str:
    if each.column != "energy_at_reference_j":
        return ""
    return f" at {number(rows[0], 'reference_temperature_c'):g} °C"


def _temperatures(rows: Sequence[Row], each: _Sum) -> str:
    """How warm the board was, where energies are compared as measured and all rows say it."""
    if each.column != "energy_j":
        return ""
    known = [number(row, "temperature_end_c") for row in rows]
    degrees = [f"{value:g}" for value in known if value is not None]
    if len(degrees) < len(rows):
        return ""
    if len(set(degrees)) == 1:
        return f"; the board was at {degrees[0]} °C throughout"
    return f"; the board was at {degrees[0]} °C for the whole, at {' and '.join(degrees[1:])} °C for its parts"
