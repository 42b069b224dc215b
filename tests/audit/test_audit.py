"""Each rule reports a row that breaks it, and does not report one just below the limit."""

import subprocess
import sys

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given, settings

from flopray.audit import RULES, Severity, audit, audit_point, audit_row, audit_rows
from flopray.records import COLUMN_NAMES

H100 = "NVIDIA H100 80GB HBM3"
#: A good forward pass on an H100: 50 TFLOP/s of 67 at fp32, 400 W of 700.
GOOD = {
    "trial_id": "0123456789abcdef",
    "phase": "forward",
    "device_type": "H100",
    "device_name": H100,
    "precision": "fp32",
    "execution": "graph",
    "n_layers": 8,
    "width": 1024,
    "tokens": 128,
    "model_flops": 50_000_000_000,
    "time_s": 1e-3,
    "time_rel_error": 0.005,
    "energy_j": 0.6,
    "energy_rel_error": 0.008,
    "power_w": 600.0,
    "idle_power_w": 70.0,
    "power_limit_w": 700.0,
    "other_processes": 0,
    "throttle_end": "",
    "target_error": 0.01,
    "sentinel_time_drift": 0.001,
    "sentinel_energy_drift": -0.002,
    "status": "ok",
}


def codes(**changes):
    return [finding.code for finding in audit_row(GOOD | changes)]


def test_a_good_row_has_no_finding():
    assert codes() == []


def test_rate_above_limit_fires_above_the_limit_and_not_just_below():
    limit = 132 * 256 * 1.98e9
    alone = {"model_flops": None, "power_w": None, "energy_j": None}
    assert codes(**alone, flops_per_s=limit * 1.01) == ["impossible:rate_above_limit"]
    assert codes(**alone, flops_per_s=limit * 0.999) == []
    within_its_error = {"time_rel_error": 0.02, "target_error": 0.02}
    assert codes(**alone, flops_per_s=limit * 1.01, **within_its_error) == []


def test_products_that_executed_too_little_were_not_all_counted():
    closed = {"gemm_flops": 10**9, "executed_flops": 10**9}
    assert codes(**closed, executed_gemm_flops=10**9) == []
    assert codes(**closed, executed_gemm_flops=10**9 - 1) == ["impossible:executed_below_closed_form"]


def test_unclassified_kernels_are_noted_above_one_percent():
    assert codes(executed_other_rel=0.01) == []
    assert codes(executed_other_rel=0.02) == ["note:unclassified_kernels"]


def test_rate_is_derived_where_it_is_not_stated():
    assert codes(time_s=1e-4, energy_j=None, power_w=None) == ["impossible:rate_above_limit"]


def test_rate_is_held_against_the_reported_clock():
    reported = {"compute_capability": "9.0", "sm_count": 132, "max_sm_clock_hz": 1.2e9}
    assert "impossible:rate_above_limit" in codes(**reported)
    assert codes(**reported | {"max_sm_clock_hz": 1.98e9}) == []


def test_a_rate_that_only_tf32_reaches_says_so():
    alone = GOOD | {"model_flops": None}
    fast = audit_row(alone | {"flops_per_s": 300e12})
    assert "mislabelled" in fast[0].sentence
    assert "mislabelled" not in audit_row(alone | {"flops_per_s": 600e12})[0].sentence


def test_power_above_the_stated_limit_is_impossible_and_above_a_datasheet_implausible():
    alone = {"energy_j": None, "model_flops": None}
    assert codes(**alone, power_w=700 * 1.05 * 1.03) == ["impossible:power_above_limit"]
    assert codes(**alone, power_w=700 * 1.05 * 1.01) == []  # within the errors of time and energy
    assert codes(**alone, power_w=700 * 1.05 * 1.03, power_limit_w=None) == ["implausible:power_above_limit"]
    assert codes(**alone, power_w=400.0, power_limit_w=300.0) == ["impossible:power_above_limit"]


def test_power_below_idle():
    alone = {"energy_j": None, "model_flops": None}
    assert codes(**alone, power_w=70 * 0.9) == ["implausible:power_below_idle"]
    assert codes(**alone, power_w=70 * 0.96) == []


def test_efficiency_above_peak_over_board_power():
    best = 67e12 / 700
    assert codes(model_flops=None, flops_per_j=best * 1.02) == ["implausible:efficiency_above_peak"]
    assert codes(model_flops=None, flops_per_j=best * 1.005) == []  # within the error of the energy
    assert codes(flops_per_j=None, energy_j=0.3, power_w=None) == ["implausible:efficiency_above_peak"]


