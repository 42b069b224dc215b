"""What is known of the spread between boards of a type before any is measured, with its source and number of boards.

A prior is from few boards, and so has few degrees of freedom; boards that contradict it leave it out
(`flopray.report.boards.effects`). Types that are not listed in `flopray.energy.board_spread` have none.

No board counts twice: a group that shares a board with the rows at hand is not used. Of the three boards of 2026-11-27
no UUID was kept. They are assumed to be other boards than any at hand and than the two of the day after, which cannot
be checked; if one is the same, the prior has one degree of freedom too many.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from flopray.energy.board_spread import GROUPS, of_pairs
from flopray.report.boards.effects import Prior

#: Quantities that have a prior, and where a group has their differences.
_DIFFERENCES = {"energy at reference": "energy", "time": "time"}


def prior_of(device_name: str, quantity: str, measured: Collection[str] = ()) -> Prior | None:
    """The prior of a type; None for types without one, and for energy as it was measured.

    Args:
        device_name: as NVML says it, in full.
        quantity: as in `flopray.report.boards.data`.
        measured: UUIDs of the boards that the prior is combined with.
    """
    if quantity not in _DIFFERENCES:
        return None
    known = [g for g in GROUPS if g.device_name == device_name and g.uuids.isdisjoint(measured)]
    if not known:
        return None
    degrees = [group.boards - 1 for group in known]
    spreads = [of_pairs(getattr(group, _DIFFERENCES[quantity]), group.boards) for group in known]
    pooled = sum(freedom * spread**2 for freedom, spread in zip(degrees, spreads, strict=True)) / sum(degrees)
    return Prior(
        spread=math.sqrt(pooled),
        boards=sum(group.boards for group in known),
        source="; ".join(group.source for group in known) + " (docs/method.md, Boards)",
        groups=len(known),
    )
