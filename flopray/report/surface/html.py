"""The interactive page of a run: every metric and phase, rotating surfaces and heat maps, filters on both axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flopray.description import Field
from flopray.report.page import nullable, page_of, write_text
from flopray.report.plot.scales import ValueScale, cell_edges, cell_unit, spacing_of
from flopray.report.surface.axes import NO_AXIS, joined, letter_of
from flopray.report.surface.data import Grid, SurfaceSet
from flopray.report.surface.legend import Marks
from flopray.report.surface.plots import interval_of, titles


def write_page(sets: Sequence[SurfaceSet], path: Path) -> Path:
    """Write the page for these sets; those without any value are named with their reasons.

    Raises:
        InputError: plotly is not installed.
        OSError: the file cannot be written.
    """
    return write_text(page_text(sets), path)


def page_text(sets: Sequence[SurfaceSet]) -> str:
    """The page as text.

    Raises:
        InputError: plotly is not installed.
    """
    return page_of("surface_page.js", [set_data(surfaces) for surfaces in sets])


def set_data(surfaces: SurfaceSet) -> dict[str, object]:
    """The page's data of a set; lists are those of `SurfaceSet`, null where a value is missing."""
    interval = interval_of(surfaces) if surfaces.metric.error_column else ""
    first, second = titles(surfaces, interval and f"±: 95 % interval {interval}")
    data: dict[str, object] = {
        "group": joined(surfaces.device, surfaces.precision, surfaces.execution, surfaces.variant),
        "key": [surfaces.device_type, surfaces.precision, surfaces.execution],
        "axes": [_axis(axis) for axis in (surfaces.axes.panel, surfaces.axes.x, surfaces.axes.y)],
        "phase": surfaces.phase,
        "metric": surfaces.metric.name,
        "title": first,
        "subtitle": second,
        "interval": interval,
        "label": surfaces.metric.short,
        "holes": dict(surfaces.hole_counts().most_common()),
        "scales": [],
    }
    if not surfaces.has_values():
        return data
    values, marks = surfaces.values(), Marks.of(surfaces)
    unit = cell_unit(surfaces.metric.unit, values)
    spacings = spacing_of(surfaces.xs), spacing_of(surfaces.ys)
    scales = [ValueScale.fitting(values, log=log, signed=surfaces.metric.signed) for log in (False, True)]
    return data | {
        "si": surfaces.metric.unit if surfaces.metric.unit != "%" else "1",
        "target": surfaces.target(),
        "unit": {"factor": unit.factor, "label": unit.label},
        "scales": [
            {
                "kind": scale.kind,
                "width": scale.width,
                "low": scale.low,
                "high": scale.high,
                "ticks": scale.ticks().tolist(),
                "diverging": scale.low < 0 < scale.high,
            }
            for scale in scales
        ],
        "d": surfaces.xs.tolist(),
        "m": surfaces.ys.tolist(),
        "spacings": spacings,
        "edges": [
            cell_edges(axis, spacing).tolist()
            for axis, spacing in zip((surfaces.xs, surfaces.ys), spacings, strict=True)
        ],
        "everywhere": list(marks.everywhere),
        "grids": [_grid_data(grid, marks) for grid in surfaces.grids],
    }


def _axis(axis: Field) -> dict[str, str]:
    """Names of an axis; one that the workload does not have has no letter."""
    title = "" if axis is NO_AXIS else axis.title
    label = axis.label or axis.name.replace("_", " ")
    return {"name": axis.name, "letter": letter_of(axis), "label": label, "title": title}


def _grid_data(grid: Grid, marks: Marks) -> dict[str, object]:
    """Values with their remarks; `marks` has the finding to mark a cell with, empty for none."""
    return {
        "n": grid.panel,
        "values": nullable(grid.values),
        "errors": nullable(grid.rel_errors),
        "above": grid.above_target().tolist(),
        "reasons": grid.reasons.tolist(),
        "findings": [[", ".join(cell) for cell in row] for row in grid.findings],
        "marks": [[marks.worst(cell) or "" for cell in row] for row in grid.findings],
    }
