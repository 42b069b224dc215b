"""How many points of a grid are needed: the most informative ones, random ones, and those first in the grid.

    python bench/active_search.py RUN [RUN ...] [--seeds 8]

Each RUN has a whole grid with time and energy. The error is that of a Gaussian process at the points that were not
measured. The process is the same for each order. The table has the median and the root mean square over points,
quantities and, for random orders, seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from flopray import load_run
from flopray.report.text_table import TextTable
from flopray.store.location import open_run
from flopray.sweep.active import Floats, Surrogate, features_of

_SHARES = (0.1, 0.15, 0.2, 0.3, 0.5)


def errors_of(places: Floats, truth: Floats, order: Sequence[int] | None) -> Iterator[Floats]:
    """Relative errors at points not measured, after each share of the grid; `order` None takes the most informative."""
    surrogate, known = Surrogate(places), []
    steps = [max(4, round(share * len(truth))) for share in _SHARES]
    for step in range(max(steps)):
        place = surrogate.next_of_surface() if order is None else order[step]
        surrogate.tell(place, truth[place])
        known.append(place)
        if len(known) in steps:
            rest = np.setdiff1d(np.arange(len(truth)), known)
            yield np.abs(surrogate.predict()[0][rest] / truth[rest] - 1).ravel()


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--seeds", type=int, default=8, help="random orders (default 8)")
    options = parser.parse_args(argv)
    for run in options.runs:
        names = [field.name for field in open_run(run).workload.dimensions]
        wide = load_run(run).pivot_table(index=names, columns="phase", values=["time_s", "energy_j"])
        keys, truth = [tuple(map(int, key)) for key in wide.index], wide.to_numpy(float)
        axes = {name: sorted({key[at] for key in keys}) for at, name in enumerate(names)}
        places, count = features_of(axes, keys), len(keys)
        orders: dict[str, list[Sequence[int] | None]] = {"most informative": [None]}
        seeds = range(options.seeds)
        orders["at random"] = [np.random.default_rng(seed).permutation(count).tolist() for seed in seeds]
        orders["order of the grid"] = [list(range(count))]
        rows = []
        for name, several in orders.items():
            each = [list(errors_of(places, truth, order)) for order in several]
            joined = [np.concatenate(list(parts)) for parts in zip(*each, strict=True)]
            rows.append([name, *(f"{np.median(e):.1%} / {np.sqrt(np.mean(e**2)):.1%}" for e in joined)])
        header = ["Order", *(f"{share:.0%} of {count}" for share in _SHARES)]
        note = "median / root mean square of the errors of time and energy of all phases, at points not measured"
        print(TextTable(f"{run}: error against points", header, [("", rows)], [note]).to_markdown())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
