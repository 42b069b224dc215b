"""The drawn lines of a time series: quantities, units, thinned to what can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from flopray.errors import InputError

#: More points than this on a line cannot be told apart.
MOST_POINTS = 3000
#: Most bands: more would hide the lines, so the longest are shown.
MOST_BANDS = 200
#: Column, title, unit, and how much of the column's unit that is.
QUANTITIES = (
    ("power_w", "power", "W", 1.0),
    ("temperature_c", "temperature", "°C", 1.0),
    ("sm_clock_hz", "SM clock", "MHz", 1e6),
    ("memory_used_bytes", "memory in use", "GiB", 2.0**30),
)
COLOURS = ("#1f6fb4", "#d1661b", "#2f8f4e", "#8a4fb0", "#b5342f", "#6f6f6f", "#b08a00", "#1b9aa0")
#: Label of the line of steps, which belongs to no device.
STEPS = "steps"
#: The line of steps breaks where none ran for longer than this many seconds.
BREAK_S = 0.3
BAND_COLOURS = ("#f1c232", "#6fa8dc", "#93c47d", "#e06666", "#8e7cc3", "#f6b26b")


@dataclass(frozen=True)
class Line:
    """One device, or the steps, in one panel.

    Attributes:
        device: label.
        time_s, values: in the panel's unit; the highest of neighbours where they were thinned.
        used: which points are marked as used; None marks none.
    """

    device: str
    time_s: np.ndarray
    values: np.ndarray
    used: np.ndarray | None = None


@dataclass(frozen=True)
class Panel:
    """One quantity of all devices that report it."""

    title: str
    unit: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Band:
    """A passage through a region."""

    name: str
    start_s: float
    end_s: float


def panels_of(samples: pd.DataFrame, steps: pd.DataFrame | None = None) -> list[Panel]:
    """The quantities that any device reports, and how long steps took.

    Args:
        samples: columns `time_s`, `device`, `uuid` and those of `QUANTITIES`; `used`, where there is one, says which
            rows are marked.
        steps: columns `step`, `start_s`, `end_s`, a row a piece of a step; None where there are none.

    Raises:
        InputError: a column is missing, or there is nothing to draw.
    """
    needed = ["time_s", "device", "uuid", *(column for column, *_ in QUANTITIES)]
    if missing := [name for name in needed if name not in samples.columns]:
        raise InputError(f"no time series: it has no column {missing[0]!r}")
    labels = device_labels(samples)
    panels = []
    for column, title, unit, scale in QUANTITIES:
        lines = []
        for uuid, rows in samples.groupby("uuid", sort=False):
            values = np.asarray(rows[column], dtype=float) / scale
            known = np.isfinite(values)
            if known.any():
                time_s, shown = _thinned(np.asarray(rows["time_s"], dtype=float)[known], values[known])
                used = np.asarray(rows["used"], dtype=bool)[known] if "used" in rows else None
                # Where points were thinned, marks would hide the line.
                lines.append(Line(labels[str(uuid)], time_s, shown, used if len(shown) == known.sum() else None))
        if lines:
            panels.append(Panel(title, unit, tuple(lines)))
    if steps is not None and len(steps):
        panels.append(_steps_panel(steps))
    if not panels:
        raise InputError(
            "nothing to draw: no device reported power, temperature, clocks or memory, and no step was marked"
        )
    return panels


def _steps_panel(steps: pd.DataFrame) -> Panel:
    """Length of each step, at its end, without interruptions; the line breaks where no step ran."""
    numbers, inverse = np.unique(steps["step"].to_numpy(), return_inverse=True)
    start_s, end_s = (steps[name].to_numpy(dtype=float) for name in ("start_s", "end_s"))
    last_s = np.full(len(numbers), -np.inf)
    np.maximum.at(last_s, inverse, end_s)
    took_s = np.bincount(inverse, end_s - start_s)
    # Time between two ends that is in neither step, such as an evaluation between or within them.
    pauses = np.flatnonzero(np.diff(last_s) - took_s[1:] > BREAK_S)
    pieces = zip(np.split(last_s, pauses + 1), np.split(1e3 * took_s, pauses + 1), strict=True)
    thinned = [_thinned(at_s, took_ms) for at_s, took_ms in pieces]
    time_s, took_ms = thinned[0]
    for at_s, values in thinned[1:]:
        time_s = np.concatenate([time_s, at_s[:1], at_s])
        took_ms = np.concatenate([took_ms, [np.nan], values])
    return Panel("time of a step", "ms", (Line(STEPS, time_s, took_ms),))


def device_labels(samples: pd.DataFrame) -> dict[str, str]:
    """A name for each UUID; with the start of the UUID where several devices have one name."""
    names = {str(uuid): str(name) for uuid, name in zip(samples["uuid"], samples["device"], strict=True)}
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    return {uuid: f"{name} {uuid[:12]}" if name in shared else name for uuid, name in names.items()}


def bands_of(regions: Sequence[Mapping[str, Any]]) -> list[Band]:
    """The passages that are drawn, in the order of time."""
    bands = [Band(str(r["name"]), float(r["start_s"]), float(r["end_s"])) for r in regions]
    longest = sorted(bands, key=lambda band: band.start_s - band.end_s)[:MOST_BANDS]
    return sorted(longest, key=lambda band: band.start_s)


def band_colours(bands: Sequence[Band]) -> dict[str, str]:
    """A colour for each region."""
    names = dict.fromkeys(band.name for band in bands)
    return {name: BAND_COLOURS[place % len(BAND_COLOURS)] for place, name in enumerate(names)}


def _thinned(time_s: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = -(-len(values) // MOST_POINTS)
    if size == 1:
        return time_s, values
    starts = np.arange(0, len(values), size)
    return time_s[starts], np.maximum.reduceat(values, starts)