@pytest.mark.parametrize("error", [1.0, 2.94, 1e6, -0.5, float("inf")])
def test_an_error_that_bounds_nothing_excuses_nothing(error):
    found = codes(energy_j=29.7e6 * 1e-3, power_w=29.7e6, energy_rel_error=error)
    assert "impossible:power_above_limit" in found
    assert "implausible:error_not_usable" in found
    assert "impossible:rate_above_limit" in codes(time_s=1e-5, energy_j=None, power_w=None, time_rel_error=error)


def test_an_error_below_100_percent_excuses_what_it_bounds_and_no_more():
    """5 PFLOP/s with 99 % on the time are at least 2.5, which no H100 does; an energy of 0.6 +- 60 % may be 0.24."""
    row = {"device_name": H100, "precision": "bf16", "model_flops": 5e12, "time_s": 1e-3}
    assert [f.code for f in audit_row(row | {"time_rel_error": 0.99})] == ["impossible:rate_above_limit"]
    assert not audit_row(row | {"model_flops": 2e12, "time_rel_error": 0.99})
    power = {"energy_j": 29.7e3, "time_s": 1e-3, "power_limit_w": 700.0, "energy_rel_error": 0.6, "time_rel_error": 0.6}
    assert [f.code for f in audit_row(power)] == ["impossible:power_above_limit"]
    assert not audit_row(power | {"energy_j": 2.0})  # 2 kW, perhaps 500 W


@pytest.mark.parametrize("error", [0.5, 0.9, 0.999, 1 - 1e-12])
def test_no_error_excuses_more_than_a_factor_of_two(error):
    row = {"time_s": 1e-3, "power_limit_w": 700.0, "idle_power_w": 70.0}
    assert [f.code for f in audit_row(row | {"energy_j": 100.0, "energy_rel_error": error})] == [
        "impossible:power_above_limit"
    ]
    assert not audit_row(row | {"energy_j": 1.0, "energy_rel_error": error})  # 1 kW, perhaps 500 W
    assert [f.code for f in audit_row(row | {"energy_j": 0.01, "time_rel_error": error})] == [
        "implausible:power_below_idle"
    ]


@pytest.mark.parametrize("error", [2.0, -2.0, 1.0])
def test_a_drift_error_that_bounds_nothing_excuses_nothing(error):
    found = codes(sentinel_time_drift=0.5, sentinel_time_drift_error=error)
    assert found == ["implausible:error_not_usable", "implausible:sentinel_drift"]


@pytest.mark.parametrize("limit", [-500.0, -1.0, 0.0])
def test_a_power_limit_that_is_none_makes_nothing_impossible(limit):
    assert codes(power_limit_w=limit) == []


def test_a_quotient_beyond_any_float_is_still_above_the_limit():
    row = {"device_name": H100, "precision": "bf16", "model_flops": 5e12, "time_s": 1e-320}
    assert [f.code for f in audit_row(row)] == ["impossible:rate_above_limit"]


@pytest.mark.parametrize("precision", ["BF16", "bfloat16", "torch.bfloat16", " bf16 ", "bf16-mixed"])
def test_other_spellings_of_a_precision(precision):
    row = {"device_name": H100, "precision": precision, "model_flops": 5e12, "time_s": 1e-3}
    assert [f.code for f in audit_row(row)] == ["impossible:rate_above_limit"]


def test_float32_does_not_say_which_units_computed():
    (note,) = audit_row({"device_name": H100, "precision": "torch.float32", "model_flops": 3e11, "time_s": 1e-3})
    assert note.code == "note:no_limit_known"
    assert "write fp32 (CUDA cores) or tf32" in note.sentence


def test_executed_flops_have_a_limit_too():
    row = {"device_name": H100, "precision": "bf16", "time_s": 1e-3}
    assert [f.code for f in audit_row(row | {"executed_flops": 5e13})] == ["impossible:executed_rate_above_limit"]
    assert audit_row(row | {"executed_flops": 1e12}) == []


def test_a_percentage_is_no_share_of_the_peak():
    assert codes(mfu=None, hfu=45.0) == ["implausible:mfu_above_one"]
    assert codes(mfu=None, hfu=1.05) == []


def test_parts_with_an_error_that_bounds_nothing_are_not_added_up():
    rows = [
        GOOD | {"phase": p, "time_s": t, "model_flops": None}
        for p, t in zip(("forward", "backward"), (1, 2), strict=False)
    ]
    whole = GOOD | {"phase": "forward_backward", "time_s": 10.0, "time_rel_error": 5.0, "model_flops": None}
    found = audit_rows([*rows, whole])
    assert any(f.rule == "error_not_usable" for f in found)
    assert not any(f.rule == "additivity" and "time_s" in str(f.numbers) for f in found)


