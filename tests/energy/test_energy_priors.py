"""Other prior weights: the bench mixes what the candidates found as the estimator does, and learns from windows."""

from pathlib import Path

import numpy as np
import pytest

from flopray.energy import estimator, fluctuation

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def priors(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import energy_priors

    return energy_priors


@pytest.mark.parametrize("case", ["steady", "iteration 95 ms", "step of 15 %"])
def test_the_weights_in_use_give_the_estimate(priors, case):
    from energy_coverage import fixed

    before = estimator.fit, dict(fluctuation.SLOW)
    found = [priors.judged(of_length[0], priors.USED) for of_length in priors.windows_of(case, "ideal", [3])]
    assert (estimator.fit, fluctuation.SLOW) == before
    outcomes = fixed(case, "ideal", 3, priors.LENGTHS_S)
    assert [half for half, _ in found] == pytest.approx([o.stated for o in outcomes], rel=1e-4)
    if case != "step of 15 %":  # whose truth depends on what a window has seen
        assert [error for _, error in found] == pytest.approx([o.error for o in outcomes], rel=1e-4, abs=1e-9)


def test_windows_of_steady_power_shift_weight_to_the_least_fluctuation_and_those_of_noise_away(priors):
    at_2_s = {case: priors.windows_of(case, "ideal", range(3))[0] for case in ("steady", "noise 4 %, 0.2 s")}
    plain = priors.normed(priors.USED)["slow"][0]
    assert priors.learned(at_2_s["steady"])["slow"][0] > plain
    assert priors.learned(at_2_s["noise 4 %, 0.2 s"])["slow"][0] < plain
    assert np.sum([priors.learned(at_2_s["steady"])[name].sum() for name in ("slow", "swing")]) == pytest.approx(1.0)
