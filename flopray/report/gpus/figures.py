"""All figures of a comparison of GPUs, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from flopray.errors import InputError
from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import EFFICIENCY, ENERGY, MFU, REST, TIME
from flopray.report.gpus.dots import draw_dots
from flopray.report.gpus.lines import draw_lines
from flopray.report.gpus.pareto import draw_pareto
from flopray.report.gpus.scatter import draw_scatter
from flopray.report.plot.figures import paper_style, save_figure
from flopray.report.surface.selection import Metric

_PARTS = {
    "training": ("forward", "backward", "forward_backward", "optimizer_step", "train_step"),
    "generating": ("inference", "prefill", "decode"),
}
#: AdamW is elementwise: the peak of matrix products does not apply to it.
_WITHOUT_PRODUCTS = "optimizer_step"


def draw_comparison(
    comparison: Comparison, out_dir: Path, formats: Sequence[str] = ("png",)
) -> tuple[list[Path], list[str]]:
    """Draw what the rows of a comparison can show.

    Args:
        comparison: what is drawn.
        out_dir: gets `gpus/<comparison>/<figure>.<format>`.
        formats: among `flopray.report.plot.figures.IMAGE_FORMATS`.

    Returns:
        The files, and the names of figures that had no values.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = out_dir / "gpus" / comparison.folder
    paths: list[Path] = []
    missing: list[str] = []
    with paper_style():
        for name, draw in _figures(comparison):
            figure = draw()
            if figure is None:
                missing.append(name)
                continue
            try:
                paths += save_figure(figure, folder / name, formats)
            except OSError as error:
                raise InputError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
    return paths, missing


def _figures(comparison: Comparison) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    """Names of the figures for the measured phases and axes, and the functions that draw them."""
    measured = set(comparison.rows["phase"])
    parts = [(part, phases) for part, phases in _PARTS.items() if measured & set(phases)]
    for metric in (EFFICIENCY, TIME, ENERGY, MFU):
        for part, phases in parts:
            yield f"{metric.name}_{part}", _dots(comparison, metric, phases)
    if "forward" in measured and measured & {"backward", REST}:
        yield "forward_backward", lambda: draw_scatter(comparison)
    yield "pareto", lambda: draw_pareto(comparison)
    if comparison.rows["sequence_length"].nunique() > 1:
        yield "energy_over_length", lambda: draw_lines(comparison)


def _dots(comparison: Comparison, metric: Metric, phases: Sequence[str]) -> Callable[[], Figure | None]:
    about_products = metric in (EFFICIENCY, MFU)
    shown = [phase for phase in phases if not (about_products and phase == _WITHOUT_PRODUCTS)]
    return lambda: draw_dots(comparison, metric, shown)
