"""`flopray fit RUN ...`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flopray.cli.fit import main
from flopray.predict import Predictor

RUN = str(Path(__file__).parents[2] / "docs" / "results" / "boards" / "h200_4bc7")


@pytest.mark.slow
def test_a_run_is_fitted_judged_and_kept(tmp_path, capsys):
    out, listed = tmp_path / "model.json", tmp_path / "held_out.json"
    code = main([RUN, "--held-out", "m", "--out", str(out), "--held-out-list", str(listed), "--figures", str(tmp_path)])
    text = capsys.readouterr().out
    assert code == 0
    assert "32 rows of mlp on 1 board of H200, bf16 graph" in text
    for words in ("m=64", "m=256", "coverage", "1 constant", "4 learned", "energy at 50 °C"):
        assert words in text
    assert "H200 bf16 graph mlp: predicted beyond all other rows: m=64, m=256" in text
    assert {group.where.precision for group in Predictor.load(out).groups} == {"fp32", "bf16"}
    sets = json.loads(listed.read_text())
    assert [one["values"] for one in sets] == [["64"], ["256"], ["64"], ["256"]]
    assert all(len(one["sha256"]) == 64 for one in sets)
    assert len(list(tmp_path.glob("predicted_mlp_H200_*.png"))) == 2


@pytest.mark.slow
def test_rows_that_are_not_fitted_are_counted_by_reason(capsys):
    counted = str(Path(RUN).parents[1] / "h200_counters_bf16")
    assert main([RUN, counted, "--held-out", "none"]) == 0
    assert "not fitted, 2560 rows: without time" in capsys.readouterr().out


def test_without_held_out_rows_the_errors_are_said_to_be_unknown(capsys):
    assert main([RUN, "--held-out", "none"]) == 0
    assert "nothing could be held out, so its errors are not known and it gives no intervals" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([RUN, "--held-out", "k"], "error: rows are not held out by 'k': choose from n, d, m, board, model"),
        (["nowhere"], "error: there is no run at"),
        ([RUN, "--held-out", "none", "--out", "/nowhere/model.json"], "error: cannot write /nowhere/model.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, said, capsys):
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(said)


def test_an_unknown_format_ends_before_anything_is_read(capsys):
    assert main(["nowhere", "--formats", "bmp"]) == 2
    assert "--formats: unknown 'bmp'" in capsys.readouterr().err
