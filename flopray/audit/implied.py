"""What the columns of a row imply about its power, rate and efficiency: stated, by its parts, or by other quotients.

A quantity that is stated may hide parts that cannot be, and the other way round; so the larger one counts. Where a row
has neither, other columns may still imply it: FLOP/s over FLOPs per joule are watts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from flopray.audit.findings import Row, number


class Quotient(NamedTuple):
    """A product of columns over a product of columns that have to be positive."""

    upper: tuple[str, ...]
    lower: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """As people write it, such as `energy_j / time_s`."""
        return " / ".join([" * ".join(self.upper), *self.lower])

    def of(self, row: Row) -> float | None:
        """Its value in a row; None where a column is missing or a lower one is not positive."""
        value = 1.0
        for column in self.upper:
            above = number(row, column)
            if above is None:
                return None
            value *= above
        for column in self.lower:
            below = number(row, column)
            if below is None or below <= 0:
                return None
            value /= below
        # beyond any float it is still judged: it is above every limit
        return max(-sys.float_info.max, min(value, sys.float_info.max))


class Quantity(NamedTuple):
    """What says a quantity by itself, what is a part of it, and what implies it where nothing says it."""

    direct: tuple[Quotient, ...]
    parts: tuple[Quotient, ...]
    implied: tuple[Quotient, ...]

    def columns(self) -> Iterator[str]:
        """All columns that it is made of."""
        for quotient in (*self.direct, *self.parts, *self.implied):
            yield from (*quotient.upper, *quotient.lower)


_TIME = ("time_s",)
POWER = Quantity(
    (Quotient(("power_w",)), Quotient(("energy_j",), _TIME)),
    (Quotient(("active_energy_j",), _TIME),),
    (
        Quotient(("flops_per_s",), ("flops_per_j",)),
        Quotient(("model_flops",), ("flops_per_j", "time_s")),
        Quotient(("energy_per_token_j", "tokens_per_s")),
        Quotient(("energy_per_token_j", "tokens_per_iteration"), _TIME),
        Quotient(("energy_at_reference_j",), _TIME),
    ),
)
RATE = Quantity(
    (Quotient(("flops_per_s",)), Quotient(("model_flops",), _TIME)),
    (Quotient(("gemm_flops",), _TIME),),
    (Quotient(("flops_per_j", "power_w")), Quotient(("flops_per_j", "energy_j"), _TIME)),
)
EFFICIENCY = Quantity(
    (Quotient(("flops_per_j",)), Quotient(("model_flops",), ("energy_j",))),
    (Quotient(("gemm_flops",), ("energy_j",)),),
    (Quotient(("flops_per_s",), ("power_w",)), Quotient(("model_flops",), ("power_w", "time_s"))),
)
EXECUTED_RATE = Quantity(
    (Quotient(("executed_flops",), _TIME),),
    tuple(Quotient((f"executed_{kind}_flops",), _TIME) for kind in ("gemm", "attention", "tensor")),
    (),
)
QUANTITIES = (POWER, RATE, EFFICIENCY, EXECUTED_RATE)


class Stated(NamedTuple):
    """A value and what it is made of."""

    value: float
    words: str

    @property
    def source(self) -> str:
        """What it is made of, in brackets; nothing for a column of its own and for the usual quotient."""
        usual = [quotient.words for quantity in QUANTITIES for quotient in quantity.direct]
        return "" if self.words in usual else f" ({self.words})"


def most(row: Row, quantity: Quantity) -> Stated | None:
    """The largest value that a row has of a quantity, so that no column hides another one."""
    found = _values(row, (*quantity.direct, *quantity.parts)) or _values(row, quantity.implied)
    return max(found, default=None)


def least(row: Row, quantity: Quantity) -> Stated | None:
    """The smallest value that a row has of a quantity, without those of its parts."""
    found = _values(row, quantity.direct) or _values(row, quantity.implied)
    return min(found, default=None)


def _values(row: Row, quotients: Iterable[Quotient]) -> list[Stated]:
    return [Stated(value, each.words) for each in quotients if (value := each.of(row)) is not None]


def all_of(quantity: Quantity, value: Callable[[Quotient], object]) -> list:
    """A value for each quotient of a quantity, whether or not `most` would use it."""
    return [value(quotient) for quotient in (*quantity.direct, *quantity.parts, *quantity.implied)]
