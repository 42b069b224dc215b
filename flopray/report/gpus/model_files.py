"""Writes a comparison of models: tables, figures, and an interactive page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flopray.errors import InputError
from flopray.records import Row
from flopray.report.gpus.data import ENERGY_PER_TOKEN, iter_rows, why_missing
from flopray.report.gpus.model_lines import draw_models
from flopray.report.gpus.models import SIZES, TIME_PER_TOKEN, Models, models_csv, models_table
from flopray.report.gpus.types import bars_said
from flopray.report.page import page_of, write_text
from flopray.report.plot.figures import paper_style, save_figure
from flopray.report.surface.selection import Metric
from flopray.store import atomic

_METRICS = (ENERGY_PER_TOKEN, TIME_PER_TOKEN)


def write_models(
    groups: Sequence[Models], tables: Path | None, out_dir: Path | None, formats: Sequence[str], *, html: bool
) -> list[Path]:
    """Write `models.csv` and `models.md`, a figure for each group, and `models.html`; returns the files.

    Args:
        groups: what is compared; none writes nothing.
        tables: folder of the tables; None writes none.
        out_dir: gets `gpus/models/<group>.<format>` and `models.html`; None draws nothing.
        formats: of images.
        html: whether to write the page.

    Raises:
        InputError: a file cannot be written.
    """
    paths: list[Path] = []
    if not groups:
        return paths
    try:
        if tables is not None:
            tables.mkdir(parents=True, exist_ok=True)
            atomic.write(tables / "models.csv", models_csv(groups).to_csv(index=False))
            text = "\n".join(["## Models compared", "", *(models_table(group).to_markdown() for group in groups)])
            atomic.write(tables / "models.md", text)
            paths += [tables / "models.csv", tables / "models.md"]
        if out_dir is not None:
            with paper_style():
                for group in groups:
                    if (figure := draw_models(group)) is not None:
                        paths += save_figure(figure, out_dir / "gpus" / "models" / group.folder, formats)
            if html:
                paths.append(write_text(page_text(groups), out_dir / "models.html"))
    except OSError as error:
        raise InputError(f"cannot write {error.filename or out_dir}: {error.strerror or error}") from error
    return paths


def page_text(groups: Sequence[Models]) -> str:
    """The page as text.

    Raises:
        InputError: plotly is not installed.
    """
    names = ("name", "title", "short", "unit")
    metrics = [{name: getattr(metric, name) for name in names} for metric in _METRICS]
    sizes = [{"name": name, "title": title, "unit": unit} for name, title, unit in SIZES]
    return page_of("model_page.js", {"metrics": metrics, "sizes": sizes, "groups": [_group(each) for each in groups]})


def _group(models: Models) -> dict[str, object]:
    return {
        "title": models.title,
        "gpus": models.look_of.gpus,
        "phases": models.phases,
        "bars": bars_said(models.rows, "energy", "time"),
        "no_energy": models.why_time(),
        "missing": models.missing(),
        "rows": [_row(row) for row in iter_rows(models.rows)],
    }


def _row(row: Row) -> dict[str, object]:
    return {
        **{name: row[name] for name in ("model", "gpu", "precision", "phase", "severity")},
        "instead": row["execution"] if row["instead_of"] else "",
        "sizes": {name: float(row[name]) if np.isfinite(row[name]) else None for name, *_ in SIZES},
        "values": {metric.name: _value(row, metric) for metric in _METRICS},
    }


def _value(row: Row, metric: Metric) -> dict[str, object]:
    missing = why_missing(row, metric)
    error = row[metric.error_column] if metric.error_column and not missing else np.nan
    return {
        "value": None if missing else float(row[metric.column]),
        "error": float(error) if np.isfinite(error) else None,
        "missing": missing,
    }
