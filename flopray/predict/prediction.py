"""An answer: what one iteration of a phase will cost, with its interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A predicted number.

    Attributes:
        value: in SI units.
        low, high: ends of its 90 % interval for a board of the type; None where its error is unknown: too few held-out
            errors, another workload, or far beyond what was measured.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Prediction:
    """What one iteration of a phase will cost on one board.

    Attributes:
        time_s: seconds.
        energy_j: joules at the reference temperature; None where no energy was measured.
        outside: why the question lies outside what was measured; None where it does not.
        model: which model answers, one of `flopray.predict.fitting.MODELS`.
        basis: what it was fitted to, for people.
        reference_c: temperature of the energy, in Celsius.
        same_kind: whether work of this kind, at this execution, was measured, though perhaps at other shapes or phases.
    """

    time_s: Estimate
    energy_j: Estimate | None
    outside: str | None
    model: str
    basis: str
    reference_c: float
    same_kind: bool = True
