"""The rows of figures: one for each cell, with the mean over boards where several boards share rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from flopray.report.boards.comparable import TOLD_LATER, comparable, remarks
from flopray.report.boards.data import board_names
from flopray.report.boards.means import means_of_types
from flopray.report.surface.axes import SurfaceAxes
from flopray.units import counted
from flopray.workloads.mlp import MLP

MLP_AXES = SurfaceAxes.of(MLP())
#: Columns whose values always have separate figures, whatever the workload.
GROUP = ["device_type", "precision", "execution"]


def cell_of(axes: SurfaceAxes) -> list[str]:
    """The columns that identify a cell of a figure."""
    return [*GROUP, "phase", *(axis.name for axis in (*axes.present, *axes.others))]


def latest(rows: pd.DataFrame, axes: SurfaceAxes = MLP_AXES) -> pd.DataFrame:
    """One row for each cell: where runs were merged or points repeated, the one that ended last."""
    cell = cell_of(axes)
    return rows.sort_values("ended_unix_s", kind="stable", na_position="first").drop_duplicates(cell, keep="last")


def compared(rows: Any) -> Any:
    """The rows of several boards with what older ones lack; those of one board as they are."""
    return comparable(rows) if board_names(rows).nunique() > 1 and TOLD_LATER not in rows else rows


def of_types(rows: pd.DataFrame, axes: SurfaceAxes = MLP_AXES) -> pd.DataFrame:
    """One row for each cell: the mean over boards of the type where several share rows, else the one that ended last.

    Where several boards measured the rows of a figure, energy is that at the reference temperature if all of them have
    it at the same one. Else it is as it was measured, at the temperatures that the boards had: the two are never mixed.
    """
    cell = cell_of(axes)
    rows = compared(rows.reset_index(drop=True))
    measured: Any = latest(means_of_types(rows, cell, ["device_name"], at_reference=False)[0], axes)
    if board_names(rows).nunique() < 2:
        return measured
    referred: Any = latest(means_of_types(rows, cell, ["device_name"])[0], axes)
    chosen = _at_reference(rows, referred, [name for name in cell if name not in axes.columns])
    return pd.concat([measured[~chosen], referred[chosen]])


def _at_reference(rows: Any, means: Any, figure: list[str]) -> np.ndarray:
    """Which means are of a figure that has several boards, and all its energy at one reference temperature: (R,) bool.

    Args:
        rows: that were measured.
        means: of them, at the reference temperature where all boards of a row have it; R of them.
        figure: columns that tell figures apart.
    """
    boards = rows.assign(board=board_names(rows)).groupby(figure, dropna=False)["board"].transform("nunique")
    energies = means[means["energy_j"] > 0]
    found = means[figure].merge(
        energies.assign(known=energies["energy_at"].notna())
        .groupby(figure, dropna=False)
        .agg(known=("known", "all"), temperatures=("energy_at", "nunique"))
        .reset_index(),
        on=figure,
        how="left",
    )
    alike = found["known"].eq(True) & found["temperatures"].eq(1)
    return alike.to_numpy(bool) & (boards.loc[means["row"]] > 1).to_numpy(bool)


def repeated_lines(rows: pd.DataFrame, axes: SurfaceAxes = MLP_AXES) -> list[str]:
    """A line where cells were measured more than once, and what was worked out for rows of several boards."""
    cell = cell_of(axes)
    rows = compared(rows)
    said = list(remarks(rows)) if TOLD_LATER in rows else []
    repeated = rows.loc[rows.duplicated(cell), cell].drop_duplicates()
    if repeated.empty:
        return said
    boards = max(of_types(rows, axes)["boards"].tolist())
    if boards > 1:
        what = "of boards of one type the mean is shown, on one board the measurement that ended last"
    else:
        what = "the measurement that ended last is shown"
    return [f"{counted(len(repeated), 'cell was', 'cells were')} measured more than once: {what}", *said]
