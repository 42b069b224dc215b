"""The result of a search: the best point, or for several objectives the points on their Pareto front.

Points that the audit calls impossible or implausible are left out: a number that cannot be true would beat all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flopray.description import Description
from flopray.records import Row
from flopray.sweep.objectives import Objective
from flopray.sweep.summary import point_label, varying
from flopray.units import counted, prefixed

if TYPE_CHECKING:
    import pandas as pd

    from flopray.report.front import Candidates
    from flopray.report.plot.scales import Array

_DOUBTED = ("impossible:", "implausible:")
#: Most rows of a front that are printed; `summary.json` has all of them.
_PRINTED = 20


@dataclass(frozen=True)
class Winners:
    """The points of a search that have all objectives.

    Attributes:
        objectives: what was searched for, q of them.
        trial_ids: of the k points.
        labels: of the points.
        values: in SI units, shape (k, q).
        rel_errors: half widths of 95 % intervals over the values, shape (k, q), NaN where not known.
        best: positions of the best point, or of those on the front, in the order of the first objective.
        doubted: how many points were left out since the audit calls their numbers impossible or implausible.
    """

    objectives: Sequence[Objective]
    trial_ids: Sequence[str]
    labels: Sequence[str]
    values: Array
    rel_errors: Array
    best: Sequence[int]
    doubted: int

    def to_dict(self) -> list[Row]:
        """JSON-ready: trial id, point, and the objectives' values and relative errors by key."""
        rows = []
        for place in self.best:
            row: Row = {"trial_id": self.trial_ids[place], "point": self.labels[place]}
            for number, objective in enumerate(self.objectives):
                error = float(self.rel_errors[place, number])
                row[objective.key] = {"value": float(self.values[place, number])}
                row[objective.key]["rel_error"] = None if np.isnan(error) else error
            rows.append(row)
        return rows

    def candidates(self) -> Candidates:
        """The same for a figure."""
        from flopray.report.front import Candidates
        from flopray.report.front import Objective as Axis

        axes = [Axis(f"{o.metric.title} of {o.phase}", o.metric.unit, o.metric.mode == "min") for o in self.objectives]
        return Candidates(self.labels, axes, self.values, self.rel_errors)

    def within_error(self) -> int:
        """Points whose interval reaches that of the best one, with a single objective."""
        value, error = self.values[:, 0], np.nan_to_num(self.rel_errors[:, 0]) * np.abs(self.values[:, 0])
        best = self.best[0]
        return int((np.abs(value - value[best]) <= error + error[best]).sum()) - 1


def columns_of(objectives: Sequence[Objective], workload: Description) -> tuple[str, ...]:
    """The columns of a run's table that `winners_of` needs."""
    errors = {o.metric.error for o in objectives if o.metric.error}
    shared = ("trial_id", "phase", "status", "findings", "device_type", "precision", "execution")
    return (*shared, *{o.column for o in objectives}, *errors, *(f.name for f in workload.fields))


def winners_of(frame: pd.DataFrame, objectives: Sequence[Objective], workload: Description) -> Winners:
    """The winners of a search.

    Args:
        frame: records of the run, with `columns_of`.
        objectives: what was searched for.
        workload: of the run.
    """
    vary = varying(frame, workload)
    rows: dict[str, Row] = {}
    for row in frame.to_dict("records"):
        rows.setdefault(str(row["trial_id"]), {})[str(row["phase"])] = row
    points: dict[str, list[Any]] = {
        trial_id: [phases[o.phase] for o in objectives]
        for trial_id, phases in rows.items()
        if all(np.isfinite(_number(phases.get(o.phase, {}).get(o.column))) for o in objectives)
    }
    sound = {trial_id: parts for trial_id, parts in points.items() if not _is_doubted(parts)}
    shape = (len(sound), len(objectives))
    values = np.array([[part[o.column] for part, o in zip(p, objectives, strict=True)] for p in sound.values()], float)
    errors = [
        [_number(part.get(o.metric.error or "")) for part, o in zip(p, objectives, strict=True)] for p in sound.values()
    ]
    values, rel_errors = values.reshape(shape), np.array(errors, float).reshape(shape)
    labels = [point_label(parts[0], workload, vary) for parts in sound.values()]
    best = _best(values * [1 if o.metric.mode == "min" else -1 for o in objectives])
    return Winners(objectives, list(sound), labels, values, rel_errors, best, len(points) - len(sound))


def _best(costs: Array) -> list[int]:
    if not len(costs):
        return []
    if costs.shape[1] == 1:
        return [int(costs[:, 0].argmin())]
    from flopray.report.front import front_of

    return front_of(costs).tolist()


def _number(value: Any) -> float:
    """NaN where there is none."""
    return float(value) if isinstance(value, int | float | np.number) else float("nan")


def _is_doubted(parts: Sequence[Row]) -> bool:
    return any(code.startswith(_DOUBTED) for part in parts for code in part["findings"])


def print_winners(console: Console, winners: Winners) -> None:
    """Print the best point, or the front, with values and the half widths of their 95 % intervals."""
    names = ", ".join(objective.key for objective in winners.objectives)
    if not winners.best:
        console.print(f"no point has all of: {names}", highlight=False, soft_wrap=True)
    elif len(winners.objectives) == 1:
        place, objective = winners.best[0], winners.objectives[0]
        line = f"best {objective.key}: {_told(winners, place, 0)} at {winners.labels[place]}"
        near = winners.within_error()
        reaching = "interval of 1 more point reaches" if near == 1 else f"intervals of {near} more points reach"
        line += f"; the {reaching} it" if near else ""
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    else:
        style: Any = {"box": SIMPLE_HEAD, "pad_edge": False, "padding": (0, 1, 0, 0)}
        headings = [objective.key for objective in winners.objectives]
        table = Table("", "point", *headings, title=f"Pareto front, {counted(len(winners.best), 'point')}", **style)
        for number, place in enumerate(winners.best[:_PRINTED], start=1):
            cells = [_told(winners, place, column) for column in range(len(headings))]
            table.add_row(str(number), winners.labels[place], *cells)
        console.print(table)
        if len(winners.best) > _PRINTED:
            console.print(f"... and {len(winners.best) - _PRINTED} more in summary.json", highlight=False)
    if winners.doubted:
        why = "since the audit calls a number impossible or implausible"
        them = "1 point is" if winners.doubted == 1 else f"{winners.doubted} points are"
        console.print(f"{them} left out, {why}", highlight=False, soft_wrap=True)


def _told(winners: Winners, place: int, column: int) -> str:
    """Such as `1.2 ms ±0.8%`; a count of bytes has no error."""
    metric = winners.objectives[column].metric
    value, error = winners.values[place, column], winners.rel_errors[place, column]
    text = prefixed(value, metric.unit) if metric.unit else f"{value:.1%}"
    if metric.error is None:
        return text
    said = "?" if np.isnan(error) else f"{error:.1%}" if error >= 0.0005 else "<0.1%"
    return f"{text} ±{said}"
