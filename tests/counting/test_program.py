"""Metrics of any program: its output and exit code do not change; values by kernel and range; errors in one line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from flopray.cli.main import main
from flopray.flops.executed.readings import range_names, readings, summaries
from flopray.measurement.counting import program

DATA = Path(__file__).parents[1] / "data" / "ncu"
METRICS = ("sm__cycles_active.sum", "sm__cycles_active.max", "sm__cycles_active.avg")


@pytest.fixture(autouse=True)
def may_read(monkeypatch):
    """The test does not depend on the files of this machine's driver, if it has one."""
    monkeypatch.setattr(program, "counter_permission", lambda: (True, None))


def test_launches_become_a_table_and_a_file(stand_in, tmp_path, capfd):
    out = tmp_path / "kernels.parquet"
    words = [sys.executable, "-c", "import sys; print('mine', *sys.argv[1:])", "--metrics", "two words"]
    assert main(["count", "--metrics", *METRICS, "--out", str(out), "--", *words]) == 0
    printed = capfd.readouterr()
    assert printed.out == "mine --metrics two words\n"
    assert "step/nn@inner" in printed.err
    frame = pd.read_parquet(out)
    assert list(frame.columns) == ["launch", "process", "device", "range", "kernel", "metric", "unit", "value"]
    assert len(frame) == 3 * len(METRICS)
    first, second = summaries(readings_of(frame))
    assert (first.range, first.launches) == ("step/nn@inner", 2)
    assert dict(zip(METRICS, (4000, 3000, 2000), strict=True)) == first.values
    assert (second.range, second.launches, second.values[METRICS[0]]) == ("", 1, 0.5)


def readings_of(frame):
    from flopray.flops.executed.readings import Reading

    return [Reading(**row) for row in frame.to_dict("records")]


@pytest.mark.parametrize("code", [3, 255])
def test_the_exit_code_is_the_programs(stand_in, code, capfd):
    assert main(["count", "--metrics", METRICS[0], "--", sys.executable, "-c", f"raise SystemExit({code})"]) == code
    assert "error" not in capfd.readouterr().err


