"""Tables as other tools write them: logs, nested JSON, several devices in a cell, units below the names."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from flopray.audit import audit_row
from flopray.audit.device_counts import times_device
from flopray.audit.findings import identity
from flopray.cli.audit import main

HEAD = "device_name,precision,model_flops,time_s"
ROWS = [
    {"device_name": "H100", "precision": "bf16", "model_flops": 5e12, "time_s": 0.001},
    {"device_name": "H100", "precision": "bf16", "model_flops": 4e12, "time_s": 0.01},
]


def audit(tmp_path, capsys, content, *flags, name="t.csv"):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    code = main([str(path), *flags])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def findings(tmp_path, capsys, content, *flags, name="t.csv"):
    code, out, err = audit(tmp_path, capsys, content, "--json", *flags, name=name)
    assert out, err
    return code, [(f["severity"], f["rule"]) for f in json.loads(out)["findings"] if f["severity"] != "note"]


STEPS = (49, 99, 149, 199)


@pytest.mark.parametrize("counter", ["step", "epoch", "trainer/global_step", "batch_idx", "iteration"])
@pytest.mark.parametrize(
    ("column", "values"), [("time_s", [10.1, 20.2, 30.1, 40.1]), ("energy_j", [3e3, 6.1e3, 9e3, 1.21e4])]
)
def test_what_grows_along_with_the_steps_of_a_log_is_no_iteration(tmp_path, capsys, counter, column, values):
    other = "power_w" if column == "time_s" else "time_s"
    rows = "".join(f"H100,{s},{v},0.2\n" for s, v in zip(STEPS, values, strict=True))
    code, out, err = audit(tmp_path, capsys, f"device_name,{counter},{column},{other}\n{rows}")
    assert code == 2
    assert "time axis" in err or "counter" in err
    assert out == ""


def test_flops_summed_over_the_steps_of_a_trainer_are_no_iteration(tmp_path, capsys):
    lines = [ROWS[0] | {"step": s, "model_flops": 1e14 * (s + 1), "time_s": 0.5} for s in STEPS]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    code, _, err = audit(tmp_path, capsys, text, name="t.jsonl")
    assert code == 2
    assert "model_flops rises with the steps" in err
    one_step = "".join(json.dumps(line | {"model_flops": 1e14}) + "\n" for line in lines)
    assert audit(tmp_path, capsys, one_step, name="t.jsonl")[0] == 0


@pytest.mark.parametrize(
    "readings",
    [
        [5000123.1, 5000456.9, 5000761.2, 5001099.4],  # a counter that runs since long ago, and 0.5 s a row
        [120.0, 310.0, 460.0, 690.0],
    ],
)
def test_a_counter_in_unequal_steps_gets_no_verdict(tmp_path, capsys, readings):
    rows = "".join(f"H100,{reading},0.5,700\n" for reading in readings)
    code, out, err = audit(tmp_path, capsys, f"device_name,energy_j,time_s,power_limit_w\n{rows}")
    assert code == 2
    assert "energy_j only rises: a counter" in err
    assert out == ""


@pytest.mark.parametrize(
    "table",
    [
        "model,time_s,power_w\nsmall,0.1,9e4\nbase,0.25,9e4\nlarge,0.31,9e4\nhuge,0.5,9e4\n",  # sorted by time
        "device_name,time_s,power_w\nH100,1,9e4\nH100,2,9e4\nH100,4,9e4\nH100,8,9e4\n",  # a sweep that doubles
        "step,steps,time_s,power_w\n0,10,1,9e4\n1,20,2,9e4\n2,30,3,9e4\n",  # of numbers of steps
        "step,n_layers,time_s,power_w\n0,1,1,9e4\n1,2,2,9e4\n2,3,3,9e4\n",
        "step,energy_j,time_s,power_w\n0,300,1,9e4\n1,301,1,9e4\n2,302,1,9e4\n3,304,1,9e4\n",  # a board that warms up
    ],
)
def test_values_that_rise_for_a_cause_are_judged(tmp_path, capsys, table):
    _, found = findings(tmp_path, capsys, table)
    assert ("implausible", "power_above_limit") in found


@pytest.mark.parametrize(
    ("cell", "count", "name"),
    [
        ("['NVIDIA A100-SXM4-80GB', 'NVIDIA A100-SXM4-80GB']", 2, "NVIDIA A100-SXM4-80GB"),
        ("['NVIDIA A100-SXM4-80GB']", 1, "NVIDIA A100-SXM4-80GB"),
        ("NVIDIA H100 PCIe;NVIDIA H100 PCIe;NVIDIA H100 PCIe", 3, "NVIDIA H100 PCIe"),
        ("2 NVIDIA H100 80GB HBM3", 2, "NVIDIA H100 80GB HBM3"),
        ("8 H100s", 8, "H100"),
        ("HGX H100 8-GPU", 8, "H100"),
        ("gpu:h100:4", 4, "h100"),
        ("H100-SXM5-80GBx8", 8, "H100-SXM5-80GB"),
        ("A100_x4", 4, "A100"),
        ("NVIDIA H100 80GB HBM3, NVIDIA A100-SXM4-80GB", 2, "NVIDIA H100 80GB HBM3, NVIDIA A100-SXM4-80GB"),
        ("NVIDIA GeForce RTX 4090", None, "NVIDIA GeForce RTX 4090"),
        ("A100-SXM4-40GB", None, "A100-SXM4-40GB"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, "NVIDIA H100 80GB HBM3 MIG 1g.10gb"),
    ],
)
def test_devices_in_a_cell_are_counted(cell, count, name):
    assert times_device(cell) == (count, name)


def test_a_sum_over_devices_that_a_cell_lists_is_not_held_against_one(tmp_path, capsys):
    row = {"device_name": ["H100", "H100"], "precision": "bf16", "model_flops": 1.5e12, "time_s": 0.001}
    code, _, err = audit(tmp_path, capsys, json.dumps([row | {"power_w": 1300, "power_limit_w": 1400}]), name="t.json")
    assert code == 2
    assert "device_name says that rows cover several devices" in err
    table = f"{HEAD},power_w,power_limit_w\n2 NVIDIA H100 80GB HBM3,bf16,1.5e12,0.001,1300,1400\n"
    assert audit(tmp_path, capsys, table)[0] == 2
    code, out, _ = audit(tmp_path, capsys, table, "--per", "job")
    assert code == 0
    assert "judged by the limits of the H100 SXM" in out
    pd.DataFrame([row | {"device_name": np.array(["H100"])}]).to_parquet(tmp_path / "one.parquet")
    assert main([str(tmp_path / "one.parquet")]) == 1


def test_a_table_of_times_alone_names_no_empty_sum(tmp_path, capsys):
    _, out, _ = audit(tmp_path, capsys, "device_name,time_s,gpu_count\nH100,300,8\n", "--per", "job")
    assert "sum" not in out.partition("not judged")[0]


@pytest.mark.parametrize(("cell", "judged"), [("2:4", False), (True, False), (0.5, False), ("dense", True), (0, True)])
def test_sparse_products_are_not_held_against_dense_peaks(cell, judged):
    row = ROWS[0] | {"model_flops": 1.5e12, "sparsity": cell, "energy_j": 0.7}
    assert any(f.rule == "rate_above_limit" for f in audit_row(row)) == judged
    assert any(f.rule == "rate_above_limit" for f in audit_row(row | {"model_flops": 5e13}))


@pytest.mark.parametrize(("cell", "value"), [("1,698.12", "1698.12"), ("1.698,12", "1698.12"), ("1 698,5", "1698.5")])
def test_two_kinds_of_marks_say_which_is_decimal(tmp_path, capsys, cell, value):
    _, out, _ = audit(tmp_path, capsys, f'device_name,power_w\nH100,"{cell}"\n')
    assert f"{cell} is {value}" in out
    assert "power_above_limit" in out


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("01", "1"),
        ("1e3", "1000"),
        ("0e12", "0e99"),
        (2**63, 2**63 + 1),
        ("1234567890123456789", "1234567890123456788"),
    ],
)
def test_ids_that_only_look_like_equal_numbers_are_two(one, other):
    assert identity({"trial_id": one}, "trial_id") != identity({"trial_id": other}, "trial_id")


@pytest.mark.parametrize("orient", ["columns", "index", "split", "records", "table"])
def test_frames_in_each_orientation_of_pandas(tmp_path, capsys, orient):
    text = pd.DataFrame(ROWS).to_json(orient=orient)
    assert text is not None
    code, found = findings(tmp_path, capsys, text, name="t.json")
    assert code == 1
    assert ("impossible", "rate_above_limit") in found


def test_rows_by_name_are_rows(tmp_path, capsys):
    content = json.dumps({"small": ROWS[1], "large": ROWS[0]})
    assert findings(tmp_path, capsys, content, name="t.json")[0] == 1


@pytest.mark.parametrize(
    ("units", "row", "code"),
    [(",,TFLOP,ms", "H100,bf16,5,1", 1), (",,TFLOP,s", "H100,bf16,5,1", 0), (",,,ms", "H100,bf16,5e12,1", 1)],
)
def test_a_row_of_units_below_the_names_is_read(tmp_path, capsys, units, row, code):
    found, out, _ = audit(tmp_path, capsys, f"{HEAD}\n{units}\n{row}\n{row}\n")
    assert found == code
    assert "the first row has units and was not judged" in out
    assert "not_a_number" not in out


def test_a_row_of_units_that_may_be_milli_or_mega_is_refused(tmp_path, capsys):
    code, _, err = audit(tmp_path, capsys, "device_name,power_w\n,mw\nH100,5\n")
    assert code == 2
    assert "may be milli or mega" in err


def test_no_column_is_proposed_for_itself(tmp_path, capsys):
    code, _, err = audit(tmp_path, capsys, "device_name,prefill.latency.mean\nH100,1\n")
    assert code == 2
    assert "such as --rename prefill.latency.mean=time_s (" in err


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"flops_per_s": 1e14, "power_w": 300.0, "flops_per_j": 1e12}, "flops_per_s / power_w"),
        ({"tokens_per_s": 1e3, "power_w": 300.0, "energy_per_token_j": 1.0}, "power_w / tokens_per_s"),
        ({"time_s": 1.0, "power_w": 300.0, "active_energy_j": 500.0}, "power_w * time_s, which it is a part of"),
        ({"time_s": 1.0, "energy_j": 300.0, "active_energy_j": -500.0}, "the least that is left"),
        ({"time_s": 1.0, "energy_j": 300.0, "energy_at_reference_j": 9e4}, "at another temperature"),
        ({"time_s": 1.0, "mfu": 0.5, "hfu": 0.3}, "counts no recomputed FLOPs"),
    ],
)
def test_parts_two_steps_away_are_compared(columns, words):
    found = [f for f in audit_row({"device_name": "H100", **columns}) if f.rule == "inconsistent_columns"]
    assert len(found) == 1
    assert words in found[0].sentence


@pytest.mark.parametrize("column", ["idle_power_w", "tokens_per_s"])
def test_powers_and_rates_below_zero_are_impossible(column):
    assert "not_positive" in [f.rule for f in audit_row({"time_s": 1.0, column: -50.0})]


@pytest.mark.parametrize("column", ["ddp_world_size", "replicas", "SLURM_NTASKS", "system_accelerators", "fsdp_size"])
@pytest.mark.parametrize("other", ["sequence_parallel", "mesh_shape", "gpus_per_task", "pipeline_stages", "nothing"])
def test_a_sum_over_replicas_and_parts_of_a_mesh_is_not_held_against_one_device(tmp_path, capsys, column, other):
    cell = "(2, 4)" if other == "mesh_shape" else 4
    for name, value in ((column, 8), (other, cell)):
        if name != "nothing":
            row = json.dumps([ROWS[0] | {name: value}])
            code, out, err = audit(tmp_path, capsys, row, name="t.json")
            assert code == 2
            assert f"{name} says that rows cover several devices" in err
            assert out == ""


@pytest.mark.parametrize("column", ["gpu", "rank", "other_processes", "max_num_seqs", "tokens_per_gpu", "gpu_index"])
def test_what_counts_no_devices_asks_for_nothing(tmp_path, capsys, column):
    assert audit(tmp_path, capsys, json.dumps([ROWS[0] | {column: 8}]), name="t.json")[0] == 1


@pytest.mark.parametrize("column", ["lr", "dropout", "weight_sparsity", "capacity_factor"])
def test_settings_that_are_fractions_tell_rows_apart(tmp_path, capsys, column):
    rows = [
        {**ROWS[0], "model_flops": 1e9, column: 0.1},
        {**ROWS[0], "model_flops": 1e12, "time_s": 0.0011, column: 0.2},
    ]
    assert findings(tmp_path, capsys, json.dumps(rows), name="t.json") == (0, [])
    for row in rows:
        row["loss"] = row.pop(column)
    assert findings(tmp_path, capsys, json.dumps(rows), name="t.json")[1] == [("implausible", "launch_window")]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (f"{HEAD},time_ms\nH100,bf16,4e12,0.1,\nH100,bf16,5e12,,1\n", "time_ms is read as time_s in 1 row"),
        (f"{HEAD},time_ms\nH100,bf16,5e12,,1\nH100,bf16,5e12,,1\n", "time_ms is read as time_s in 2 rows"),
        (f"{HEAD},time_ms\nH100,bf16,4e12,0.1,100\nH100,bf16,5e12,OOM,1\n", "without a number in that (OOM)"),
    ],
)
def test_a_second_column_of_a_quantity_fills_the_gaps_of_the_first(tmp_path, capsys, table, said):
    code, out, _ = audit(tmp_path, capsys, table)
    assert (code, said in out) == (1, True)


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [("01:00:00", 3600), ("1-00:00:00", 86400), ("1 day, 0:00:01", 86401), ("0:00:01.5", 1.5), ("100:00:00", 360000)],
)
def test_time_spans_of_slurm_and_python_are_read(tmp_path, capsys, cell, seconds):
    _, out, _ = audit(tmp_path, capsys, f'device_name,time_s,energy_j\nH100,"{cell}",1\n')
    assert f"{cell} is {seconds:g}" in out


def test_minutes_and_seconds_may_be_hours_and_minutes(tmp_path, capsys):
    assert audit(tmp_path, capsys, "device_name,time_s\nH100,1:30\n")[0] == 2


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
@pytest.mark.parametrize("cell", ["\\ud800", "H100\\udfff"])
def test_half_a_pair_of_surrogates_is_no_text(tmp_path, capsys, name, cell):
    row = '{"device_name": "' + cell + '", "time_s": 1}'
    code, out, err = audit(tmp_path, capsys, row, name=name)
    assert (code, out) == (2, "")
    assert "which is no text" in err
    assert len(err.splitlines()) == 1


def test_a_number_beyond_any_float_is_named(tmp_path, capsys):
    row = json.dumps([ROWS[1] | {"model_flops": 10**400}])
    _, out, _ = audit(tmp_path, capsys, row, name="t.json")
    assert "model_flops is not a number in row 1" in out


@pytest.mark.parametrize(
    ("start", "said"), [(b"\x1f\x8b\xff", "packed by gzip"), (b"PK\x03\x04\xff\xff", "a workbook of Excel")]
)
def test_a_file_that_is_no_text_is_not_to_be_converted(tmp_path, capsys, start, said):
    (tmp_path / "t.csv").write_bytes(start)
    assert main([str(tmp_path / "t.csv")]) == 2
    assert said in capsys.readouterr().err


def test_a_job_of_slurm_is_divided_by_its_gpus(tmp_path, capsys):
    table = "JobID|Elapsed|AllocTRES|ConsumedEnergyRaw\n1|01:00:00|billing=8,gres/gpu=8,node=1|16000000\n"
    flags = ("--rename", "Elapsed=time_s", "ConsumedEnergyRaw=energy_j")
    code, _, err = audit(tmp_path, capsys, table, *flags)
    assert (code, "AllocTRES says that rows cover several devices" in err) == (2, True)
    code, out, _ = audit(tmp_path, capsys, table, *flags, "--per", "job")
    assert (code, "energy_j is a sum over AllocTRES devices" in out) == (0, True)


@pytest.mark.parametrize("per", ["job", "device"])
@pytest.mark.parametrize(("column", "cell"), [("hardware", "8xH100"), ("gpu", "0,1,2,3"), ("ReqTRES", "gres/gpu=8")])
def test_rows_of_several_devices_are_judged_once_it_is_said_of_what(tmp_path, capsys, per, column, cell):
    row = json.dumps([ROWS[0] | {"model_flops": 3e12, column: cell}])
    assert audit(tmp_path, capsys, row, "--per", per, name="t.json")[0] == (0 if per == "job" else 1)


@pytest.mark.parametrize(
    "column",
    [
        "scale",
        "cuda",
        "clock_ghz",
        "power_cap",
        "freq_mhz",
        "power_limit_w",
        "node",
        "driver_version",
        "hold_temperature_c",
    ],
)
def test_settings_and_conditions_tell_rows_apart(tmp_path, capsys, column):
    rows = [
        {**ROWS[0], "model_flops": 1e9, column: 600.5},
        {**ROWS[0], "model_flops": 9e11, "time_s": 0.00101, column: 700.5},
    ]
    assert findings(tmp_path, capsys, json.dumps(rows), name="t.json") == (0, [])
    same = [row | {column: 700.5} for row in rows]
    assert findings(tmp_path, capsys, json.dumps(same), name="t.json")[1] == [("implausible", "launch_window")]


@pytest.mark.parametrize("column", ["tokens", "width", "n_layers"])
def test_sizes_that_are_words_tell_points_apart(tmp_path, capsys, column):
    cells = ("4K", "4K", "8K")
    rows = [
        {"device_name": "H100", "phase": phase, "time_s": time_s, column: cell}
        for phase, time_s, cell in zip(("forward", "backward", "forward_backward"), (1, 2, 6), cells, strict=True)
    ]
    assert findings(tmp_path, capsys, json.dumps(rows), name="t.json") == (0, [])
    same = {"phase": "forward", "precision": "bf16"}
    rows = [row | same | {"model_flops": f} for row, f in zip(rows, (1e9, 1e10, 5e15), strict=True)]
    assert ("implausible", "launch_window") not in findings(tmp_path, capsys, json.dumps(rows), name="t.json")[1]


@pytest.mark.parametrize("column", ["seed", "torch_version", "node", "parameters", "power_limit_w", "nothing"])
def test_phases_of_different_points_are_not_added_up(tmp_path, capsys, column):
    """A whole of twice the FLOPs belongs to another step, whatever the column is that says so."""
    parts = [("forward", 1, 700), ("backward", 2, 700), ("forward_backward", 6, 650)]
    rows = [
        {"phase": phase, "time_s": cost, "energy_j": 500.0 * cost, "model_flops": cost * 1e12, column: value}
        for phase, cost, value in parts
    ]
    assert findings(tmp_path, capsys, json.dumps(rows), name="t.json") == (0, [])
    alike = [row | {column: 700, "model_flops": None} for row in rows]
    assert ("implausible", "additivity") in findings(tmp_path, capsys, json.dumps(alike), name="t.json")[1]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "cannot be read (it is empty)"),
        ("device_name model_flops time_s\nH100 5e12 0.001\n", "is one column: separate cells by commas"),
        ("forward,forward\ntime_ms,power_w\n1,2\n", "if the names stand in several rows, join them in one"),
        ("time_s,power_w\n1\n", "1 cell under 2 column names"),
    ],
)
def test_a_table_of_another_form_says_what_to_do(tmp_path, capsys, table, said):
    code, _, err = audit(tmp_path, capsys, table)
    assert (code, said in err) == (2, True)


def test_spreads_under_a_known_column_are_no_measurements(tmp_path, capsys):
    table = "run,device_name,energy_j,time_s\n1,H100,600,1\nmean,H100,605,1\nstd,H100,50,0.001\n"
    code, out, _ = audit(tmp_path, capsys, table)
    assert "rows whose run is std are not measurements" in out
    assert (code, "power_above_limit" in out.partition("not judged")[0]) == (0, False)


@pytest.mark.parametrize(
    ("stated", "factor"), [(400, "1e+12"), (4e5, "1e+09"), (4e12, "100"), (3.9e11, "1000"), (4e13, None), (8e11, None)]
)
def test_a_derived_column_in_another_unit_says_by_which_factor(stated, factor):
    row = {"model_flops": 4e11, "time_s": 1e-3, "flops_per_s": stated}
    (found,) = [f for f in audit_row(row) if f.rule == "inconsistent_columns"]
    assert (f"a factor of {factor} is that of another unit" in found.sentence) == (factor is not None)
    assert ("another unit" in found.sentence) == (factor is not None)


def test_numbers_of_one_are_in_the_singular(tmp_path, capsys):
    _, out, _ = audit(tmp_path, capsys, "device_name,time_s\nH100,1\n")
    assert "in 1 of 1 row: " in out
    assert "1 rows" not in out
