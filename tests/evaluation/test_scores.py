"""Columns of an evaluation: the score of a task, its interval, and what a sample and a point cost."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binom

from flopray.workloads.evaluation.scores import cost_columns, interval_of, score_of

RIGHT = {"score": 0.62, "score_metric": "acc", "score_low": 0.60, "score_high": 0.64, "samples": 200}


def test_the_score_is_the_first_metric_of_the_task():
    results = {"alias": "arc", "sample_len": 9, "acc,none": 0.25, "acc_stderr,none": 0.02, "acc_norm,none": 0.3}
    found = score_of(results, {"acc": True, "acc_norm": True})
    assert found is not None
    assert (found.metric, found.filter_name, found.value, found.stderr, found.higher_is_better) == (
        *("acc", "none", 0.25, 0.02, True),
    )
    assert "acc_norm,none" in found.every
    assert "sample_len" not in found.every


def test_a_missing_standard_error_is_missing():
    found = score_of({"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": "N/A"}, {})
    assert found is not None
    assert (found.filter_name, found.stderr, found.higher_is_better) == ("strict-match", None, None)


def test_without_a_number_there_is_no_score():
    assert score_of({"alias": "x", "bypass,none": "text", "acc,none": math.nan}, {}) is None


def test_costs_of_a_sample_and_of_a_point():
    found = cost_columns({**RIGHT, "time_s": 31.0, "energy_j": 6200.0, "energy_rel_error": 0.03})
    assert found["energy_per_sample_j"] == pytest.approx(31.0)
    assert found["energy_per_point_j"] == pytest.approx(100.0)
    assert found["time_per_sample_s"] == pytest.approx(0.155)
    assert found["time_per_point_s"] == pytest.approx(0.5)
    assert found["energy_per_point_rel_error"] == pytest.approx(math.hypot(0.03, 0.02 / 0.62))


def test_without_a_meter_energy_is_missing_and_never_zero():
    found = cost_columns({**RIGHT, "time_s": 31.0, "energy_j": None})
    assert found["energy_per_sample_j"] is None
    assert "energy_per_point_j" not in found
    assert found["time_per_point_s"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"score": 12.3, "score_metric": "word_perplexity", "score_higher_is_better": False}, "not a share of 1"),
        ({"score": 0.4, "score_metric": "acc", "score_higher_is_better": False}, "a lower acc is better"),
        ({"score": -0.05, "score_metric": "mcc"}, "not above 0"),
        ({"score": 0.0, "score_metric": "acc"}, "not above 0"),
        ({"score": 1.2, "score_metric": "f1"}, "above 1"),
    ],
)
def test_a_score_that_is_no_share_has_no_points(row, reason):
    found = cost_columns({**row, "samples": 10, "time_s": 1.0, "energy_j": 5.0})
    assert reason in found["per_point_reason"]
    assert found["energy_per_sample_j"] == 0.5
    assert "energy_per_point_j" not in found


@pytest.mark.parametrize("samples", [20, 100])
def test_the_interval_of_a_share_holds_it_in_95_of_100(samples):
    """From all outcomes, not from a simulation; the interval of 1.96 standard errors covers 0.95 of 20 in 64 of 100."""

    def covered(share, interval):
        hits = range(samples + 1)
        ends = [interval(k / samples, math.sqrt(k * (samples - k) / samples**2 / (samples - 1))) for k in hits]
        inside = (low <= share <= high for low, high in ends)
        return sum(float(binom.pmf(k, samples, share)) for k, yes in zip(hits, inside, strict=True) if yes)

    shares = [0.05 + 0.01 * i for i in range(91)]
    wilson = [covered(share, lambda p, e: interval_of(p, e, samples)) for share in shares]
    plain = [covered(share, lambda p, e: (p - 1.96 * e, p + 1.96 * e)) for share in shares]
    assert sum(wilson) / len(wilson) == pytest.approx(0.95, abs=0.01)
    assert min(wilson) > 0.83
    assert min(plain) < 0.91 < min(wilson) + 0.08
    assert interval_of(1.0, 0.0, samples)[0] < 0.97
    assert interval_of(0.5, None, samples) is None
