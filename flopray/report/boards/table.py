"""Tables of the boards of a type: each board, how far pairs agree, and each board left out in turn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from flopray.report.boards.agreement import Pair, left_out, pairs
from flopray.report.boards.data import AS_MEASURED, AT_REFERENCE, TYPICAL, BoardValues, DeviceBoards, short_names
from flopray.report.text_table import TextTable

_FACTORS = "factor: against the mean of the boards in the table, ± half its 95 % interval"
_AGREE = "agree: share of rows no further apart than both stated errors (root of the sum of squares)"
_BY_A_FACTOR = (
    "different by a factor: its 95 % interval (±) does not reach 0; of simulated pairs of equal boards 0 to 6 % are "
    "called different"
)
_ROW_BY_ROW = (
    "row by row: with the factor taken out, more rows are apart than 5 % of them would be by chance (binomial test at "
    "2.5 %, as if rows were independent)"
)
_TYPICAL = (
    "energy of the typical board: that at the reference temperature over the board's factor by standard loads; what "
    "is apart is not known to these"
)
_LEFT_OUT = (
    "in type: share of the board's rows inside the interval of the mean over boards from the others; in board: inside "
    "that for another board, which should hold 95 %"
)


def board_tables(device: DeviceBoards) -> Iterator[TextTable]:
    """The tables of a type of device, where something was measured; those of pairs only where boards share rows."""
    if not device.parts:
        return
    yield _boards(device)
    table = _pairs(device)
    if table.sections:
        yield table
        yield _left_out(device)


def _boards(device: DeviceBoards) -> TextTable:
    names = short_names(device.boards)
    sections = []
    for quantity, part in device.parts.items():
        fit, rows = device.fits[quantity], []
        residuals = _residuals(part, fit.means if fit else None)
        for place, board in enumerate(part.boards):
            there = int(np.isfinite(part.values[:, place]).sum())
            known = fit is not None and fit.boards > 1 and np.isfinite(fit.factors[place])
            cells = ["-", "-", "-"]
            if known and fit is not None:
                left = residuals[:, place] - np.log1p(fit.factors[place])
                scatter = float(np.sqrt(np.nanmean(left**2)))
                cells = [f"{fit.factors[place]:+.2%}", f"{fit.factor_errors[place]:.2%}", f"{scatter:.1%}"]
            rows.append([names[board], str(there), temperatures_of(device, board), *cells])
        sections.append((device.label(quantity), rows))
    header = ["Board", "Rows", "Temperature", "Factor", "±", "Scatter"]
    notes = [_FACTORS, "scatter: root mean square of the rows about the factor, their own errors included"]
    table = TextTable(f"Boards of {device.name} ({device.device_name})", header, sections, notes, "Quantity")
    kept = table.filled_columns()
    # without shared rows there are no factors
    return table if 3 in kept else replace(table.of_columns(kept), notes=())


def _pairs(device: DeviceBoards) -> TextTable:
    names, sections, missing = short_names(device.boards), [], 0
    parts, found = device.compared_parts(), []
    for quantity, part in parts.items():
        fit = device.fits[quantity] if part is device.parts.get(quantity) else device.fit(part)
        compared = pairs(part, fit)
        found += compared
        rows = [
            [
                " / ".join(names[board] for board in reversed(pair.boards)),
                *(str(pair.rows), f"{pair.rms:.2%}", f"{pair.agree:.0%}", f"{pair.factor:+.2%}"),
                f"{pair.factor_error:.2%}" if np.isfinite(pair.factor_error) else "-",
                *(f"{pair.rms_without_factor:.2%}", f"{pair.agree_without_factor:.0%}"),
                verdict(pair),
            ]
            for pair in compared
        ]
        missing = max(missing, math.comb(len(part.boards), 2) - len(rows))
        if rows:
            sections.append((device.label(quantity), rows))
    header = ["Boards", "Rows", "Apart", "agree", "Factor", "±", "Apart\nwithout", "agree ", "Different?"]
    notes = ["apart: root mean square of the differences of shared rows; without: with the factor taken out", _AGREE]
    notes += [_BY_A_FACTOR] if any(pair.differ is not None for pair in found) else []
    notes += [_ROW_BY_ROW] if any(pair.rows_differ for pair in found) else []
    if TYPICAL in parts:
        notes.append(_TYPICAL)
    if AS_MEASURED in parts and AT_REFERENCE in parts:
        notes.append("energy as measured is that of boards at the temperatures that they had, which differ too")
    if missing:
        notes.append(f"{missing} more {'pair shares' if missing == 1 else 'pairs share'} no row")
    return TextTable(f"Boards of {device.name} in pairs", header, sections, notes, "Quantity")


def verdict(pair: Pair) -> str:
    """Whether two boards differ beyond their errors: as a whole, in single rows, or not that one could see."""
    as_a_whole = "cannot be told" if pair.differ is None else "yes, by a factor" if pair.differ else ""
    if pair.rows_differ:
        return f"{as_a_whole}, and row by row" if as_a_whole else "yes, row by row"
    return as_a_whole or "not seen"


def _left_out(device: DeviceBoards) -> TextTable:
    names, sections, known = short_names(device.boards), [], False
    for quantity, part in device.parts.items():
        rows = []
        for each in left_out(part, device.prior(quantity)):
            cells = [names[each.board], str(each.others)]
            if each.reason:
                rows.append([*cells, "0", "-", "-", each.reason])
                continue
            known = True
            rows.append(
                [*cells, str(each.rows), f"{each.median:+.2%}", f"{each.in_type:.0%}", f"{each.in_other_board:.0%}"]
            )
        sections.append((device.label(quantity), rows))
    header = ["Left out", "Others", "Rows", "Median", "in type", "in board"]
    return TextTable(f"Each board of {device.name} left out in turn", header, sections, [_LEFT_OUT] * known, "Quantity")


def _residuals(part: BoardValues, means: np.ndarray | None) -> np.ndarray:
    """Logarithms of values over the means of their rows, shape (R, B)."""
    if means is None:
        return np.full(part.values.shape, np.nan)
    return np.log(part.values / means[:, None])


def temperatures_of(device: DeviceBoards, board: str) -> str:
    """Range of the GPU's temperature at the ends of the windows on a board."""
    if "temperature_end_c" not in device.rows:
        return "-"
    found = device.rows.loc[device.rows["board"] == board, "temperature_end_c"].astype(float).dropna()
    return f"{found.min():.0f} to {found.max():.0f} °C" if len(found) else "-"
