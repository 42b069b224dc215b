"""Numbers with their ranges, and what is assumed on the way from a board to the meter of the building."""

from __future__ import annotations

from dataclasses import dataclass

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Ranged:
    """A number with its range.

    Attributes:
        value: in the unit of its context.
        low, high: of its range; None where that is unknown.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __mul__(self, other: Ranged | float) -> Ranged:
        """The product, with the products of the low ends and of the high ends; all numbers are positive.

        Example:
            >>> Ranged(2.0, 1.0, 3.0) * Ranged(10.0, 9.0, 12.0) * 2
            Ranged(value=40.0, low=18.0, high=72.0)
        """
        other = other if isinstance(other, Ranged) else Ranged(other, other, other)
        ends = (self.low, other.low), (self.high, other.high)
        low, high = (None if a is None or b is None else a * b for a, b in ends)
        return Ranged(self.value * other.value, low, high)


@dataclass(frozen=True)
class Assumption:
    """A number that is not measured here.

    Attributes:
        name: what it is.
        ranged: its value and range.
        unit: empty for a ratio.
        source: who says so, with an address where it is published.
    """

    name: str
    ranged: Ranged
    unit: str
    source: str

    @property
    def line(self) -> str:
        """For people."""
        value, low, high = self.ranged.value, self.ranged.low, self.ranged.high
        between = f" ({low:g} to {high:g})" if low != high and low is not None else ""
        return f"{self.name}: {value:g}{between}{f' {self.unit}' if self.unit else ''}; {self.source}"


#: A server of eight H100 took 8.4 kW at most in training, near the full load of boards that may take 8 x 700 W: 1.5.
#: Its maker rates it at 10.2 kW: 1.82. Another study saw 76 % of that in its heaviest work: 1.38.
SERVER = Assumption(
    "server over boards",
    Ranged(1.5, 1.38, 1.82),
    "",
    "8.4 kW of a server whose 8 H100 may take 5.6 kW (https://arxiv.org/abs/2412.08602); low: 76 % of its rated "
    "10.2 kW (https://arxiv.org/abs/2506.14551); high: all of it",
)
#: Uptime Institute's survey: large new facilities reach 1.3, the average of all was 1.58 in 2023; 1.1 is Google's.
PUE = Assumption(
    "PUE, building over servers",
    Ranged(1.3, 1.1, 1.58),
    "",
    "1.3 of large new data centres, 1.58 the average of 2023 "
    "(https://journal.uptimeinstitute.com/large-data-centers-are-mostly-more-efficient-analysis-confirms/), 1.1 "
    "Google's (https://datacenters.google/efficiency/)",
)


def given(name: str, flag: str, value: float, unit: str = "") -> Assumption:
    """What the user says, which has no range.

    Args:
        name: what it is.
        flag: that it came with.
        value: of it.
        unit: of it.
    """
    return Assumption(name, Ranged(value, value, value), unit, f"as given by {flag}")
