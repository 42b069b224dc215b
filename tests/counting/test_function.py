"""What one call of a function executes, counted in a separate process under a program that replaces ncu."""

from __future__ import annotations

import pytest
from warm_python import ADDRESS

from flopray.errors import MeasurementError, NoCounterPermission, Unsupported
from flopray.flops.executed import ncu
from flopray.measurement.counting.function import count_function

HOW = {"device": None, "precisions": ("fp32",), "compute_capability": "9.0"}


@pytest.fixture
def step_file(tmp_path):
    path = tmp_path / "step.py"
    path.write_text(
        "import os, torch\n"
        "def make_step(width):\n"
        "    x = torch.ones(width, width)\n"
        "    return lambda: x @ x\n"
        "def fails(width):\n"
        "    raise ValueError('width must be even')\n"
        "def ends(width):\n"
        "    os._exit(7)\n"
    )
    return path


def test_a_process_counts_a_function_and_its_failure_has_a_reason(step_file, stand_in):
    how = HOW | {"precisions": ("fp32", "bf16")}
    counted, version = count_function(str(step_file), "make_step", {"width": 8}, **how)
    assert version == "2025.3.1.0"
    (gemm,) = [one for one in counted.kernels if one.kind == "gemm"]
    assert (gemm.launches, gemm.tensor_flops) == (1, 1000)
    assert gemm.cuda_flops > 0
    failed, _ = count_function(str(step_file), "fails", {"width": 8}, **how)
    assert "width must be" in failed.reason


def test_what_forbids_counting_is_typed(step_file, stand_in):
    stand_in("error:ERR_NVGPUCTRPERM")
    with pytest.raises(NoCounterPermission, match="administrators"):
        count_function(str(step_file), "make_step", {"width": 8}, **HOW)
    stand_in("chips:ga100")
    ncu.known_chips.cache_clear()
    with pytest.raises(Unsupported, match="gh100"):
        count_function(str(step_file), "make_step", {"width": 8}, **HOW)


@pytest.mark.slow
def test_a_process_that_dies_is_told(step_file, stand_in, monkeypatch):
    monkeypatch.delenv(ADDRESS)  # a worker that imports everything itself
    with pytest.raises(MeasurementError, match=r"its process ended early .it ended with exit code"):
        count_function(str(step_file), "ends", {"width": 8}, **HOW)
