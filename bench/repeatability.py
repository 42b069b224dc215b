"""How far repeated runs of one sweep agree: the root mean square of the ratios of their rows, less 1.

    python sweeps/mlp_grid.py --n 2 8 --d 256 1024 2048 --m 16 64 128 192 256 --phases forward train_step --name a1 ...
    python bench/repeatability.py results/a1 results/a2 results/b1       # every pair
    python bench/repeatability.py docs/results/h200_repeatability/*.csv  # those of docs/method.md

Runs are folders, or tables with the columns `workload` to `tokens` of the record, `phase`, `time_s` and `energy_j`.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopray import load_run

_KEYS = ["precision", "execution", "n_layers", "width", "tokens", "phase"]


def rows_of(path: Path) -> Any:
    """Time and energy by point and phase."""
    frame: Any = pd.read_csv(path) if path.suffix == ".csv" else load_run(path)
    return frame.set_index(_KEYS).sort_index()[["time_s", "energy_j"]]


def main() -> None:
    """Print a line for each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    paths = parser.parse_args().runs
    tables = [rows_of(path) for path in paths]
    for (one, first), (other, second) in itertools.combinations(zip(paths, tables, strict=True), 2):
        ratios = (second / first - 1).dropna(how="all")
        rms = np.sqrt((ratios**2).mean())
        print(
            f"{one.stem} {other.stem}: {len(ratios)} rows, time {rms['time_s']:.2%}, energy {rms['energy_j']:.2%} RMS"
        )


if __name__ == "__main__":
    main()
