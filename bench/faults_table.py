"""The table of a campaign of `faults.py`, for docs/reliability.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

_HEAD = (
    "| kind | rounds | real profiler | finished before | lost | duplicates | hangs | wrong messages | end | resume |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def markdown(outcomes: Iterable[Any], skipped: Mapping[str, str]) -> str:
    """A row for each kind and one for all; medians of points and seconds, counts of everything else.

    Args:
        outcomes: the results of `rounds.play`.
        skipped: kinds that could not run on this machine, with the reason.
    """
    by_kind: dict[str, list[Any]] = {}
    for outcome in outcomes:
        by_kind.setdefault(outcome.kind, []).append(outcome)
    rows = [_row(name, by_kind[name]) for name in sorted(by_kind)]
    everything = [outcome for group in by_kind.values() for outcome in group]
    if everything:
        rows.append(_row("**all**", everything))
    told = [f"\n{name} was skipped: {reason}\n" for name, reason in sorted(skipped.items())]
    return _HEAD + "".join(rows) + "".join(told)


def _row(name: str, group: list[Any]) -> str:
    real = sum(outcome.conditions.startswith("real") for outcome in group)
    cells = [name, len(group), real, _median([outcome.finished_before for outcome in group], "")]
    cells += [sum(len(getattr(outcome, what)) for outcome in group) for what in ("lost", "duplicates", "hangs")]
    cells.append(sum(bool(outcome.wrong) for outcome in group))
    cells += [_median([getattr(outcome, what) for outcome in group], " s") for what in ("end_s", "resume_s")]
    return "| " + " | ".join(map(str, cells)) + " |\n"


def _median(values: list[float | None], unit: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    middle = statistics.median(known)
    return f"{middle:.1f}{unit}" if unit else f"{middle:.0f}"
