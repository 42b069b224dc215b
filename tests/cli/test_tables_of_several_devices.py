"""Tables with a column for each device, or with what holds for all rows beside them, as loggers write them."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from test_tables_of_other_tools import audit, findings

from flopray.audit import audit_rows
from flopray.audit.device_columns import column_of_a_further_device
from flopray.audit.device_counts import times_device
from flopray.cli.audit import main

#: More than one H100 can do, and less than two.
SUM = {"device_name": "H100", "precision": "bf16", "model_flops": 1.5e12, "time_s": 0.001}


@pytest.mark.parametrize(
    "columns",
    [
        {"gpu0_energy": 0.7, "gpu1_energy": 0.7},  # Zeus
        {"gpu_energy": {"0": 0.7, "1": 0.7}},  # its measurements as JSON
        {"nvidia_gpu_0": 600, "nvidia_gpu_1": 600},  # pyJoules
        {"system.gpu.0.powerWatts": 600, "system.gpu.1.powerWatts": 600},  # W&B
        {"GPU 0": 60, "GPU 1": 61, "GPU 2": 60},  # Grafana
        {"gpu_1_temp": 60, "gpu_2_temp": 61},
        {"energy_j": 0.7, "gpu1_energy": 0.7},  # the first one was renamed
    ],
)
def test_a_column_for_each_device_says_that_rows_cover_several(columns, tmp_path, capsys):
    content = json.dumps([SUM | columns])
    code, out, err = audit(tmp_path, capsys, content, name="t.json")
    assert (code, out) == (2, "")
    assert "says that rows cover several devices, and not whether FLOPs, energy and power are sums" in err
    assert audit(tmp_path, capsys, content, "--per", "device", name="t.json")[0] == 1
    flat = pd.json_normalize([SUM | columns]).to_dict("records")
    assert not [f for f in audit_rows(flat) if f.severity != "note"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "columns",
    [
        {"gpu0_energy": 0.7},
        {"gpu_energy": {"0": 0.7}},
        {"gpu0_energy": 0.7, "gpu1_energy": None},
        {"gpu0_energy": 0.7, "gpu1_energy": 0},  # a second device that did nothing
        {"gpu_time_p50": 0.001, "gpu_time_p99": 0.002},
        {"gpu_util_60": 1, "gpu_util_300": 2},
        {"batch_0": 1, "batch_1": 2},
        {"card_8": 5},
    ],
)
def test_other_columns_with_numbers_in_their_names_do_not(columns, tmp_path, capsys):
    assert audit(tmp_path, capsys, json.dumps([SUM | columns]), name="t.json")[0] == 1


def test_rows_of_one_device_among_others_are_judged():
    rows = [SUM | {"gpu0_energy": 0.7, "gpu1_energy": 0.7}, SUM | {"gpu0_energy": 0.7, "gpu1_energy": None}]
    assert column_of_a_further_device(rows) == "gpu1_energy"
    assert [f.rows for f in audit_rows(rows) if f.rule == "rate_above_limit"] == [(1,)]


def test_devices_of_a_column_each_are_divided_by_their_number(tmp_path, capsys):
    content = json.dumps([SUM | {"gpu0_energy": 0.7, "gpu1_energy": 0.7}])
    code, _, err = audit(tmp_path, capsys, content, "--per", "job", name="t.json")
    assert (code, "add a column gpu_count" in err) == (2, True)
    counted = json.dumps([SUM | {"gpu0_energy": 0.7, "gpu1_energy": 0.7, "gpu_count": 2}])
    assert audit(tmp_path, capsys, counted, "--per", "job", name="t.json")[0] == 0


@pytest.mark.parametrize(
    ("beside", "code"),
    [
        ({"device_name": "H100", "precision": "bf16"}, 1),
        ({"device_name": "H100", "precision": "bf16", "date": "2025-05-01", "num_prompts": 10}, 1),
        ({"device_name": "H100", "precision": "bf16", "n_gpus": 8}, 2),
        ({"device_name": "H100", "precision": "bf16", "config": {"num_gpus": 8}}, 2),
        ({"device_name": "H100", "precision": "bf16", "config": {"num_gpus": 1}}, 1),
        # a sum or a mean over the rows is none of a row
        ({"device_name": "H100", "precision": "bf16", "energy_j": 9e9, "duration": 60, "mfu": 7.5}, 1),
        ({"device_name": "A100", "precision": "bf16", "time_s": "3 min"}, 1),
    ],
)
def test_what_stands_once_beside_a_list_of_rows_holds_for_all(beside, code, tmp_path, capsys):
    rows = [{"model_flops": 5e12, "time_s": 0.001}, {"model_flops": 5e11, "time_s": 0.001, "device_name": "H100"}]
    content = json.dumps(beside | {"runs": rows})
    assert audit(tmp_path, capsys, content, name="t.json")[0] == code
    if code == 1:
        found = findings(tmp_path, capsys, content, name="t.json")[1]
        assert found.count(("impossible", "rate_above_limit")) == 1
        assert ("implausible", "mfu_above_one") not in found
        assert ("impossible", "power_above_limit") not in found


def test_structs_of_parquet_have_dotted_names(tmp_path, capsys):
    rows = [{"device_name": "H100", "precision": "bf16", "metrics": {"model_flops": 5e12, "time_s": 0.001}}] * 2
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    from flopray.cli.audit import main

    assert main([str(tmp_path / "t.parquet")]) == 2
    assert "--rename metrics.model_flops=model_flops metrics.time_s=time_s" in capsys.readouterr().err
    assert (
        main([str(tmp_path / "t.parquet"), "--rename", "metrics.model_flops=model_flops", "metrics.time_s=time_s"]) == 1
    )


@pytest.mark.parametrize(
    ("cell", "count"), [("NVIDIA A100-SXM4-80GB 8 device(s)", 8), ("NVIDIA A100-SXM4-80GB/1 device(s)", 1)]
)
def test_devices_as_eco2ai_counts_them(cell, count):
    assert times_device(cell) == (count, "NVIDIA A100-SXM4-80GB")


@pytest.mark.parametrize(
    ("column", "factor"),
    [("achieved TFLOP/s", "x 1e+12"), ("TFLOP/s (mean)", "x 1e+12"), ("measured_gflops_per_s", "x 1e+09")],
)
def test_more_names_of_a_rate_are_read(column, factor, tmp_path, capsys):
    value = 5e15 / float(factor[2:])
    code, out, _ = audit(tmp_path, capsys, f"device_name,precision,{column}\nH100,bf16,{value}\n")
    assert code == 1
    assert f"{column} is read as flops_per_s {factor}" in out


@pytest.mark.parametrize(
    ("column", "meant"),
    [  # Megatron, Lightning, Composer, nvidia-smi, W&B, DCGM
        ("throughput per GPU (TFLOP/s/GPU)", "tflops_per_s"),
        ("device/flops_per_sec", "flops_per_s"),
        ("throughput/device/flops_per_sec", "flops_per_s"),
        ("elapsed time per iteration (ms)", "time_ms"),
        ("time_this_iter_s", "time_s"),
        ("enforced.power.limit [W]", "power_limit_w"),
        ("run - system/gpu.0.enforcedPowerLimitWatts", "power_limit_w"),
        ("DCGM_FI_DEV_POWER_USAGE", "power_w"),
    ],
)
def test_names_of_loggers_are_refused_with_what_to_write(column, meant, tmp_path, capsys):
    code, _, err = audit(tmp_path, capsys, f"device_name,precision,{column}\nH100,bf16,1\n")
    assert code == 2
    assert f"{column}={meant}" in err


def test_a_power_limit_beside_a_power_is_proposed_and_a_percentage_is_no_time(tmp_path, capsys):
    _, out, _ = audit(tmp_path, capsys, "device_name,power_w,power_cap,Leistung (W)\nH100,390,200,1\n")
    said = " ".join(out.replace("│", " ").split())
    assert "power_cap, Leistung (W): the audit does not know what this is" in said
    assert "--rename power_cap=power_limit_w" in said
    _, _, err = audit(tmp_path, capsys, "Time (%),Total Time (ns),tflops_per_gpu\n60,1,1\n")
    assert "'Total Time (ns)=time_ns'" in err
    assert "Time (%)=" not in err
    assert "tflops_per_gpu is model_tflops if it counts, and tflops_per_s if it is a rate" in err


@pytest.mark.parametrize(("separator", "said"), [(";", True), (",", False)])
def test_points_that_may_mark_thousands_are_told_where_semicolons_separate(separator, said, tmp_path, capsys):
    table = "device_name,precision,model_gflops,time_ms\nH100,bf16,5.000,1\nH100,bf16,4.000,1\n"
    code, out, _ = audit(tmp_path, capsys, table.replace(",", separator))
    assert code == 0
    assert ("model_gflops: 5.000 is read as 5; if its point marks thousands, write 5000" in out) == said
    _, out, _ = audit(tmp_path, capsys, table.replace("4.000", "4.5").replace(",", separator))
    assert "thousands" not in out


@pytest.mark.parametrize("column", ["gpu", "rank", "gpu_index", "local_rank", "device_id"])
@pytest.mark.parametrize("word", ["sum", "Total", "all"])
def test_a_sum_among_the_rows_of_devices_is_not_held_against_one(column, word, tmp_path, capsys):
    table = f"{column},device_name,power_w,power_limit_w\n0,H100,690,700\n1,H100,688,700\n{word},H100,1378,700\n"
    code, out, _ = audit(tmp_path, capsys, table)
    assert code == 0
    assert f"rows whose {column} is {word.lower()} are of several devices and were not judged" in out
    assert audit(tmp_path, capsys, table.replace(",690,", ",1690,"))[0] == 1
    # one row of its own, whatever it is called
    assert audit(tmp_path, capsys, table.replace(column, "layer"))[0] == 1
    assert audit(tmp_path, capsys, table.replace("\n1,H100", "\nsecond,H100"))[0] == 1


def test_a_loss_by_sparsity_skips_no_zeros(tmp_path, capsys):
    table = "device_name,precision,model_flops,time_s,{}\nH100,bf16,1.5e12,0.001,0.9\n"
    assert audit(tmp_path, capsys, table.format("sparsity_loss"))[0] == 1
    assert audit(tmp_path, capsys, table.format("sparsity"))[0] == 0


def test_results_of_tune_are_lines_whatever_their_file_is_called(tmp_path, capsys):
    rows = [SUM | {"training_iteration": i, "trial_id": f"a_{i}", "config": {"d": 1024}} for i in (1, 2)]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    code, found = findings(tmp_path, capsys, content, name="result.json")
    assert (code, found) == (1, [("impossible", "rate_above_limit")] * 2)
    code, _, err = audit(tmp_path, capsys, content + "{", name="result.json")
    assert (code, "line 3: not JSON" in err) == (2, True)
    assert audit(tmp_path, capsys, json.dumps(rows[0], indent=1), name="result.json")[0] == 1


def test_attributes_of_optuna_and_bare_units_are_proposed(tmp_path, capsys):
    _, _, err = audit(tmp_path, capsys, "number,user_attrs_energy_j,user_attrs_time_s\n0,1,1\n")
    assert "--rename user_attrs_energy_j=energy_j user_attrs_time_s=time_s" in err
    _, _, err = audit(tmp_path, capsys, "device_name,watts,seconds,joules\nH100,1,1,1\n")
    assert "--rename watts=power_w seconds=time_s joules=energy_j" in err


@pytest.mark.parametrize(
    "name",
    ["tflops_per_gpu", "throughput per GPU (TFLOP/s/GPU)", "TFLOPS/GPU", "throughput/device/tflops", "TflopsPerGPU"],
)
@pytest.mark.parametrize(("rate", "code"), [(1500, 1), (500, 0)])
def test_a_rate_of_each_device_is_not_divided_again(tmp_path, capsys, name, rate, code):
    table = tmp_path / "t.csv"
    table.write_text(f"device_name,precision,gpus,power_w,{name}\nH100,bf16,8,5000,{rate}\n")
    assert main([str(table), "--per", "job", "--rename", f"{name}=tflops_per_s"]) == code
    out = capsys.readouterr().out
    assert f"flops_per_s is of each device, as {name} says" in out
    assert "power_w is a sum over gpus devices, and divided by it" in out
    assert "power_above_limit" not in out.partition("not judged")[0]


def test_a_rate_of_a_job_is_divided(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("device_name,precision,gpus,tflops of all\nH100,bf16,8,1500\n")
    assert main([str(table), "--per", "job", "--rename", "tflops of all=tflops_per_s"]) == 0
    assert "flops_per_s is a sum over gpus devices" in capsys.readouterr().out


def test_a_total_among_rows_of_devices_is_no_device(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("device_name,energy_j,time_s\nH100,600,1\nH100,600,1\nTotal,24000,4\n")
    assert main([str(table)]) == 0
    out = capsys.readouterr().out
    assert "rows whose device_name is total are of several devices and were not judged" in out
    assert "0 impossible, 0 implausible" in out
