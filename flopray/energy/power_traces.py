"""Power over time with a known integral, for the simulated meter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class PowerTrace(Protocol):
    """Power over time, through its integral."""

    def energy_j(self, at_s: np.ndarray) -> np.ndarray:
        """Energy from time 0 to each time of an array of any shape, in joules."""
        ...


@dataclass(frozen=True)
class ConstantPower:
    """The same power at all times."""

    power_w: float

    def energy_j(self, at_s: np.ndarray) -> np.ndarray:
        """See `PowerTrace`."""
        return self.power_w * at_s


@dataclass(frozen=True)
class RampPower:
    """Power that changes by `slope_w_per_s` in every second, from `power_w` at time 0."""

    power_w: float
    slope_w_per_s: float

    def energy_j(self, at_s: np.ndarray) -> np.ndarray:
        """See `PowerTrace`."""
        return self.power_w * at_s + 0.5 * self.slope_w_per_s * at_s**2


@dataclass(frozen=True)
class StepPower:
    """`power_w` until `step_s`, `after_w` from then on; as a load that starts, or power that jumps within one."""

    power_w: float
    after_w: float
    step_s: float

    def energy_j(self, at_s: np.ndarray) -> np.ndarray:
        """See `PowerTrace`."""
        return self.power_w * at_s + (self.after_w - self.power_w) * np.maximum(at_s - self.step_s, 0.0)


class NoisyPower:
    """Mean power plus white noise that is constant within each cell of time.

    Args:
        power_w: mean power.
        noise_rel: standard deviation of the power of one cell over the mean.
        cell_s: length of a cell.
        length_s: how long the trace lasts; later the noise stays at its last value.
        seed: of the noise.
    """

    def __init__(self, power_w: float, noise_rel: float, cell_s: float, length_s: float, seed: int) -> None:
        cells = int(np.ceil(length_s / cell_s)) + 1
        power_w_cells = power_w * (1 + noise_rel * np.random.default_rng(seed).standard_normal(cells))
        self._edges_s = np.arange(cells + 1) * cell_s
        self._energy_j = np.concatenate([[0.0], np.cumsum(power_w_cells) * cell_s])

    def energy_j(self, at_s: np.ndarray) -> np.ndarray:
        """See `PowerTrace`."""
        return np.interp(at_s, self._edges_s, self._energy_j)
