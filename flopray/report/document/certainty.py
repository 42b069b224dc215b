"""What it was measured on, and how sure it is: boards, temperatures, stated errors, what is missing and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from flopray.report.boards.comparable import remarks
from flopray.report.boards.data import board_names, noun_of, short_names
from flopray.report.boards.statement import statement
from flopray.report.boards.table import board_tables
from flopray.report.document import energy
from flopray.report.document.content import Bars, Block, Section, Words, without_empty
from flopray.report.document.data import Measured
from flopray.report.document.words import DASH, counted, listed, percent
from flopray.report.gpus.data import Frame
from flopray.report.text_table import TextTable

_MOST_REASONS = 8
_SI = {"time": "s", "energy": "j"}
WHAT_ERRORS_ARE = (
    "±: half the width of a 95 % interval. There are three, and each number says which it has: of the window (this "
    "board, at the temperature that it had), of this board at the reference temperature, and of the type of device, "
    "which needs several boards. A number from one board does not say how far another board is from it. A few boards "
    "that disagree make the interval of the type wide, since two boards say little about a third."
)


def section(measured: Measured) -> Section:
    """The section."""
    blocks: list[Block] = [Words([WHAT_ERRORS_ARE])]
    if how := energy.method(measured.frame):
        blocks.append(how)
    blocks += [without_empty(Bars(table(measured.frame), {})) for table in (_boards, _errors)]
    for device in measured.devices:
        blocks.append(Words([line.strip() for line in statement(device)]))
        if len(device.boards) > 1:
            blocks += board_tables(device)
    if lines := [f"{line[0].upper()}{line[1:]}." for line in remarks(measured.frame)]:
        blocks.append(Words(lines, "note"))
    missing = list(_missing(measured.frame))
    blocks.append(
        Words(
            missing
            if missing
            else ["Every row has a number for all that was asked for; how exact they are is said below."]
        )
    )
    if measured.warnings:
        blocks.append(Words(measured.warnings, "note"))
    return Section("certainty", "On what, and how sure", blocks)


def in_short(measured: Measured) -> Iterator[str]:
    """How sure the numbers are, in a sentence for each type of device."""
    for device in measured.devices:
        part = measured.frame[measured.frame["device_type"] == device.name]
        errors = {what: part[f"{what}_rel_error"].dropna() for what in ("time", "energy")}
        stated = [f"{what} to {percent(float(known.median()))}" for what, known in errors.items() if len(known)]
        if not stated:
            continue
        rows = max(len(known) for known in errors.values())
        said = f"How sure: one window on {device.name} tells {listed(stated)} (median of {counted(rows, 'row')})"
        one = noun_of(device.name)
        timed = max(1, len({board for each in device.parts.values() for board in each.boards}))
        count = f"It is one {one}" if timed == 1 else f"They are of {timed} {one}s"
        others = [
            f"± {percent(error)} in {device.label(quantity)}"
            for quantity, fit in device.fits.items()
            if fit is not None and np.isfinite(error := _median(fit.other_board_errors))
        ]
        from_what = "it" if timed == 1 else "these"
        expected = f"another {device.name} is expected within {listed(others)} (95 %, median of rows)"
        unknown = f"how far another {one} is from {from_what} was not measured"
        yield f"{said}. {count}; {expected if others else unknown}."


def _median(errors: Any) -> float:
    known = errors[np.isfinite(errors)]
    return float(np.median(known)) if len(known) else float("nan")


def _boards(frame: Frame) -> TextTable:
    names = board_names(frame)
    short = short_names(list(dict.fromkeys(names)))
    rows = []
    for board in dict.fromkeys(names):
        part = frame[(names == board).to_numpy()]
        rows.append(
            [
                f"{_one(part, 'device_name')} {short[board]}",
                str(len(part)),
                _one(part, "driver_version"),
                _one(part, "torch_version"),
                _range(part, "temperature_end_c", "°C"),
                _range(part, "power_limit_w", "W"),
                _factor(part),
                days_of(part),
            ]
        )
    header = ["", "Rows", "Driver", "torch", "Temperature", "Power limit", "Factor", "Measured"]
    named = ["a GPU is named by the beginning of its UUID"] if frame["device_uuid"].notna().any() else []
    if frame["board_factor"].notna().any():
        named.append(
            "factor: energy of the board over that of its type's typical board, by standard loads, ± half its 95 % "
            "interval for one work; energy_typical_board_j of a row is that of the typical board"
        )
    return TextTable("Boards" if named else "Machines", header, [("", rows)], named)


def _factor(part: Frame) -> str:
    known = part.loc[part["board_factor"].notna(), ["board_factor", "board_factor_rel_error"]].drop_duplicates()
    return listed([f"{factor:.3f} ± {percent(error)}" for factor, error in known.itertuples(index=False)], 2) or DASH


def _errors(frame: Frame) -> TextTable:
    """Stated errors of rows, by type of device and precision."""
    rows = []
    for (device, precision), part in frame.groupby(["device_type", "precision"], sort=True):
        cells = [f"{device} {precision}", str(len(part))]
        for column in ("time_rel_error", "energy_rel_error", "energy_at_reference_rel_error"):
            errors = part[column].dropna().to_numpy(float) if column in part else np.array([])
            cells.append(
                f"{percent(np.median(errors))} / {percent(np.quantile(errors, 0.95))}" if len(errors) else DASH
            )
        met = [_met(part, "time"), _met(part, "energy")]
        rows.append([*cells, *met])
    header = ["", "Rows", "Time", "Energy", f"Energy at {_reference(frame)}", "Time at target", "Energy at target"]
    notes = [
        "stated errors: median / 95th percentile of the rows; at target: rows whose error is not above the one that "
        f"was asked for ({_targets(frame)})",
    ]
    return TextTable("Stated errors", header, [("", rows)], notes)


def _targets(frame: Frame) -> str:
    return listed([percent(float(target)) for target in sorted(frame["target_error"].dropna().unique())]) or "none"


def _reference(frame: Frame) -> str:
    known = frame["reference_temperature_c"].dropna().unique() if "reference_temperature_c" in frame else []
    return f"{known[0]:g} °C" if len(known) == 1 else "reference"


def _met(part: Frame, what: str) -> str:
    asked = part[part[f"{what}_{_SI[what]}"].notna() & part["target_error"].notna()]
    if asked.empty:
        return DASH
    # one whose error is not known is not known to be at its target
    return f"{int((asked[f'{what}_rel_error'] <= asked['target_error']).sum())} of {len(asked)}"


def _missing(frame: Frame) -> Iterator[str]:
    """A sentence for each reason why rows lack a number."""
    reasons: Counter[str] = Counter()
    failed = frame[frame["status"] != "ok"]
    for status, reason in zip(failed["status"], failed["status_reason"], strict=True):
        reasons[_said("no numbers", status, reason)] += 1
    quiet = frame[(frame["status"] == "ok") & frame["energy_j"].isna() & (frame["energy_status"] != "not_requested")]
    for status, reason in zip(quiet["energy_status"], quiet["energy_reason"], strict=True):
        reasons[_said("no energy", status, reason)] += 1
    for reason, count in reasons.most_common(_MOST_REASONS):
        yield f"{counted(count, 'row')}: {reason}."
    if len(reasons) > _MOST_REASONS:
        yield f"{counted(len(reasons) - _MOST_REASONS, 'further reason')}: flopray status has them."


def _said(what: str, status: Any, reason: Any) -> str:
    words = str(status).replace("_", " ")
    known = isinstance(reason, str) and reason and reason != words
    return f"{what}, {words}" + (f" ({str(reason).rstrip('.')})" if known else "")


#: The last second that a date of Python has.
_YEAR_9999 = 253_402_300_799.0


def days_of(frame: Frame) -> str:
    """The first and the last day of measuring, in UTC."""
    times = frame["ended_unix_s"].dropna()
    times = times[times.between(0, _YEAR_9999)]  # a clock that was wrong, or another unit, names no day
    if times.empty:
        return DASH
    days = [datetime.fromtimestamp(float(at), UTC).strftime("%Y-%m-%d") for at in (times.min(), times.max())]
    return days[0] if days[0] == days[1] else f"{days[0]} to {days[1]}"


def _one(part: Frame, name: str) -> str:
    return listed(sorted(str(value) for value in part[name].dropna().unique()), 2) or DASH


def _range(part: Frame, name: str, unit: str) -> str:
    known = part[name].dropna().to_numpy(float)
    if not len(known):
        return DASH
    low, high = float(known.min()), float(known.max())
    return f"{low:.0f} {unit}" if round(low) == round(high) else f"{low:.0f} to {high:.0f} {unit}"
