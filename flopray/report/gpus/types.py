"""The costs of a type of GPU from those of its boards, and in words what the shown intervals are of."""

from __future__ import annotations

import numpy as np

from flopray.report.boards.comparable import TOLD_LATER, remarks
from flopray.report.boards.data import noun_of
from flopray.report.boards.means import OF_BOARD, means_of_types
from flopray.report.boards.statement import statement
from flopray.report.gpus.data import PUBLISHED, SETTING, Frame, in_order, phase_name
from flopray.units import counted

#: Columns that distinguish rows of one type.
POINT = [*SETTING, "precision", "shape", "phase"]


def rows_of_types(rows: Frame) -> tuple[Frame, list[str]]:
    """One row for each point and phase on a type of GPU, as `means_of_types` gives them, and lines on what they are of.

    Args:
        rows: as `flopray.report.gpus.data.load_runs` gives them.
    """
    kept, devices = means_of_types(rows, POINT, ["gpu"])
    notes = [*(line for device in devices for line in statement(device)), *remarks(rows)]
    same = [*POINT, "gpu"]
    if TOLD_LATER in rows:  # of a mean: whether any of its measurements was
        told = rows.groupby(same, dropna=False)[TOLD_LATER].transform("any").loc[kept["row"]].to_numpy(bool)
        kept[TOLD_LATER] = told & np.isfinite(kept["energy_at"])
    alone = rows[~rows.index.isin(kept["row"])].merge(kept.loc[kept["boards"] == 1, same].drop_duplicates(), on=same)
    if len(alone):
        counts = ", ".join(f"{count} of {run or 'a run'}" for run, count in alone["run"].value_counts().items())
        notes.append(f"measured more than once on one board: the latest rows are kept, left out are {counts}")
    return kept.drop(columns="row"), notes


def intervals_said(rows: Frame, what: str) -> str:
    """What the bars of some rows are intervals of, such as `of the type (3 boards); of the window (H200: one board)`.

    Where intervals of several kinds are of phases of their own, these are named too.

    Args:
        rows: that are shown; published ones have intervals of their own and are not told.
        what: `time` or `energy`.
    """
    ours = rows[(rows["source"] != PUBLISHED) & (rows["status"] == "ok") & np.isfinite(rows[f"{what}_rel_error"])]
    kinds = list(ours.groupby(f"{what}_interval", sort=True))
    phases = [in_order(part["phase"].unique()) for _, part in kinds]
    apart = len(kinds) > 1 and sum(map(len, phases)) == len(set().union(*phases))
    said = []
    for (interval, part), named in zip(kinds, phases, strict=True):
        boards = {gpu: int(group["boards"].max()) for gpu, group in part.groupby("gpu")}
        words = ", ".join(f"{gpu}: {_boards(count, gpu)}" for gpu, count in boards.items())
        where = ", ".join(map(phase_name, named)) + "; " if apart else ""
        at = _celsius(part) if interval == OF_BOARD else ""
        said.append(f"of the {f'board at {at}' if at else interval} ({where}{words})")
    return "; ".join(said)


def bars_said(rows: Frame, *whats: str) -> str:
    """What the bars of a figure are, such as `bars: 95 % intervals of the type (H100: 3 boards)`.

    Where energy is drawn, its temperature stands before: `energy at 50 °C; bars: ...`.

    Args:
        rows: that are drawn.
        whats: `time`, `energy` or both.
    """
    said = {what: words for what in whats if (words := intervals_said(rows, what))}
    parts = [temperatures_said(rows)] if "energy" in whats else []
    if len(set(said.values())) > 1:
        parts += ["bars: 95 % intervals", *(f"{what}: {words}" for what, words in said.items())]
    elif any(np.isfinite(rows[f"{what}_rel_error"]).any() for what in whats):
        parts.append(f"bars: 95 % intervals {next(iter(said.values()), '')}".rstrip())
    return "; ".join(filter(None, parts))


def temperatures_said(rows: Frame) -> str:
    """At which temperature the energy of some rows is, such as `energy at 50 °C`; empty where none is measured."""
    ours = rows[(rows["source"] != PUBLISHED) & np.isfinite(rows["energy_j"])]
    if ours.empty:
        return ""
    at, raw = _celsius(ours), int(ours["energy_at"].isna().sum())
    if not at:
        return "energy as measured"
    return f"energy at {at}, in {counted(raw, 'row')} as measured" if raw else f"energy at {at}"


def _celsius(rows: Frame) -> str:
    """The reference temperatures of the energy of some rows, such as `50 °C`; empty where all are as measured."""
    at = sorted(rows["energy_at"].dropna().unique())
    return f"{', '.join(f'{degrees:g}' for degrees in at)} °C" if at else ""


def _boards(count: int, gpu: str) -> str:
    return f"one {noun_of(gpu)}" if count == 1 else f"{count} {noun_of(gpu)}s"
