"""Energy at the reference temperature of rows that are older than this column."""

import pandas as pd
import pytest

from flopray.energy.reference import told_later

OLD = {
    **{"device_name": "NVIDIA H100 80GB HBM3", "power_limit_w": 700.0, "energy_j": 2.0, "energy_rel_error": 0.01},
    **{"power_w": 500.0, "temperature_end_c": 60.0, "power_limit_end_w": 700.0, "throttle_end": None},
}


def test_an_old_row_is_told_by_the_end_of_its_window_and_the_prior_of_its_type():
    (found,) = told_later([OLD], 50.0)
    # 0.60 + 0.00145 x 500 = 1.325 W/K, over 10 K
    assert found["energy_at_reference_j"] == pytest.approx(2.0 * (500.0 - 13.25) / 500.0)
    assert found["energy_at_reference_rel_error"] > 0.01
    assert found["reference_temperature_c"] == 50.0


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA], ids=str)
def test_a_missing_value_is_missing_however_it_is_written(missing):
    with_mean, without = {**OLD, "temperature_mean_c": missing, "throttle_end": missing, "findings": ["a"]}, OLD
    assert told_later([with_mean], 50.0) == told_later([without], 50.0)
    (unknown,) = told_later([{**OLD, "temperature_end_c": missing}], 50.0)
    assert unknown == {"energy_at_reference_reason": "the device reports no temperature"}
    assert told_later([{**OLD, "energy_j": missing}], 50.0) == [{}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"throttle_end": "sw_power_cap"}, "clocks were held down"),
        ({"power_w": 690.0}, "at its limit"),
        ({"temperature_end_c": 71.0}, "21 K from the reference"),
        ({"device_name": "NVIDIA X"}, "it was not measured"),
    ],
)
def test_a_row_that_cannot_be_told_has_a_reason(change, reason):
    (found,) = told_later([{**OLD, **change}], 50.0)
    assert "energy_at_reference_j" not in found
    assert reason in found["energy_at_reference_reason"]


def test_a_row_that_has_one_keeps_it():
    assert told_later([{**OLD, "energy_at_reference_j": 1.9}], 50.0) == [{}]
