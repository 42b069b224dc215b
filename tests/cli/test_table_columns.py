"""Column names, cells and shapes of tables from other tools: understood, or refused by name."""

from __future__ import annotations

import json
import shlex

import pandas as pd
import pytest

from flopray.cli.audit import main
from flopray.cli.table_columns import meaning
from flopray.errors import InputError

HEAD = "device_name,precision,model_flops,time_s"


def audit(tmp_path, capsys, content, *flags, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code = main([str(path), *flags])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("name", "column", "factor"),
    [
        ("Time (ms)", "time_s", 1e-3),
        ("time [us]", "time_s", 1e-6),
        ("time (\u00b5s)", "time_s", 1e-6),
        ("Time / ms", "time_s", 1e-3),
        ("time in seconds", "time_s", 1.0),
        ("Energy [J]", "energy_j", 1.0),
        ("energy (kWh)", "energy_j", 3.6e6),
        ("energy_Wh", "energy_j", 3.6e3),
        ("energy_mJ", "energy_j", 1e-3),
        ("Power, W", "power_w", 1.0),
        ("power (kW)", "power_w", 1e3),
        ("Idle power (W)", "idle_power_w", 1.0),
        ("TIME_S", "time_s", 1.0),
        ("Device Name", "device_name", 1.0),
        ("TFLOP/s", "flops_per_s", 1e12),
        ("gflops_per_sec", "flops_per_s", 1e9),
        ("throughput [TFLOP/s]", "flops_per_s", 1e12),
        ("GFLOPS/W", "flops_per_j", 1e9),
        ("TFLOP/s/W", "flops_per_j", 1e12),
        ("Model GFLOPs", "model_flops", 1e9),
        ("MFU %", "mfu", 1e-2),
        ("mfu_pct", "mfu", 1e-2),
        ("Avg Power (W)", "power_w", 1.0),
        ("time_s_mean", "time_s", 1.0),
        ("mean time [ms]", "time_s", 1e-3),
    ],
)
def test_names_that_say_their_unit(name, column, factor):
    assert meaning(name) == (column, factor)


_TOO_LITTLE = ["time", "time_min", "latency_ms", "energy", "tflops", "time_s_std", "TFLOP/s/GPU", "x", "time_s"]


@pytest.mark.parametrize("name", _TOO_LITTLE)
def test_names_that_say_too_little_are_left(name):
    assert meaning(name) is None


@pytest.mark.parametrize("name", ["energy_mj", "Energy (Mj)", "power [mw]", "energy_mwh"])
def test_milli_or_mega_is_refused(name):
    with pytest.raises(InputError, match="milli or mega"):
        meaning(name)


def test_two_columns_of_one_quantity_agree_or_are_refused(tmp_path, capsys):
    table = f"{HEAD},time_ms\nH100,bf16,5e12,0.001,{{}}\n"
    code, out, _ = audit(tmp_path, capsys, table.format(1))
    assert code == 1
    assert "time_ms says the same as time_s" in out
    code, _, err = audit(tmp_path, capsys, table.format(10))
    assert code == 2
    assert "time_s is 0.001 in row 1, where time_ms says 0.01" in err


@pytest.mark.parametrize("separator", [";", ","])
def test_decimal_commas(tmp_path, capsys, separator):
    table = 'H100,bf16,5e12,"0,001"\nH100,bf16,5e12,"1,234"\n'.replace('"', "" if separator == ";" else '"')
    rows = table.replace("H100,bf16,5e12,", separator.join(["H100", "bf16", "5e12", ""]))
    code, out, _ = audit(tmp_path, capsys, HEAD.replace(",", separator) + "\n" + rows)
    assert code == 1
    assert "decimal commas are read as points: 0,001 is 0.001" in out


def test_commas_that_may_be_thousands_are_named(tmp_path, capsys):
    code, _, err = audit(tmp_path, capsys, f'{HEAD}\nH100,bf16,5e12,"1,234"\n')
    assert code == 2
    assert "thousands separators" in err
    code, out, _ = audit(tmp_path, capsys, f'{HEAD}\nH100,bf16,5e12,"0,001"\nH100,bf16,5e12,0.01\n')
    assert code == 0
    assert "'0,001'" in out


