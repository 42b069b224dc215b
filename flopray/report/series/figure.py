"""Figure and page of a time series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from flopray.errors import InputError
from flopray.mappings import Json
from flopray.report.page import nullable, page_of, page_wanted, write_text
from flopray.report.plot.figures import IMAGE_FORMATS, add_axes, paper_style, save_figure
from flopray.report.series.lines import COLOURS, STEPS, Band, Panel, band_colours, bands_of, panels_of

_WIDTH_IN, _PANEL_IN, _GAP_IN, _LEFT_IN, _RIGHT_IN = 7.0, 1.15, 0.18, 0.75, 0.15


def draw_series(
    samples: pd.DataFrame,
    regions: Sequence[Mapping[str, Any]],
    stem: Path,
    *,
    steps: pd.DataFrame | None = None,
    formats: Sequence[str] = ("png",),
    html: bool | None = None,
    title: str = "",
    time_label: str = "time (s)",
) -> list[Path]:
    """Draw power, temperature, clock, memory and the time of steps over time, with regions as bands.

    Args:
        samples: see `flopray.report.series.lines.panels_of`.
        regions: `name`, `start_s` and `end_s` of each.
        stem: path without its ending.
        steps: see `flopray.report.series.lines.panels_of`.
        formats: among `IMAGE_FORMATS`.
        html: also an interactive page; by default where plotly is installed.
        title: above the figure.
        time_label: of the axis below; only in images.

    Returns:
        The files that were written.

    Raises:
        InputError: nothing to draw, an unknown format, `html` without plotly, or a folder that cannot be written.
    """
    for name in formats:
        if name not in IMAGE_FORMATS:
            raise InputError(f"unknown format {name!r}: choose from {', '.join(IMAGE_FORMATS)}")
    html = page_wanted(html)
    panels, bands = panels_of(samples, steps), bands_of(regions)
    try:
        with paper_style():
            paths = save_figure(series_figure(panels, bands, title, time_label), stem, formats)
        if html:
            page = page_of("series_page.js", page_data(panels, bands, title))
            paths.append(write_text(page, stem.with_name(f"{stem.name}.html")))
    except OSError as error:
        raise InputError(f"cannot write {error.filename or stem}: {error.strerror or error}") from error
    return paths


def series_figure(
    panels: Sequence[Panel], bands: Sequence[Band], title: str = "", time_label: str = "time (s)"
) -> Figure:
    """The figure: a panel a quantity, one above the other."""
    devices = list(dict.fromkeys(line.device for panel in panels for line in panel.lines))
    colours = {device: COLOURS[place % len(COLOURS)] for place, device in enumerate(devices)}
    marked = band_colours(bands)
    entries: list[Artist] = [Patch(color=colours[device], label=device) for device in devices]
    entries += [Patch(color=colour, alpha=0.35, label=name) for name, colour in marked.items()]
    if any(line.used is not None for panel in panels for line in panel.lines):
        for label, face in (("tick that was used", "#404040"), ("tick that was not", "white")):
            mark = {"linestyle": "none", "marker": "o", "markersize": 3.2, "markerfacecolor": face}
            entries.append(Line2D([], [], color="#404040", label=label, **mark))
    lines = -(-len(entries) // 3)
    foot_in, head_in = 0.5 + 0.17 * lines, 0.3 if title else 0.1
    height_in = foot_in + len(panels) * (_PANEL_IN + _GAP_IN) + head_in
    ends_s = [float(line.time_s[-1]) for panel in panels for line in panel.lines] + [band.end_s for band in bands]
    end_s = 1.02 * max(ends_s) or 1.0
    figure = Figure(figsize=(_WIDTH_IN, height_in))
    for row, panel in enumerate(panels):
        bottom_in = foot_in + (len(panels) - 1 - row) * (_PANEL_IN + _GAP_IN)
        axes = add_axes(figure, (_LEFT_IN, bottom_in, _WIDTH_IN - _LEFT_IN - _RIGHT_IN, _PANEL_IN))
        _draw_panel(axes, panel, bands, colours, marked)
        axes.set_xlim(0.0, end_s)
        if row < len(panels) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel(time_label)
    if title:
        figure.suptitle(title, x=_LEFT_IN / _WIDTH_IN, y=1 - 0.06 / height_in, ha="left", va="top", fontweight="bold")
    figure.legend(handles=entries, loc="lower left", bbox_to_anchor=(_LEFT_IN / _WIDTH_IN, 0.0), ncols=3)
    return figure


def _draw_panel(
    axes: Axes, panel: Panel, bands: Sequence[Band], colours: Mapping[str, str], marked: Mapping[str, str]
) -> None:
    for line in panel.lines:
        # a step's time is drawn up to its end
        how = "steps-pre" if line.device == STEPS else "default"
        axes.plot(line.time_s, line.values, color=colours[line.device], linewidth=0.9, drawstyle=how)
        if line.used is not None:
            for used, face in ((True, colours[line.device]), (False, "white")):
                axes.plot(
                    *(part[line.used == used] for part in (line.time_s, line.values)),
                    **{"color": colours[line.device], "markerfacecolor": face},
                    **{"linestyle": "none", "marker": "o", "markersize": 2.6, "markeredgewidth": 0.6},
                )
    for band in bands:
        axes.axvspan(band.start_s, band.end_s, color=marked[band.name], alpha=0.35, linewidth=0.5, zorder=0)
    axes.set_ylabel(f"{panel.title}\n({panel.unit})")
    axes.set_xlim(left=0.0)
    if panel.unit in ("W", "GiB", "ms"):
        axes.set_ylim(bottom=0.0)
    axes.grid(axis="y")


def page_data(panels: Sequence[Panel], bands: Sequence[Band], title: str) -> Json:
    """What the script of the page reads."""
    return {
        "title": title or "Devices and steps over time",
        "panels": [
            {
                "title": panel.title,
                "unit": panel.unit,
                "lines": [
                    {"device": line.device, "time": nullable(line.time_s), "values": nullable(line.values)}
                    for line in panel.lines
                ],
            }
            for panel in panels
        ],
        "bands": [{"name": band.name, "start": band.start_s, "end": band.end_s} for band in bands],
        "colours": list(COLOURS),
        "steps": STEPS,
        "bandColours": band_colours(bands),
    }