def test_the_parts_are_judged_beside_what_is_derived_from_them():
    """5e12 FLOPs in 1 ms are 5e15 FLOP/s, whatever flops_per_s says."""
    row = {"device_name": H100, "precision": "bf16", "model_flops": 5e12, "time_s": 1e-3, "flops_per_s": 5e14}
    assert {f.code for f in audit_row(row)} == {"impossible:rate_above_limit", "implausible:inconsistent_columns"}
    assert codes(flops_per_s=5e13) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"energy_j": 0.7, "power_w": 300.0, "power_limit_w": 500.0}, "energy_j / time_s is 700"),
        ({"flops_per_j": 1e9}, "model_flops / energy_j"),
        ({"mfu": 0.1}, "flops_per_s / peak"),
        ({"active_energy_j": 0.2}, "energy_j - idle_power_w * time_s"),
        ({"active_energy_j": 0.7, "idle_power_w": None}, "energy_j is 0.6, but active_energy_j"),
        ({"tokens_per_iteration": 100, "tokens_per_s": 5.0}, "tokens_per_iteration / time_s is 1e+05"),
        ({"executed_flops": 100, "executed_tensor_flops": 90, "executed_cuda_flops": 90}, "executed_cuda_flops is 180"),
        ({"executed_flops": 100, "executed_gemm_flops": 90, "executed_other_flops": 90}, "sum of its classes is 180"),
        ({"executed_gemm_flops": 3e9, "gemm_flops": 2e9, "gemm_overhead": 5.0}, "executed_gemm_flops / gemm_flops - 1"),
        ({"tokens_per_iteration": 100, "energy_per_token_j": 0.6}, "energy_j / tokens_per_iteration"),
    ],
)
def test_derived_columns_are_held_against_their_parts(changes, words):
    found = {finding.rule: finding for finding in audit_row(GOOD | changes)}
    assert words in found["inconsistent_columns"].sentence
    assert ("power_above_limit" in found) == ("power_limit_w" in changes)


@pytest.mark.parametrize("column", ["model_flops", "flops_per_s", "executed_flops", "mfu"])
def test_counts_and_rates_are_not_negative(column):
    assert "impossible:not_positive" in codes(**{column: -5e9})


def test_one_text_cell_leaves_the_other_rows_judged():
    rows = [
        {"device_name": H100, "precision": "bf16", "model_flops": "5e12", "time_s": "0.001"},
        {"device_name": H100, "precision": "bf16", "model_flops": "5e12", "time_s": "OOM"},
    ]
    found = {finding.rule: finding for finding in audit_rows(rows)}
    assert found["rate_above_limit"].rows == (0,)
    assert found["not_a_number"].rows == (1,)
    assert "time_s is not a number in row 2: 'OOM'" in found["not_a_number"].sentence


@pytest.mark.parametrize("cell", ["1,234", "12 %", "1_000", "inf", "0x10", "3 ms", float("inf"), "TRUE", True])
def test_a_cell_that_is_no_plain_number_is_named(cell):
    found = {finding.rule: finding for finding in audit_rows([GOOD, GOOD | {"time_s": cell}])}
    assert found["not_a_number"].rows == (1,)


@pytest.mark.parametrize("cell", ["N/A", "-", "", "None", "nan", None, float("nan")])
def test_a_cell_that_says_that_it_is_empty_is_empty(cell):
    assert "not_a_number" not in {finding.rule for finding in audit_rows([GOOD, GOOD | {"energy_j": cell}])}


@pytest.mark.parametrize("ids", [(0, 1), (0.0, 1.0), ("a", "b"), (True, False)])
@pytest.mark.parametrize("column", ["trial_id", "execution", "run"])
def test_identities_are_texts_whatever_their_type(column, ids):
    """Parts of one point and the whole of another are not added up."""
    base = {key: GOOD[key] for key in ("device_name", "precision", "device_type")}
    one = [base | {column: ids[0], "phase": p, "time_s": 1.0} for p in ("forward", "backward")]
    other = base | {column: ids[1], "phase": "forward_backward", "time_s": 50.0}
    assert not any(f.rule == "additivity" for f in audit_rows([*one, other]))
    same = other | {column: ids[0]}
    assert any(f.rule == "additivity" for f in audit_rows([*one, same]))