def test_per_cent_in_cells(tmp_path, capsys):
    code, out, _ = audit(tmp_path, capsys, f"{HEAD},mfu,time_rel_error\nH100,bf16,5e12,0.01,51%,1 %\n")
    assert code == 0
    assert "mfu is read in per cent where it says so: 51% is 0.51" in out
    assert "not_a_number" not in out
    code, out, _ = audit(tmp_path, capsys, f"{HEAD},MFU (%)\nH100,bf16,5e12,0.01,51%\n")
    assert "│ mfu_above_one" not in out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", '{"device_name": "H100", "precision": "bf16", "model_flops": 5e12, "time_s": 0.001}\n'),
        ("t.json", '[{"device_name": "H100", "precision": "bf16", "model_flops": 5e12, "time_s": 0.001}]'),
        ("t.json", '{"device_name": ["H100"], "precision": ["bf16"], "model_flops": [5e12], "time_s": [0.001]}'),
        ("t.json", '{"made": "today", "rows": [{"device_name": "H100", "precision": "bf16", "TFLOP/s": 5000}]}'),
        ("t.json", '{"device_name": "H100", "precision": "bf16", "flops_per_s": 5e15}'),
        ("t.csv", "sep=;\ndevice_name;precision;flops_per_s\nH100;bf16;5e15\n"),
        ("t.csv", "# made by a bench\n# today\ndevice_name,precision,flops_per_s\nH100,bf16,5e15\n"),
        ("t.ndjson", '{"device_name": "H100", "precision": "bf16", "model_flops": 5e12, "time_s": 0.001}'),
    ],
)
def test_dialects_of_tables(tmp_path, capsys, name, content):
    code, out, _ = audit(tmp_path, capsys, content, name=name)
    assert code == 1
    assert "rate_above_limit" in out


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.jsonl", '{"time_s": 1}\n[1, 2]\n', "line 2: '[1, 2]' is not an object"),
        ("t.jsonl", '{"time_s": 1, "time_s": 2}\n', "line 1: not JSON ('time_s' appears twice)"),
        ("t.jsonl", '{"time_s": 1', "line 1: not JSON"),
        ("t.jsonl", '{"window": "step", "time": 10.5, "gpu_energy": {"0": 3}}\n', "it has time, gpu_energy.0, window"),
        ("t.json", "3", "neither a list of objects"),
        ("t.json", "[" * 100_000, "not JSON"),
        ("t.jsonl", b'{"device": "\xe9"}\n', "iconv -f LATIN1"),
        ("t.csv", "time_s\n1\n".encode("utf-16"), "iconv -f UTF-16"),
        ("t.xlsx", b"PK", "save it as CSV"),
        ("t.csv", "timestamp,project_name,duration,gpu_energy\n1,a,2,3\n", "it has timestamp, duration, gpu_energy, p"),
    ],
)
def test_what_is_no_table_of_the_audits_is_refused_in_a_line(tmp_path, capsys, name, content, words):
    code, out, err = audit(tmp_path, capsys, content, name=name)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_named_index_and_bytes_of_parquet_are_read(tmp_path, capsys):
    row = {"device_name": [b"H100"], "precision": [b"bf16"], "model_flops": [5e12], "time_s": [0.001]}
    pd.DataFrame(row).set_index("precision").to_parquet(tmp_path / "t.parquet")
    assert main([str(tmp_path / "t.parquet")]) == 1
    assert "H100: judged by the limits of the H100 SXM" in capsys.readouterr().out


def test_the_index_of_a_csv_does_not_tell_rows_apart(tmp_path, capsys):
    code, out, _ = audit(tmp_path, capsys, f",{HEAD}\n0,H100,bf16,1e12,0.001\n1,H100,bf16,1e11,0.001\n")
    assert code == 0
    assert "told apart" not in out
    assert "│ launch_window" in out


def test_spreads_and_counts_of_rows_are_not_judged(tmp_path, capsys):
    rows = "H100,bf16,5e12,0.01,mean\nH100,bf16,5e12,0.0001,std\nH100,bf16,5e12,3,count\n"
    code, out, _ = audit(tmp_path, capsys, f"{HEAD},stat\n{rows}")
    assert code == 0
    assert "rows whose stat is count or std are not measurements and were not judged" in out
    assert "│ rate_above_limit" not in out


def test_devices_and_precisions_under_other_names_are_told(tmp_path, capsys):
    code, out, _ = audit(tmp_path, capsys, "my gpu,dtype,model_flops,time_s\nH100,torch.bfloat16,5e12,0.001\n")
    assert code == 0
    assert "--rename 'my gpu=device_name'" in out
    assert "--rename dtype=precision" in out
    flags = ("--rename", "my gpu=device_name", "dtype=precision")
    assert audit(tmp_path, capsys, "my gpu,dtype,model_flops,time_s\nH100,torch.bfloat16,5e12,0.001\n", *flags)[0] == 1


