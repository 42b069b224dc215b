"""The tables of closed form, dispatcher and executed FLOPs, and of the kernels that executed them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.table import Table

from flopray.errors import SettingError
from flopray.records import KERNEL_CLASSES
from flopray.report.flops.data import GROUP, Counted, is_counted, reconstructed
from flopray.report.flops.held_out import METHODS, SPLITS
from flopray.store import atomic
from flopray.store.kernel_table import KEYS, kernel_rows

_TOP_KERNELS = 8
_CSV_COLUMNS = [
    *GROUP,
    "phase",
    "n_layers",
    "width",
    "tokens",
    "model_flops",
    "dispatched_flops",
    "executed_flops",
    "dispatched_rel_difference",
    "executed_rel_difference",
    *(f"executed_{name}_flops" for name in KERNEL_CLASSES),
    "executed_other_rel",
    "gemm_overhead",
    "splitk_per_element",
    "activation_overhead",
    "counters_status",
    "counters_reason",
]


def difference_table(group: Counted) -> Table:
    """For each phase: points, how far dispatcher and counters lie from the closed form, and how well it adds up."""
    table = Table(title=escape(group.title), title_justify="left", title_style="bold", width=80)
    table.add_column("Phase", no_wrap=True)
    for name in ("Points", "Dispatched /\nmodel − 1", "Executed /\nmodel − 1", "Adds up\nexactly"):
        table.add_column(name, justify="right", no_wrap=True)
    for phase in group.phases:
        rows = group.of(phase)
        exact = int((reconstructed(rows) == rows["executed_flops"].astype("int64")).sum())
        table.add_row(
            phase,
            str(len(rows)),
            _median_and_range(rows["dispatched_rel_difference"]),
            _median_and_range(rows["executed_rel_difference"]),
            f"all {exact}" if exact == len(rows) else f"{exact} of {len(rows)}",
        )
    return table


def share_table(group: Counted) -> Table:
    """For each phase the share of each kernel class in the executed FLOPs, the mean over points; `other` always."""
    executed = {name: group.rows[f"executed_{name}_flops"].to_numpy(float) for name in KERNEL_CLASSES}
    shown = [name for name, flops in executed.items() if name == "other" or flops.any()]
    table = Table(title="Share of executed FLOPs, mean over points", title_justify="left", width=80)
    table.add_column("Phase", no_wrap=True)
    for name in shown:
        table.add_column(name, justify="right")
    for phase in group.phases:
        rows = group.of(phase)
        total = rows["executed_flops"].to_numpy(float)
        shares = (float(np.mean(rows[f"executed_{name}_flops"].to_numpy(float) / total)) for name in shown)
        table.add_row(phase, *map(percent, shares))
    return table


def kernel_table(group: Counted) -> Table | None:
    """The kernels with the most FLOPs, and all without a class; None where no kernels are recorded."""
    found = _kernels(group.rows)
    if not found:
        return None
    total = sum(kernel["flops"] for kernel in found.values())
    ranked = sorted(found, key=lambda key: -found[key]["flops"])
    unknown = [key for key in ranked if key[1] == "other"]
    table = Table(title="Kernels by FLOPs, all points and phases", title_justify="left", width=80)
    table.add_column("Kernel", overflow="fold", ratio=1)
    for name in ("Class", "Launches", "FLOPs", "Share"):
        table.add_column(name, justify="left" if name == "Class" else "right")
    for key in dict.fromkeys((*ranked[:_TOP_KERNELS], *unknown)):
        kernel, (name, kind) = found[key], key
        share = kernel["flops"] / total if total else 0.0
        kind = f"[yellow]{escape(kind)}[/]" if kind == "other" else escape(kind)
        table.add_row(escape(name), kind, str(kernel["launches"]), f"{kernel['flops']:.3g}", percent(share))
    return table


def error_table(errors: dict[str, pd.DataFrame]) -> Table:
    """Held-out errors of the ways of predicting: median / 95th percentile of |predicted / executed - 1|.

    Args:
        errors: results of `report.flops.adjusted.summarised` by a heading, such as `d ≥ 512`, which may be empty.
    """
    table = Table(
        title="Held out: median / 95th percentile of |predicted / executed − 1|", title_justify="left", width=80
    )
    table.add_column("Held out", no_wrap=True)
    table.add_column("Points", justify="right", no_wrap=True)
    for name in METHODS.values():
        table.add_column(name.replace(", ", ",\n"), justify="right", no_wrap=True)
    for judged, frame in errors.items():
        if judged:
            table.add_row(f"[bold]{judged}[/]")
        for split, part in frame.groupby("split", sort=False):
            by_method = part.set_index("method")
            cells = (f"{percent(r['median'])}\n{percent(r['p95'])}" for _, r in by_method.loc[list(METHODS)].iterrows())
            table.add_row(SPLITS[str(split)], str(by_method["points"].iloc[0]), *cells)
        table.add_section()
    return table


def write_csv(path: Path, rows: pd.DataFrame | None, groups: Sequence[Counted]) -> None:
    """Write the comparison, a line for each row of the runs, holes with their reasons, and each published point.

    Raises:
        SettingError: the file cannot be written.
    """
    parts = [group.rows for group in groups if group.published]
    if rows is not None:
        parts.insert(0, rows)
    lines = []
    for part in parts:
        counted: Any = part if "counters_status" not in part else part[is_counted(part)]
        line = part.reindex(columns=_CSV_COLUMNS)
        line["reconstructed_flops"] = reconstructed(counted).astype("Int64").reindex(part.index)
        lines.append(line)
    try:
        atomic.write(path, pd.concat(lines, ignore_index=True).to_csv(index=False))
    except OSError as error:
        raise SettingError(f"<csv> {path}: cannot be written ({error.strerror or error})") from error


def percent(ratio: float) -> str:
    """A ratio in percent with two or three digits, such as `0.12 %` or `-50 %`."""
    if not np.isfinite(ratio):
        return "-"
    magnitude = abs(ratio * 100)
    digits = 0 if magnitude >= 10 or not magnitude else 1 if magnitude >= 1 else 2
    return f"{ratio * 100:.{digits}f} %" if not 0 < magnitude < 0.005 else "< 0.01 %"


def _median_and_range(column: Any) -> str:
    values = column.dropna().to_numpy(float)
    if not len(values):
        return "-"
    return f"{percent(float(np.median(values)))}\n{percent(values.min())[:-2]} to {percent(values.max())}"


def _kernels(rows: pd.DataFrame) -> dict[tuple[str, str], dict[str, int]]:
    """Launches and FLOPs of each kernel name and class, over all rows."""
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: {"launches": 0, "flops": 0})
    columns: Any = rows[[*KEYS, "kernels"]] if "kernels" in rows else None
    for kernel in kernel_rows(columns.to_dict("records")) if columns is not None else ():
        entry = found[kernel["kernel"], kernel["kernel_class"]]
        entry["launches"] += kernel["launches"]
        entry["flops"] += kernel["tensor_flops"] + kernel["cuda_flops"]
    return dict(found)