@pytest.mark.parametrize(
    ("column", "values"),
    [("kernel", ("gemm", "softmax")), ("rank", (0, 1)), ("sparsity", (0.5, 0.25)), ("optimized", (True, False))],
)
def test_unknown_columns_that_tell_rows_apart_are_part_of_what_is_measured(column, values):
    """Flat energy over kernels is no launch window."""
    base = {"device_name": "A100", "precision": "bf16", "phase": "forward"}
    small = base | {"model_flops": 1e12, "energy_j": 1.0, "tokens": 128}
    large = base | {"model_flops": 1e13, "energy_j": 1.1, "tokens": 1280}
    assert any(f.rule == "launch_window" for f in audit_rows([small, large]))
    rows = [row | {column: value} for value, row in zip(values, (small, large), strict=False)]
    rows += [row | {column: value, "model_flops": None} for value, row in zip(values, (small, large), strict=False)]
    found = audit_rows(rows)
    assert not any(f.rule == "launch_window" for f in found)
    assert any(f.rule == "not_understood" and column in f.sentence for f in found)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        *(("gpu_count", 8), ("num_gpus", "8"), ("world_size", 8.0), ("nGPUs", "8x H100"), ("gpus", "0,1,2,3")),
        *(("ranks", 8), ("num_devices", "eight"), ("nodes", 2), ("gpus_per_node", 8), ("tensor_parallel", 8)),
        *(("device_ids", [0, 1]), ("tp", "8")),
    ],
)
def test_a_row_of_several_devices_is_not_held_against_one(column, cell):
    row = {"device_name": H100, "precision": "bf16", "model_flops": 4e12, "time_s": 1e-3, "power_w": 4e3, column: cell}
    found = audit_rows([row])
    assert not any(f.severity is Severity.IMPOSSIBLE for f in found)
    assert any(
        f.rule == "not_judged" and column in f.sentence and "per='job' or per='device'" in f.sentence for f in found
    )
    assert any(f.severity is Severity.IMPOSSIBLE for f in audit_rows([row | {column: 1}]))


@pytest.mark.parametrize(
    "times",
    [
        *((0, 0.1, 0.2), (0, 0.1, "x", 0.3), (0, 0, 0.1, 0.1, 0.2, 0.2), (0, 0.1, 0.2, 0, 0.1, 0.2)),
        (1.7e9, 1.7e9 + 1),
    ],
)
def test_a_time_axis_is_not_the_time_of_an_iteration(times):
    found = audit_rows([{"device_name": H100, "power_w": 300.0, "time_s": at} for at in times])
    assert not any(f.severity is Severity.IMPOSSIBLE for f in found)
    assert any(f.rule == "not_understood" and "time axis" in f.sentence for f in found)


def test_a_counter_that_was_read_is_not_an_energy():
    found = audit_rows([{"power_w": 300.0, "energy_j": at} for at in (0, 100, 250, 400)])
    assert not any(f.severity is Severity.IMPOSSIBLE for f in found)
    assert any(f.rule == "not_understood" and "counter" in f.sentence for f in found)


@pytest.mark.parametrize("times", [(0, 0, 0.001), (0.2, 0.1, 0), (0.1, 0, 0.2, 0.1)])
def test_a_zero_among_times_is_no_axis(times):
    found = audit_rows([{"time_s": time} for time in times])
    assert any(f.code == "impossible:not_positive" for f in found)


def test_a_column_that_sounds_like_one_of_ours_is_named():
    found = audit_rows([{"time_s": 1.0, "energy_total": 5.0}, {"time_s": 1.1, "energy_total": 6.0}])
    (note,) = [f for f in found if f.rule == "not_understood"]
    assert "energy_total" in note.sentence
    assert "--rename energy_total=energy_j" in note.sentence


@pytest.mark.parametrize("column", ["time_s", "energy_j", "power_w"])
@pytest.mark.parametrize("value", [0, -1.0])
def test_zero_is_not_a_measurement(column, value):
    assert "impossible:not_positive" in codes(**{column: value})


def test_shared_device():
    assert codes(other_processes=1) == ["implausible:shared_device"]


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ("", []),
        ("gpu_idle", []),
        ("none", []),
        ("applications_clocks_setting", []),
        ("sw_power_cap", ["note:throttled"]),
        ("gpu_idle|sw_power_cap", ["note:throttled"]),
        ("hw_thermal_slowdown", ["implausible:throttled"]),
        ("sw_power_cap|hw_slowdown", ["implausible:throttled"]),
    ],
)
def test_throttling(reasons, expected):
    assert codes(throttle_end=reasons) == expected


