"""The recipes of docs/your-own-step.md run as written, and are short."""

import os
import re
import shlex
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


@pytest.fixture
def run(warm_python, tmp_path):
    """Runs `python` with these arguments, in the folder of the test."""

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        environment["CUDA_VISIBLE_DEVICES"] = ""
        outcome = warm_python.run(*arguments, cwd=tmp_path, env=environment)
        assert outcome.returncode == 0, outcome.stderr
        return outcome.stdout + outcome.stderr

    return run


def test_there_are_five_and_each_has_at_most_15_lines():
    recipes = [*PYTHON, *SHELL]
    assert len(recipes) == 5
    assert max(len([line for line in block.splitlines() if line.strip()]) for block in recipes) <= 15


def test_a_step_that_can_be_called(run):
    out = run("-c", recipe("flopray.measure").replace("measure(step", "measure(step, max_seconds=0.3"))
    assert "time" in out
    assert "FLOPs" in out


def test_a_loop_that_stays_as_it_is(run, tmp_path):
    out = run("-c", recipe("flopray.watch("))
    assert "200 steps" in out
    assert "region  eval: 2 x" in out
    assert (tmp_path / "watched" / "series.parquet").exists()
    assert (tmp_path / "watched" / "figure.png").stat().st_size > 10_000


def test_any_program(run, tmp_path):
    (tmp_path / "train.py").write_text("import sys; print('trained', sys.argv[2])")
    words = [sys.executable if word == "python" else word for word in shlex.split(SHELL[0])]
    out = run("-m", "flopray", *words[1:])
    assert "trained 3" in out
    assert (tmp_path / "results" / "programs.jsonl").exists()
    assert (tmp_path / "results" / "train" / "series.parquet").exists()


@pytest.mark.extras("accelerate")
@pytest.mark.slow
def test_the_trainer_of_transformers(run):
    out = run("-c", recipe("EnergyCallback()"))
    assert "flops_per_step" in out
    assert "20 steps" in out


@pytest.mark.extras("lightning")
@pytest.mark.slow
def test_lightning(run):
    out = run("-c", recipe("EnergyMonitor()"))
    assert "time_per_step_s" in out
    assert "20 steps" in out
