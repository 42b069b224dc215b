"""What a device did while its counter was read, and how warm it was meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flopray.energy.iterations import Iterations
from flopray.energy.meter import Temperature


@dataclass(frozen=True, slots=True)
class LoadSpan:
    """The same thing, done without a pause.

    Attributes:
        start_s, end_s: host clock when the device started and finished.
        iterations: when the iterations ran, where that is known: long ones are then seen at their phases.
    """

    start_s: float
    end_s: float
    iterations: Iterations | None = None


@dataclass(frozen=True, slots=True)
class Warming:
    """How the temperature of a device changed.

    Attributes:
        temperatures: of the device, in the order of time; empty where it reports none.
        slope_w_per_k: how power follows temperature, by power, where that is known: a change of temperature within the
            load then counts neither as drift nor as fluctuation. The mean does not change.
    """

    temperatures: Sequence[Temperature] = ()
    slope_w_per_k: Callable[[float], float] | None = None
