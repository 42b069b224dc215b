"""Tables, results and bytes from elsewhere: understood, or refused in one line with exit code 2, never judged wrong."""

from __future__ import annotations

import json
import os

import pandas as pd
import pytest

from flopray.cli import compare_gpus
from flopray.cli.audit import main
from flopray.records import PhaseRecord
from flopray.store.run import RunFolder
from flopray.workloads.registry import make_point

GOOD = "device_name,precision,model_flops,time_s\nH100,bf16,5e11,0.001\n"
LINE = {
    **{"config_name": "small", "batch_size": 8, "input_length": 256, "gpu_config": "h100", "precision": "bf16"},
    **{"forward_flops_sum": 5e12, "forward_gpu_time_mean": 12000.0, "forward_energy_mean": 6.0},
    **{"forward_gpu_time_sem": 10.0, "forward_energy_sem": 0.1},
    **{"backward_flops_sum": 1e13, "backward_gpu_time_mean": 40000.0, "backward_energy_mean": 20.0},
    **{"backward_gpu_time_sem": 10.0, "backward_energy_sem": 0.1},
}


def run(tmp_path, capsys, content, *flags, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code = main([str(path), *flags])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_one_text_cell_does_not_switch_the_audit_off(tmp_path, capsys):
    table = "device_name,precision,model_flops,time_s\nH100,bf16,5e12,0.001\nH100,bf16,5e12,OOM\n"
    code, out, _ = run(tmp_path, capsys, table)
    assert code == 1
    assert "rate_above_limit" in out
    assert "'OOM'" in out
    assert "no finding" not in out


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_dialects_of_csv(tmp_path, capsys, end, mark, separator):
    table = mark + GOOD.replace(",", separator).replace("\n", end)
    code, out, _ = run(tmp_path, capsys, table.replace("5e11", "5e12"))
    assert code == 1
    assert "rate_above_limit" in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("device_name,time_s\nH\xf6,1\n".encode("latin-1"), "UTF-8"),
        (GOOD.encode("utf-16"), "UTF-8"),
        (GOOD.encode("utf-16-le"), "not UTF-8 at byte 1: convert it first, such as iconv -f UTF-16LE"),
        (GOOD.encode("utf-16-be"), "not UTF-8 at byte 0: convert it first, such as iconv -f UTF-16BE"),
        (GOOD.encode("utf-32"), "iconv -f UTF-32"),
        (GOOD.encode() + b"H\xe9,bf16,1,1\n", f"not UTF-8 at byte {len(GOOD) + 1}: "),
        ("  \n\n", "it has no names of columns"),
        ("# made by a tool\n# and another\n", "it has no names of columns"),
        ("", "cannot be read (it is empty)"),
        ("device_name,time_s\n", "no rows"),
        ("device_name,latency\nH100,1\n", "--rename"),
        ("time_s,time_s\n1,2\n", "twice"),
        ("time_s,power_w\n0,100\n0.1,200\n0.2,210\n", "time axis"),
        ("energy_j,power_w\n0,100\n50,200\n80,210\n", "counter"),
        ("time_s,power_w\n0,100\n0.1,200\n", "time axis"),
        ("time_ms,power_w\n0,100\n100,200\n", "time axis"),
        ("energy_j,power_w\n0,100\n50,200\n", "counter"),
        ("model_flops,time_s\n5e12,0\n", "time_s is 0 in row 1, which was not understood"),
        ("model_flops,time_s\n5e12,0\n5e12,0.0\n", "time_s is 0 in 2 rows, the first is row 1, which was not"),
        ("time_s,power_w\n0,100\n0,100\nx,100\n0.2,210\n0.3,1\n", "time axis"),
        ("device_name,time_s,power_mw\nH100,1,5\n", "milli or mega"),
        ("device_name,model_flops,time_s\nH100,5e12,OOM\n", "time_s is OOM in row 1"),
        ('device_name,model_flops,time_s\nH100,5e12,"1,234"\n', "thousands separators"),
        ("device_name,model_flops,seconds\nH100,5e12,1\n", "--rename"),
        ("device_name,model_flops,time_s\nH100,5,000,000,000,0.001\n", "line 2: 6 cells under 3"),
        ("device_name,model_flops,time_s\nH100,5e12,1\nH100,5e\n", "line 3: 2 cells under 3"),
        ("device_name,model_flops,time_s,tp,nodes\nH100,5e12,1e-3,8,2\n", "--per"),
        ("device_name,model_flops,time_s,gpus\nH100,5e12,1e-3,8xH100\n", "--per"),
        ("device_name,model_flops,time_s,gpu_count\nH100,5e12,1e-3,8\n", "--per"),
        ("device_name,model_flops,time_s,World Size\nH100,5e12,1e-3,8\n", "--per"),
    ],
)
def test_what_is_not_understood_is_refused_in_a_line(tmp_path, capsys, content, words):
    code, out, err = run(tmp_path, capsys, content)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize("first", ["5e11,0.001,300", "5e11,,300"])
