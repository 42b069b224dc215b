"""What columns imply of one another: no column hides another one, and none is believed over its parts."""

import pytest

from flopray.audit import audit_row
from flopray.audit.implied import EFFICIENCY, POWER, RATE, Quotient, least, most

H100 = {"device_name": "H100", "precision": "bf16", "power_limit_w": 700.0}


def codes(row):
    return [finding.code for finding in audit_row(H100 | row)]


@pytest.mark.parametrize(
    ("row", "watts"),
    [
        ({"time_s": 1.0, "active_energy_j": 5e4}, 5e4),
        ({"time_s": 1.0, "active_energy_j": 5e4, "power_w": 300.0}, 5e4),
        ({"flops_per_s": 5e14, "flops_per_j": 1e9}, 5e5),
        ({"model_flops": 5e14, "time_s": 1.0, "flops_per_j": 1e9}, 5e5),
        ({"tokens_per_s": 1000.0, "energy_per_token_j": 50.0, "mfu": 0.3}, 5e4),
        ({"time_s": 2.0, "tokens_per_iteration": 1000, "energy_per_token_j": 50.0}, 2.5e4),
        ({"time_s": 1e-3, "energy_at_reference_j": 50.0}, 5e4),
    ],
)
def test_powers_that_no_column_states_are_held_against_the_limit(row, watts):
    assert most(row, POWER).value == pytest.approx(watts)
    assert "impossible:power_above_limit" in codes(row)
    assert "impossible:power_above_limit" not in codes({name: value for name, value in row.items() if "_j" not in name})


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"gemm_flops": 5e12, "time_s": 1e-3}, "impossible:rate_above_limit"),
        ({"flops_per_j": 1e14, "power_w": 600.0}, "impossible:rate_above_limit"),
        ({"flops_per_j": 1e14, "energy_j": 0.6, "time_s": 1e-3}, "impossible:rate_above_limit"),
        ({"executed_gemm_flops": 5e12, "time_s": 1e-3}, "impossible:executed_rate_above_limit"),
        ({"flops_per_s": 9e14, "power_w": 300.0}, "implausible:efficiency_above_peak"),
        ({"model_flops": 9e11, "time_s": 1e-3, "power_w": 300.0}, "implausible:efficiency_above_peak"),
        ({"flops_per_s": 1e14, "flops_per_j": 1e13, "idle_power_w": 75.0}, "implausible:power_below_idle"),
    ],
)
def test_rates_and_efficiencies_that_no_column_states_are_judged(row, rule):
    assert rule in codes(row)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"time_s": 1.0, "energy_j": 500.0, "flops_per_s": 5e14, "flops_per_j": 1e9},
            "flops_per_s * time_s / energy_j",
        ),
        ({"time_s": 1.0, "model_flops": 4e14, "recomputed_flops": 4e14, "hfu": 0.404}, "mfu with recomputed_flops"),
        ({"time_s": 1.0, "time_iterations": 100, "window_s": 3.0}, "time_s * time_iterations"),
        ({"time_s": 1.0, "model_flops": 1e12, "gemm_flops": 9e12}, "gemm_flops, which is a part of it"),
        ({"time_s": 1.0, "model_flops": 1e12, "optimizer_flops": 9e12}, "optimizer_flops, which is a part of it"),
        (
            {"time_s": 1.0, "tokens_per_s": 10.0, "energy_j": 500.0, "energy_per_token_j": 5.0},
            "/ tokens_per_s / time_s",
        ),
    ],
)
def test_derived_columns_are_compared_with_all_their_parts(row, words):
    (found,) = [finding for finding in audit_row(H100 | row) if finding.rule == "inconsistent_columns"]
    assert words in found.sentence


@pytest.mark.parametrize(
    "column",
    [
        *("executed_elementwise_flops", "recomputed_flops", "optimizer_flops", "window_s", "time_iterations"),
        *("warmup_s", "energy_at_reference_j", "awake_idle_power_w", "kernel_launches"),
    ],
)
def test_what_is_counted_or_lasts_is_not_negative(column):
    (found,) = [finding for finding in audit_row({"time_s": 1.0, column: -3}) if finding.rule == "not_positive"]
    assert found.sentence == f"{column} is -3: no count or rate is negative"


def test_executed_flops_below_zero_name_no_sum_of_classes_that_are_not_there():
    assert [f.rule for f in audit_row({"time_s": 1.0, "executed_flops": -4})] == ["not_positive"]


def test_what_is_stated_comes_before_what_is_implied():
    row = {"power_w": 300.0, "flops_per_s": 1e14, "flops_per_j": 1e9}
    assert (most(row, POWER).value, least(row, POWER).value) == (300.0, 300.0)
    assert most({}, RATE) is None
    assert least({"power_w": 0.0, "flops_per_s": 1e14}, EFFICIENCY) is None
    assert Quotient(("a", "b"), ("c",)).words == "a * b / c"
    assert Quotient(("a",), ("c",)).of({"a": 1e308, "c": 1e-308}) > 1e300
