"""The quick loop leaves out slow tests and says so; every other way to run tests runs them."""

import subprocess
import sys
from pathlib import Path

import pytest
from quick_loop import QUICK, is_quick


@pytest.mark.parametrize("expression", ["not ray", "not ray and not extras", "not (ray or gpu)", "not  ray"])
def test_who_leaves_out_ray_wants_it(expression):
    assert is_quick(expression, slow=False)
    assert not is_quick(expression, slow=True)


@pytest.mark.parametrize(
    "expression",
    ["", "not extras", "extras", "ray", "gpu and not ncu", "slow and not ray", "not ray and (slow or not slow)"],
)
def test_all_else_runs_slow_tests(expression):
    assert not is_quick(expression, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "left_out"), [(("-m", "not ray"), True), (("-m", "not ray", "--slow"), False)])
def test_what_is_left_out_is_told(words, left_out):
    file = Path(__file__).parent / "energy" / "test_energy_coverage.py"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *words, str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=file.parents[2]).stdout
    assert ("test_interval_holds_the_mean_of_the_long_run" in told) is not left_out
    assert (QUICK in told) is left_out
    assert "test_width_follows_the_real_error" in told
