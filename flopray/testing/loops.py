"""Simulated training loops, whose energy of each step is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter


@dataclass(frozen=True)
class SimulatedLoop:
    """Steps that follow each other, each with work at a high power and a wait at a low one.

    Attributes:
        start_s, end_s: of each step, from time 0 on; shape (steps,).
        trace: power over time, a `flopray.testing.power_traces.PowerTrace`.
        energy_j: of each step, pauses after it left out; shape (steps,).
    """

    start_s: np.ndarray
    end_s: np.ndarray
    trace: EdgedPower
    energy_j: np.ndarray


class EdgedPower:
    """Powers that hold between edges; before and after them it is the first and the last.

    Args:
        edge_s: rising; shape (n + 1,).
        power_w: shape (n,).
    """

    def __init__(self, edge_s: np.ndarray, power_w: np.ndarray) -> None:
        self._edge_s, self._power_w = edge_s, power_w
        self._energy_j = np.concatenate([[0.0], np.cumsum(np.diff(edge_s) * power_w)])

    def energy_j(self, at_s: np.ndarray) -> np.ndarray:
        """See `flopray.testing.power_traces.PowerTrace`."""
        beyond = np.maximum(at_s - self._edge_s[-1], 0.0) * self._power_w[-1]
        before = np.minimum(at_s - self._edge_s[0], 0.0) * self._power_w[0]
        return np.interp(at_s, self._edge_s, self._energy_j) + before + beyond


def simulated_loop(
    *,
    work_s: float,
    wait_s: float = 0.0,
    wait_rel: float = 0.0,
    correlation_steps: float = 1.0,
    work_rel: float = 0.0,
    high_w: float = 500.0,
    low_w: float = 150.0,
    power_rel: float = 0.0,
    power_correlation_s: float = 1.0,
    pause_every: int = 0,
    pause_s: float = 0.0,
    length_s: float = 60.0,
    seed: int = 0,
) -> SimulatedLoop:
    """A loop of at least `length_s`.

    Args:
        work_s: time at the high power in each step.
        wait_s: mean time at the low power at the end of each step.
        wait_rel: standard deviation of the wait over its mean.
        correlation_steps: over how many steps the lengths of waits and of work are alike.
        work_rel: standard deviation of the work over its mean, such as sequences of various lengths.
        high_w: power of work.
        low_w: power of waits and pauses.
        power_rel: standard deviation of a slow factor on all power.
        power_correlation_s: how long that factor lasts.
        pause_every: steps between two pauses, 0 for none.
        pause_s: length of a pause, which is no part of a step.
        length_s: of the loop.
        seed: of all random draws.
    """
    rng = np.random.default_rng(seed)
    count = int(np.ceil(length_s / (work_s + wait_s + (pause_s / pause_every if pause_every else 0.0)))) + 1
    kept = np.exp(-1.0 / correlation_steps)
    wait = np.maximum(wait_s * (1 + wait_rel * _alike(rng, count, kept)), 0.0)
    work = np.maximum(work_s * (1 + work_rel * _alike(rng, count, kept)), 0.05 * work_s)
    pause = np.where(np.arange(1, count + 1) % pause_every == 0, pause_s, 0.0) if pause_every else np.zeros(count)
    edges_s = np.concatenate([[0.0], np.cumsum(np.column_stack([work, wait, pause]).ravel())])
    middle_s = edges_s[:-1:3]
    factor = 1 + power_rel * _slow(rng, middle_s, power_correlation_s)
    powers_w = np.column_stack([high_w * factor, low_w * factor, low_w * factor])
    energy_j = work * powers_w[:, 0] + wait * powers_w[:, 1]
    return SimulatedLoop(edges_s[:-1:3], edges_s[2::3], EdgedPower(edges_s, powers_w.ravel()), energy_j)


def _alike(rng: np.random.Generator, count: int, kept: float) -> np.ndarray:
    """Autoregressive values of standard deviation 1; shape (count,)."""
    draws = rng.standard_normal(count)
    return np.append(draws[0], lfilter([np.sqrt(1 - kept**2)], [1.0, -kept], draws[1:], zi=[kept * draws[0]])[0])


def _slow(rng: np.random.Generator, time_s: np.ndarray, correlation_s: float) -> np.ndarray:
    """A slow factor of standard deviation 1 at rising times; shape of `time_s`."""
    cell_s = correlation_s / 20
    cells = _alike(rng, int(time_s[-1] / cell_s) + 3, float(np.exp(-1 / 20)))
    return cells[np.minimum((time_s / cell_s).astype(int), len(cells) - 1)]
