"""Coverage of the intervals of a type of device, on simulated fleets: the table of docs/method.md, "Boards".

    python bench/board_coverage.py                 # 400 fleets per line, some two minutes
    python bench/board_coverage.py --fleets 4000
    python bench/board_coverage.py --equal         # how often equal boards are called different

Each fleet has new boards, new rows and, if a prior is used, a new prior from that many boards of the same type.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from flopray.report.boards.agreement import pairs
from flopray.report.boards.data import TIME, BoardValues
from flopray.report.boards.effects import Prior, fit_boards
from flopray.testing.simulated_fleet import simulated_fleet

#: What is special about each fleet; `spread` is 1.6 % and `scatter` 1 % otherwise.
CASES: dict[str, dict[str, Any]] = {
    "64 rows": {},
    "scatter of rows unequal": {"unequal": 0.8},
    "3 of 10 values missing": {"missing": 0.3},
    "1 of 10 rows 20 % astray": {"astray": 0.1},
    "boards 0.1 % apart": {"spread": 0.001},
    "no scatter": {"scatter": 0.0},
    "1 row": {"rows": 1},
    "4 rows": {"rows": 4},
    "prior of 3 boards": {"prior": 3},
    "prior half too narrow": {"prior": 3, "prior_ratio": 0.5},
    "prior twice too wide": {"prior": 3, "prior_ratio": 2.0},
}


def coverage(fleets: int, boards: int, seed: int = 0, prior: int = 0, prior_ratio: float = 1.0, **fleet: Any) -> Any:
    """Coverage of the intervals (type, another board, factors), and the median half width of the type's."""
    rng, spread = np.random.default_rng(seed), fleet.get("spread", 0.016)
    found = []
    for _ in range(fleets):
        made = simulated_fleet(rng, boards, **fleet)
        known = None
        if prior:
            known = Prior(float(np.std(rng.normal(0, spread * prior_ratio, prior), ddof=1)), prior, "simulated")
        fit = fit_boards(made.values, made.errors, known)
        if fit is None:
            continue
        there = np.isfinite(fit.means)
        of_type = np.abs(np.log(fit.means / made.means))[there] <= fit.type_errors[there]
        another = np.abs(np.log(fit.means / made.another))[there] <= fit.other_board_errors[there]
        factors = np.abs(np.log1p(fit.factors) - (made.factors - made.factors.mean())) <= fit.factor_errors
        found.append((of_type.mean(), another.mean(), factors.mean(), np.median(fit.type_errors[there])))
    held = np.array(found)
    return np.append(held[:, :3].mean(axis=0), np.median(held[:, 3]))


def called_different(fleets: int, boards: int, seed: int = 0, **fleet: Any) -> float:
    """Share of pairs of boards without a factor between them that a verdict calls different by a factor."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(fleets):
        made = simulated_fleet(rng, boards, spread=0.0, **fleet)
        names = tuple(map(str, range(boards)))
        part = BoardValues(TIME, range(len(made.values)), names, made.values, made.errors)
        found += [bool(pair.differ) for pair in pairs(part, fit_boards(made.values, made.errors))]
    return float(np.mean(found))


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleets", type=int, default=400)
    parser.add_argument("--boards", type=int, nargs="+", default=[2, 3, 5, 8])
    parser.add_argument("--equal", action="store_true", help="boards without factors: how many are called different")
    options = parser.parse_args()
    print("| fleet | " + " | ".join(f"{boards} boards" for boards in options.boards) + " |")
    print("|---|" + "---|" * len(options.boards))
    for name, case in CASES.items():
        if options.equal:
            if "prior" not in case and "spread" not in case:
                shares = [called_different(options.fleets, boards, **case) for boards in options.boards]
                print(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)
            continue
        cells = [coverage(options.fleets, boards, **case) for boards in options.boards]
        said = [f"{t * 100:.0f} / {o * 100:.0f} / {f * 100:.0f} (± {w * 100:.1f} %)" for t, o, f, w in cells]
        print(f"| {name} | {' | '.join(said)} |", flush=True)


if __name__ == "__main__":
    main()
