"""Which part of a board makes its energy differ from another's: a factor, power at rest, or bytes of the memory.

    python bench/board_parts.py docs/results/boards/h200_4bc7 docs/results/boards/h200_7757

For each pair of boards of one type, energy at 50 °C of the rows that both have is fitted by least squares,

    ln E_a - ln E_b = factor + rest x time / E + memory x bytes / E,

with all three and with one or two of them. Bytes are the least that a phase moves, if the data that it reads again do
not fit into the cache. Each fit is tested on the phases of every point that it has not seen.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from boards import told_at_reference

from flopray import load_run
from flopray.predict.work import work_of_row
from flopray.report.boards.data import short_names

POINT = ["workload", "precision", "execution", "n_layers", "width", "tokens"]
#: Rows with more data than this fetch them from memory (`flopray.predict.roofline` fits 23 to 31 MB).
CACHE_BYTES, STEEP = 30e6, 4
PARTS = {"factor": (0,), "factor, rest": (0, 1), "factor, memory": (0, 2), "factor, rest, memory": (0, 1, 2)}


def memory_bytes(row: dict[str, Any]) -> float:
    """Approximate bytes that an iteration reads from memory or writes to it."""
    work = work_of_row({name: value for name, value in row.items() if name in ("workload", "phase") or _there(value)})
    return work.moved_bytes / (1 + (CACHE_BYTES / max(work.working_bytes, 1.0)) ** STEEP)


def _there(value: Any) -> bool:
    return not isinstance(value, np.ndarray | list) and not pd.isna(value)


def parts_of(one: Any, other: Any) -> tuple[Any, Any, Any]:
    """Differences of shared rows, the factors of the three parts, shape (R, 3), and the point of each row."""
    both = one.merge(other, on=[*POINT, "phase"], suffixes=("", "_other")).dropna(
        subset=["energy_at_reference_j", "energy_at_reference_j_other"]
    )
    energy_j, other_j, time_s = (
        both[name].to_numpy(float) for name in ("energy_at_reference_j", "energy_at_reference_j_other", "time_s")
    )
    bytes_ = np.array([memory_bytes(row) for row in both.astype(object).to_dict("records")])
    columns = np.column_stack([np.ones(len(both)), time_s / energy_j, bytes_ / energy_j])
    return np.log(energy_j / other_j), columns, both.groupby(POINT).ngroup().to_numpy()


def left_unseen(differences: Any, columns: Any, points: Any) -> float:
    """Root mean square of the residuals of a fit in the rows of held-out points."""
    left = np.empty(len(differences))
    for point in np.unique(points):
        out = points == point
        found = np.linalg.lstsq(columns[~out], differences[~out], rcond=None)[0]
        left[out] = differences[out] - columns[out] @ found
    return float(np.sqrt(np.mean(left**2)))


def errors_of(differences: Any, columns: Any) -> tuple[Any, Any]:
    """Coefficients and their standard errors."""
    found, *_ = np.linalg.lstsq(columns, differences, rcond=None)
    left = differences - columns @ found
    variance = left @ left / (len(left) - columns.shape[1])
    return found, np.sqrt(np.diag(np.linalg.inv(columns.T @ columns)) * variance)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of all pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs of MLPs")
    options = parser.parse_args(argv)
    frame = told_at_reference(pd.concat([load_run(run) for run in options.runs], ignore_index=True))
    frame = frame[frame["status"] == "ok"]
    names = short_names(sorted(set(frame["device_uuid"])))
    print(f"| boards | rows | {' | '.join(f'residual: {name}' for name in PARTS)} | rest, W | memory, pJ/B |")
    print("|---|---|" + "---|" * (len(PARTS) + 2))
    for _, rows in frame.groupby(["device_type", "device_name"]):
        boards = dict(list(rows.groupby("device_uuid")))
        for one, other in itertools.combinations(boards, 2):
            differences, columns, points = parts_of(boards[one], boards[other])
            left = [f"{left_unseen(differences, columns[:, list(used)], points):.2%}" for used in PARTS.values()]
            found, errors = errors_of(differences, columns)
            cells = [f"{found[1]:+.1f} ± {errors[1]:.1f}", f"{found[2] * 1e12:+.1f} ± {errors[2] * 1e12:.1f}"]
            print("| " + " | ".join([f"{names[one]} minus {names[other]}", str(len(points)), *left, *cells]) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
