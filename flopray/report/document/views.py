"""The interactive views of a document: surfaces of runs with two dimensions or more, and types of devices compared."""

from __future__ import annotations

from collections.abc import Iterator

from flopray.errors import InputError
from flopray.report.document.content import Section, View, Words
from flopray.report.document.data import Measured
from flopray.report.gpus.html import page_data
from flopray.report.surface.axes import SurfaceAxes
from flopray.report.surface.data import SurfaceSet, surface_sets
from flopray.report.surface.html import set_data
from flopray.report.surface.rows import MLP_AXES
from flopray.report.surface.selection import OVERHEADS, Selection


def sections(measured: Measured) -> Iterator[Section]:
    """The sections, in order."""
    for name, sets in _surfaces(measured):
        said = f"Each metric and phase of {name} over its shapes: choose below, turn it, hover over a cell."
        view = View("surface_page.js", [set_data(surfaces) for surfaces in sets], said)
        yield Section(f"surfaces-{name}", f"Surfaces of {name}", [Words([said]), view])
    if measured.rows["time_s"].notna().any():
        said = "Devices, precisions and shapes beside one another, and FLOP/s against FLOP/J."
        yield Section(
            "devices", "Devices compared", [Words([said]), View("gpu_page.js", page_data(measured.comparisons), said)]
        )


def _surfaces(measured: Measured) -> Iterator[tuple[str, list[SurfaceSet]]]:
    """The drawable views of each workload whose points lie on a grid."""
    for name, part in measured.frame.groupby("workload", sort=True):
        workload = next((folder.workload for folder in measured.folders if folder.workload.name == name), None)
        try:
            axes = SurfaceAxes.of(workload) if workload else MLP_AXES
            counted = [metric for metric in OVERHEADS if metric.column in part and part[metric.column].notna().any()]
            sets = list(surface_sets(part, Selection(), None, axes, counted))
        except InputError:
            continue  # no dimension is an axis
        drawn = [surfaces for surfaces in sets if surfaces.has_values() and surfaces.values().size > 1]
        if drawn:
            yield str(name), drawn
