"""Paths of figures of surfaces, and lines about them and about metrics without a value."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from flopray.report.plot.names import file_name
from flopray.report.surface.axes import letter_of
from flopray.report.surface.data import SurfaceSet
from flopray.units import counted


def figure_stem(out_dir: Path, surfaces: SurfaceSet, kind: str, suffix: str, *, whole: bool) -> Path:
    """Path of a figure without its ending.

    Args:
        out_dir: of all figures.
        surfaces: what the figure shows.
        kind: `linear`, `log` or `lines`.
        suffix: of a selection that is not the whole run.
        whole: the figure has all layers of the set; else its name says which.
    """
    kind_of = "_".join(filter(None, (surfaces.device_type, surfaces.precision, surfaces.execution, surfaces.variant)))
    group = file_name(kind_of)
    layers = "" if whole else f"_{letter_of(surfaces.axes.panel)}{surfaces.grids[0].panel}-{surfaces.grids[-1].panel}"
    name = f"{surfaces.metric.name}_{kind}{layers}{suffix}"
    return out_dir / "surfaces" / group / file_name(surfaces.phase) / name


def page_path(out_dir: Path, suffix: str) -> Path:
    """Path of the interactive page."""
    return out_dir / f"surfaces{suffix}.html"


def why_not_lines(sets: Sequence[SurfaceSet]) -> Iterator[str]:
    """A line for metrics that have no figure for the same reason, with the phases."""
    phases: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for surfaces in sets:
        group = f"{surfaces.device_type} {surfaces.precision} {surfaces.execution} {surfaces.variant}".strip()
        if not surfaces.has_values():
            why = _join(reason for reason, _ in surfaces.hole_counts().most_common(3))
            phases[group, surfaces.metric.name, why].append(surfaces.phase)
        elif surfaces.values().size == 1:
            why = "a single point has no axis to draw along; its numbers are in the records"
            phases[group, surfaces.metric.name, why].append(surfaces.phase)
    metrics: dict[tuple[str, tuple[str, ...], str], list[str]] = defaultdict(list)
    for (group, metric, why), names in phases.items():
        metrics[group, tuple(names), why].append(metric)
    for (group, names, why), same in metrics.items():
        yield f"no figure of {', '.join(same)} for {group} ({', '.join(names)}): {why}"


def where_lines(paths: Sequence[Path]) -> Iterator[str]:
    """The written files, a line for each folder of a device, precision and execution."""
    if not paths:
        yield "nothing was drawn"
        return
    pages = [path for path in paths if path.suffix == ".html"]
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        if path not in pages:
            folders[path.parent.parent].append(path)
    for folder, files in folders.items():
        figures = len({path.with_suffix("") for path in files})
        endings = " ".join(sorted(Counter(path.suffix[1:] for path in files)))
        phases = ",".join(dict.fromkeys(path.parent.name for path in files))
        phases = f"{{{phases}}}" if "," in phases else phases
        yield f"{counted(figures, 'figure')} ({endings}): {folder}/{phases}/"
    for page in pages:
        yield f"interactive page: {page}"


def _join(reasons: Iterator[str]) -> str:
    return ", ".join(reasons) or "no points"
