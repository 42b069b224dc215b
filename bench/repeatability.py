"""How far repeated runs of one sweep agree: the root mean square of the ratios of their rows, minus 1.

For time also the share of rows that agree within both stated errors (root of the sum of squares): as stated, and with
the part for preparing a step again (`flopray.measurement.phase`) added to errors that lack it.

    python sweeps/mlp_grid.py --n 2 8 --d 256 1024 2048 --m 16 64 128 192 256 --phases forward train_step --name a1 ...
    python bench/repeatability.py results/a1 results/a2 results/b1       # every pair
    python bench/repeatability.py docs/results/h200_repeatability/*.csv  # those of docs/method.md

Runs are folders, or tables with the columns `workload` to `tokens` of the record, `phase`, `time_s`, `time_rel_error`
and `energy_j`.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopray import load_run
from flopray.records import PREPARED_AGAIN_REL

_KEYS = ["precision", "execution", "n_layers", "width", "tokens", "phase"]


def rows_of(path: Path) -> Any:
    """Time and energy by point and phase."""
    frame: Any = pd.read_csv(path) if path.suffix == ".csv" else load_run(path)
    return frame.set_index(_KEYS).sort_index()[["time_s", "energy_j", "time_rel_error"]]


def main() -> None:
    """Print a line for each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    paths = parser.parse_args().runs
    tables = [rows_of(path) for path in paths]
    for (one, first), (other, second) in itertools.combinations(zip(paths, tables, strict=True), 2):
        values = ["time_s", "energy_j"]
        ratios = (second[values] / first[values] - 1).dropna(how="all")
        rms = np.sqrt((ratios**2).mean())
        stated, added = (
            np.hypot(first["time_rel_error"], second["time_rel_error"]).reindex(ratios.index).to_numpy(),
            np.sqrt(2) * PREPARED_AGAIN_REL,
        )
        off = np.abs(ratios["time_s"].to_numpy())
        print(
            f"{one.stem} {other.stem}: {len(ratios)} rows, time {rms['time_s']:.2%}, energy {rms['energy_j']:.2%} RMS; "
            f"times agree in {np.mean(off <= stated):.0%}, with {PREPARED_AGAIN_REL:.1%} added to each error in "
            f"{np.mean(off <= np.hypot(stated, added)):.0%}"
        )


if __name__ == "__main__":
    main()
