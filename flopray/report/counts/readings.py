"""Metrics of kernels as a table and as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from flopray.flops.executed.readings import Reading, how_together, summaries
from flopray.store import atomic

if TYPE_CHECKING:
    import pandas as pd


def readings_table(found: Sequence[Reading]) -> Table:
    """A row for each kernel of each range, with all its launches."""
    units = {one.metric: one.unit for one in found}
    table = Table(title="kernels by named range", title_justify="left", title_style="bold")
    table.add_column("range", overflow="fold")
    table.add_column("kernel", overflow="fold")
    table.add_column("launches", justify="right")
    for metric, unit in units.items():
        table.add_column(f"{metric} ({', '.join(w for w in (unit, how_together(metric)) if w)})", justify="right")
    for one in summaries(found):
        values = [one.values.get(metric) for metric in units]
        table.add_row(one.range or "-", one.kernel, f"{one.launches:,}", *(_text(value) for value in values))
    return table


def readings_frame(found: Sequence[Reading]) -> pd.DataFrame:
    """A row for each metric of each launch."""
    import pandas as pd

    frame = pd.DataFrame([asdict(one) for one in found], columns=list(Reading.__annotations__))
    return frame.astype({"launch": "int64", "process": "Int64", "device": "Int64", "value": "float64"})


def write_readings(found: Sequence[Reading], path: Path) -> None:
    """Write them as `.csv` or `.parquet`."""
    frame = readings_frame(found)
    with atomic.making(path) as unfinished:
        if path.suffix == ".parquet":
            frame.to_parquet(unfinished, index=False)
        else:
            frame.to_csv(unfinished, index=False)


def _text(value: float | None) -> str:
    if value is None:
        return "not read"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:,.4g}"
