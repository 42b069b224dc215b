"""The scores of evaluations and their costs as a table."""

from __future__ import annotations

import math

from flopray.report.scores.data import Evaluations, Result
from flopray.report.text_table import TextTable
from flopray.units import counted, prefixed

_HEADER = ("model", "score", "samples", "per sample", "per point")
EXPLANATION = (
    "95 % intervals: of a score over its samples; of joules the counter's error, and per point the score's too. A "
    "point is a hundredth of the score; per sample and per point: the whole device while the model answers."
)


def table_of(found: Evaluations) -> TextTable:
    """A section for each task, a row for each series; seconds where there are no joules."""
    sections = [
        (_title(results[0]), [_row(result) for result in results])
        for task in found.tasks
        if (results := [result for result in found.results if result.task == task])
    ]
    if found.means:
        sections.append((f"{found.means[0].task} ({len(found.tasks)})", [_row(result) for result in found.means]))
    return TextTable("Scores and their costs", _HEADER, sections, [EXPLANATION, *reasons_of(found), *found.notes])


def reasons_of(found: Evaluations) -> list[str]:
    """Lines on what is missing: rows without a score, and energy."""
    lines = [f"{r.series} on {r.task}: {r.status.replace('_', ' ')}: {r.reason}" for r in found.results if r.reason]
    without = [result for result in found.results if result.status == "ok" and math.isnan(result.energy_per_sample_j)]
    for reason in dict.fromkeys(result.energy_reason or "no reason recorded" for result in without):
        count = sum((result.energy_reason or "no reason recorded") == reason for result in without)
        which = "" if count == len(found.results) else f" in {count} of {counted(len(found.results), 'row')}"
        lines.append(f"no energy{which}, seconds instead: {reason}")
    return lines


def _title(result: Result) -> str:
    return f"{result.task}, {result.metric}" if result.metric else result.task


def _row(result: Result) -> tuple[str, ...]:
    if math.isnan(result.score):
        return (result.series, result.status.replace("_", " "), "-", "-", "-")
    sample = _cost(result.energy_per_sample_j, "J", result.energy_rel_error) or _cost(result.time_per_sample_s, "s")
    point = _cost(result.energy_per_point_j, "J", result.energy_per_point_rel_error)
    point = point or _cost(result.time_per_point_s, "s", result.time_per_point_rel_error)
    known = math.isfinite(result.score_low)
    interval = f"{result.score_low:.3f} to {result.score_high:.3f}" if known else "?"
    return (result.series, f"{result.score:.3f} ({interval})", str(result.samples), sample or "-", point or "-")


def _cost(value: float, unit: str, rel_error: float | None = None) -> str:
    """A value with its error; a single run of an evaluation has no error of its time, and none is written."""
    if not math.isfinite(value):
        return ""
    error = "" if rel_error is None else " ±?" if math.isnan(rel_error) else f" ±{rel_error:.1%}"
    return f"{prefixed(value, unit)}{error}"