def test_sentinel_drift_grows_from_note_to_implausible():
    assert codes(sentinel_time_drift=0.029) == []
    assert codes(sentinel_time_drift=0.031) == ["note:sentinel_drift"]
    assert codes(sentinel_energy_drift=-0.11) == ["implausible:sentinel_drift"]


def test_a_drift_is_told_with_its_error_where_there_is_one():
    drifted = GOOD | {"sentinel_time_drift": 0.2, "sentinel_energy_drift": None}
    (known,) = audit_row(drifted | {"sentinel_time_drift_error": 0.06})
    (unknown,) = audit_row(drifted)
    assert "time by +20.0% ± 6.0% since" in known.sentence
    assert "time by +20.0% since" in unknown.sentence


def test_a_drift_within_its_own_error_is_none():
    assert codes(sentinel_time_drift=0.08, sentinel_time_drift_error=0.06) == []
    assert codes(sentinel_time_drift=0.13, sentinel_time_drift_error=0.06) == ["note:sentinel_drift"]
    assert codes(sentinel_time_drift=-0.17, sentinel_time_drift_error=0.06) == ["implausible:sentinel_drift"]


def test_target_error():
    assert codes(time_rel_error=0.011) == ["note:target_error_missed"]
    assert codes(energy_rel_error=0.01) == []


def test_a_time_without_an_error_is_told_with_its_reason():
    assert codes(time_rel_error=None, time_converged=False) == ["note:target_error_missed"]
    (finding,) = audit_row(GOOD | {"time_rel_error": None, "time_converged": False})
    assert "too few laps for an error of the time" in finding.sentence
    assert codes(time_rel_error=0.005, time_converged=False) == []


def test_an_unknown_gpu_is_a_note_and_not_a_pass():
    unknown = {"device_name": "Phantom 9000", "device_type": "PHANTOM", "flops_per_s": 1e21, "model_flops": None}
    assert codes(**unknown) == ["note:no_limit_known"]
    found = audit_rows([GOOD | unknown, GOOD | unknown | {"phase": "backward"}])
    (note,) = [finding for finding in found if finding.rule == "no_limit_known"]
    assert note.rows == (0, 1)
    assert "Phantom 9000" in note.sentence
    assert any(f.rule == "not_judged" and f.numbers["rule"] == "efficiency_above_peak" for f in found)


CPU_ROW = {
    **{name: value for name, value in GOOD.items() if not name.startswith(("energy", "power", "idle", "sentinel"))},
    **{"device_name": "Intel(R) Xeon(R) Processor", "device_type": "CPU", "execution": "eager", "phase": "forward"},
    **{"model_flops": 1e8, "time_s": 1e-3, "flops_per_s": 1e11, "measured_peak_flops_per_s": 2e11, "mfu": 0.5},
}


def test_a_measured_peak_serves_where_no_limit_is_known():
    assert audit_row(CPU_ROW) == []
    without = CPU_ROW | {"measured_peak_flops_per_s": None, "mfu": None}
    assert [f.code for f in audit_row(without)] == ["note:no_limit_known"]
    found = audit_rows([CPU_ROW])
    assert {f.severity for f in found} == {"note"}
    (said,) = [f for f in found if f.numbers.get("rule") == "rate_above_limit"]
    assert "a measured peak is not a limit" in said.sentence


@pytest.mark.parametrize("factor", [1.05, 1.2, 10.0, 1e4])
def test_a_measured_peak_is_no_limit_by_which_a_rate_is_impossible(factor):
    row = CPU_ROW | {"time_s": 5e-4 / factor, "flops_per_s": 2e11 * factor, "mfu": factor}
    found = audit_row(row)
    assert [f.code for f in found] == (["note:mfu_above_one"] if factor > 1.1 else [])
    assert all("which is no limit" in f.sentence for f in found)


def test_a_utilisation_is_held_against_the_peak_that_was_measured():
    (found,) = audit_row(CPU_ROW | {"mfu": 0.25})
    assert found.code == "implausible:inconsistent_columns"
    assert "flops_per_s / measured_peak_flops_per_s of 200 GFLOP/s" in found.sentence
    assert audit_row(CPU_ROW | {"phase": "optimizer_step", "mfu": None}) == []


def test_where_a_datasheet_knows_the_peak_a_measured_one_changes_nothing():
    measured = {"measured_peak_flops_per_s": 1e12}
    assert codes(**measured, mfu=5e13 / 67e12) == []
    assert "impossible:rate_above_limit" in codes(**measured, model_flops=None, flops_per_s=1e15)


