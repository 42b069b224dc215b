"""Counted points of runs and of flopmetrics' published table, in one form: groups that can be compared and fitted.

A group is one type of device at one precision and execution. Points without counters are holes: they are counted with
their reason, and left out of all numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flopray.errors import InputError
from flopray.flops.executed.overheads import elements, reconstruct
from flopray.records import KERNEL_CLASSES, PHASES, Row
from flopray.report.published import check_metrics, load_metrics
from flopray.report.surface.rows import latest
from flopray.store.location import load_run
from flopray.units import counted
from flopray.workloads.mlp import MLP

#: What makes a group.
GROUP = ["device_type", "precision", "execution"]
PUBLISHED_DEVICE = "Ampere (published)"
NO_COUNTERS = "no row has executed FLOPs: sweep with instruments='counters' on a GPU with Nsight Compute"
_CLOSED = {"gemm": "gemm_flops", "elementwise": "activation_flops", "optimizer": "optimizer_flops"}


@dataclass(frozen=True)
class Counted:
    """The counted points of one group.

    Attributes:
        device_type: of the records, or `PUBLISHED_DEVICE`.
        precision: of the records.
        execution: of the records; `eager` for the published table.
        device: full name of the device where there is one.
        rows: a row for each counted point and phase, with the records' columns.
        published: these are flopmetrics' points.
    """

    device_type: str
    precision: str
    execution: str
    device: str
    rows: pd.DataFrame
    published: bool = False

    @property
    def title(self) -> str:
        """Such as `NVIDIA H100 80GB HBM3, fp32, graph`."""
        return ", ".join((self.device, self.precision, *(() if self.published else (self.execution,))))

    @property
    def phases(self) -> list[str]:
        """Phases that were counted, in the order of the record's vocabulary."""
        present = set(self.rows["phase"])
        return [phase for phase in PHASES if phase in present]

    def of(self, phase: str) -> pd.DataFrame:
        """The rows of one phase."""
        rows: Any = self.rows[self.rows["phase"] == phase]
        return rows


def load_runs(paths: Sequence[Path]) -> pd.DataFrame:
    """All rows of some runs' folders, one for each point and phase (the latest, where runs share points).

    Raises:
        InputError: a path is not a run, or none of the runs has rows of the MLP.
    """
    frame = pd.concat([load_run(path) for path in paths], ignore_index=True)
    rows: Any = frame[frame["workload"] == MLP.name]
    shape = [f.name for f in MLP.fields]
    rows = rows.dropna(subset=shape) if set(shape) <= set(frame) else rows.iloc[:0]
    if rows.empty:
        raise InputError(f"{', '.join(map(str, paths))}: no rows of an MLP with n_layers, width and tokens")
    return latest(rows).reset_index(drop=True)


def is_counted(rows: pd.DataFrame) -> pd.Series:
    """Which rows have executed FLOPs."""
    counted: Any = rows["executed_flops"].notna() & (rows["counters_status"] == "ok")
    return counted.astype(bool)


def groups_of(rows: pd.DataFrame) -> list[Counted]:
    """The counted rows of runs by device type, precision and execution.

    Raises:
        InputError: no row was counted; the sentence has the reasons that the rows give.
    """
    with_counts: Any = rows[is_counted(rows)]
    if with_counts.empty:
        said = "; ".join(f"{reason} ({counted(count, 'row')})" for reason, count in holes(rows).most_common(2))
        raise InputError(f"{NO_COUNTERS}. The rows say: {said}")
    found = []
    for key, part in with_counts.groupby(GROUP, sort=True):
        names = part["device_name"].dropna().unique()
        device = str(names[0]) if len(names) == 1 else str(key[0])
        numbers = {name: part[name].astype(float) for name in part if pd.api.types.is_float_dtype(part[name])}
        found.append(Counted(*map(str, key), device=device, rows=part.assign(**numbers)))
    return found


def holes(rows: pd.DataFrame) -> Counter[str]:
    """How many rows have no executed FLOPs, by the reason that they give."""
    absent: Any = rows[~is_counted(rows)]
    status = absent["counters_status"].where(absent["status"] == "ok", absent["status"])
    reason = absent["counters_reason"].where(absent["status"] == "ok", absent["status_reason"])
    said = [
        f"{str(word).replace('_', ' ')}{'' if pd.isna(why) else f': {str(why).splitlines()[0]}'}"
        for word, why in zip(status, reason, strict=True)
    ]
    return Counter(said)


def load_published_group(path: Path) -> Counted:
    """flopmetrics' `metrics/*.csv` as a group, with its classes worked out from the overheads that it publishes.

    Raises:
        InputError: the file is not a table of flopmetrics, or one of its cells is not a possible number.
    """
    frame = load_metrics(path)
    check_metrics(path, frame)
    frame["execution"], frame["device_type"] = "eager", PUBLISHED_DEVICE
    mlp = MLP()
    closed = [
        mlp.closed_form(mlp.point(device_type="GPU", n_layers=int(n), width=int(d), tokens=int(m)), phase)
        | {"elements": elements(n, d, m, phase)}
        for n, d, m, phase in frame[["n_layers", "width", "tokens", "phase"]].itertuples(index=False)
    ]
    frame = frame.assign(**pd.DataFrame(closed, index=frame.index))
    parts: Row = dict.fromkeys((f"executed_{name}_flops" for name in KERNEL_CLASSES), 0)
    parts["executed_gemm_flops"] = frame["gemm_flops"] * (1 + frame["gemm_overhead"])
    parts["executed_reduction_flops"] = frame["elements"] * frame["splitk_per_element"]
    parts["executed_elementwise_flops"] = frame["activation_flops"] * (1 + frame["activation_overhead"])
    frame = frame.assign(
        **{name: values if isinstance(values, int) else values.round() for name, values in parts.items()}
    )
    frame["executed_rel_difference"] = frame["executed_flops"] / frame["model_flops"] - 1
    frame["executed_other_rel"], frame["dispatched_rel_difference"] = 0.0, float("nan")
    return Counted(PUBLISHED_DEVICE, "fp32", "eager", PUBLISHED_DEVICE, frame, published=True)


def extra_flops(rows: pd.DataFrame) -> pd.DataFrame:
    """What each class executed beyond the closed form, in FLOPs of one iteration; a column for each class."""
    extra = {}
    for name in KERNEL_CLASSES:
        executed = rows[f"executed_{name}_flops"].astype(float)
        extra[name] = executed - rows[_CLOSED[name]].astype(float) if name in _CLOSED else executed
    return pd.DataFrame(extra, index=rows.index)


def reconstructed(rows: pd.DataFrame) -> pd.Series:
    """The executed total from closed form and overheads, as `flopray.flops.executed.overheads.reconstruct` gives it.

    Missing for rows of other origin in which a part is absent or cannot be a number of FLOPs.
    """
    totals: list[int | None] = []
    for row in rows.to_dict("records"):
        absent = [name for name, value in row.items() if value is pd.NA or value is None or value != value]
        try:
            totals.append(reconstruct({str(name): value for name, value in row.items()} | dict.fromkeys(absent)))
        except (TypeError, ValueError, OverflowError):
            totals.append(None)
    return pd.Series(totals, index=rows.index, dtype=object)
