"""The windows of a point over time: as samples for `draw_series`, and as a table with a line for each window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from rich.table import Table

from flopray.store.window_series import WindowSeries
from flopray.units import prefixed

#: Phases and their windows, each with the series that it has.
Windows = Mapping[str, WindowSeries]


def samples_of(windows: Windows) -> pd.DataFrame:
    """A row a tick, with the columns that `draw_series` needs; each window has a line of its own, from time 0 on."""
    frames = []
    for phase, series in windows.items():
        frame = pd.DataFrame(list(series.rows()))
        frames.append(frame.assign(device=phase, uuid=phase))
    return pd.concat(frames, ignore_index=True)


def window_table(windows: Windows) -> Table:
    """Number of ticks, and the least and most power, temperature, clock and memory at used ones.

    Power is between two used ticks: before the first of them it may include power from before the load.
    """
    table = Table(title="least and most in each window, at the ticks that were used", title_justify="left")
    table.add_column("phase", overflow="fold")
    for name in ("window", "used ticks", "power", "temp.", "SM clock", "memory"):
        table.add_column(name, justify="right")
    for phase, series in windows.items():
        table.add_row(
            phase,
            prefixed(series.window_s, "s"),
            _ticks(series),
            _range(_used_power(series), "W"),
            _range(_used(series.temperature_c, series), "°C"),
            _range(_used(series.sm_clock_hz, series), "MHz", 1e6),
            _range(_used(series.memory_used_bytes, series), "GiB", 2.0**30),
        )
    return table


def thinned_lines(windows: Windows) -> list[str]:
    """A line for each window that does not have all its ticks."""
    return [
        f"{phase}: thinned to {len(series.time_s)} of {series.ticks} ticks; power is the mean between kept ones"
        for phase, series in windows.items()
        if series.ticks > len(series.time_s)
    ]


def _ticks(series: WindowSeries) -> str:
    kept = len(series.time_s)
    return f"{sum(series.used)} of {kept}" + (f" (of {series.ticks})" if series.ticks > kept else "")


def _used_power(series: WindowSeries) -> list[float]:
    """Power between two used ticks."""
    pairs = zip([False, *series.used[:-1]], series.used, series.power_w, strict=True)
    return [power for before, used, power in pairs if before and used and power is not None]


def _used(values: Sequence[float | None], series: WindowSeries) -> list[float]:
    return [value for value, used in zip(values, series.used, strict=True) if used and value is not None]


def _range(values: Sequence[float], unit: str, size: float = 1.0) -> str:
    """Least and most in a unit that is `size` of the values' own."""
    if not values:
        return "-"
    low, high = (
        f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in (min(values) / size, max(values) / size)
    )
    return f"{low} {unit}" if low == high else f"{low}–{high} {unit}"
