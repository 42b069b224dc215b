"""The tables of a comparison of GPUs as files: CSV with every number, Markdown and LaTeX as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from flopray.errors import InputError
from flopray.report.boards.comparable import TOLD_LATER
from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import Frame
from flopray.report.gpus.table import EXPLANATION, beside_table, ratio_tables, tables_of
from flopray.report.text_table import latex
from flopray.store import atomic

_COLUMNS = [
    *("source", "run", "gpu", "device_name", "workload", "model", "weights", "execution", "attention"),
    *("attention_backend", "checkpointing", "precision", "config", "batch_size", "sequence_length", "n_layers"),
    *("width", "tokens", "phase", "status", "status_reason", "model_flops", "recomputed_flops", "time_s"),
    *("time_rel_error", "energy_j", "energy_rel_error", "energy_status", "energy_reason", "power_w", "flops_per_s"),
    *("flops_per_j", "mfu", "mfu_reason", "hfu", "tokens_per_iteration", "tokens_per_s", "energy_per_token_j"),
    *("memory_peak_bytes", "severity", "findings", "boards", "energy_at", "time_interval", "energy_interval"),
    *("time_window_rel_error", "time_type_rel_error", "energy_window_rel_error", "energy_type_rel_error", TOLD_LATER),
]
_COUNTS = ["batch_size", "sequence_length", "n_layers", "width", "tokens", "model_flops", "recomputed_flops"]
_COUNTS += ["tokens_per_iteration", "memory_peak_bytes"]


def write_tables(comparisons: Sequence[Comparison], folder: Path, shapes: dict[str, list[str]]) -> list[Path]:
    """Write `gpus.csv`, `gpus.md` and `gpus.tex`.

    Args:
        comparisons: what to write.
        folder: made where it is missing.
        shapes: for each comparison's folder name the shapes that Markdown and LaTeX show; the CSV has all.

    Raises:
        InputError: a file cannot be written.
    """
    tables = []
    for comparison in comparisons:
        further = *ratio_tables(comparison, shapes[comparison.folder]), beside_table(comparison)
        tables += [*tables_of(comparison, shapes[comparison.folder]), *(table for table in further if table)]
    paths = [folder / f"gpus.{ending}" for ending in ("csv", "md", "tex")]
    markdown = "\n".join(["## GPUs compared", "", EXPLANATION, "", *(table.to_markdown() for table in tables)])
    comment = "% needs the packages booktabs and textcomp\n" + f"% {latex(EXPLANATION)}\n\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write(paths[0], to_csv(comparisons).to_csv(index=False))
        atomic.write(paths[1], markdown)
        atomic.write(paths[2], comment + "\n".join(table.to_latex() for table in tables))
    except OSError as error:
        raise InputError(f"{folder}: tables cannot be written ({error.strerror or error})") from error
    return paths


def to_csv(comparisons: Sequence[Comparison]) -> Frame:
    """A line for each row in SI units, published rows once; findings are joined by blanks."""
    rows: Any = pd.concat([comparison.rows for comparison in comparisons], ignore_index=True)[_COLUMNS]
    counts = {name: rows[name].round().astype("Int64") for name in _COUNTS}
    return rows.assign(**counts, findings=rows["findings"].map(" ".join)).drop_duplicates(ignore_index=True)
