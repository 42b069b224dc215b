"""The interactive page of compared GPUs: every metric and phase of every comparison, as points and as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from flopray.records import Row
from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import (
    EFFICIENCY,
    ENERGY,
    ENERGY_PER_TOKEN,
    MFU,
    PHASE_ORDER,
    TIME,
    in_order,
    iter_rows,
    why_missing,
)
from flopray.report.gpus.types import intervals_said
from flopray.report.page import page_of, write_text
from flopray.report.surface.selection import METRICS, Metric

#: Metrics of the page; it begins with the first one.
METRICS_SHOWN = (EFFICIENCY, TIME, ENERGY, ENERGY_PER_TOKEN, METRICS["flops_per_s"], MFU)
#: The columns that rows of the page are made of: a grid has tens of thousands of rows.
_NEEDED = {
    *(
        "source",
        "gpu",
        "precision",
        "shape",
        "phase",
        "severity",
        "findings",
        "status",
        "status_reason",
        "target_error",
        "boards",
    ),
    *(name for metric in METRICS_SHOWN for name in (metric.column, metric.error_column, *metric.reason_columns)),
}


def page_path(out_dir: Path) -> Path:
    """Path of the page in a folder of figures."""
    return out_dir / "gpus.html"


def write_page(comparisons: Sequence[Comparison], path: Path) -> Path:
    """Write the page.

    Raises:
        InputError: plotly is not installed.
        OSError: the file cannot be written.
    """
    return write_text(page_text(comparisons), path)


def page_text(comparisons: Sequence[Comparison]) -> str:
    """The page as text.

    Raises:
        InputError: plotly is not installed.
    """
    return page_of("gpu_page.js", page_data(comparisons))


def page_data(comparisons: Sequence[Comparison]) -> dict[str, object]:
    """What the script of the page reads."""
    metrics = [
        {
            "name": metric.name,
            "title": metric.title,
            "short": metric.short,
            "unit": metric.unit,
            "error_of": "energy" if "energy" in (metric.error_column or "") else "time",
        }
        for metric in METRICS_SHOWN
    ]
    return {"metrics": metrics, "comparisons": [_comparison(each) for each in comparisons]}


def _comparison(comparison: Comparison) -> dict[str, object]:
    needed = [name for name in comparison.rows if name in _NEEDED]
    rows = list(iter_rows(comparison.rows[needed]))
    of_models = bool(comparison.rows["sequence_length"].notna().any())
    return {
        "title": comparison.title,
        "gpus": comparison.gpus,
        "shapes": comparison.shapes,
        "shape_title": "batch × tokens of a sequence" if of_models else "shape",
        "intervals": {what: intervals_said(comparison.rows, what) for what in ("time", "energy")},
        "phases": in_order({*PHASE_ORDER, *comparison.rows["phase"]}),
        "rows": [_row(row) for row in rows],
    }


def _row(row: Row) -> dict[str, object]:
    """The page's data of a row: what it is, a value or its reason for each metric, the audit's findings."""
    names = ("source", "gpu", "precision", "shape", "phase", "severity")
    return {
        **{name: row[name] for name in names},
        "findings": list(row["findings"]),
        "values": {metric.name: _value(row, metric) for metric in METRICS_SHOWN},
    }


def _value(row: Row, metric: Metric) -> dict[str, object]:
    """A value with its error; only where it is so, `above` (its target, or not known to be below) and why `missing`."""
    if missing := why_missing(row, metric):
        return {"value": None, "error": None, "missing": missing}
    error = float(row[metric.error_column]) if metric.error_column else math.nan
    known = math.isfinite(error)
    entry: dict[str, object] = {"value": float(row[metric.column]), "error": error if known else None}
    # The target was of each window; the interval of a mean over boards is another.
    asked = metric.error_column and math.isfinite(row["target_error"]) and not row["boards"] > 1
    if asked and not error <= row["target_error"]:
        entry["above"] = True
    return entry
