"""Reading flopmetrics' files: units, names, and what the audit says about the published set."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from flopray.audit import audit
from flopray.cli import compare_flops
from flopray.errors import InputError
from flopray.report.published import is_published, load_metrics, load_published

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "published"
needs_published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="flopmetrics' published results are not in ../shared/published"
)
RESULTS = PUBLISHED / "architecture" / "results_optimized"

#: One line in flopmetrics' format, with round numbers: 20 ms, 5 J, 8e12 FLOPs forward.
LINE = {
    "forward_energy_sum": 500.0,
    "forward_energy_mean": 5.0,
    "forward_energy_sem": 0.05,
    "forward_flops_sum": 8_000_000_000_000,
    "forward_gpu_time_mean": 20_000.0,
    "forward_gpu_time_sem": 100.0,
    "config_name": "small",
    "batch_size": 8,
    "input_length": 256,
    "precision": "bf16",
    "gpu_config": "h100",
}


def write(folder, *lines, name="h100_bf16_llama3.2_1b_all_configs_results.jsonl"):
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_units_are_si_and_names_are_floprays(tmp_path):
    frame = load_published(write(tmp_path, LINE))
    forward = frame[frame["phase"] == "forward"].iloc[0]
    assert forward["time_s"] == pytest.approx(0.020)
    assert forward["energy_j"] == 5.0
    assert forward["flops_per_s"] == pytest.approx(4e14)
    assert forward["flops_per_j"] == pytest.approx(1.6e12)
    assert forward["power_w"] == pytest.approx(250.0)
    assert forward["time_rel_error"] == pytest.approx(1.96 * 100 / 20_000)
    assert forward["energy_rel_error"] == pytest.approx(1.96 * 0.01)
    assert (forward["device_type"], forward["model"], forward["sequence_length"]) == ("h100", "llama3.2_1b", 256)
    assert "attention left out" in forward["model_flops_convention"]


def test_a_whole_number_beyond_64_bits_is_a_number(tmp_path):
    """A column of them would be one of Python's objects, with which NumPy cannot compute."""
    frame = load_published(write(tmp_path, LINE, LINE | {"forward_energy_mean": 10**30}))
    assert frame["energy_j"].dtype == float
    assert frame[frame["phase"] == "forward"]["energy_j"].tolist() == [5.0, 1e30]


def test_a_phase_that_was_not_published_is_a_hole_with_a_reason(tmp_path):
    frame = load_published(write(tmp_path, LINE))
    hole = frame[frame["phase"] == "backward_and_optimizer"].iloc[0]
    assert hole["status"] == "failed"
    assert "no backward published" in hole["status_reason"]
    assert pd.isna(hole["time_s"])


def test_backward_says_that_it_contains_the_optimizer(tmp_path):
    backward = {key.replace("forward", "backward"): value for key, value in LINE.items() if key.startswith("forward")}
    frame = load_published(write(tmp_path, LINE | backward))
    assert "optimizer step" in frame.iloc[1]["status_reason"]
    assert list(frame["status"]) == ["ok", "ok"]


def test_device_and_precision_come_from_the_name_where_the_line_has_none(tmp_path):
    bare = {key: value for key, value in LINE.items() if key.startswith("forward")}
    frame = load_published(write(tmp_path, bare, name="a100-40g_fp16_llama3.2_1b_energy_results.jsonl"))
    assert set(frame["device_name"]) == {"a100-40g"}
    assert set(frame["precision"]) == {"fp16"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        *(("{", "not JSON"), ("[1]", "not a result"), ('{"a": 1}', "not a result")),
        ('{"forward_flops_sum": 1, "forward_flops_sum": 2}', r"not JSON \('forward_flops_sum' appears twice"),
        ('{"forward_flops_sum": 1, "config_name": "\\ud800"}', "which is no text"),
    ],
)
def test_foreign_lines_are_an_input_error_that_names_the_line(tmp_path, content, says):
    (tmp_path / "x.jsonl").write_text(json.dumps(LINE) + "\n" + content + "\n")
    with pytest.raises(InputError, match=f"x.jsonl, line 2: .*{says}"):
        load_published(tmp_path)


def test_a_folder_without_results_is_not_published(tmp_path):
    assert not is_published(tmp_path)
    (tmp_path / "journal.jsonl").write_text('{"trial_id": "0"}\n')
    assert not is_published(tmp_path)
    with pytest.raises(InputError, match=r"no \.jsonl file"):
        load_published(tmp_path / "absent")


