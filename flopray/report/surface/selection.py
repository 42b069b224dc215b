"""What can be drawn, the metrics, and what a user picked of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from flopray.errors import InputError


@dataclass(frozen=True)
class Metric:
    """A column that can be drawn.

    Attributes:
        name: as a flag and in file names.
        column: of the records.
        title: for figures.
        short: for the label of a colour bar or an axis.
        unit: SI unit, or `%` for a ratio shown in percent.
        error_column: relative error of the value, if it has one.
        reason_columns: where to look, in this order, for why a value is missing.
        signed: zero and negative values are meaningful.
        measured: audit findings of the row concern the value.
    """

    name: str
    column: str
    title: str
    short: str
    unit: str
    error_column: str | None
    reason_columns: tuple[str, ...]
    signed: bool = False
    measured: bool = True


_OF_TIME, _OF_ENERGY = ("status",), ("status", "energy_status")
METRICS = {
    metric.name: metric
    for metric in (
        Metric("time", "time_s", "Time per iteration", "time", "s", "time_rel_error", _OF_TIME),
        Metric("flops_per_s", "flops_per_s", "Model FLOPs per second", "rate", "FLOP/s", "time_rel_error", _OF_TIME),
        Metric("energy", "energy_j", "Energy per iteration", "energy", "J", "energy_rel_error", _OF_ENERGY),
        Metric(
            "flops_per_j",
            "flops_per_j",
            "Model FLOPs per joule",
            "efficiency",
            "FLOP/J",
            "energy_rel_error",
            _OF_ENERGY,
        ),
        Metric("mfu", "mfu", "Model FLOPs utilization", "MFU", "%", "time_rel_error", ("status", "mfu_reason")),
        Metric(
            "dispatched",
            "dispatched_rel_difference",
            "Dispatched FLOPs against the closed form",
            "difference",
            "%",
            None,
            ("dispatched_reason", "status"),
            signed=True,
            measured=False,
        ),
    )
}


@dataclass(frozen=True)
class Selection:
    """What to draw; `None` means everything the run has.

    Raises:
        InputError: a metric that does not exist.
    """

    metrics: Sequence[str] | None = None
    phases: Sequence[str] | None = None
    n_layers: Sequence[int] | None = None
    d_min: int | None = None
    m_min: int | None = None

    def __post_init__(self) -> None:
        for name in self.metrics or ():
            if name not in METRICS:
                raise InputError(f"unknown metric {name!r}: choose from {', '.join(METRICS)}")

    def suffix(self) -> str:
        """The ending of file names that keeps a partial view from replacing the whole one."""
        layers = "-".join(str(n) for n in sorted(set(self.n_layers))) if self.n_layers else ""
        parts = (("n", layers), ("dmin", self.d_min), ("mmin", self.m_min))
        return "".join(f"_{name}{value}" for name, value in parts if value)

    def values(self, column: str, values: Sequence[int]) -> list[int]:
        """Those of some values of `n_layers`, `width` or `tokens` that are to be drawn."""
        if column == "n_layers":
            return [value for value in values if self.n_layers is None or value in self.n_layers]
        least = {"width": self.d_min, "tokens": self.m_min}[column] or 0
        return [value for value in values if value >= least]

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows to draw.

        Raises:
            InputError: nothing is left, with the values that the run has.
        """
        rows: Any = frame.dropna(subset=["n_layers", "width", "tokens"])
        if frame.empty:
            raise InputError("the run has no records yet: nothing can be drawn")
        if rows.empty:
            raise InputError("the run has no rows with n_layers, width and tokens: surfaces are drawn of MLP sweeps")
        rows = _keep(rows, "phase", "phases", self.phases)
        rows = _keep(rows, "n_layers", "n", self.n_layers)
        for column, flag, least in (("width", "--d-min", self.d_min), ("tokens", "--m-min", self.m_min)):
            if least is not None:
                largest = int(rows[column].max())
                rows = rows[rows[column] >= least]
                if rows.empty:
                    raise InputError(f"{flag} {least} leaves no points: the largest that the run has is {largest}")
        return rows


def _keep(rows: Any, column: str, flag: str, wanted: Sequence[Any] | None) -> Any:
    if wanted is None:
        return rows
    present = sorted(rows[column].unique().tolist())
    for value in wanted:
        if value not in present:
            raise InputError(f"--{flag} {value}: the run has only {', '.join(str(p) for p in present)}")
    return rows[rows[column].isin(list(wanted))]
