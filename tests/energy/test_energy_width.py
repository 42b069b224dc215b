"""Where the half width comes from, and that it cannot be smaller. The whole tables: bench/energy_width.py."""

from pathlib import Path

import numpy as np
import pytest

from flopray.energy.estimator import estimate_power
from flopray.energy.load import LoadSpan
from flopray.energy.ticks import find_ticks
from flopray.testing.power_traces import ConstantPower, StepPower
from flopray.testing.simulated_meter import SimulatedMeter, VirtualClock, poll_simulated

ROOT = Path(__file__).resolve().parents[2]
WINDOWS = 40


@pytest.fixture
def width(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import energy_width

    return energy_width


def half_width(outcomes):
    return np.median([o.stated for o in outcomes])


def test_ticks_alone_state_their_error(width):
    outcomes = width.term("ticks", "steady", "ideal", 2.0, WINDOWS)
    real = np.percentile([o.error for o in outcomes], 95)
    assert 0.6 * real <= half_width(outcomes) <= 1.6 * real


def test_late_the_least_fluctuation_makes_the_width(width):
    ticks, least, all_terms = (
        half_width(width.term(name, "steady", "ideal", 3.0, WINDOWS))
        for name in ("ticks", "+ least fluctuation", "+ swings")
    )
    assert least > 3 * ticks
    assert least == pytest.approx(all_terms, rel=0.15)


def test_early_it_is_power_that_may_wander(width):
    least, all_terms = (
        half_width(width.term(name, "steady", "ideal", 1.0, WINDOWS)) for name in ("+ least fluctuation", "+ swings")
    )
    assert all_terms > 3 * least


def test_the_last_term_is_the_estimator(width):
    seen = width.term("+ swings", "iteration 95 ms", "ideal", 2.0, 2)
    assert seen == [width.fixed("iteration 95 ms", "ideal", seed, [2.0])[0] for seed in range(2)]


@pytest.mark.slow
def test_no_test_of_steady_power_is_quick_and_holds_the_noise(width):
    """Ending at a target of twice the error lets more than one in ten windows of noise through."""
    passed = {case: [width.first_passages(case, seed, width.ODDS) for seed in range(60)] for case in width.BOTH}
    held = 0
    for number in range(len(width.ODDS)):
        steady, noisy = ([p for run in passed[case] if (p := run[number])] for case in width.BOTH)
        is_quick = np.percentile([error for _, error in steady], 95) >= width.TARGET / 2
        holds = sum(error > width.TARGET for _, error in noisy) <= 0.1 * 60
        held += holds
        assert not (is_quick and holds)
    assert held


def test_odds_tell_steady_power_from_noise(width):
    odds = {}
    for case in width.BOTH:
        odds[case] = []
        for seed in range(20):
            _, readings = width.polled(case, "ideal", seed)
            odds[case].append(width.steady_odds(find_ticks(readings))[0])
    assert np.median(odds["steady"]) > 100
    assert np.median(odds[width.NOISE_CASE]) < 0.01


def test_before_it_flips_a_board_looks_steady():
    """The same ticks get the same interval: it holds the mean of both states, or it is narrow, but not both."""
    found = []
    for trace in (ConstantPower(300.0), StepPower(300.0, 303.0, 2.2)):
        meter = SimulatedMeter(trace, VirtualClock(), seed=3)
        found.append(estimate_power(poll_simulated(meter, 2.0, 0.1, 3), LoadSpan(0.0, 2.0)))
    assert found[0] == found[1]


def test_the_tables_are_markdown(width, capsys):
    assert width.main(["--terms", "--windows", "2", "--cases", "steady", "--seconds", "1"]) == 0
    head, rule, line = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == line.count("|") == 10
    options = ["--windows", "2", "--cases", "steady", "--seconds", "1", "2"]
    assert width.main(["--variants", *options]) == 0
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert {line.count("|") for line in (head, rule, *lines)} == {8}
    assert len(lines) == len(width.VARIANTS)
    assert width.main(["--bound", "--windows", "2"]) == 0
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert {line.count("|") for line in (head, rule, *lines)} == {7}
    assert len(lines) == len(width.ODDS)
    with pytest.raises(SystemExit, match="2"):
        width.main(["--terms", "--seconds", "0.1"])
    assert "0.6 to 5 s" in capsys.readouterr().err
