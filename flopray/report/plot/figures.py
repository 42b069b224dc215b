"""The look of every figure: style, placement in inches, axes through measured values, titles, saving.

Figures are made without pyplot, so that drawing needs no display, keeps no global state and can happen in any thread.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from flopray.report.plot.scales import Array, DisplayUnit, ValueScale, axis_ticks
from flopray.settings import setting
from flopray.store import atomic

PNG_DPI = 200
IMAGE_FORMATS = ("png", "svg", "pdf")
#: A second title is made smaller down to this share of its size, and broken if that is not enough.
_SMALLEST = 0.9
_MARGIN_IN = 0.1
#: Keyword arguments of an artist of matplotlib, whose methods take different ones.
Style = dict[str, Any]


def formats_setting(*default: str, **known: Any) -> Any:
    """The setting of a report for the formats of its images."""
    doc = "{choices} (default {default})"
    return setting(default, doc=doc, choices=IMAGE_FORMATS, noun="format", metavar="FORMAT", **known)


@contextlib.contextmanager
def paper_style(font_pt: float = 8.0) -> Iterator[None]:
    """Matplotlib settings for a figure that goes into a paper, restored afterwards.

    Args:
        font_pt: size of ordinary text in points at the figure's own size.
    """
    small_pt = font_pt - 1
    settings: Any = {
        "font.family": "sans-serif",
        "font.size": font_pt,
        "axes.titlesize": font_pt,
        "axes.labelsize": font_pt,
        "xtick.labelsize": small_pt,
        "ytick.labelsize": small_pt,
        "legend.fontsize": small_pt,
        "figure.titlesize": font_pt + 1,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "grid.linewidth": 0.4,
        "grid.color": "0.88",
        "lines.linewidth": 1.2,
        "hatch.linewidth": 0.5,
        "legend.frameon": False,
        # names of devices come from measured data: a dollar sign in one is not a formula
        "text.parse_math": False,
        "svg.hashsalt": "flopray",
    }
    with matplotlib.rc_context(settings):
        yield


def add_axes(figure: Figure, box_in: tuple[float, float, float, float], **options: Any) -> Axes:
    """New axes at left, bottom, width and height in inches."""
    width_in, height_in = figure.get_size_inches()
    left, bottom, width, height = box_in
    return figure.add_axes((left / width_in, bottom / height_in, width / width_in, height / height_in), **options)


def add_colour_bar(
    figure: Figure,
    box_in: tuple[float, float, float, float],
    scale: ValueScale,
    unit: DisplayUnit,
    values: Array,
    label: str = "",
) -> Axes:
    """A colour bar that ends at the values, even where the scale goes further.

    Args:
        figure: gets the bar.
        box_in: left, bottom, width and height in inches.
        scale: of the colours.
        unit: in which ticks are written.
        values: what is drawn, any shape, NaN where missing; a single value gets a bar of its colour and one tick.
        label: beside the bar.
    """
    axes = add_axes(figure, box_in)
    axes.set_gid("colour bar")
    colours = ScalarMappable(scale.norm(), scale.colour_map())
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    if is_one_value(finite):
        axes.set(facecolor=colours.to_rgba(np.array([low]))[0], xticks=[])
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
        axes.set_yticks([0.5], [unit.text(low)])
        axes.set_ylabel(label)
        return axes
    bar = figure.colorbar(colours, cax=axes)
    axes.set_ylim(low, high)
    ticks = scale.within(low, high).ticks().tolist()
    bar.set_ticks(ticks, labels=[unit.tick(tick) for tick in ticks])
    axes.minorticks_off()
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    bar.set_label(label)
    return axes


def is_one_value(values: Array) -> bool:
    """Whether finite values are the same, to a millionth; no value at all counts as none."""
    return len(values) > 0 and bool(np.ptp(values) <= 1e-6 * np.abs(values).max())


def set_measured_axis(axis: Any, values: Array, spacing: str, min_gap: float) -> None:
    """Give an axis of a 2-D plot ticks at measured values only, and a log scale where values are spread by factors.

    Args:
        axis: `Axes.xaxis` or `Axes.yaxis`.
        values: rising measured values, shape (k,).
        spacing: `log` or `linear`.
        min_gap: least distance of two labels as a share of the axis.
    """
    if spacing == "log":
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(FixedLocator(axis_ticks(values, spacing, min_gap).tolist()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axis.set_minor_locator(NullLocator())


def set_value_axis(axes: Axes, scale: ValueScale, unit: DisplayUnit, foot: float = 0.0) -> None:
    """Give the vertical axis the scale of a metric, with round ticks in the display unit and a little room.

    Args:
        axes: gets the scale.
        scale: of the values.
        unit: in which ticks are written.
        foot: share of the axis that stays free below all values, for marks.
    """
    if scale.kind == "log":
        axes.set_yscale("log")
    elif scale.kind == "asinh":
        axes.set_yscale("asinh", linear_width=scale.width)
    low, high = scale.place([scale.low, scale.high])
    room = 0.06 * (high - low)
    axes.set_ylim(*scale.value_at([low - room - (high - low) * foot / (1 - foot), high + room]))
    ticks = scale.ticks()
    axes.yaxis.set_major_locator(FixedLocator(ticks.tolist()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: unit.tick(value)))
    axes.yaxis.set_minor_locator(NullLocator())


def write_titles(figure: Figure, first: str, second: str) -> None:
    """The titles: what is shown (bold), and below it what it was measured on, smaller or on two lines if it is long.

    Args:
        figure: of its final size.
        first: the bold line.
        second: the line below; its parts end in `;` or are parted by `·`.
    """
    height_in = figure.get_size_inches()[1]
    above = figure.suptitle(first, x=0.5, y=1 - 0.07 / height_in, va="top", fontweight="bold")
    below = figure.text(0.5, 1 - 0.27 / height_in, second, ha="center", va="top", color="0.25")
    if _room_for(figure, below) < _SMALLEST:
        below.set_text(_on_two_lines(second))
        # nearer to the line above and to one another: titles of panels begin where there is room for less than two
        below.set(y=1 - 0.25 / height_in, linespacing=1.1, fontsize=float(below.get_fontsize()) * 0.85)
    for text in (above, below):
        text.set_fontsize(float(text.get_fontsize()) * min(1.0, _room_for(figure, text)))


def _room_for(figure: Figure, text: Text) -> float:
    """The width of a figure without its margins, over that of a text."""
    font = text.get_fontproperties()
    paths = [TextPath((0, 0), line, prop=font) for line in text.get_text().split("\n") if line.strip()]
    # by the control points, which bound a glyph's curves; the extent of the curves takes long to find
    widest = max((float(np.ptp(path.vertices[:, 0])) for path in paths), default=1.0)  # type: ignore[index]
    return float(figure.get_size_inches()[0] - 2 * _MARGIN_IN) * 72 / widest


def _on_two_lines(words: str) -> str:
    """Broken between two parts, where the longer line is shortest."""
    breaks = [(found.start(), found.end()) for found in re.finditer(r"(?<=;) |  ·  ", words)]
    if not breaks:
        return words
    end, start = min(breaks, key=lambda each: max(each[0], len(words) - each[1]))
    return f"{words[:end]}\n{words[start:]}"


def save_figure(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write a figure as `stem.png`, `stem.svg` and so on, each whole or not at all, making the folder first.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending in formats:
        path = stem.with_name(f"{stem.name}.{ending}")
        # a date in the file would make equal figures differ
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending)
        with atomic.making(path) as unfinished:
            figure.savefig(unfinished, format=ending, dpi=PNG_DPI, metadata=metadata)
        paths.append(path)
    return paths
