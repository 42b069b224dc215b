"""The Python of docs/python.md runs as written; blocks that start Ray are left to the tests of sweeps."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import flopray
from flopray.workloads.registry import find_workload

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


def conv_file(folder: Path) -> Path:
    """The file that the page makes in two blocks."""
    first = next(block for block in BLOCKS if "class ConvNet" in block)
    second = next(block for block in BLOCKS if "class KnownConvNet" in block)
    path = folder / "conv.py"
    path.write_text(f"{first}\n\n{second}")
    return path


@pytest.fixture
def run_block(warm_python, tmp_path):
    """Runs the one block with these words; with short windows where it measures."""

    def run(words: str, *, measures: bool = True) -> str:
        (block,) = (block for block in BLOCKS if words in block)
        code = block if not measures else _with_short_windows(block)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        outcome = warm_python.run("-c", code, cwd=tmp_path, env=environment)
        assert outcome.returncode == 0, outcome.stderr
        return outcome.stdout

    return run


def _with_short_windows(block: str) -> str:
    code = block.replace("optimizer=optimizer.step,", "optimizer=optimizer.step, max_seconds=0.2, device='cpu',")
    return code.replace("precision=", "max_seconds=0.2, precision=").replace("phases=", "max_seconds=0.1, phases=")


@pytest.mark.slow
def test_the_phases_of_a_step(run_block):
    lines = run_block("forward=forward,").splitlines()
    assert [line.split()[0] for line in lines[:6]] == [
        "Measurement",
        "forward",
        "backward",
        "optimizer",
        "whole",
        "sum",
    ]
    assert float(lines[-1].split()[0]) > 0


def test_what_was_not_measured(run_block):
    lines = run_block("shipped()", measures=False).splitlines()
    assert re.match(r"\d+\.\d µs, 90 %: \d+\.\d to \d+\.\d$", lines[0])
    assert "mJ at 50 °C, from 184 rows of mlp on 3 boards of H100, bf16 graph" in lines[1]
    assert lines[2] == "inside the measured range"


def test_the_flops_of_a_function(run_block, tmp_path):
    (step,) = (block for block in BLOCKS if "def make_step" in block)
    (tmp_path / "step.py").write_text(step)
    out = run_block("table.exponents()")
    assert "('Linear',) aten.addmm forward 1048576" in out
    assert "{'dispatched': 2.0" in out or "{'dispatched': 1.99999" in out
    assert (tmp_path / "flops.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_profile_of_an_mlp(run_block):
    out = run_block("flopray.workloads.MLP(")
    assert "n=8 d=1024 m=128 bf16 eager" in out
    assert " 2148532224\n" in out


def test_the_sweep_is_one_that_can_be_asked_for():
    (block,) = (block for block in BLOCKS if "flopray.Sweep(" in block)
    (line,) = (line for line in block.splitlines() if line.startswith("sweep = "))
    named: dict[str, object] = {"flopray": flopray}
    exec(line, named)
    assert repr(named["sweep"]) == "Sweep of mlp: n_layers 2 4; width 64 128 192; tokens 32"


def test_the_file_is_a_workload(tmp_path):
    path = conv_file(tmp_path)
    assert [field.name for field in find_workload(f"{path}:ConvNet").dimensions] == ["channels", "image_size", "images"]
    assert find_workload(f"{path}:KnownConvNet").phases[-1] == "saliency"


@pytest.mark.slow
def test_the_closed_form_of_the_page_is_the_dispatchers_count(run_block, tmp_path):
    conv_file(tmp_path)
    rows = {line.split()[0]: line.split()[1:] for line in run_block("from conv import").splitlines()}
    assert len(rows) == 7
    for phase in ("inference", "forward", "backward", "forward_backward", "saliency"):
        time_s, _, difference, pixels = rows[phase]
        assert float(time_s) > 0
        assert (float(difference), pixels) == (0.0, "4096")
    assert rows["forward"][1] == "56623104"  # 3 layers x 2 x 9 x 16^2 x 4 x 32^2
