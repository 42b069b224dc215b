"""The data of a document: the rows of some runs, one row of each point and phase on a type, and the boards."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import pandas as pd

from flopray.audit.cells import rows_of
from flopray.energy.reference import told_later
from flopray.errors import InputError
from flopray.report.boards.data import DeviceBoards
from flopray.report.boards.means import means_of_types
from flopray.report.gpus.comparison import Comparison, comparisons_of
from flopray.report.gpus.data import MEASURED, Frame, check_words, prepared_again, tidy
from flopray.report.gpus.types import POINT
from flopray.settings import MeasureSettings
from flopray.store.location import open_run
from flopray.store.run import RunFolder
from flopray.workloads.registry import refuse_scores

#: Phases that count as the step; the first that was measured is taken.
STEPS = ("train_step", "forward_backward", "inference", "forward", "prefill", "decode")


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        folders: the runs.
        frame: all their rows, with all columns of the records.
        rows: one row of each point and phase on a type of device, as `means_of_types` gives them; `row` is the place in
            `frame` of the measurement that it is of.
        devices: the types, with their boards.
        warnings: what the store said when the runs were read.
        told_later: rows of older runs whose energy at the reference temperature comes from the prior of their type.
        widened: rows of older runs whose error of time got what `prepared_again` adds.
    """

    folders: Sequence[RunFolder]
    frame: Frame
    rows: Frame
    devices: Sequence[DeviceBoards]
    warnings: Sequence[str]
    told_later: int = 0
    widened: int = 0

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The rows by model and execution."""
        return comparisons_of(self.rows)

    def raw(self, rows: Frame) -> Frame:
        """The columns of the records of some rows."""
        return self.frame.loc[rows["row"].tolist()]


def load(runs: Iterable[str | PathLike[str]]) -> Measured:
    """Read runs.

    Args:
        runs: folders or URIs; one that is named twice is read once.

    Raises:
        InputError: one is not a run, or none has a row.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folders = list({folder.address: folder for folder in map(open_run, runs)}.values())
        for folder in folders:
            refuse_scores(folder.workload, folder.address)
        loaded = [prepared_again(folder.load()) for folder in folders]
        frame: Any = pd.concat([rows for rows, _ in loaded], ignore_index=True)
    if frame.empty:
        raise InputError(f"{', '.join(folder.address for folder in folders)}: no rows yet")
    before = int(frame["energy_at_reference_j"].notna().sum())
    frame = _at_reference(frame)
    workloads = {folder.workload.name: folder.workload for folder in folders if folder.workload.name}
    check_words(frame, workloads, ", ".join(folder.address for folder in folders))
    rows, devices = means_of_types(tidy(frame, MEASURED, workloads), POINT, ["gpu"])
    said = list(dict.fromkeys(str(warning.message) for warning in caught))
    later = int(frame["energy_at_reference_j"].notna().sum()) - before + sum(map(_told_before, folders))
    return Measured(folders, frame, rows, devices, said, later, sum(count for _, count in loaded))


def _told_before(folder: RunFolder) -> int:
    """Rows of reference data whose energy at the reference temperature was worked out when the data were made."""
    made = folder.manifest.get("reference")
    return int(made.get("told_later", 0)) if isinstance(made, dict) else 0


def _at_reference(frame: Frame) -> Frame:
    """The rows, with energy at the reference temperature even where they are older than that column."""
    known = frame["reference_temperature_c"].dropna()
    reference_c = float(known.mode().iloc[0]) if len(known) else MeasureSettings.reference_temperature_c
    later = pd.DataFrame(told_later(rows_of(frame), reference_c), index=frame.index)
    frame = frame.copy()
    for name in later.columns.intersection(frame.columns):
        missing = frame[name].isna() & later[name].notna()
        frame.loc[missing, name] = later.loc[missing, name]
    return frame


def step_of(rows: Frame) -> Frame:
    """The rows of the phase that is the step: a whole training step where one was measured."""
    ok = rows[rows["status"] == "ok"]
    for phase in (*STEPS, *dict.fromkeys(ok["phase"])):
        chosen = ok[ok["phase"] == phase]
        if len(chosen):
            return chosen
    return ok