def test_a_time_of_0_among_others_is_not_understood_and_the_rest_is_judged(tmp_path, capsys, first):
    table = f"device_name,precision,model_flops,time_s,power_w\nH100,bf16,{first}\nH100,bf16,5e11,0,300\n"
    code, out, _ = run(tmp_path, capsys, table)
    assert code == 0
    assert "time_s is 0 in row 2, which was not understood" in out
    assert "not_positive: " not in out
    code, out, _ = run(tmp_path, capsys, table.replace("5e11,0,300", "5e11,0,-300"))
    assert code == 1
    assert "power_w is -300" in out


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "t.csv")
    assert main([str(tmp_path / "t.csv")]) == 2
    assert "neither a file nor a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".csv"])
def test_a_path_that_no_file_system_takes_is_a_line_about_the_path(tmp_path, capsys, name):
    assert main([str(tmp_path / name)]) == 2
    assert compare_gpus.main(["--published", str(tmp_path / name)]) == 2
    assert compare_gpus.main([str(tmp_path / name)]) == 2
    told = capsys.readouterr().err
    assert told.count("File name too long") == 3
    assert "fault of flopray" not in told


def test_a_link_to_itself_is_no_run(tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert compare_gpus.main([str(tmp_path / "loop")]) == 2
    assert "fault of flopray" not in capsys.readouterr().err


@pytest.mark.parametrize("phase", [["a", "b"], [], {"a": 1}, [[1]]])
def test_a_phase_that_is_a_list_is_a_name_like_any_other(tmp_path, capsys, phase):
    row = {"device_name": "H100", "precision": "bf16", "model_flops": 5e12, "time_s": 0.001}
    lines = [json.dumps({**row, "phase": "forward"}), json.dumps({**row, "phase": phase})]
    code, out, _ = run(tmp_path, capsys, "\n".join(lines), name="t.jsonl")
    assert code == 1
    assert "rate_above_limit" in out


def test_a_name_of_any_length_is_shown_short(tmp_path, capsys):
    """Highlighting a name of 100,000 characters took more than a minute."""
    code, out, _ = run(tmp_path, capsys, GOOD.replace("H100", "a" * 100_000))
    assert code == 0
    assert max(map(len, out.splitlines())) < 1000


def test_a_time_below_0_stays_impossible(tmp_path, capsys):
    assert run(tmp_path, capsys, GOOD + "H100,bf16,5e11,-1\n")[0] == 1


def test_per_job_and_per_device(tmp_path, capsys):
    table = "device_name,precision,model_flops,time_s,gpu_count\nH100,bf16,4e12,0.001,8\n"
    assert run(tmp_path, capsys, table, "--per", "job")[0] == 0
    assert run(tmp_path, capsys, table, "--per", "device")[0] == 1
    limited = "device_name,power_w,power_limit_w,gpu_count\nH100,4000,5600,8\nH100,9000,5600,8\n"
    assert run(tmp_path, capsys, limited.replace("9000", "4000"), "--per", "job")[0] == 0
    assert run(tmp_path, capsys, limited, "--per", "job")[0] == 1


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("time_s,model_flops,gpu_count\n1,1,8\n1,1,?\n", "gpu_count is '?' in row 2"),
        ("time_s,model_flops,gpu_count\n1,1,8\n1,1,0\n", "gpu_count is '0' in row 2"),
        ("time_s,model_flops,nodes,gpus_per_node\n1,1,2,8\n", "--rename COLUMN=gpu_count"),
        ("time_s,model_flops\n1,1\n", "no column that counts devices"),
    ],
)
def test_a_job_of_nobody_knows_how_many_devices_is_refused(tmp_path, capsys, table, words):
    code, _, err = run(tmp_path, capsys, table, "--per", "job")
    assert code == 2
    assert words in err


