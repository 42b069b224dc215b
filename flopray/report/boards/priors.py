"""What is known of the spread between boards of a type before any is measured, with its source and how many boards it
is of.

A prior is of so few boards that it brings few degrees of freedom; boards that contradict it leave it out
(`flopray.report.boards.effects`). Types that are not listed have none.
"""

from __future__ import annotations

import math

from flopray.report.boards.effects import Prior

#: Root mean square of the constant factors between three H100 SXM boards, two by two, energy at 60 C: 64 rows of MLPs,
#: four phases, each board on another machine, driver 580.159, torch 2.11, measured with flopray on 2026-11-27.
_H100_ENERGY = (0.016, 0.031, 0.017)
#: The same of time. Scatter of rows is inside, so that the spread is rather too wide.
_H100_TIME = (0.006, 0.007, 0.004)
_SOURCE = "three H100 SXM boards of three machines, the same 64 rows, 2026-11-27 (docs/method.md, Boards)"


def _of_pairs(*differences: float) -> float:
    """Standard deviation of three boards from the differences of all pairs: the variance is the sum of squares / 6."""
    return math.sqrt(sum(difference**2 for difference in differences) / 6)


_PRIORS = {
    ("NVIDIA H100 80GB HBM3", "energy at reference"): Prior(_of_pairs(*_H100_ENERGY), 3, _SOURCE),
    ("NVIDIA H100 80GB HBM3", "time"): Prior(_of_pairs(*_H100_TIME), 3, _SOURCE),
}


def prior_of(device_name: str, quantity: str) -> Prior | None:
    """The prior of a type by NVML's full name; None for types without one, and for energy as it was measured."""
    return _PRIORS.get((device_name, quantity))
