"""Power over time with a known integral, for the simulated meter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.signal import lfilter


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


@dataclass(frozen=True)
class SquarePower:
    """`high_w` for the first part of each period and `low_w` for the last `low_share` of it.

    Attributes:
        high_w, low_w: the two powers.
        period_s: length of a period, such as an iteration.
        low_share: share of a period at `low_w`.
        phase: where in its period it is at time 0, from 0 to 1.
    """

    high_w: float
    low_w: float
    period_s: float
    low_share: float
    phase: float = 0.0

    @property
    def mean_w(self) -> float:
        """Mean over whole periods."""
        return self.high_w + (self.low_w - self.high_w) * self.low_share

    def energy_j(self, at_s: np.ndarray) -> np.ndarray:
        """See `PowerTrace`."""
        return self._since_period_start(at_s + self.phase * self.period_s) - self._since_period_start(
            np.asarray(self.phase * self.period_s)
        )

    def _since_period_start(self, at_s: np.ndarray) -> np.ndarray:
        periods = np.floor(at_s / self.period_s)
        inside_s = at_s - periods * self.period_s
        low_s = np.maximum(inside_s - (1 - self.low_share) * self.period_s, 0.0)
        return periods * self.mean_w * self.period_s + self.high_w * (inside_s - low_s) + self.low_w * low_s


@dataclass(frozen=True)
class SinePower:
    """`power_w` with a sine of `amplitude_w` on top, at `phase` (0 to 1) of its period at time 0."""

    power_w: float
    amplitude_w: float
    period_s: float
    phase: float = 0.0

    def energy_j(self, at_s: np.ndarray) -> np.ndarray:
        """See `PowerTrace`."""
        turn = 2 * np.pi
        start, now = turn * self.phase, turn * (self.phase + at_s / self.period_s)
        return self.power_w * at_s + self.amplitude_w * self.period_s / turn * (np.cos(start) - np.cos(now))


class SampledPower:
    """Powers that each hold for one cell of time; later the last energy stays.

    Args:
        power_w: of the cells; shape (cells,).
        cell_s: length of a cell.
    """

    def __init__(self, power_w: np.ndarray, cell_s: float) -> None:
        self._edges_s = np.arange(len(power_w) + 1) * cell_s
        self._energy_j = np.concatenate([[0.0], np.cumsum(power_w) * cell_s])

    def energy_j(self, at_s: np.ndarray) -> np.ndarray:
        """See `PowerTrace`."""
        return np.interp(at_s, self._edges_s, self._energy_j)


def wandering_power(power_w: float, noise_rel: float, correlation_s: float, length_s: float, seed: int) -> SampledPower:
    """Mean power with autoregressive noise: standard deviation `noise_rel`, correlation exp(-t / correlation_s)."""
    cell_s = correlation_s / 50
    draws = np.random.default_rng(seed).standard_normal(int(np.ceil(length_s / cell_s)))
    kept = np.exp(-cell_s / correlation_s)
    noise = lfilter([np.sqrt(1 - kept**2)], [1.0, -kept], draws[1:], zi=[kept * draws[0]])[0]
    return SampledPower(power_w * (1 + noise_rel * np.append(draws[0], noise)), cell_s)


def swinging_power(
    power_w: float, noise_rel: float, damping_s: float, period_s: float, length_s: float, seed: int
) -> SampledPower:
    """Mean power that swings about its mean and forgets its phase, as under a limiter that corrects too much.

    Standard deviation `noise_rel`, correlation exp(-t / damping_s) cos(2 pi t / period_s): the real part of an
    Ornstein-Uhlenbeck process with a complex rate.
    """
    cell_s = min(damping_s, period_s) / 50
    draws = np.random.default_rng(seed).standard_normal((int(np.ceil(length_s / cell_s)), 2)) @ [1, 1j]
    kept = np.exp(-cell_s / damping_s + 2j * np.pi * cell_s / period_s)
    noise = lfilter([np.sqrt(1 - abs(kept) ** 2)], [1.0, -kept], draws[1:], zi=[kept * draws[0]])[0]
    return SampledPower(power_w * (1 + noise_rel * np.real(np.append(draws[0], noise))), cell_s)


def switching_power(power_w: float, step_rel: float, dwell_s: float, length_s: float, seed: int) -> SampledPower:
    """Two states `step_rel` of the mean apart; each lasts `dwell_s` in the mean (exponentially distributed)."""
    rng = np.random.default_rng(seed)
    cell_s = dwell_s / 100
    changes = rng.random(int(np.ceil(length_s / cell_s))) < cell_s / dwell_s
    state = (np.cumsum(changes) + rng.integers(2)) % 2
    return SampledPower(power_w * (1 + step_rel * (state - 0.5)), cell_s)