@pytest.mark.parametrize("status", ["OK", "failed", "0", "200", "exit 0", "running", "True", ""])
@pytest.mark.parametrize("column", ["time_s", "flops_per_s", "power_w", "mfu"])
def test_no_status_keeps_a_number_from_being_judged(tmp_path, capsys, status, column):
    value = {"time_s": 1e-4, "flops_per_s": 5e15, "power_w": 9e4, "mfu": 5}[column]
    table = f"device_name,precision,model_flops,{column},status\nH100,bf16,5e12,{value},{status}\n"
    _, out, _ = audit(tmp_path, capsys, table, "--json")
    assert any(finding["severity"] != "note" for finding in json.loads(out)["findings"])


def test_rows_that_all_failed_are_no_clean_bill(tmp_path, capsys):
    code, out, _ = audit(tmp_path, capsys, "device_name,time_s,status\nH100,,failed\nH100,,OOM\n")
    assert code == 0
    assert "nothing was judged" in out
    assert "no finding" not in out


def test_json_says_how_columns_were_read(tmp_path, capsys):
    _, out, _ = audit(tmp_path, capsys, "device_name,precision,model_flops,time (ms)\nH100,bf16,5e11,1\n", "--json")
    assert json.loads(out)["read_as"] == ["time (ms) is read as time_s x 0.001"]


@pytest.mark.parametrize("device", ["8 x NVIDIA H100 80GB HBM3", "H100 (8 GPUs)", "H100 x8", "8xH100", "H100, 8 GPUs"])
def test_a_device_name_may_say_how_many(tmp_path, capsys, device):
    table = f'{HEAD},power_w\n"{device}",bf16,4e12,0.001,{{}}\n'
    code, _, err = audit(tmp_path, capsys, table.format(5600))
    assert code == 2
    assert "device_name says that rows cover several devices" in err
    assert audit(tmp_path, capsys, table.format(5600), "--per", "job")[0] == 0
    code, out, _ = audit(tmp_path, capsys, table.format(5600), "--per", "device")
    assert code == 1
    assert "judged by the limits of the H100 SXM" in out


@pytest.mark.parametrize("column", ["accelerators", "a#", "# of GPUs", "GPU(s)", "n_chips", "hosts", "gpus per host"])
def test_more_names_of_a_number_of_devices(tmp_path, capsys, column):
    code, _, err = audit(tmp_path, capsys, f"{HEAD},{column}\nH100,bf16,4e12,0.001,8\n")
    assert code == 2
    assert f"{column} says that rows cover several devices" in err


def test_one_device_of_a_name_and_a_name_among_counts(tmp_path, capsys):
    assert audit(tmp_path, capsys, f"{HEAD}\n1 x NVIDIA H100 80GB HBM3,bf16,5e12,0.001\n")[0] == 1
    assert audit(tmp_path, capsys, f"{HEAD},devices\nH100,bf16,5e12,0.001,NVIDIA H100\n")[0] == 1


@pytest.mark.parametrize("start", [0.1, 123.4, 1.7e6])
@pytest.mark.parametrize("further", ["", "step", "timestamp"])
def test_a_trace_that_starts_anywhere_gets_no_verdict(tmp_path, capsys, start, further):
    lines = [f"H100,{start + 0.1 * i + 0.004 * (i % 3)},{5e6 + 30 * i},{1.7e9 + i}" for i in range(8)]
    if further == "step":
        lines = [line.rpartition(",")[0] + f",{i}" for i, line in enumerate(lines)]
    table = f"device_name,time_s,energy_j,{further or 'note'}\n" + "\n".join(lines)
    code, out, err = audit(tmp_path, capsys, table)
    assert code == 2
    assert "time_s looks like a time axis" in err
    assert out == ""


@pytest.mark.parametrize("size", ["n_layers", "seq"])
def test_a_sweep_in_equal_steps_is_judged(tmp_path, capsys, size):
    lines = [f"H100,bf16,{128 * (i + 1)},{1e-5 * (i + 1)},{9e4}" for i in range(8)]
    code, out, _ = audit(tmp_path, capsys, f"device_name,precision,{size},time_s,power_w\n" + "\n".join(lines))
    assert code == 0
    assert "power_above_limit" in out


