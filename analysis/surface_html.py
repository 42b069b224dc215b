"""One interactive page of a run: every metric and phase, rotating surfaces and heat maps, filters on d and m.

The page is one file that needs no network: plotly.js and the data stand in it. Data is JSON and is put into the page as
text only, so a device's name cannot become markup.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from analysis.scales import Array, ValueScale, cell_edges, display_unit, spacing_of
from analysis.surface_data import Grid, SurfaceSet
from analysis.surface_legend import Marks
from analysis.surface_plots import titles
from flopray.errors import InputError


def write_page(sets: Sequence[SurfaceSet], path: Path) -> Path:
    """Write the page for these sets; those without any value are named with their reasons.

    Raises:
        InputError: plotly is not installed.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page_text(sets), encoding="utf-8")
    return path


def page_text(sets: Sequence[SurfaceSet]) -> str:
    """The page as text.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError("the interactive page needs plotly: pip install 'flopray[html]'") from error
    template = resources.files("analysis").joinpath("surface_page.html").read_text(encoding="utf-8")
    data = json.dumps([_set_data(surfaces) for surfaces in sets], allow_nan=False, separators=(",", ":"))
    # inside <script> only "<" could end the data early; JSON may write it as an escape
    data = data.replace("<", "\\u003c")
    before, between, after = _split(template, "/*PLOTLY*/", "/*DATA*/")
    return before + get_plotlyjs() + between + data + after


def _split(template: str, first: str, second: str) -> tuple[str, str, str]:
    before, _, rest = template.partition(first)
    between, _, after = rest.partition(second)
    return before, between, after


def _set_data(surfaces: SurfaceSet) -> dict[str, Any]:
    """What the page needs of a set; lists are those of `SurfaceSet`, null where a value is missing."""
    first, second = titles(surfaces)
    data: dict[str, Any] = {
        "group": f"{surfaces.device}, {surfaces.precision}, {surfaces.execution}",
        "phase": surfaces.phase,
        "metric": surfaces.metric.name,
        "title": first,
        "subtitle": second,
        "label": surfaces.metric.short,
        "holes": dict(surfaces.hole_counts().most_common()),
        "scales": [],
    }
    if not surfaces.has_values():
        return data
    values, marks = surfaces.values(), Marks.of(surfaces)
    unit = display_unit(surfaces.metric.unit, float(np.nanmax(np.abs(values))))
    spacings = spacing_of(surfaces.widths), spacing_of(surfaces.tokens)
    scales = [ValueScale.fitting(values, log=log, signed=surfaces.metric.signed) for log in (False, True)]
    return data | {
        "unit": {"factor": unit.factor, "label": unit.label},
        "scales": [
            {
                "kind": scale.kind,
                "width": scale.width,
                "low": scale.low,
                "high": scale.high,
                "ticks": scale.ticks().tolist(),
                "labels": [unit.tick(tick) for tick in scale.ticks()],
                "diverging": scale.low < 0 < scale.high,
            }
            for scale in scales
        ],
        "d": surfaces.widths.tolist(),
        "m": surfaces.tokens.tolist(),
        "spacings": spacings,
        "edges": [
            cell_edges(axis, spacing).tolist()
            for axis, spacing in zip((surfaces.widths, surfaces.tokens), spacings, strict=True)
        ],
        "everywhere": list(marks.everywhere),
        "grids": [_grid_data(grid, marks) for grid in surfaces.grids],
    }


def _grid_data(grid: Grid, marks: Marks) -> dict[str, Any]:
    """Values with what is said of them; `marks` has the finding to mark a cell with, empty for none."""
    return {
        "n": grid.n_layers,
        "values": _nullable(grid.values),
        "errors": _nullable(grid.rel_errors),
        "reasons": grid.reasons.tolist(),
        "findings": [[", ".join(cell) for cell in row] for row in grid.findings],
        "marks": [[marks.worst(cell) or "" for cell in row] for row in grid.findings],
    }


def _nullable(array: Array) -> list[list[float | None]]:
    return [[None if not np.isfinite(value) else float(value) for value in row] for row in array]
