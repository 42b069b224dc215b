"""Writes a comparison of evaluations: a table as CSV and Markdown, and the figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from flopray.errors import InputError
from flopray.report.plot.figures import paper_style, save_figure
from flopray.report.scores.data import Evaluations
from flopray.report.scores.figure import draw_scores, has_values
from flopray.report.scores.table import table_of
from flopray.store import atomic


def write_scores(found: Evaluations, tables: Path, plots: Path, title: str, formats: Sequence[str]) -> list[Path]:
    """Write `scores.csv`, `scores.md` and the figure `scores`; returns the files.

    Raises:
        InputError: a folder cannot be written.
    """
    try:
        tables.mkdir(parents=True, exist_ok=True)
        rows = pd.DataFrame([dataclasses.asdict(result) for result in (*found.results, *found.means)])
        atomic.write(tables / "scores.csv", rows.to_csv(index=False))
        atomic.write(tables / "scores.md", table_of(found).to_markdown())
        paths = [tables / "scores.csv", tables / "scores.md"]
        if has_values(found):
            with paper_style():
                paths += save_figure(draw_scores(found, title), plots / "scores", formats)
    except OSError as error:
        raise InputError(f"cannot write {error.filename or plots}: {error.strerror or error}") from error
    return paths