def test_a_program_without_kernels_is_said_so(stand_in, capfd):
    stand_in("unread")
    assert main(["count", "--metrics", METRICS[0], "--", "true"]) == 0
    assert "no kernel was read" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "metric", "command", "words"),
    [
        ("", METRICS[0], ["no-such-program"], "command not found: 'no-such-program'"),
        ("", METRICS[0], [], "name the program behind --"),
        (
            "",
            "sm__cycle_active.sum",
            ["true"],
            "unknown metric 'sm__cycle_active.sum': did you mean sm__cycles_active?",
        ),
        ("error:Failed to find metric launch__x", "launch__x", ["true"], "unknown metric 'launch__x'"),
        ("error:ERR_NVGPUCTRPERM", METRICS[0], ["true"], "only administrators may read counters here"),
        ("error:Something new is wrong", METRICS[0], ["true"], "ncu: Something new is wrong"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(stand_in, wrong, metric, command, words, capfd):
    stand_in(wrong)
    assert main(["count", "--metrics", metric, "--", *command]) == 2
    err = capfd.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_without_ncu_the_program_does_not_start(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("FLOPRAY_NCU", str(tmp_path / "nowhere"))
    done = tmp_path / "done"
    assert main(["count", "--metrics", METRICS[0], "--", "touch", str(done)]) == 2
    assert "FLOPRAY_NCU names" in capfd.readouterr().err
    assert not done.exists()


def test_a_driver_that_forbids_it_is_told_before_the_program_starts(stand_in, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(program, "counter_permission", lambda: (False, "only administrators may"))
    monkeypatch.setattr(program, "PARAMS", DATA)
    assert main(["count", "--metrics", METRICS[0], "--", "touch", str(tmp_path / "done")]) == 2
    assert "only administrators may" in capfd.readouterr().err
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--metrics"], "--metrics needs at least one name"),
        (["--metrics", "a", "--out", "x.txt"], "ends in .csv or .parquet"),
        (["--metrics", "a", "--out", "/nowhere/x.csv"], "there is no folder"),
        (["--metrics", "a", "--out", __file__.replace(".py", ".csv")], None),
        (["--metrics", "a", "--launches", "0"], "--launches must be at least 1"),
    ],
)
def test_wrong_flags_are_one_line(stand_in, flags, words, capfd, tmp_path):
    if words is None:
        (tmp_path / "x.csv").write_text("mine")
        flags, words = ["--metrics", "a", "--out", str(tmp_path / "x.csv")], "the file exists"
    assert main(["count", *flags, "--", "true"]) == 2
    assert words in capfd.readouterr().err


def test_recorded_tables_have_their_ranges_and_values():
    found = readings((DATA / "h100_bf16_tensor_cores.csv").open())
    assert all(re.fullmatch(r"flopray@\d:(forward|backward)", one.range) for one in found)
    assert found[0].range == "flopray@0:forward"
    assert (found[0].value, found[0].launch, found[0].device) == (75_497_472, 0, 0)
    assert found[0].kernel == "nvjet_sm90_tst_64x24_64x16_2x4_h_bz_NNT"


@pytest.mark.parametrize(
    ("text", "started", "names"),
    [
        ("", False, []),
        (' "0:flopray:operation3:none:none" ', True, ["flopray@operation3"]),
        (' "4:<default domain>:eval:none:none:none:none:none:none" ', True, ["eval"]),
        ('1 "<default domain>:a:INT64:7:RGB:0xff:REGISTERED:a:b"', False, ["a"]),
        ('1 "<default domain>:none:none:none:none:none:none:none"', False, ["none"]),
    ],
)
def test_names_of_ranges(text, started, names):
    assert range_names(text, started=started) == names


def test_a_value_that_was_not_read_makes_no_partial_sum():
    lines = [
        '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"',
        '"0","k","dram__bytes.sum","byte","1,000"',
        '"1","k","dram__bytes.sum","byte","n/a"',
    ]
    (one,) = summaries(readings(lines))
    assert one.launches == 2
    assert one.values == {"dram__bytes.sum": None}
    with pytest.raises(ValueError, match="lacks the column"):
        readings(['"ID","x"'])


@pytest.mark.gpu
@pytest.mark.ncu
def test_metrics_of_a_real_program(tmp_path, capfd, monkeypatch):
    monkeypatch.undo()
    script = tmp_path / "train.py"
    script.write_text(
        "import torch\n"
        "x = torch.randn(1024, 1024, device='cuda')\n"
        "with torch.cuda.nvtx.range('outer'), torch.cuda.nvtx.range('inner'):\n"
        "    y = x @ x\n"
        "handle = torch.cuda.nvtx.range_start('started')\n"
        "z = x.sigmoid()\n"
        "torch.cuda.synchronize()\n"
        "torch.cuda.nvtx.range_end(handle)\n"
        "print('done')\n"
        "raise SystemExit(5)\n"
    )
    out = tmp_path / "kernels.csv"
    metrics = ["gpu__time_duration.sum", "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum"]
    code = main(["count", "--metrics", *metrics, "--out", str(out), "--", sys.executable, str(script)])
    printed = capfd.readouterr()
    assert code == 5, printed.err
    assert printed.out == "done\n"
    frame = pd.read_csv(out, keep_default_na=False)
    assert set(frame["metric"]) == set(metrics)
    assert {"outer/inner", "started"} <= set(frame["range"])
    fma = frame[(frame["range"] == "outer/inner") & (frame["metric"] == metrics[1])]
    assert float(fma["value"].astype(float).sum()) >= 1024**3
    words = ["--metrics", metrics[0], "--range", "started", "--out", str(tmp_path / "one.csv")]
    one = main(["count", *words, "--", sys.executable, str(script)])
    assert one == 5
    assert set(pd.read_csv(tmp_path / "one.csv")["range"]) == {"started"}
    assert main(["count", "--metrics", "sm__no_such_thing.sum", "--", sys.executable, str(script)]) == 2
    assert "unknown metric" in capfd.readouterr().err
