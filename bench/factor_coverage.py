"""Coverage of the intervals of a board's factor, on simulated boards.

    python bench/factor_coverage.py                       # ten seconds

Each round draws a type of board: a spread between boards, as uncertain as an estimate from three boards, the boards of
a reference, and one more board. Its factor is estimated from one calibration, whose loads scatter about the factor and
have errors of their windows.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from flopray.energy.board_factor import factor_of
from flopray.energy.calibration import Calibration, LoadResult
from flopray.energy.type_reference import BOARD_SPREAD, PRIOR_DEGREES, WORK_SPREAD, reference_from

_LOADS = ("products_bf16", "products_fp32", "copy", "small_launches")


def drawn(rng: np.random.Generator, uuid: str, common: float, error: float) -> Calibration:
    """One calibration of a board with this factor; a typical board takes 1 J for each load."""
    deviation = math.hypot(WORK_SPREAD, error / 1.96)
    values = {name: common * math.exp(deviation * rng.normal()) for name in _LOADS}
    loads = tuple(
        LoadResult(load=name, time_s=1.0, power_at_reference_w=value, energy_at_reference_j=value, rel_error=error)
        for name, value in values.items()
    )
    none = {"driver_version": None, "power_limit_w": None, "node": None, "cuda_version": None, "torch_version": ""}
    return Calibration(
        **{"device_name": "simulated", "device_uuid": uuid, "flopray_version": "", **none},
        **{"measured_unix_s": 0.0, "seconds": 0.0, "reference_temperature_c": 50.0, "loads": loads},
    )


def row(boards: int, rounds: int, error: float, seed: int) -> str:
    """A line of the table: coverage of the common factor and of one work, and the median half width of the first."""
    rng = np.random.default_rng(seed + boards)
    held, held_work, widths = [], [], []
    for _ in range(rounds):
        spread = BOARD_SPREAD * math.sqrt(PRIOR_DEGREES / rng.chisquare(PRIOR_DEGREES))
        commons = np.exp(spread * rng.normal(size=boards + 1))
        reference = reference_from([drawn(rng, f"GPU-{k}", c, error) for k, c in enumerate(commons[1:])], "drawn")
        found = factor_of(drawn(rng, "GPU-own", commons[0], error), reference)
        assert found.factor is not None
        assert found.rel_error is not None
        assert found.work_rel_error is not None
        held.append(abs(found.factor / commons[0] - 1) <= found.rel_error)
        work = commons[0] * math.exp(WORK_SPREAD * rng.normal())
        held_work.append(abs(found.factor / work - 1) <= found.work_rel_error)
        widths.append(found.rel_error)
    return f"| {boards} | {np.mean(held):.1%} | {np.mean(held_work):.1%} | {np.median(widths):.1%} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000, help="for each number of boards (%(default)s)")
    parser.add_argument("--error", type=float, default=0.008, help="half width of a load's interval (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| boards of the reference | coverage, common factor | coverage, one work | median half width |")
    print("|---|---|---|---|")
    for boards in (1, 2, 3, 4, 8):
        print(row(boards, args.rounds, args.error, args.seed))


if __name__ == "__main__":
    main()