def test_a_drift_is_told_from_the_error_on_that_was_asked_for():
    asked = {"target_error": 0.05, "sentinel_energy_drift": None}
    assert codes(**asked, sentinel_time_drift=0.04) == []
    assert codes(**asked, sentinel_time_drift=0.06) == ["note:sentinel_drift"]
    assert codes(**asked, sentinel_time_drift=0.11) == ["implausible:sentinel_drift"]
    assert codes(target_error=0.1, sentinel_time_drift=0.15) == ["note:sentinel_drift"]
    assert codes(target_error=0.1, sentinel_time_drift=0.21) == ["implausible:sentinel_drift"]
    assert codes(target_error=5.0, sentinel_time_drift=0.5)[0] == "implausible:sentinel_drift"


def test_a_drift_of_many_times_the_value_may_have_an_error_above_one():
    assert codes(sentinel_time_drift=9.0, sentinel_time_drift_error=3.0) == ["implausible:sentinel_drift"]


def test_missing_columns_are_named_as_not_judged():
    found = audit_rows([{"time_s": 1.0}, {"time_s": 2.0}])
    judged = {finding.numbers["rule"] for finding in found if finding.rule == "not_judged"}
    assert {finding.rule for finding in found} == {"not_judged"}
    assert judged == {
        "error_not_usable",
        "inconsistent_columns",
        "executed_rate_above_limit",
        "mfu_above_one",
        "executed_below_closed_form",
        "unclassified_kernels",
        "rate_above_limit",
        "power_above_limit",
        "efficiency_above_peak",
        "power_below_idle",
        "shared_device",
        "throttled",
        "sentinel_drift",
        "target_error_missed",
        "additivity",
        "launch_window",
    }
    assert all("2 of 2 rows" in finding.sentence for finding in found)


def test_a_hole_is_not_judged_at_all():
    hole = GOOD | {"status": "out_of_memory", "time_s": None, "energy_j": None, "power_w": None, "other_processes": 3}
    assert audit_row(hole) == []
    assert audit_rows([hole, GOOD | {"other_processes": 1}])[0].rows == (1,)


# additivity


def point(execution="graph", error=0.005, **times):
    return [
        GOOD
        | {"phase": phase, "execution": execution, "time_s": value, "energy_j": 600 * value}
        | {"time_rel_error": error, "energy_rel_error": error}
        for phase, value in times.items()
    ]


def added(*args, **times):
    return [(f.severity, f.rows) for f in audit_point(point(*args, **times)) if "whole_time_s" in f.numbers]


def test_parts_that_add_up_are_silent():
    assert audit_point(point(forward=1.0, backward=2.0, optimizer_step=0.5, train_step=3.55)) == []
    assert audit_point(point(forward=1.0, backward=2.0, forward_backward=3.0)) == []


def test_a_whole_above_its_parts_is_implausible_in_time_and_energy():
    found = audit_point(point(forward=1.0, backward=2.0, optimizer_step=0.5, train_step=3.8))
    assert [f.code for f in found] == ["implausible:additivity"] * 2
    assert {next(iter(f.numbers)) for f in found} == {"whole_time_s", "whole_energy_j"}
    assert found[0].rows == (3, 0, 1, 2)


def test_the_tolerance_is_added_to_the_errors():
    tight, loose = 0.0, 0.05
    assert added("graph", tight, forward=1.0, backward=2.0, forward_backward=3.16) != []
    assert added("graph", tight, forward=1.0, backward=2.0, forward_backward=3.14) == []
    assert added("graph", loose, forward=1.0, backward=2.0, forward_backward=3.16) == []


def test_a_whole_below_its_parts_is_a_note_where_launches_overlap():
    parts = {"forward": 1.0, "backward": 2.0, "forward_backward": 2.4}
    assert added("graph", **parts) == [(Severity.IMPLAUSIBLE, (2, 0, 1))]
    assert added("eager", **parts) == [(Severity.NOTE, (2, 0, 1))]
    assert added("eager", **parts | {"forward_backward": 1.5}) == [(Severity.IMPLAUSIBLE, (2, 0, 1))]


@pytest.mark.parametrize(("whole", "expected"), [(3.6, set()), (3.9, {Severity.NOTE}), (2.1, {Severity.NOTE})])
def test_on_a_cpu_caches_make_a_wide_difference_a_note(whole, expected):
    times = {"forward": 1.0, "backward": 2.0, "forward_backward": whole}
    cpu = [row | {"device_type": "CPU"} for row in point("eager", **times)]
    assert {finding.severity for finding in audit_point(cpu)} == expected


