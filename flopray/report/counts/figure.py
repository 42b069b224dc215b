"""The figure of counts over the shape."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flopray.errors import InputError
from flopray.flops.comparison import Counts
from flopray.report.counts.lines import KINDS, lines_of
from flopray.report.plot.figures import IMAGE_FORMATS, add_axes, paper_style, save_figure, set_measured_axis
from flopray.units import prefixed

_WIDTH_IN, _HEIGHT_IN = 5.4, 4.6
#: A logarithmic axis that spans less than this factor has labels at 2 and 5 too.
_FEW_DECADES = 1e3
_COLOURS = {"closed": "#4c72b0", "dispatched": "#dd8452", "executed": "#55a868"}
_MARKS = {"closed": "s", "dispatched": "o", "executed": "^"}
_STYLES = ("-", "--", ":", "-.")


def draw(table: Sequence[Counts], axis: str, exponents: dict[str, float], path: Path) -> Path:
    """Draw counts over a number of the shape.

    Args:
        table: the counts; one of them has a value.
        axis: the number.
        exponents: by count, the power of the number that it grows with.
        path: of the figure.

    Raises:
        InputError: the format is unknown.
    """
    kind = path.suffix.lstrip(".") or "png"
    if kind not in IMAGE_FORMATS:
        raise InputError(f"{path}: unknown format {kind!r:.20}, choose from {', '.join(IMAGE_FORMATS)}")
    shown = [name for name in KINDS if any(getattr(one, name).flops for one in table)]
    lines = lines_of(table, axis)
    with paper_style():
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN))
        compared = "dispatched" in shown and len(shown) > 1
        foot_in = 1.75 if compared else 0.5
        above = add_axes(figure, (0.75, foot_in, _WIDTH_IN - 0.95, _HEIGHT_IN - foot_in - 0.4))
        below = add_axes(figure, (0.75, 0.5, _WIDTH_IN - 0.95, 1.0), sharex=above) if compared else None
        for place, (rest, line) in enumerate(lines.items()):
            _draw_line(
                above, below, axis, line, shown, _STYLES[place % len(_STYLES)], exponents if place == 0 else None
            )
            if len(lines) > 1:
                changing = [word for word in rest if any(word not in other for other in lines)]
                _name_line(above, axis, line, shown, ", ".join(changing))
        values = np.unique([float(one.shape[axis]) for one in table])
        above.set(yscale="log", ylabel="FLOPs of one call")
        above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: prefixed(value, "")))
        above.yaxis.set_minor_formatter(NullFormatter())
        low, high = above.get_ylim()
        if high < _FEW_DECADES * low:  # powers of ten alone would give one label or none
            above.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        if below is not None:
            above.tick_params(labelbottom=False)
            below.set(ylabel="to dispatched")
        for axes in (above, below) if below is not None else (above,):
            set_measured_axis(axes.xaxis, values, "log", 0.06)
            axes.grid(visible=True)
        (below or above).set(xlabel=axis)
        above.legend(loc="upper left")
        above.set_title(_title(table, lines), loc="left")
        path.parent.mkdir(parents=True, exist_ok=True)
        return save_figure(figure, path.with_suffix(""), [kind])[0]


def _draw_line(
    above: Axes,
    below: Axes | None,
    axis: str,
    line: Sequence[Counts],
    shown: Sequence[str],
    style: str,
    exponents: dict[str, float] | None,
) -> None:
    for kind in shown:
        known = [one for one in line if getattr(one, kind).flops]
        x, y = [one.shape[axis] for one in known], [getattr(one, kind).flops for one in known]
        power = f" ∝ {axis}^{exponents[kind]:.2f}" if exponents and kind in exponents else ""
        label = f"{kind}{power}" if exponents is not None else None
        how = {"color": _COLOURS[kind], "marker": _MARKS[kind], "markersize": 4, "linestyle": style}
        above.plot(x, y, label=label, **how)
        if below is None:
            continue
        if kind == "dispatched":
            below.axhline(1, color=_COLOURS[kind], linewidth=0.8)
            continue
        ratios = [
            (one.shape[axis], getattr(one, kind).flops / one.dispatched.flops) for one in known if one.dispatched.flops
        ]
        if ratios:
            below.plot(*zip(*ratios, strict=True), **how)


def _title(table: Sequence[Counts], lines: dict[tuple[str, ...], list[Counts]]) -> str:
    """What was counted, the values that do not change, and where it was executed."""
    fixed = [word for word in next(iter(lines)) if all(word in other for other in lines)]
    where = next((one.executed.device_name for one in table if one.executed.flops is not None), None)
    words = (table[0].name, " ".join(fixed), table[0].phase, f"executed on {where}" if where else None)
    return ", ".join(word for word in words if word)


def _name_line(axes: Axes, axis: str, line: Sequence[Counts], shown: Sequence[str], words: str) -> None:
    """Write the other values of the shape at the end of a line."""
    last = next((one for one in reversed(line) if getattr(one, shown[0]).flops), None)
    if last is not None:
        place = (last.shape[axis], getattr(last, shown[0]).flops)
        axes.annotate(words, place, xytext=(-3, 4), textcoords="offset points", ha="right", fontsize=6)
