"""Simulated laps with a known mean: independent, correlated, of two or three states, periodic, bimodal, skewed, with
pauses, warming up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

#: True mean of every series.
MEAN_S = 10.0

Generate = Callable[[np.random.Generator, int, int], np.ndarray]  # (random numbers, series, laps) -> (series, laps)


def autoregressive(phi: float, noise_share: float = 0.0) -> Generate:
    """First-order autoregression, stationary, with variance 1; independent noise may be part of it."""

    def generate(rng: np.random.Generator, count: int, laps: int) -> np.ndarray:
        steps = rng.standard_normal((count, laps)) * np.sqrt(1 - phi**2)
        steps[:, 0] = rng.standard_normal(count)
        states = lfilter([1.0], [1.0, -phi], steps, axis=1)
        noise = rng.standard_normal((count, laps))
        return MEAN_S + np.sqrt(1 - noise_share) * states + np.sqrt(noise_share) * noise

    return generate


def filtered(moving: tuple[float, ...], lasting: tuple[float, ...] = ()) -> Generate:
    """A moving average of noise, an autoregression of several laps, or both; stationary, with variance 1."""

    def generate(rng: np.random.Generator, count: int, laps: int) -> np.ndarray:
        poles = [1.0, *(-phi for phi in lasting)]
        response = np.asarray(lfilter(moving, poles, np.eye(1, 2000)))
        steps = rng.standard_normal((count, laps + 400))
        series = np.asarray(lfilter(moving, poles, steps, axis=1))[:, 400:]
        return MEAN_S + series / np.sqrt(np.sum(response**2))

    return generate


def three_states(stay: float, levels: tuple[float, float, float] = (0.0, 1.0, 3.0)) -> Generate:
    """Laps of three lengths; a lap keeps that of the one before with this probability, else it draws one."""

    def generate(rng: np.random.Generator, count: int, laps: int) -> np.ndarray:
        drawn = rng.integers(0, 3, (count, laps))
        keeps = rng.random((count, laps)) < stay
        for lap in range(1, laps):
            drawn[:, lap] = np.where(keeps[:, lap], drawn[:, lap - 1], drawn[:, lap])
        return MEAN_S + np.array(levels)[drawn] - np.mean(levels) + 0.1 * rng.standard_normal((count, laps))

    return generate


def interrupted(rng: np.random.Generator, count: int, laps: int) -> np.ndarray:
    """One lap in twenty begins an interruption that makes it and the next one twice as long."""
    begins = rng.random((count, laps + 1)) < 0.05
    slow = begins[:, 1:] | begins[:, :-1]
    return MEAN_S * (1 + slow - (1 - 0.95**2) + 0.01 * rng.standard_normal((count, laps)))


def two_states(up: float, down: float, *, noise: float = 0.02) -> Generate:
    """Laps that are longer by 1 in a second state, which begins and ends with these probabilities per lap."""

    def generate(rng: np.random.Generator, count: int, laps: int) -> np.ndarray:
        chance, share = rng.random((count, laps)), up / (up + down)
        slow = np.empty((count, laps), dtype=bool)
        slow[:, 0] = chance[:, 0] < share
        for lap in range(1, laps):
            slow[:, lap] = np.where(slow[:, lap - 1], chance[:, lap] >= down, chance[:, lap] < up)
        return MEAN_S - share + slow + noise * rng.standard_normal((count, laps))

    return generate


def periodic(*pattern: float) -> Generate:
    """A pattern that repeats, from a random start."""
    values = np.array(pattern)

    def generate(rng: np.random.Generator, count: int, laps: int) -> np.ndarray:
        places = (rng.integers(0, len(values), (count, 1)) + np.arange(laps)) % len(values)
        return MEAN_S + values[places] - values.mean() + 0.02 * rng.standard_normal((count, laps))

    return generate


def bimodal(rng: np.random.Generator, count: int, laps: int) -> np.ndarray:
    """One lap in ten takes three times as long."""
    times = np.where(rng.random((count, laps)) < 0.1, 3.0, 1.0) + 0.02 * rng.standard_normal((count, laps))
    return MEAN_S / 1.2 * times


def paused(every: int, times: float, *, at_random: bool = False) -> Generate:
    """One lap in so many takes several times as long: at equal distances (a checkpoint), or at any lap."""

    def generate(rng: np.random.Generator, count: int, laps: int) -> np.ndarray:
        places = (rng.integers(0, every, (count, 1)) + np.arange(laps)) % every
        slow = rng.random((count, laps)) < 1 / every if at_random else places == 0
        laps_s = np.where(slow, times, 1.0) + 0.01 * rng.standard_normal((count, laps))
        return MEAN_S / (1 + (times - 1) / every) * laps_s

    return generate


def warming_up(excess: float, lasting: float) -> Generate:
    """Laps that are longer at first, by less and less; the mean is that of laps long after."""

    def generate(rng: np.random.Generator, count: int, laps: int) -> np.ndarray:
        return MEAN_S * (1 + excess * np.exp(-np.arange(laps) / lasting) + 0.01 * rng.standard_normal((count, laps)))

    return generate


def lognormal(sigma: float) -> Generate:
    """Independent and skewed."""
    return lambda rng, count, laps: MEAN_S + np.exp(sigma * rng.standard_normal((count, laps))) - np.exp(sigma**2 / 2)


SERIES: dict[str, Generate] = {
    "independent": autoregressive(0.0),
    "AR(1) 0.3": autoregressive(0.3),
    "AR(1) 0.5": autoregressive(0.5),
    "AR(1) 0.7": autoregressive(0.7),
    "AR(1) 0.9": autoregressive(0.9),
    "AR(1) 0.8, 30 % noise": autoregressive(0.8, 0.3),
    "AR(1) 0.9, 50 % noise": autoregressive(0.9, 0.5),
    "AR(1) 0.95": autoregressive(0.95),
    "AR(1) -0.5": autoregressive(-0.5),
    "AR(1) -0.9": autoregressive(-0.9),
    "two states of 2.5 laps": two_states(0.4, 0.4),
    "two states of 5 laps": two_states(0.2, 0.2),
    "two states of 10 laps": two_states(0.1, 0.1),
    "two states of 10 laps, strong noise": two_states(0.1, 0.1, noise=0.5),
    "states of 10 and 2.5 laps": two_states(0.1, 0.4),
    "states of 20 and 5 laps": two_states(0.05, 0.2),
    "three states of 2.5 laps": three_states(0.4),
    "three states of 5 laps": three_states(0.7),
    "moving average of 2": filtered((1.0, 0.8)),
    "moving average of 5": filtered((1.0,) * 5),
    "swing of 8 laps": filtered((1.0,), (2 * 0.9 * np.cos(np.pi / 4), -0.81)),
    "AR(2) 0.6, 0.3": filtered((1.0,), (0.6, 0.3)),
    "interrupted for two laps": interrupted,
    "period 2": periodic(1, 2),
    "period 3": periodic(1, 1, 2),
    "period 5": periodic(1, 1, 1, 1, 2),
    "bimodal": bimodal,
    "pause every 20 laps, 3 times": paused(20, 3.0),
    "pause every 100 laps, 10 times": paused(100, 10.0),
    "pause in 50 laps, 5 times": paused(50, 5.0, at_random=True),
    "warm-up of 30 laps, 10 %": warming_up(0.1, 30.0),
    "lognormal 0.5": lognormal(0.5),
    "lognormal 1": lognormal(1.0),
}