def test_metrics_of_either_header_become_the_same_columns(tmp_path):
    new = "n,d,m,ncu_total_flops_fwd,theoretical_total_flops_fwd,ncu_total_flops_bwd,theoretical_total_flops_bwd,"
    old = new + "epsilon_gemm,rho,kappa_fwd,epsilon_gemm_bwd,rho_bwd,kappa_bwd\n"
    new += "omega_fwd,rho_fwd,kappa_fwd,omega_bwd,rho_bwd,kappa_bwd\n"
    values = "2,128,16,200,100,300,150,1.5,65,15,2.5,113,1\n"
    frames = []
    for header in (old, new):
        (tmp_path / "m.csv").write_text(header + values)
        frames.append(load_metrics(tmp_path / "m.csv"))
    pd.testing.assert_frame_equal(*frames)
    assert list(frames[0]["phase"]) == ["forward", "backward"]
    assert list(frames[0]["gemm_overhead"]) == [1.5, 2.5]
    assert list(frames[0]["model_flops"]) == [100, 150]


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("ncu_total_flops_fwd", "OOM"),
        ("ncu_total_flops_fwd", "inf"),
        ("ncu_total_flops_bwd", "-5"),
        ("ncu_total_flops_fwd", ""),
        ("theoretical_total_flops_fwd", "0"),
        ("kappa_fwd", "1e300"),
        ("n", "2.5"),
        ("d", "0"),
        ("m", "two"),
    ],
)
def test_a_cell_of_the_metrics_that_cannot_be_compared_is_named(tmp_path, capsys, column, cell):
    header = "n,d,m,ncu_total_flops_fwd,theoretical_total_flops_fwd,ncu_total_flops_bwd,theoretical_total_flops_bwd,"
    header += "omega_fwd,rho_fwd,kappa_fwd,omega_bwd,rho_bwd,kappa_bwd"
    values = dict(
        zip(
            header.split(","),
            ["2", "128", "16", "200", "100", "300", "150", "1.5", "65", "15", "2.5", "113", "1"],
            strict=True,
        )
    )
    lines = [header, ",".join(values.values()), ",".join((values | {column: cell}).values())]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert compare_flops.main(["--published", str(path), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "pass in row 2 is" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("separator", [";", "\t"])
def test_metrics_of_another_dialect_are_read(tmp_path, separator):
    text = "n,d,m,ncu_total_flops_fwd,theoretical_total_flops_fwd,ncu_total_flops_bwd,theoretical_total_flops_bwd,"
    text += "omega_fwd,rho_fwd,kappa_fwd,omega_bwd,rho_bwd,kappa_bwd\n2,128,16,200,100,300,150,1.5,65,15,2.5,113,1\n"
    (tmp_path / "m.csv").write_text("\ufeff" + text.replace(",", separator), encoding="utf-8")
    assert list(load_metrics(tmp_path / "m.csv")["executed_flops"]) == [200, 300]


def test_another_csv_is_an_input_error(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column"):
        load_metrics(tmp_path / "x.csv")


@needs_published
def test_the_published_set_is_read_whole():
    frame = load_published(RESULTS)
    assert Counter(frame["phase"]) == {"forward": 45, "backward_and_optimizer": 45}
    assert (frame["status"] == "failed").sum() == 6
    llama = frame[(frame["config"] == "large") & (frame["device_type"] == "h100") & (frame["precision"] == "bf16")]
    assert llama.iloc[0]["model_flops"] == 20_249_647_261_696


@needs_published
def test_the_audit_finds_what_is_known_about_the_published_set():
    frame = load_published(RESULTS)
    found = audit(frame)

    def rows(*rules):
        return {row for finding in found if finding.rule in rules for row in finding.rows}

    forward = set(frame.index[frame["phase"] == "forward"])
    fast, efficient = rows("rate_above_limit"), rows("efficiency_above_peak")
    assert len(fast & forward) == 36
    assert len((fast | efficient) & forward) == 43
    assert not (fast | efficient) - forward
    worst = max(finding.excess for finding in found if finding.rule == "rate_above_limit")
    assert worst == pytest.approx(72, abs=0.5)
    assert rows("launch_window") == forward  # the mark is on every one of the 15 series


@needs_published
def test_the_published_metrics_have_both_phases_of_1280_points():
    frame = load_metrics(PUBLISHED / "metrics" / "20250922-120007_n2-32_d128-2048_m16-256.csv")
    assert Counter(frame["phase"]) == {"forward": 1280, "backward": 1280}
    assert (frame["executed_flops"] > frame["model_flops"]).mean() > 0.9