def test_both_ways_to_a_train_step_are_checked():
    found = added(forward=1.0, backward=2.0, forward_backward=3.0, optimizer_step=1.0, train_step=5.0)
    assert [rows for _, rows in found] == [(4, 0, 1, 3), (4, 2, 3)]


def test_points_of_a_table_are_kept_apart():
    rows = point(forward=1.0, backward=2.0) + [r | {"trial_id": "f" * 16} for r in point(forward_backward=9.0)]
    found = audit_rows(rows)
    assert not [finding for finding in found if finding.rule == "additivity"]
    assert [f.sentence for f in found if f.numbers.get("rule") == "additivity"] == [
        "additivity could not be judged in 3 of 3 rows: no whole phase has numbers beside all of its parts"
    ]


# launch window


def series(flops, times, energies, **changes):
    return [
        GOOD
        | {"tokens": 32 * 2**i, "trial_id": str(i), "model_flops": f, "time_s": t, "energy_j": e, "power_w": None}
        | changes
        for i, (f, t, e) in enumerate(zip(flops, times, energies, strict=True))
    ]


def marks(rows):
    return [f for f in audit_rows(rows) if f.rule == "launch_window"]


def test_launch_window_catches_energy_that_stays_flat_where_flops_alone_would_cost_more():
    best = 67e12 / 700  # FLOP/J
    flops = [1e12, 2e12, 4e12]
    times = [f / 30e12 for f in flops]
    small = 3e12 / best / 0.6  # the added FLOPs alone cost 0.6 of the small point
    (mark,) = marks(series(flops, times, [small, small * 1.1, small * 1.4]))
    assert mark.numbers["quantity"] == "energy_j"
    assert mark.rows == (0, 1, 2)
    assert mark.severity is Severity.IMPLAUSIBLE
    assert marks(series(flops, times, [small, small * 1.3, small * 1.6])) == []  # it does rise
    big = 3e12 / best / 0.4
    assert marks(series(flops, times, [big, big * 1.1, big * 1.2])) == []  # the small point costs much by itself


def test_launch_window_catches_flat_time_near_the_peak():
    flops, energies = [1e12, 4e12], [20.0, 80.0]
    (mark,) = marks(series(flops, [0.05, 0.06], energies))
    assert mark.numbers["quantity"] == "time_s"
    assert marks(series(flops, [0.065, 0.08], energies)) == []  # 75 % of the peak at the top, launch-bound below


def test_launch_bound_points_of_a_small_mlp_are_not_marked():
    """Eager n8 d1024 on an H100, as measured at m=128 (240 µs, 65 mJ): flat in time, nearly flat in energy."""
    flops = [2 * 8 * 1024**2 * m for m in (8, 16, 32, 64, 128)]
    rows = series(flops, [238e-6, 241e-6, 239e-6, 240e-6, 240e-6], [0.05, 0.051, 0.053, 0.057, 0.065])
    assert marks([row | {"execution": "eager"} for row in rows]) == []
    tiny = [2 * 2 * 128**2 * m for m in (16, 32, 64, 128, 256)]
    assert marks(series(tiny, [60e-6] * 5, [6e-3] * 5)) == []


def test_a_true_llama_forward_is_not_marked_and_the_published_one_is():
    """Llama-3.2-1B, batch 8, bf16, H100: measured with synchronisation, against the figures flopmetrics published."""
    shape = {"precision": "bf16", "width": None, "n_layers": None, "tokens": None, "batch_size": 8}
    measured = series([5062411866112, 20249647261696], [24.0e-3, 58.7e-3], [10.7, 40.9], **shape)
    published = series([5062411866112, 20249647261696], [11.9e-3, 13.6e-3], [5.82, 6.79], **shape)
    for rows in (measured, published):
        rows[0]["sequence_length"], rows[1]["sequence_length"] = 256, 1024
    assert marks(measured) == []
    assert [mark.numbers["quantity"] for mark in marks(published)] == ["energy_j", "time_s"]


def test_series_are_not_mixed_across_devices_precisions_or_phases():
    flops, times, energies = [1e12, 4e12], [0.05, 0.05], [20.0, 20.0]
    rows = series(flops, times, energies)
    assert marks(rows)
    for change in ({"phase": "backward"}, {"precision": "tf32"}, {"device_uuid": "GPU-2"}, {"width": 2048}):
        assert marks([rows[0] | change, rows[1]]) == []


# tables