def test_columns_of_several_levels_have_one_name(tmp_path, capsys):
    levels = {("device_name", ""): ["H100"], ("precision", ""): ["bf16"], ("TFLOP/s", "mean"): [5000.0]}
    pd.DataFrame(levels).to_parquet(tmp_path / "t.parquet")
    assert main([str(tmp_path / "t.parquet")]) == 1
    assert "TFLOP/s_mean is read as flops_per_s x 1e+12" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("time", "energy", "flops", "power"),
    [
        ("1.0 ms", "350 mJ", "5 TFLOP", "350 W"),
        ("1000us", "0.35J", "5000 GFLOPs", "0.35 kW"),
        ("1000 \u00b5s", "9.7e-5 Wh", "5e12 FLOP", "350000 mW"),
        ("0 days 00:00:00.001000", "0.35", "5,000,000,000,000", "350.0 W"),
        ("0.001", "0.35", "5.000.000.000.000", "350"),
        ("0.001", "0.35", "5 000 000 000 000", "350"),
        ("0.001", "0.35", "5'000'000'000'000", "350"),
    ],
)
def test_cells_that_say_their_unit_are_read_in_it(time, energy, flops, power, tmp_path, capsys):
    content = f'{HEAD},energy_j,power_w\nH100,bf16,"{flops}",{time},{energy},{power}\n'
    code, out, _ = audit(tmp_path, capsys, content)
    assert code == 1
    assert "5 PFLOP/s at bf16 is 4.67 times the 1.07 PFLOP/s that the device can do" in out
    assert "power_above_limit" not in out
    assert "inconsistent_columns" not in out.split("not judged")[0]
    assert "not_a_number" not in out


@pytest.mark.parametrize("cell", ["350 mw", "350 Watt-ish", "1,500", "[N/A]", "OOM"])
def test_cells_that_may_mean_two_things_are_named_and_not_read(cell, tmp_path, capsys):
    content = f'device_name,time_s,power_w\nH100,1,100.5\nH100,1,"{cell}"\n'
    code, out, _ = audit(tmp_path, capsys, content)
    assert code == 0
    assert f"power_w is not a number in row 2: '{cell}'" in out


def test_time_spans_of_pandas_are_seconds(tmp_path, capsys):
    frame = pd.DataFrame({"device_name": "H100", "precision": "bf16", "model_flops": [5e12, 5e11], "time_s": 0.001})
    frame["time_s"] = pd.to_timedelta(frame["time_s"], unit="s")
    frame.to_parquet(tmp_path / "spans.parquet")
    assert main([str(tmp_path / "spans.parquet")]) == 1
    assert "time_s is read in the units of its cells: 0 days 00:00:00.001000 is 0.001" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("head", "cells", "flags"),
    [  # codecarbon, Zeus, nvidia-smi, W&B, a Trainer's log, a nested record
        (
            "timestamp,duration,gpu_power,gpu_energy,energy_consumed,gpu_model",
            "2025-01-02,3600,300,0.81,0.9,A100-SXM4-80GB",
            "duration=time_s gpu_power=power_w gpu_energy=energy_kWh gpu_model=device_name",
        ),
        ("window_name,elapsed_time,gpu0_energy", "train,10,9000", "elapsed_time=time_s gpu0_energy=energy_j"),
        ("timestamp,name,power.draw [W]", "10:00,H100,690 W", "name=device_name 'power.draw [W]=power_w'"),
        ("Step,run - system/gpu.0.powerWatts", "1,350", "'run - system/gpu.0.powerWatts=power_w'"),
        ("step,train_runtime,loss", "10,0.5,2.3", "train_runtime=time_s"),
        ("gpu,metrics.energy_j,metrics.time_s", "H100,1,2", "gpu=device_name metrics.energy_j=energy_j"),
    ],
)
def test_tables_of_known_tools_are_refused_with_what_to_write(head, cells, flags, tmp_path, capsys):
    refused, _, error = audit(tmp_path, capsys, f"{head}\n{cells}\n")
    assert refused == 2
    assert f"say what they are with --rename NAME=COLUMN, such as --rename {flags}" in error
    judged, out, error = audit(tmp_path, capsys, f"{head}\n{cells}\n", "--rename", *shlex.split(flags))
    assert judged in (0, 1), error
    assert "Audit of" in out


def test_flops_may_count_or_be_a_rate_and_the_note_names_both(tmp_path, capsys):
    content = 'device_name,precision,time_s,gflops\nH100,bf16,0.001,"5,000"\nH100,bf16,0.001,"6,000"\n'
    code, out, _ = audit(tmp_path, capsys, content)
    assert code == 0
    assert "gflops is model_gflops if it counts, and gflops_per_s if it is a rate" in " ".join(
        out.replace("│", " ").split()
    )
    assert "told apart" not in out


@pytest.mark.parametrize(
    ("name", "content"), [("t.json", "[]"), ("t.json", "{}"), ("t.jsonl", "{}\n"), ("t.csv", "time_s\n")]
)
def test_a_table_without_rows_says_so(name, content, tmp_path, capsys):
    code, _, error = audit(tmp_path, capsys, content, name=name)
    assert code == 2
    assert error.endswith("has no rows\n")
