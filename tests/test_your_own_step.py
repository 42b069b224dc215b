"""The recipes of docs/your-own-step.md run as they stand there, and are short."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-own-step.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHELL = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def recipe(words):
    (block,) = (block for block in PYTHON if words in block)
    return block


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout + outcome.stderr


def test_there_are_five_and_each_has_at_most_15_lines():
    recipes = [*PYTHON, *SHELL]
    assert len(recipes) == 5
    assert max(len([line for line in block.splitlines() if line.strip()]) for block in recipes) <= 15


def test_a_step_that_can_be_called(tmp_path):
    out = run(
        [sys.executable, "-c", recipe("flopray.measure").replace("measure(step", "measure(step, max_seconds=0.3")],
        tmp_path,
    )
    assert "time" in out
    assert "FLOPs" in out


def test_a_loop_that_stays_as_it_is(tmp_path):
    out = run([sys.executable, "-c", recipe("flopray.watch(")], tmp_path)
    assert "200 steps" in out
    assert "region  eval: 2 x" in out
    assert (tmp_path / "watched" / "series.parquet").exists()
    assert (tmp_path / "watched" / "figure.png").stat().st_size > 10_000


def test_any_program(tmp_path):
    (tmp_path / "train.py").write_text("import sys; print('trained', sys.argv[2])")
    words = [sys.executable if word == "python" else word for word in shlex.split(SHELL[0])]
    out = run([sys.executable, "-m", "flopray", *words[1:]], tmp_path)
    assert "trained 3" in out
    assert (tmp_path / "results" / "programs.jsonl").exists()
    assert (tmp_path / "results" / "train" / "series.parquet").exists()


@pytest.mark.extras("accelerate")
def test_the_trainer_of_transformers(tmp_path):
    out = run([sys.executable, "-c", recipe("EnergyCallback()")], tmp_path)
    assert "flops_per_step" in out
    assert "20 steps" in out


@pytest.mark.extras("lightning")
def test_lightning(tmp_path):
    out = run([sys.executable, "-c", recipe("EnergyMonitor()")], tmp_path)
    assert "time_per_step_s" in out
    assert "20 steps" in out
