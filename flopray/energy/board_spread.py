"""How far boards of one type differ: the measurements behind the priors of the spread between boards.

Boards are compared within a group that did the same work; groups are not compared with each other. A group of n boards
has n - 1 degrees of freedom, however many pairs and rows it has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BoardGroup:
    """Boards of one type that ran the same sweep, two by two. All differences are relative, of energy unless named.

    Attributes:
        device_name: of the type, as NVML says it, in full.
        boards: how many there were.
        energy: constant factor between the boards of each pair, less 1, at a reference temperature.
        works: scatter of single works about that factor, root mean square, of each pair.
        time: difference in time of each pair.
        uuids: of the boards; empty where they were not kept, so that it is unknown which boards they were.
        source: when and how they were measured.
    """

    device_name: str
    boards: int
    energy: tuple[float, ...]
    works: tuple[float, ...]
    time: tuple[float, ...]
    uuids: frozenset[str]
    source: str


def of_pairs(differences: Iterable[float], boards: int) -> float:
    """Standard deviation of boards from the differences of all their pairs.

    The squares of n boards' deviations from their mean sum to those of their n (n - 1) / 2 differences, over n.

    Example:
        >>> round(of_pairs([0.02], 2), 4)  # boards at +1 and -1 %
        0.0141
    """
    return math.sqrt(sum(difference**2 for difference in differences) / (boards * (boards - 1)))


#: 64 rows of MLPs, four phases, each board on another machine, energy at 60 °C. Time is a root mean square over rows,
#: scatter included, so that its spread is too wide rather than too narrow. Runs and UUIDs were not kept.
THREE_H100 = BoardGroup(
    device_name="NVIDIA H100 80GB HBM3",
    boards=3,
    energy=(0.016, 0.031, 0.017),
    works=(0.013, 0.012, 0.008),
    time=(0.006, 0.007, 0.004),
    uuids=frozenset(),
    source="three H100 SXM boards of three machines, the same 64 rows, driver 580.159, torch 2.11, 2026-11-27",
)
#: The same sweep a day later, energy at 50 °C, `docs/results/boards`. Time is the factor alone.
TWO_H100 = BoardGroup(
    device_name="NVIDIA H100 80GB HBM3",
    boards=2,
    energy=(0.0126,),
    works=(0.0125,),
    time=(0.0025,),
    uuids=frozenset({"GPU-7b5b6020-02b8-ad88-436a-13711a5e1fe1", "GPU-d3fe3101-e8f8-3825-fb6e-4bfbced4f67e"}),
    source="two H100 SXM boards of two machines, the same 64 rows, driver 580.159, torch 2.11, 2026-11-28",
)
#: The same sweep on two H200s of one host at the same time, and on a third before. Time is the factor alone.
THREE_H200 = BoardGroup(
    device_name="NVIDIA H200",
    boards=3,
    energy=(0.0242, 0.0314, 0.0074),
    works=(0.0238, 0.0086, 0.0238),
    time=(0.0027, 0.0019, 0.0008),
    uuids=frozenset(
        {
            "GPU-0f8e5237-921b-bd5d-a178-b426e335fc52",
            "GPU-4bc7aed4-bfde-4c45-57ad-8cd1d9a8d31b",
            "GPU-7757280b-fabe-4ee2-4049-9e1e49216f80",
        }
    ),
    source="three H200 SXM boards, two of them of one host, the same 64 rows, driver 580.159, torch 2.11, 2026-11-28",
)
GROUPS = (THREE_H100, TWO_H100, THREE_H200)
