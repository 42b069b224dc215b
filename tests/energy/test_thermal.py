"""Energy at a reference temperature, on simulated boards whose truth is known."""

import math

import numpy as np
import pytest

from flopray.energy.thermal import (
    PRIORS,
    REPEAT_SCATTER,
    TEMPERATURE_SD_K,
    WORK_SCATTER,
    BoardTemperature,
    Condition,
    PowerSlope,
    prior_of,
)

H100 = "NVIDIA H100 80GB HBM3"


class Board:
    """A board whose rule is drawn from its type's prior, and whose works scatter about it."""

    def __init__(self, rng: np.random.Generator, name: str = H100) -> None:
        prior = prior_of(name)
        assert prior is not None
        aa, ab, bb = prior.slope.covariance
        mean = [prior.slope.constant_w_per_k, prior.slope.share_per_k]
        self._a, self._b = rng.multivariate_normal(mean, [[aa, ab], [ab, bb]])
        self._rng = rng
        self._slopes: dict[float, float] = {}

    def slope(self, power_w: float) -> float:
        """True slope of the work that takes this power at 50 °C."""
        if power_w not in self._slopes:
            self._slopes[power_w] = (self._a + self._b * power_w) * (1 + WORK_SCATTER * self._rng.normal())
        return self._slopes[power_w]

    def window(self, power_w: float, true_c: float, error: float = 0.01) -> Condition:
        """The result of a window of that work at a temperature."""
        power = power_w + self.slope(power_w) * (true_c - 50.0)
        power *= 1 + self._rng.normal() * math.hypot(error / 1.96, REPEAT_SCATTER)
        return Condition(round(true_c + self._rng.normal() * TEMPERATURE_SD_K), power, error)


@pytest.mark.parametrize("learned", [False, True])
def test_the_interval_at_the_reference_holds_the_truth(learned):
    rng = np.random.default_rng(7)
    held, widths, missed_raw = [], [], []
    for _ in range(150):
        simulated, board = Board(rng), BoardTemperature(H100)
        if learned:
            for work_w in (125.0, 300.0):
                for true_c in (38.0, 44.0, 52.0, 60.0):
                    board.learn(work_w, simulated.window(work_w, true_c))
        for power_w in (200.0, 400.0, 600.0):
            window = simulated.window(power_w, float(rng.uniform(38, 62)))
            at = board.at_reference(window, 50.0)
            assert at.factor is not None
            assert at.rel_error is not None
            assert window.power_rel_error is not None
            error = math.hypot(at.rel_error, window.power_rel_error, 1.96 * REPEAT_SCATTER)
            held.append(abs(window.power_w * at.factor / power_w - 1) <= error)
            missed_raw.append(window.power_w / power_w - 1)
            widths.append(at.rel_error)
    assert 0.92 <= np.mean(held) <= 0.98
    assert np.std(missed_raw) > 0.02  # without the correction
    assert np.median(widths) < 0.01


def test_what_a_sweep_meets_sharpens_the_coefficient_and_moves_it_to_the_truth():
    rng = np.random.default_rng(3)
    board, steep = BoardTemperature(H100), PowerSlope(0.9, 0.0021, (0.0, 0.0, 0.0))
    before = board.slope.at(400.0)
    for power_w in (125.0, 350.0, 500.0):
        slope = steep.at(power_w)[0]
        for temperature_c in range(40, 65, 3):
            noisy = (power_w + slope * (temperature_c - 50)) * (1 + 0.002 * rng.normal())
            board.learn(power_w, Condition(float(temperature_c), noisy, 0.004))
    after = board.slope.at(400.0)
    assert board.range_k == 24
    assert abs(after[0] - steep.at(400.0)[0]) < abs(before[0] - steep.at(400.0)[0]) / 2
    assert after[1] < before[1]


def test_a_board_that_warms_up_has_no_drift_left():
    board = BoardTemperature(H100)
    slope = board.slope.at(300.0)[0]
    first, last = Condition(40.0, 300.0, 0.004), Condition(58.0, 300.0 + 18 * slope, 0.004)
    explained = board.change(first, last)
    assert explained is not None
    assert explained[0] == pytest.approx(18 * slope / 300.0)
    assert 0.005 < explained[1] < 0.03


def test_temperature_moves_the_number_towards_the_reference_and_back():
    board = BoardTemperature(H100)
    hot = board.at_reference(Condition(60.0, 500.0, 0.01), 50.0)
    assert hot.factor == pytest.approx(1 - 10 * (0.60 + 0.00145 * 500) / 500)
    assert hot.coefficient == pytest.approx(1.325 / (500 - 13.25))
    same = board.at_reference(Condition(50.0, 500.0, 0.01), 50.0)
    assert same.factor == 1.0
    assert same.rel_error == pytest.approx(1.96 * 1.325 * TEMPERATURE_SD_K / 500)


@pytest.mark.parametrize(
    ("condition", "known", "said"),
    [
        (Condition(None, 500.0, 0.01), {}, "the device reports no temperature"),
        (Condition(75.0, 500.0, 0.01), {}, "measured at 75 °C, 25 K from the reference of 50 °C"),
        (Condition(55.0, 500.0, 0.01), {"throttle": "sw_power_cap"}, "clocks were held down (sw_power_cap)"),
        (Condition(55.0, 500.0, 0.01), {"throttle": "gpu_idle|hw_thermal_slowdown"}, "(hw_thermal_slowdown)"),
        (Condition(55.0, 690.0, 0.01), {"power_limit_w": 700.0}, "took 690 W and may take 700 W"),
    ],
)
def test_where_it_cannot_be_known_it_is_missing_with_the_reason(condition, known, said):
    at = BoardTemperature(H100).at_reference(condition, 50.0, **known)
    assert at.factor is None
    assert at.rel_error is None
    assert at.coefficient is None
    assert at.reason is not None
    assert said in at.reason


def test_a_type_that_nobody_measured_needs_a_range_of_temperatures_first():
    board = BoardTemperature("NVIDIA Imaginary X1", 350.0)
    assert board.prior is None
    window = Condition(52.0, 250.0, 0.01)
    at = board.at_reference(window, 50.0)
    assert at.reason is not None
    assert "NVIDIA Imaginary X1" in at.reason
    assert "covered 0 K" in at.reason
    assert board.change(window, Condition(54.0, 252.0, 0.01)) is None
    for temperature_c in (44.0, 47.0, 50.0, 53.0):
        board.learn("sentinel", Condition(temperature_c, 250.0 + 0.8 * (temperature_c - 50), 0.004))
    known = board.at_reference(window, 50.0)
    assert known.coefficient == pytest.approx(0.8 / 250, rel=0.2)


def test_windows_without_a_temperature_or_an_error_teach_nothing():
    board = BoardTemperature(H100)
    before = board.slope
    for condition in (Condition(None, 300.0, 0.01), Condition(50.0, 300.0, None), Condition(50.0, 0.0, 0.01)):
        board.learn("sentinel", condition)
    board.learn("sentinel", Condition(50.0, 300.0, 0.01))
    board.learn("sentinel", Condition(50.0, 330.0, 0.01))  # no temperature between them: no slope
    assert board.slope == before


def test_each_prior_says_where_it_comes_from():
    for prior in PRIORS:
        assert prior.boards >= 1
        assert prior.source
        slope, deviation = prior.slope.at(400.0)
        assert 0 < deviation < slope
