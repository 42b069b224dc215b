"""`flopray count`: tables, JSON, files, and one line for whatever cannot be counted."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
import torch

from flopray.cli.main import main
from flopray.report.counts.scaling import CountTable

STEP = """
import torch

def make_step(width, batch=8, half=False, kind="relu"):
    assert isinstance(half, bool)
    layer, x = torch.nn.Linear(width, width), torch.randn(batch, width)
    return lambda: layer(x).sum().backward()
"""


@pytest.fixture
def step(tmp_path):
    (tmp_path / "step.py").write_text(STEP)
    return f"{tmp_path / 'step.py'}:make_step"


def test_one_shape_as_tables_and_as_json(step, capsys):
    assert main(["count", step, "--width", "64", "--half", "true", "--no-executed"]) == 0
    out = capsys.readouterr().out
    assert "131,072" in out
    assert "not requested" in out
    assert "Linear" in out
    assert "aten.addmm" in out
    assert main(["count", step, "--width=64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dispatched"]["flops"] == 2 * (2 * 8 * 64 * 64)
    assert found["shape"] == {"width": 64}
    if not torch.cuda.is_available():
        assert found["executed"]["flops"] is None
        assert "NVIDIA GPU" in found["executed"]["reason"]


def test_several_shapes_are_a_table_a_file_and_a_figure(step, tmp_path, capsys):
    csv, png = tmp_path / "counts.csv", tmp_path / "flops.png"
    words = [step, "--width", "16:48:16", "--batch", "4", "8", "--no-executed", "--csv", str(csv), "--plot", str(png)]
    assert main(["count", *words]) == 0
    assert str(png) in capsys.readouterr().out
    frame = pd.read_csv(csv)
    assert list(frame["width"]) == [16, 16, 32, 32, 48, 48]
    assert list(frame["dispatched_flops"]) == [4 * b * w * w for w in (16, 32, 48) for b in (4, 8)]
    assert png.read_bytes().startswith(b"\x89PNG")
    assert main(["count", *words]) == 2
    assert "the file exists" in capsys.readouterr().err


def test_a_workload_by_its_own_flags(capsys):
    assert main(["count", "mlp", "--n", "2", "--d", "64", "--m", "16", "--phase", "train_step", "--no-executed"]) == 0
    out = capsys.readouterr().out
    assert "closed -> dispatched" in out
    assert "655,360" in out


def test_values_that_do_not_change_stand_in_the_title_of_a_table(step, capsys):
    """The table of a workload with many fields stays readable."""
    assert main(["count", step, "--width", "16", "32", "--batch", "4", "--kind", "gelu", "--no-executed"]) == 0
    title, table = capsys.readouterr().out.split("┏", 1)
    assert "batch=4kind=gelu" in "".join(title.split())
    assert "width" in table
    assert "gelu" not in table


def test_a_figure_of_one_count_has_labels_and_no_empty_panel(monkeypatch, tmp_path):
    import flopray
    from flopray.report.counts import figure as module

    drawn = []
    monkeypatch.setattr(module, "save_figure", lambda figure, stem, formats: drawn.append(figure) or [stem])
    (tmp_path / "step.py").write_text(STEP)
    table = flopray.count(f"{tmp_path / 'step.py'}:make_step", shapes=[{"width": 64}, {"width": 128}], executed=False)
    assert isinstance(table, CountTable)
    table.plot(tmp_path / "flops.png")
    (axes,) = drawn[0].axes
    assert axes.get_xlabel() == "width"
    low, high = axes.get_ylim()
    assert sum(low <= tick <= high for tick in axes.yaxis.get_majorticklocs()) >= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "TARGET"),
        (["--width", "3"], "unknown workload '3'"),
        (["STEP"], "missing a required argument: 'width'"),
        (["STEP", "--wdth", "3"], "did you mean width"),
        (["STEP", "--width", "64,128"], "write --width 64 128"),
        (["STEP", "--width", "64", "64"], "named twice"),
        (["STEP", "--width", "64", "--width", "128"], "named twice"),
        (["STEP", "--width"], "--width needs a value"),
        (["STEP", "64"], "unrecognized|name the parameter"),
        (["STEP", "--width", "9:3:1"], "the range is empty"),
        (["STEP", "--width", "256:128"], "write a whole number or a range first:last:step"),
        (["STEP", "--width", "-8:16:8"], "--width: -8 is below 1"),
        (["STEP", "--width", "8", "--device", "foo"], "--device 'foo': torch has no such device"),
        (["STEP", "--width", "64", "--plot", "x.png"], "--plot draws several shapes"),
        (["STEP", "--width", "8", "16", "--plot", "x.bmp"], "unknown format"),
        (["STEP", "--width", "8", "--csv", "/nowhere/x.csv"], "there is no folder"),
        (["STEP", "--width", "8", "--levels", "0"], "--levels"),
        (["STEP", "--width", "8", "--phase", "forward"], "has no phases"),
        (["STEP", "--width", "8", "--", "python"], "--metrics NAME -- COMMAND"),
        (["mlp", "--n", "2"], "mlp needs a value of --d, --m"),
        (["mlp", "--x", "2"], "mlp has no --x: its shape is --n, --d, --m"),
        (["mlp", "--n", "2", "--d", "8", "--m", "8", "--phase", "sleep"], "choose from inference"),
        (["mlpp", "--n", "2"], "unknown workload"),
    ],
)
def test_what_cannot_be_counted_is_one_line_and_exit_code_2(step, words, said, capsys):
    words = [step if word == "STEP" else word for word in words]
    try:
        code = main(["count", *words])
    except SystemExit as ended:
        code = ended.code
    err = capsys.readouterr().err
    assert code == 2, err
    assert re.search(said, err), err
    assert err.count("\n") == 1


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["count", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in ("make_step", "dispatched", "executed", "--metrics", "exit codes"):
        assert word in out


def test_a_table_has_no_partial_sum(tmp_path, capsys):
    (tmp_path / "mixed.py").write_text("""
import torch

class Mixed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.recurrent = torch.nn.Linear(16, 16), torch.nn.LSTM(16, 16)

    def forward(self, x):
        return self.recurrent(self.first(x))

def make(first=True):
    mixed, x = Mixed(), torch.ones(4, 2, 16)
    return (lambda: mixed(x)) if first else (lambda: mixed.recurrent(x))
""")
    for first, total in (("true", "> 4.1 kFLOP"), ("false", "no formula")):
        assert main(["count", f"{tmp_path / 'mixed.py'}:make", "--first", first, "--no-executed"]) == 0
        lines = capsys.readouterr().out.splitlines()
        (of_all,) = [re.split(r"\s*│\s*", line.strip("│ ")) for line in lines if line.startswith("│ all ")]
        assert of_all[2:] == [total, "-"]
        assert not [line for line in lines if "%" in line]
