"""How far boards of one type agree, from runs of the same sweep on several of them, or from a merged run.

    python sweeps/mlp_grid.py --n 2 8 --d 512 2048 --m 64 256 --precision fp32 bf16 \\
        --phases forward backward forward_backward train_step --name one      # on one board, and elsewhere --name two
    python bench/boards.py results/one results/two --out boards

For each type of device, and for time and energy, prints how far boards are apart as measured, at the reference
temperature and with the boards' factors taken out, which share of rows agrees within the stated errors at each of these
steps, and which share of the rows of each board lies in the interval from the others. With --out also writes boards.md
and boards.json. Rows that are older than the reference temperature are converted to it by the prior of their type;
the last lines say which.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopray import load_run
from flopray.errors import FloprayError
from flopray.report.boards.agreement import Pair, pairs
from flopray.report.boards.comparable import remarks, told_at_reference
from flopray.report.boards.data import AS_MEASURED, AT_REFERENCE, TIME, BoardValues, DeviceBoards, boards_of
from flopray.report.boards.statement import as_json, statement
from flopray.report.boards.table import board_tables
from flopray.report.text_table import TextTable


def steps_of(device: DeviceBoards) -> list[tuple[str, float, float, int]]:
    """Name of each step, RMS of all pairs, share of their rows that agree, and number of rows.

    The rows of energy are the same in every step: those at the reference temperature, if there are any.
    """
    found = []
    energy = AT_REFERENCE if AT_REFERENCE in device.parts else AS_MEASURED
    for quantity in (TIME, energy):
        part = device.parts.get(quantity)
        if part is None:
            continue
        if quantity == AT_REFERENCE and device.as_measured is not None:
            raw = of_rows(device.as_measured, part.keys)
            found += _both(AS_MEASURED, pairs(raw, device.fit(raw)))
        found += _both(device.label(quantity), pairs(part, device.fits[quantity]))
    return [step for step in found if step[3]]


def _both(name: str, compared: Sequence[Pair]) -> list[tuple[str, float, float, int]]:
    return [_step(name, compared), _step(f"{name}, boards' factors taken out", compared, without=True)]


def of_rows(part: BoardValues, keys: Sequence[Any]) -> BoardValues:
    """The values of some rows."""
    wanted = set(keys)
    kept = np.array([key in wanted for key in part.keys], bool)
    there = [key for key in part.keys if key in wanted]
    return BoardValues(part.quantity, there, part.boards, part.values[kept], part.errors[kept])


def _step(name: str, compared: Sequence[Pair], without: bool = False) -> tuple[str, float, float, int]:
    rows = np.array([pair.rows for pair in compared], float)
    if not rows.sum():
        return name, float("nan"), float("nan"), 0
    rms = np.array([pair.rms_without_factor if without else pair.rms for pair in compared])
    agree = np.array([pair.agree_without_factor if without else pair.agree for pair in compared])
    return (
        name,
        float(np.sqrt(np.average(rms**2, weights=rows))),
        float(np.average(agree, weights=rows)),
        int(rows.sum()),
    )


def steps_table(device: DeviceBoards) -> TextTable:
    """RMS and agreement at each step."""
    rows = [[name, str(count), f"{rms:.2%}", f"{agree:.0%}"] for name, rms, agree, count in steps_of(device)]
    notes = ["over all pairs of boards; rows agree within both stated errors (root of the sum of squares)"]
    return TextTable(f"{device.name}: apart", ["Step", "Rows", "RMS", "agree"], [("all", rows)], notes, "")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, and write them to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for boards.md and boards.json")
    options = parser.parse_args(argv)
    try:
        frame = told_at_reference(pd.concat([load_run(run) for run in options.runs], ignore_index=True))
    except FloprayError as error:
        parser.error(str(error))
    devices = list(boards_of(frame))
    if not devices:
        parser.error("no row of the runs has the status ok")
    parts = []
    for device in devices:
        tables = [steps_table(device), *board_tables(device)]
        shown = [table.to_markdown() for table in tables if table.sections[0][1]]
        parts.append("\n".join(["```", *statement(device), "```", "", *shown]))
    parts += [f"- {line}" for line in remarks(frame)]
    markdown = "\n".join(parts)
    print(markdown)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "boards.md").write_text(markdown, encoding="utf-8")
        text = json.dumps({device.device_name: as_json(device) for device in devices}, indent=1, allow_nan=False)
        (options.out / "boards.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
