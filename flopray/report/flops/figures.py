"""The figures of counted FLOPs: their names, and drawing them into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flopray.errors import InputError
from flopray.report.flops.data import Counted
from flopray.report.flops.fit_plots import draw_held_out
from flopray.report.flops.maps import draw_maps
from flopray.report.flops.ratio_plots import draw_excess, draw_extra
from flopray.report.plot.figures import paper_style, save_figure
from flopray.report.plot.names import file_name

#: Below it, overheads of small layers are far larger than all others.
DEFAULT_MIN_WIDTH = 512


def folder_of(out_dir: Path, group: Counted) -> Path:
    """Folder of a group's figures."""
    words = (group.device_type, group.precision, group.execution)
    return out_dir / "flops" / "_".join(map(file_name, words))


def draw_group(
    out_dir: Path,
    group: Counted,
    beside: Counted | None,
    predictions: Mapping[str, pd.DataFrame],
    *,
    min_width: int = DEFAULT_MIN_WIDTH,
    n_layers: int | None = None,
    formats: Sequence[str] = ("png",),
    tell: Callable[[str], object] = lambda _: None,
) -> list[Path]:
    """Draw all figures of a group.

    Args:
        out_dir: gets `flops/<device>_<precision>_<execution>/`.
        group: what is drawn.
        beside: a group that is drawn below it on the same scales, where it has the phase.
        predictions: held-out points of the phases that have them, as `report.flops.adjusted.held_out` gives them.
        min_width: least width of the filtered figures; 0 draws none.
        n_layers: of maps and lines, see `flopray.report.flops.maps.layers_for`.
        formats: of images, among `flopray.report.plot.figures.IMAGE_FORMATS`.
        tell: called with the name of each figure once it is written.

    Returns:
        The files that were written.

    Raises:
        InputError: the folder cannot be written.
    """
    paths: list[Path] = []
    folder = folder_of(out_dir, group)
    with paper_style():
        try:
            for name, figure in _figures(group, beside, predictions, min_width, n_layers):
                paths += save_figure(figure, folder / name, formats)
                tell(name)
        except OSError as error:
            raise InputError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
    return paths


def _figures(
    group: Counted,
    beside: Counted | None,
    predictions: Mapping[str, pd.DataFrame],
    min_width: int,
    n_layers: int | None,
) -> Iterator[tuple[str, Figure]]:
    """Names and figures, made one after the other."""
    for phase in group.phases:
        drawn = [other for other in (group, beside) if other is not None and phase in other.phases]
        excess = draw_excess(drawn, phase, n_layers=n_layers)
        if excess is not None:
            yield f"excess_{phase}", excess
        for least in _bounds(drawn, phase, min_width):
            suffix = f"_dmin{least}" if least else ""
            extra = draw_extra(drawn, phase, min_width=least)
            if extra is not None:
                yield f"classes_{phase}{suffix}", extra
            for scale in ("linear", "log"):
                maps = draw_maps(drawn, phase, log=scale == "log", min_width=least, n_layers=n_layers)
                if maps is not None:
                    yield f"overheads_{phase}_{scale}{suffix}", maps
        if len(predictions.get(phase, ())):
            yield f"held_out_{phase}", draw_held_out(predictions[phase], phase, group.title)


def _bounds(groups: Sequence[Counted], phase: str, min_width: int) -> tuple[int, ...]:
    """Least widths to draw: no bound, and that of the filter where it leaves some widths of a group out and some in."""
    widths = np.concatenate([group.of(phase)["width"].to_numpy(int) for group in groups])
    return (0, min_width) if widths.min() < min_width <= widths.max() else (0,)
