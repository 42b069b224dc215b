"""Surfaces of several boards of one type, whose cells show the mean and each board, and of language models."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flopray.report.document.data import load
from flopray.report.surface.axes import SurfaceAxes
from flopray.report.surface.data import surface_sets
from flopray.report.surface.selection import METRICS, Selection
from flopray.store.location import open_run

BOARDS = [Path(__file__).parents[2] / "docs" / "results" / "boards" / name for name in ("h100_7b5b", "h100_d3fe")]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["time", "energy", "flops_per_j"])
def test_each_board_has_its_own_value_beside_the_mean(metric):
    frame = load(BOARDS).frame.query("phase == 'train_step' and precision == 'bf16'")
    (drawn,) = surface_sets(frame, Selection(metrics=[metric]))
    assert drawn.boards == 2
    cells = 0
    for grid in drawn.grids:
        for (up, across), values in np.ndenumerate(grid.on_boards):
            at = (frame.n_layers == grid.panel) & (frame.width == drawn.xs[across]) & (frame.tokens == drawn.ys[up])
            # several boards are compared at 50 °C, which all of these rows have
            measured = frame[at][{"energy": "energy_at_reference_j"}.get(metric, METRICS[metric].column)]
            if metric == "flops_per_j":
                measured = frame[at]["model_flops"].astype(float) / frame[at]["energy_at_reference_j"]
            assert sorted(values) == pytest.approx(sorted(measured), rel=1e-3)
            assert min(values) < grid.values[up, across] < max(values)
            cells += 1
    assert cells == 8


def test_a_workload_of_two_dimensions_has_surfaces_without_panels():
    folder = open_run(Path(__file__).parents[2] / "docs" / "results" / "h200_llama")
    axes = SurfaceAxes.of(folder.workload)
    drawn = list(surface_sets(folder.load(), Selection(metrics=["time"]), axes=axes))
    assert drawn
    assert all(len(one.grids) == 1 and len(one.ys) == 3 for one in drawn)


@pytest.mark.slow
def test_a_report_of_language_models_imports_neither_torch_nor_ray(tmp_path):
    run = Path(__file__).parents[2] / "docs" / "results" / "h200_causal_lm"
    code = (
        "import sys; from flopray.cli.main import main; "
        f"sys.argv = ['flopray', 'report', {str(run)!r}, '--out', {str(tmp_path / 'out')!r}]; main(); "
        "print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert (tmp_path / "out" / "report.html").exists()