def test_findings_carry_the_labels_of_the_index():
    frame = pd.DataFrame([GOOD, GOOD | {"flops_per_s": 1e15, "phase": "backward"}], index=["good", "bad"])
    first = audit(frame)[0]
    assert (first.code, first.rows) == ("impossible:rate_above_limit", ("bad",))
    assert first.where.endswith("fp32 graph backward")


def test_nullable_arrow_columns_are_read_like_any_other():
    frame = pd.DataFrame([GOOD, GOOD | {"flops_per_s": 1e15}]).convert_dtypes(dtype_backend="pyarrow")
    assert audit(frame)[0].code == "impossible:rate_above_limit"


def test_an_empty_frame_has_no_finding_but_says_nothing_was_judged():
    assert {finding.severity for finding in audit(pd.DataFrame())} <= {Severity.NOTE}


VALUES = st.one_of(
    st.none(),
    st.just(pd.NA),
    st.booleans(),
    st.floats(),
    st.integers(),
    st.just(10**400),
    st.floats(min_value=1e-9, max_value=1e21),
    st.text(max_size=5),
    st.sampled_from(
        ["h100", "v100", "fp32", "bf16", "forward", "train_step", "backward", "optimizer_step", "graph", "ok"]
    ),
)
COLUMNS = st.sampled_from([*sorted(COLUMN_NAMES), "batch_size", "sequence_length", "model", "unrelated"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(COLUMNS, VALUES, max_size=20), max_size=6))
def test_any_table_is_audited_without_an_exception(rows):
    frame = pd.DataFrame(rows, dtype=object)
    found = audit(frame)
    assert {finding.rule for finding in found} <= set(RULES)
    assert {row for finding in found for row in finding.rows} <= set(frame.index)


@settings(max_examples=100, deadline=None)
@given(
    rate=st.floats(min_value=1e6, max_value=1e18),
    error=st.floats(min_value=0, max_value=0.5),
)
def test_a_rate_is_impossible_exactly_when_it_exceeds_the_limit_beyond_its_error(rate, error):
    found = codes(flops_per_s=rate, time_rel_error=error, target_error=None, power_w=300.0)
    assert ("impossible:rate_above_limit" in found) == (rate / (1 + error) > 132 * 256 * 1.98e9)


def test_importing_the_audit_imports_neither_torch_nor_ray_nor_pandas():
    code = "import sys, flopray.audit; print([m for m in ('torch', 'ray', 'pandas', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("stated", "further"),
    [
        ({"power_limit_w": 5600.0, "power_w": 5500.0}, ["implausible:power_above_limit"]),  # of eight boards
        ({"power_limit_w": 7e5, "power_w": 5500.0}, ["implausible:power_above_limit"]),  # in mW
        ({"power_limit_w": 0.7, "power_w": 650.0}, []),  # in kW
        ({"sm_count": 1000, "flops_per_s": 5e14}, ["impossible:rate_above_limit"]),
        ({"max_sm_clock_hz": 1e13, "flops_per_s": 5e14}, ["impossible:rate_above_limit"]),
        ({"max_sm_clock_hz": 1980.0, "flops_per_s": 5e13}, []),  # in MHz
    ],
)
def test_what_a_row_states_of_its_device_is_held_against_the_datasheet(stated, further):
    row = {"device_name": "NVIDIA H100 80GB HBM3", "precision": "fp32", **stated}
    found = audit_row(row)
    assert sorted(finding.code for finding in found) == sorted([*further, "implausible:inconsistent_columns"])
    assert any("datasheet of the H100 SXM" in finding.sentence for finding in found)


def test_a_power_that_no_board_takes_needs_no_name_of_the_board():
    found = audit_row({"energy_j": 9e6, "time_s": 0.5})
    assert [finding.code for finding in found] == ["implausible:power_above_limit"]
    assert "18 MW is above the 5 kW that no single board takes" in found[0].sentence
    assert audit_row({"energy_j": 2400.0, "time_s": 0.5}) == []


def test_the_fields_of_a_runs_workload_name_its_points_and_are_understood():
    rows = [GOOD | {"channels": channels, "norm": "batch", "power_w": 900.0} for channels in (8, 16)]
    foreign, own = audit_rows(rows), audit_rows(rows, fields=["channels", "norm"])
    assert any(f.rule == "not_understood" and "told apart by channels" in f.sentence for f in foreign)
    assert not [f for f in own if f.rule == "not_understood"]
    (finding,) = {f.where for f in own if f.rule == "power_above_limit" and f.rows[0] == 1}
    assert finding.endswith(" forward channels=16 norm=batch")
    # what is no field is still told
    assert any("told apart by channels" in f.sentence for f in audit_rows(rows, fields=["norm"]))
