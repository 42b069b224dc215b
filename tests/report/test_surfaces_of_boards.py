"""Surfaces of several boards of one type: a cell shows the mean, and what it was on each board."""

from pathlib import Path

import numpy as np
import pytest

from flopray.report.document.data import load
from flopray.report.surface.data import surface_sets
from flopray.report.surface.selection import METRICS, Selection

BOARDS = [Path(__file__).parents[2] / "docs" / "results" / "boards" / name for name in ("h100_7b5b", "h100_d3fe")]


@pytest.mark.parametrize("metric", ["time", "energy", "flops_per_j"])
def test_each_board_has_its_own_value_beside_the_mean(metric):
    frame = load(BOARDS).frame.query("phase == 'train_step' and precision == 'bf16'")
    (drawn,) = surface_sets(frame, Selection(metrics=[metric]))
    assert drawn.boards == 2
    cells = 0
    for grid in drawn.grids:
        for (up, across), values in np.ndenumerate(grid.on_boards):
            at = (frame.n_layers == grid.panel) & (frame.width == drawn.xs[across]) & (frame.tokens == drawn.ys[up])
            measured = frame[at][METRICS[metric].column]
            assert sorted(values) == pytest.approx(sorted(measured), rel=1e-3)
            assert min(values) < grid.values[up, across] < max(values)
            cells += 1
    assert cells == 8
