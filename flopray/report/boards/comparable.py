"""Rows of several runs made comparable: what older rows lack is worked out when they are read, and said.

Energy at the reference temperature is younger than many runs, and so is a part of the error of time. Readers that
compare boards or GPUs take their rows from here, so that all of them compare the same numbers. Stored rows stay as they
are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from flopray.audit.cells import rows_of
from flopray.energy.reference import told_later
from flopray.records import PREPARED_AGAIN_REL
from flopray.report.boards.data import Frame, board_names, numbers_of, short_names
from flopray.settings import MeasureSettings
from flopray.store.derived import with_derived
from flopray.store.run import RunFolder
from flopray.units import counted

#: Columns that `comparable` adds: whose energy at the reference temperature is from the prior of the type, and to whose
#: error of time it added what preparing a step again changes.
TOLD_LATER, WIDENED = "told_later", "widened"
#: What energy at the reference temperature is worked out from.
_FROM = (
    *("device_name", "energy_j", "energy_rel_error", "power_w", "temperature_mean_c", "temperature_end_c"),
    *("throttle_end", "power_limit_end_w", "power_limit_w"),
)
_MOST_RUNS, _MOST_REASONS, _MOST_BOARDS = 6, 2, 3


def of_runs(folders: list[RunFolder]) -> Frame:
    """All rows of some runs, comparable.

    Args:
        folders: of the runs; rows of reference data may have been completed when these data were made, which is told
            like what is done here.
    """
    frames = []
    for folder in folders:
        frame = folder.load()
        made = folder.manifest.get("reference")
        if isinstance(made, dict) and made.get("told_later"):
            # energies of a sweep's own have the mean temperature of their windows, those of older rows that of the end
            later = frame["energy_at_reference_j"].notna() & frame["temperature_mean_c"].isna()
            frame = frame.assign(**{TOLD_LATER: later.to_numpy(bool)})
        frames.append(_with_time(frame))
    return told_at_reference(pd.concat(frames, ignore_index=True))


def comparable(frame: Frame) -> Frame:
    """The rows with what older ones lack, and the columns `TOLD_LATER` and `WIDENED`.

    Args:
        frame: with the columns of `flopray.records`; younger ones may be missing.
    """
    return told_at_reference(_with_time(frame))


def _with_time(frame: Frame) -> Frame:
    """The rows with the whole error of time, and `WIDENED`."""
    rows, _ = prepared_again(frame)
    before, after = (numbers_of(each, "time_rel_error") for each in (frame, rows))
    changed = np.isfinite(after) & (before != after)
    return rows.assign(**{WIDENED: changed | _flags(frame, WIDENED)})


def told_at_reference(frame: Frame) -> Frame:
    """The rows, with energy at the reference temperature also where they are older than it, and `TOLD_LATER`.

    The temperature is that which most rows have, the default where none has one. The type's prior and the temperature
    at the end of the window give the energy; rows at the power limit keep their reason.

    Args:
        frame: as `comparable` takes it.
    """
    celsius = _most_common(frame)
    frame = frame.assign(**{TOLD_LATER: _flags(frame, TOLD_LATER)})
    lacking = np.isfinite(numbers_of(frame, "energy_j")) & ~np.isfinite(numbers_of(frame, "energy_at_reference_j"))
    if not lacking.any():
        return frame
    rows = frame.loc[lacking, [name for name in _FROM if name in frame]]
    later: Any = pd.DataFrame(told_later(rows_of(rows), celsius), index=rows.index)
    for name in later:
        known = later[name].notna()
        if name not in frame:
            frame[name] = pd.Series(np.nan if name != "energy_at_reference_reason" else None, index=frame.index)
        if name == "energy_at_reference_reason":  # that of the sweep itself is kept
            frame[name] = frame[name].astype(object)
            known &= frame.loc[later.index, name].isna()
        frame.loc[later.index[known], name] = later.loc[known, name]
    if "energy_at_reference_j" in later:
        found = later.index[later["energy_at_reference_j"].notna()]
        frame.loc[found, TOLD_LATER] = True
        frame.loc[found, "energy_at_reference_reason"] = None
    return with_derived(frame)


def prepared_again(frame: Frame) -> tuple[Frame, int]:
    """Rows whose error of time holds what preparing a step again changes, also where they are older than that.

    A board with a row below `PREPARED_AGAIN_REL` was measured before it was added, and then none of its rows in that
    run has it.

    Args:
        frame: rows of runs, with the columns of `flopray.records`.

    Returns:
        The rows, and to how many it was added.
    """
    stated = pd.Series(numbers_of(frame, "time_rel_error"), index=frame.index)
    boards, runs = board_names(frame), frame["run"].fillna("") if "run" in frame else ""
    least: Any = stated.groupby(boards + " " + runs).transform("min")
    of_gpu = (frame["device_type"] != "CPU").to_numpy(bool)
    older = stated.notna() & (least < PREPARED_AGAIN_REL) & of_gpu
    return frame.assign(time_rel_error=stated.where(~older, np.hypot(stated, PREPARED_AGAIN_REL))), int(older.sum())


def remarks(rows: Frame) -> Iterator[str]:
    """Lines on what was worked out afterwards, and on runs that cannot be compared at the reference temperature.

    Args:
        rows: of `comparable`, or made of these.
    """
    measured = rows[numbers_of(rows, "energy_j") > 0]
    if _flags(measured, TOLD_LATER).any():
        yield _told_later_said(measured)
    temperatures = pd.Series(numbers_of(measured, "reference_temperature_c")).dropna().unique()
    if len(temperatures) > 1:
        said = " and ".join(f"{celsius:g}" for celsius in sorted(temperatures))
        yield f"energy is at {said} °C: rows at different temperatures are compared as they were measured"
    if board_names(measured).nunique() > 1:
        for run, part in measured.groupby(_runs(measured), sort=True):
            yield from _without(str(run), part, _most_common(rows))
    if widened := int(_flags(rows, WIDENED).sum()):
        yield (
            f"the error of time of {counted(widened, 'row')} has {PREPARED_AGAIN_REL:.1%} more than was stated when "
            "they were measured: a step that is captured or allocated again takes another time"
        )


def _told_later_said(rows: Frame) -> str:
    """Of which rows energy at the reference temperature was worked out afterwards, by run."""
    later = rows[_flags(rows, TOLD_LATER)]
    whole = _runs(rows).value_counts()
    parts = [
        f"{len(part)} of {counted(whole[run], 'row')} of {_named(run, part)}"
        for run, part in later.groupby(_runs(later), sort=True)
    ]
    return (
        f"energy at {_most_common(rows):g} °C of {counted(len(later), 'row')} was worked out afterwards, from the "
        "temperature at the end of the window and the temperature coefficient of the type: "
        f"{_some(parts, _MOST_RUNS, 'run')}"
    )


def _without(run: str, rows: Frame, celsius: float) -> Iterator[str]:
    """A line on a run that has rows without energy at the reference temperature; none if all have it."""
    missing = rows[~np.isfinite(numbers_of(rows, "energy_at_reference_j"))]
    if missing.empty:
        return
    reasons: Counter[str] = Counter()
    first: dict[str, str] = {}
    for reason in _reasons(missing):
        kind = re.sub(r"\d+", "", reason)
        first.setdefault(kind, reason)
        reasons[kind] += 1
    said = [f"{first[kind]} ({count})" for kind, count in reasons.most_common()]
    yield (
        f"{_named(run, missing)}: {len(missing)} of {counted(len(rows), 'row has', 'rows have')} no energy at "
        f"{celsius:g} °C and {'is' if len(missing) == 1 else 'are'} compared as measured: "
        f"{_some(said, _MOST_REASONS, 'reason')}"
    )


def _reasons(rows: Frame) -> Iterator[str]:
    """Why rows have no energy at the reference temperature, without the explanation of the reason."""
    texts: Any = rows["energy_at_reference_reason"] if "energy_at_reference_reason" in rows else [None] * len(rows)
    for text in texts:
        known = isinstance(text, str) and text
        yield re.split(r": there|, temperature|;", text)[0] if known else "power or temperature was not recorded"


def _runs(rows: Frame) -> Any:
    """The run of each row; empty where it is not known."""
    return rows["run"].fillna("").astype(str) if "run" in rows else pd.Series("", index=rows.index)


def _named(run: Any, rows: Frame) -> str:
    """A run and the boards of its rows, such as `run s0 (7b5b6020)`: runs may share a name."""
    boards = short_names(sorted(board_names(rows).unique())).values()
    said = ", ".join(boards) if len(boards) <= _MOST_BOARDS else counted(len(boards), "board")
    return f"run {run} ({said})" if run else said


def _most_common(frame: Frame) -> float:
    """The reference temperature of most rows in Celsius; the default where none has one."""
    known = pd.Series(numbers_of(frame, "reference_temperature_c")).dropna()
    return float(known.mode().iloc[0]) if len(known) else MeasureSettings.reference_temperature_c


def _flags(frame: Frame, name: str) -> np.ndarray:
    return frame[name].fillna(False).to_numpy(bool) if name in frame else np.zeros(len(frame), bool)


def _some(parts: list[str], most: int, noun: str) -> str:
    left = len(parts) - most
    return ", ".join(parts[:most]) + (f" and {counted(left, f'further {noun}')}" if left > 0 else "")
