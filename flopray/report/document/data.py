"""The data of a document: the rows of some runs, one row of each point and phase on a type, and the boards."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

from flopray.errors import InputError
from flopray.report.boards.comparable import of_runs
from flopray.report.boards.data import DeviceBoards
from flopray.report.boards.means import means_of_types
from flopray.report.gpus.comparison import Comparison, comparisons_of
from flopray.report.gpus.data import MEASURED, Frame, check_words, tidy
from flopray.report.gpus.types import POINT
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
        frame: all their rows, with all columns of the records, comparable.
        rows: one row of each point and phase on a type of device, as `means_of_types` gives them; `row` is the place in
            `frame` of the measurement that it is of.
        devices: the types, with their boards.
        warnings: what the store said when the runs were read.
    """

    folders: Sequence[RunFolder]
    frame: Frame
    rows: Frame
    devices: Sequence[DeviceBoards]
    warnings: Sequence[str]

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
        frame = of_runs(folders)
    if frame.empty:
        raise InputError(f"{', '.join(folder.address for folder in folders)}: no rows yet")
    workloads = {folder.workload.name: folder.workload for folder in folders if folder.workload.name}
    check_words(frame, workloads, ", ".join(folder.address for folder in folders))
    rows, devices = means_of_types(tidy(frame, MEASURED, workloads), POINT, ["gpu"])
    said = list(dict.fromkeys(str(warning.message) for warning in caught))
    return Measured(folders, frame, rows, devices, said)


def step_of(rows: Frame) -> Frame:
    """The rows of the phase that is the step: a whole training step where one was measured."""
    ok = rows[rows["status"] == "ok"]
    for phase in (*STEPS, *dict.fromkeys(ok["phase"])):
        chosen = ok[ok["phase"] == phase]
        if len(chosen):
            return chosen
    return ok
