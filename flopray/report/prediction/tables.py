"""Errors of fitted models as tables: each held-out set, and all of a group together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flopray.predict.energy import UNITS
from flopray.predict.fitting import MODELS
from flopray.predict.judging import TARGETS, Judgement, Score
from flopray.predict.predictor import Group, Predictor
from flopray.predict.roofline import CONSTANTS, NAMES, start_of
from flopray.report.text_table import TextTable
from flopray.units import prefixed

#: Models as columns, by number, so that time and energy are side by side.
_NUMBERS = {model: str(number) for number, model in enumerate(MODELS, start=1)}
LEGEND = "1 constant FLOP/s and FLOPs/J, 2 power law, 3 roofline with launch, 4 roofline and a learned residual"
_LONGEST = 15
#: A coverage of fewer rows is not stated.
_LEAST_COVERED = 20


def overall(judged: Sequence[Judgement], target: str, model: str) -> Score | None:
    """All rows of all sets together, each as often as it was held out; None without any.

    Coverage is missing where intervals were there for fewer than 20 rows: one row of three says nothing.
    """
    scores = [score for one in judged if (score := one.scores.get(target, {}).get(model)) is not None]
    rows = np.array([score.rows for score in scores], float)
    if not len(scores):
        return None
    covered = [(score.coverage, score.rows) for score in scores if score.coverage is not None]
    shares, counts = zip(*covered, strict=True) if covered else ((), ())
    known = sum(counts) >= _LEAST_COVERED
    return Score(
        rows=int(rows.sum()),
        mape=float(np.average([score.mape for score in scores], weights=rows)),
        bias=float(np.average([score.bias for score in scores], weights=rows)),
        coverage=float(np.average(shares, weights=counts)) if known else None,
    )


def percent(ratio: float | None) -> str:
    """Two digits, such as `4.1` or `12`; a dash where there is none."""
    if ratio is None or not np.isfinite(ratio):
        return "-"
    value = 100 * ratio
    return f"{value:.1f}" if abs(value) < 9.95 else f"{value:.0f}"


def sets_table(group: Group) -> TextTable:
    """MAPE of each model on each held-out set of a group.

    Args:
        group: of a predictor.
    """
    lines = []
    for one in group.judged:
        numbers = [percent(_mape(one.scores.get(t, {}).get(m))) for t in TARGETS for m in MODELS]
        place = "edge" if one.held_out.edge else "inside" if one.inside == 1 else "mixed"
        lines.append([_short(one.held_out.label), str(one.held_out.rows), place, *numbers])
    whole = [percent(_mape(overall(group.judged, t, m))) for t in TARGETS for m in MODELS]
    if group.judged:
        lines.append(["all", str(sum(one.held_out.rows for one in group.judged)), "", *whole])
    header = ["held out", "rows", "where", *(f"{t}\n{_NUMBERS[m]}" for t in TARGETS for m in MODELS)]
    return TextTable(group.where.label, header, [("", lines)])


def overall_table(predictor: Predictor) -> TextTable:
    """Each group in a line for each model: MAPE, bias and coverage over all held-out rows."""
    sections = []
    for group in predictor.groups:
        rows = []
        for model in MODELS:
            cells = [_NUMBERS[model] + " " + model.replace("_", " ")]
            scores = [overall(group.judged, target, model) for target in TARGETS]
            if group.where.carried_from and not any(scores):
                continue  # models 1 and 2 know one type alone
            for score in scores:
                cells += [percent(score.mape if score else None), percent(score.bias if score else None)]
                cells.append(percent(score.coverage) if score and score.coverage is not None else "-")
            rows.append(cells)
        sections.append((group.where.title, rows))
    header = ["model", *(f"{t}\n{name}" for t in TARGETS for name in ("MAPE", "bias", "coverage"))]
    notes = ["in %; coverage of 90 % intervals, each made of the errors of the other sets"]
    return TextTable("Errors on held-out rows", header, sections, notes, section_name="GPU")


def constants_table(group: Group) -> TextTable:
    """Constants of model 3 in SI units; constants that no row determines are left out."""
    return constants_tables([group])


def constants_tables(groups: Sequence[Group]) -> TextTable:
    """Constants of model 3, a group a column; those that were carried follow from their datasheets."""
    groups = [group for group in groups if not group.where.carried_from]
    units = {one.name: one.unit for one in CONSTANTS} | UNITS
    rows = []
    for name, unit in units.items():
        cells = [_constant(group, name, unit) for group in groups]
        if any(cell != "-" for cell in cells):
            rows.append([name, *cells])
    several = [len({getattr(group.where, name) for group in groups}) > 1 for name in ("execution", "family")]
    header = ["constant", *(_heading(group, *several) for group in groups)]
    return TextTable("Constants of model 3", header, [("", rows)])


def _heading(group: Group, executions: bool, families: bool) -> str:
    """The type and the precision; the execution and the family where other groups have another one."""
    where = group.where
    words = [where.device_type, where.precision, *([where.execution] if executions else [])]
    return "\n".join([*words, *([where.family] if families else [])])


def _constant(group: Group, name: str, unit: str) -> str:
    fit = group.fit
    values = fit.time.constants | (fit.energy.constants if fit.energy else {})
    start = dict(zip(NAMES, np.exp(start_of(fit.device, group.where.precision)), strict=True))
    value = values.get(name, 0.0)
    if not value or (name in start and abs(value / start[name] - 1) < 1e-6):
        return "-"
    return f"{value:.3g}" if unit == "1" else prefixed(value, unit)


def _mape(score: Score | None) -> float | None:
    return None if score is None else score.mape


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
