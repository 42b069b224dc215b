"""Measured values beside predictions of the models that come with flopray, and the errors of these models elsewhere.

The models were fitted to rows that come with flopray; a run among these does not test them, which the section says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from flopray.errors import FloprayError
from flopray.predict.fitting import LEARNED
from flopray.predict.judging import TARGETS
from flopray.predict.measured import measured_rows
from flopray.predict.prediction import Estimate
from flopray.predict.predictor import Group, Predictor
from flopray.predict.shipped import shipped
from flopray.predict.work import family_of
from flopray.report.document.content import Bars, Block, Section, Words, without_empty
from flopray.report.document.data import Measured
from flopray.report.document.words import DASH, percent
from flopray.report.text_table import TextTable
from flopray.units import counted
from flopray.workloads.registry import BUILT_IN

#: More rows than this are thinned evenly: a prediction takes a moment.
_MOST_ROWS = 400
_HELD_OUT = "Errors of these models on rows that they had not seen"


def section(measured: Measured) -> Section | None:
    """The section; None where the models know none of the types of device."""
    models = shipped()
    types = {device.name for device in measured.devices}
    families = {family_of(str(name)) for name in measured.frame["workload"].unique()}
    groups = [one for one in models.groups if one.where.device_type in types and one.where.family in families]
    if not groups:
        return None
    blocks: list[Block] = [without_empty(Bars(_held_out(groups), {}))]
    if compared := _compared(measured, models):
        blocks.append(compared)
    said = "flopray ask answers with these models for shapes, devices and runs that were not measured"
    blocks.append(Words([f"{said}; flopray fit RUN makes them of this run."], "note"))
    return Section("predictions", "What can be predicted, and how well", blocks, short=True)


def _compared(measured: Measured, models: Predictor) -> Bars | None:
    """Predicted over measured, by type, precision and phase."""
    workloads = {folder.workload.name: folder.workload for folder in measured.folders if folder.workload.name}
    # To know the work of a language model, its configuration is read with transformers, which imports torch.
    reading = [name for name, one in BUILT_IN.items() if one.reads_models]
    frame = measured.frame[~measured.frame["workload"].isin(reading)]
    try:
        rows = measured_rows([frame], workloads=workloads)
    except FloprayError:
        return None  # no row can be compared
    places = np.unique(np.linspace(0, len(rows.works) - 1, min(_MOST_ROWS, len(rows.works))).round().astype(int))
    found: dict[str, list[tuple[float, bool | None, float, bool | None]]] = {}
    boards = {board for group in models.groups for board in group.where.boards}
    known = 0
    for place in places:
        row: Any = rows.rows.iloc[int(place)]
        try:
            answer = models.predict(rows.works[place], device_type=str(row["device_type"]))
        except FloprayError:
            continue
        known += str(row.get("device_uuid")) in boards
        key = f"{row['device_type']} {row['precision']} {str(row['phase']).replace('_', ' ')}"
        time = _against(answer.time_s, float(rows.times_s[place]))
        energy = _against(answer.energy_j, float(rows.energies_j[place]))
        found.setdefault(key, []).append((*time, *energy))
    if not found:
        return None
    lines = [[name, str(len(each)), *_summary(each, 0), *_summary(each, 2)] for name, each in sorted(found.items())]
    header = ["", "Rows", "Time: median error", "inside", "Energy: median error", "inside "]
    notes = ["error: of the prediction, relative to what was measured"]
    if any(line[at] != DASH for line in lines for at in (3, 5)):
        notes.append("inside: rows in the 90 % interval for a board")
    if len(places) < len(rows.works):
        notes.append(f"{len(places)} of {counted(len(rows.works), 'row')}, evenly chosen")
    if known:
        notes.append("boards of this run are among those that the models were fitted to: this does not test the models")
    title = "The fit, on rows that it was made of" if known else "Predicted beside measured"
    return without_empty(Bars(TextTable(title, header, [("", lines)], notes), {}))


def _against(answer: Estimate | None, measured: float) -> tuple[float, bool | None]:
    if answer is None or not np.isfinite(measured):
        return np.nan, None
    inside = None if answer.low is None or answer.high is None else bool(answer.low <= measured <= answer.high)
    return abs(answer.value / measured - 1), inside


def _summary(each: list[Any], at: int) -> tuple[str, str]:
    errors = np.array([row[at] for row in each], float)
    errors = errors[np.isfinite(errors)]
    inside = [row[at + 1] for row in each if row[at + 1] is not None]
    share = f"{sum(inside)} of {len(inside)}" if inside else DASH
    return (percent(float(np.median(errors))) if len(errors) else DASH), share


def _held_out(groups: list[Group]) -> TextTable:
    lines = []
    for group in groups:
        cells = [cell for target in TARGETS for cell in _scores(group, target)]
        lines.append([group.where.title, str(group.where.rows), *cells])
    header = ["Fit", "Rows", "Time: error", "bias", "in 90 %", "Energy: error", "bias ", "in 90 % "]
    notes = [
        "whole values of each dimension, whole boards and whole models were held out in turn; mean absolute error, "
        "mean error, and how many rows lay in the 90 % interval",
    ]
    return TextTable(_HELD_OUT, header, [("", lines)], notes)


def _scores(group: Group, target: str) -> Iterator[str]:
    """Error, bias and coverage over all held-out rows of a fit."""
    scores = [judged.scores.get(target, {}).get(LEARNED) for judged in group.judged]
    known = [score for score in scores if score is not None and score.rows]
    if not known:
        yield from (DASH, DASH, DASH)
        return
    weights = [score.rows for score in known]
    yield percent(float(np.average([score.mape for score in known], weights=weights)))
    bias = float(np.average([score.bias for score in known], weights=weights))
    yield f"{100 * bias:+.1f} %"
    covered = [(score.coverage, score.rows) for score in known if score.coverage is not None]
    yield percent(float(np.average([c for c, _ in covered], weights=[r for _, r in covered]))) if covered else DASH