def test_per_device_settles_each_column_that_counts_and_keeps_rows_apart(tmp_path, capsys):
    table = "device_name,precision,model_flops,time_s,tp,nodes\nH100,bf16,5e11,1e-3,8,2\nH100,bf16,5e10,1e-3,1,2\n"
    code, out, _ = run(tmp_path, capsys, table, "--per", "device")
    assert code == 0
    assert "--per" not in out
    assert "launch_window │" not in out
    assert run(tmp_path, capsys, table.replace("5e11", "5e12"), "--per", "device")[0] == 1


def test_a_fault_of_the_audit_itself_is_not_told_as_impossible(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flopray.cli.audit.audit", lambda *_: {}["gone"])
    code, out, err = run(tmp_path, capsys, GOOD)
    assert code == 2
    assert out == ""
    assert "this failed (KeyError: 'gone'; test_foreign_tables.py, line" in err
    assert err.count("\n") == 1


def test_a_flag_that_comes_twice_counts_twice(tmp_path, capsys):
    table = "device_name,precision,f,t\nH100,bf16,5e12,1\n"
    code, out, _ = run(tmp_path, capsys, table, "--rename", "f=model_flops", "--rename", "t=time_ms")
    assert code == 1
    assert "rate_above_limit" in out


def test_a_name_that_the_audit_does_not_know_either_is_said(tmp_path, capsys):
    _, out, _ = run(tmp_path, capsys, "time_s,f\n1,5\n", "--rename", "f=modell_flops")
    assert "f is read as modell_flops, which the audit does not know" in out


def test_units_in_names_and_renames(tmp_path, capsys):
    table = "device_name,precision,model_flops,{},status\nH100,bf16,5e12,{},OK\n"
    for name, value in (("time_ms", 1), ("time_us", 1000), ("time_ns", 1e6)):
        code, out, _ = run(tmp_path, capsys, table.format(name, value))
        assert code == 1
        assert f"{name} is read as time_s" in out
        assert "│ 1                 │" in out  # the row has numbers
    code, _, _ = run(tmp_path, capsys, table.format("latency", 1), "--rename", "latency=time_ms")
    assert code == 1
    for words in ("latency", "latency=", "other=time_s", "precision=model_flops"):
        code, _, err = run(tmp_path, capsys, table.format("latency", 1), "--rename", words)
        assert code == 2
        assert "--rename" in err


@pytest.mark.parametrize(
    "change",
    [
        {"forward_gpu_time_mean": "fast"},
        {"forward_energy_mean": -5.0},
        {"forward_energy_mean": float("inf")},
        {"backward_energy_mean": float("nan")},
        {"batch_size": "eight"},
        {"batch_size": [8]},
        {"batch_size": 0},
        {"batch_size": 8.5},
        {"input_length": 10**30},
        {"forward_flops_sum": 1e140},
        {"forward_gpu_time_sem": "x"},
        {"config_name": 7},
        {"gpu_config": {"a": 1}},
        {"forward_flops_sum": True},
        {"forward_flops_sum": 10**400},
        {"forward_gpu_time_mean": 1e-320},
    ],
)
def test_a_bad_value_of_flopmetrics_is_named_with_its_line(tmp_path, capsys, change):
    text = json.dumps(LINE) + "\n" + json.dumps(LINE | change) + "\n"
    name = "h100_bf16_llama3.2_1b_all_configs_results.jsonl"
    code, _, err = run(tmp_path, capsys, text, name=name)
    assert code == 2
    assert f"{name}, line 2: {next(iter(change))} is" in err
    assert err.count("\n") == 1
    assert compare_gpus.main(["--published", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    assert "line 2" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["forward_gpu_time_sem", "forward_energy_mean", "batch_size", "precision"])
def test_a_null_of_flopmetrics_is_a_missing_value(tmp_path, capsys, field):
    text = json.dumps(LINE | {field: None}) + "\n"
    code, _, _ = run(tmp_path, capsys, text, name="h100_bf16_llama3.2_1b_all_configs_results.jsonl")
    assert code in (0, 1)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (LINE | {"precision": "int8"}, "unknown precision 'int8'"),
        (dict.fromkeys(LINE), "no line has a phase with all its numbers"),
        ({name: value for name, value in LINE.items() if "mean" not in name}, "no line has a phase"),
    ],
)
def test_results_that_cannot_be_compared_are_refused_in_a_line(tmp_path, capsys, lines, words):
    path = tmp_path / "h100_bf16_llama3.2_1b_all_configs_results.jsonl"
    path.write_text("\ufeff" + json.dumps(lines) + "\n", encoding="utf-8")
    assert compare_gpus.main(["--published", str(path), "--tables", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("damage", [b"\xe9", b"[" * 100_000])
def test_bytes_that_are_no_json_are_named_with_their_line(tmp_path, capsys, damage):
    name = "h100_bf16_llama3.2_1b_all_configs_results.jsonl"
    code, _, err = run(tmp_path, capsys, json.dumps(LINE).encode() + b"\n" + damage + b"\n", name=name)
    assert code == 2
    assert "line 2" in err


def test_odd_types_in_parquet_are_judged_by_what_they_have(tmp_path, capsys):
    frame = pd.DataFrame(
        {
            "device_name": ["H100", "H100"],
            "precision": ["bf16", "bf16"],
            "model_flops": [5e12, 5e12],
            "time_s": ["0.001", "OOM"],
            "when": pd.to_datetime(["2026-01-01", "2026-01-02"]),
            "list": [[1, 2], [3]],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    assert main([str(tmp_path / "t.parquet")]) == 1
    assert "'OOM'" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("value", [-5.0, 0.0, 1e300])
@pytest.mark.parametrize("column", ["energy_j", "time_s"])
def test_a_run_with_a_value_that_cannot_be_is_compared_with_a_hole(tmp_path, capsys, value, column):
    folder = RunFolder.create(tmp_path, "r", {})
    point = make_point(
        **{"workload": "llama", "device_type": "H100", "model": "llama-3.2-1b", "precision": "bf16"},
        **{"weights": "random", "attention": "auto", "checkpointing": False, "batch_size": 8, "sequence_length": 256},
    )
    shared = point.fields() | {"device_name": "NVIDIA H100 80GB HBM3", "energy_status": "ok", "model_flops": 10**12}
    costs = {"time_s": 1e-2, "energy_j": 5.0, "time_rel_error": 0.01, "energy_rel_error": 0.01}
    records = [
        PhaseRecord.of(run="r", trial_id=point.id, phase="forward", **shared, **costs | {column: value}),
        PhaseRecord.of(run="r", trial_id=point.id, phase="backward", **shared, **costs),
    ]
    with folder.writer() as writer:
        writer.append([records])
    assert compare_gpus.main([str(folder.path), "--out", str(tmp_path / "out")]) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "further",
    [
        {"tokens_per_iteration": 8000, "tokens_per_s": 8e6, "energy_j": 4.0, "energy_per_token_j": 5e-4},
        {"executed_flops": 4.2e12, "executed_tensor_flops": 4.1e12, "executed_cuda_flops": 1e11, "gemm_flops": 3.9e12},
        {"optimizer_flops": 1e12, "recomputed_flops": 4e12, "mfu": 0.505, "hfu": 1.01},
        {"energy_j": 4.0, "active_energy_j": 3.4, "idle_power_w": 600.0, "energy_at_reference_j": 4.1},
        {"power_w": 4000.0, "power_limit_w": 700.0},  # as nvidia-smi writes it: of each board
        {"power_w": 4000.0, "power_limit_w": 5600.0},
    ],
)
def test_each_sum_of_a_job_is_divided_by_its_devices(tmp_path, capsys, further):
    """What is left out would be eight times its part, and be called impossible."""
    row = {"device_name": "H100", "precision": "bf16", "gpu_count": 8, "model_flops": 4e12, "time_s": 1e-3, **further}
    table = ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n"
    code, out, _ = run(tmp_path, capsys, table, "--per", "job")
    assert (code, "0 impossible, 0 implausible" in out) == (0, True)
