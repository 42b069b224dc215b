"""The Python of the README works on what people have: a run on a GPU, and one on a CPU without an energy source."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flopray.records import PhaseRecord
from flopray.store.run import RunFolder
from flopray.workloads.registry import make_point

ROOT = Path(__file__).parents[1]


def run_the_ten_lines(run: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 12
    code = code.replace("results/RUN", str(run))
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


@pytest.mark.slow
def test_on_an_h100():
    out = run_the_ten_lines(ROOT / "docs" / "results" / "h100_mlp_fp32")
    assert "NVIDIA H100 80GB HBM3 fp32 backward n_layers=2 width=1024 tokens=256" in out
    assert re.search(r"µs ± [\d.]+%", out)
    assert re.search(r"mJ ± [\d.]+%", out)
    assert "nan" not in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("h200_llama", "NVIDIA H200 fp16 backward model=llama-3.2-1b batch_size=8 sequence_length=1024"),
        ("reference/h200-lm/lm_97ae", "mJ ± ?"),  # too few ticks for an error of energy
        ("h200_causal_lm", "NVIDIA H200 "),
        ("h100_counters_fp32", "Series([], Name: count"),  # nothing was timed
    ],
)
def test_on_a_run_of_any_workload_and_instrument(run, said):
    out = run_the_ten_lines(ROOT / "docs" / "results" / run)
    assert said in out
    assert "nan" not in out.lower()


@pytest.mark.slow
@pytest.mark.parametrize("error", [None, 0.031])
def test_on_a_cpu_without_energy(tmp_path, error):
    folder = RunFolder.create(tmp_path, "r", {})
    points = []
    for width in (128, 256):
        point = make_point(workload="mlp", device_type="CPU", n_layers=2, width=width, tokens=32)
        measured = {"time_s": 1e-3, "time_rel_error": error, "model_flops": 10**7, "flops_per_s": 1e10}
        missing = {"energy_status": "no_energy_source", "energy_reason": "no RAPL here", "mfu_reason": "no peak known"}
        shared = {"device_name": "a processor", "findings": ("note:no_limit_known",), **point.fields()}
        points.append([PhaseRecord.of(run="r", trial_id=point.id, phase="forward", **shared, **measured, **missing)])
    with folder.writer() as writer:
        writer.append(points)
    out = run_the_ten_lines(folder.path)
    assert ("1000.0 µs ± ?" if error is None else "1000.0 µs ± 3.10%") in out
    assert "no RAPL here" in out
    assert "no peak known" in out
    assert "nan" not in out.lower()
