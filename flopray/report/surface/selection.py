"""The metrics, and a user's selection of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from flopray.errors import InputError, SettingError
from flopray.records import PHASES
from flopray.report.surface.axes import NO_AXIS, SurfaceAxes
from flopray.settings import check_settings, setting


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
#: A rate or an efficiency may also lack FLOPs: of a phase without products, where no closed form is stated.
_FLOPS = "model_flops_reason"
METRICS = {
    metric.name: metric
    for metric in (
        Metric("time", "time_s", "Time per iteration", "time", "s", "time_rel_error", _OF_TIME),
        Metric(
            "flops_per_s",
            "flops_per_s",
            "Model FLOPs per second",
            "rate",
            "FLOP/s",
            "time_rel_error",
            (*_OF_TIME, _FLOPS),
        ),
        Metric("energy", "energy_j", "Energy per iteration", "energy", "J", "energy_rel_error", _OF_ENERGY),
        Metric(
            "flops_per_j",
            "flops_per_j",
            "Model FLOPs per joule",
            "efficiency",
            "FLOP/J",
            "energy_rel_error",
            (*_OF_ENERGY, _FLOPS),
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

#: Overheads by hardware counters beyond the closed form; `compare_flops` has separate figures of these.
OVERHEADS = tuple(
    Metric(
        column, column, title, short, unit, None, ("counters_reason", "counters_status"), signed=True, measured=False
    )
    for column, title, short, unit in (
        ("gemm_overhead", "ω: products executed beyond the closed form", "ω", "%"),
        ("splitk_per_element", "ρ: FLOPs of split-K sums per number that layers write", "ρ", ""),
        ("activation_overhead", "κ: FLOPs per activation beyond the one of the closed form", "κ", ""),
    )
)


_WHAT = "what is drawn (default: everything that the run has)"


@dataclass(frozen=True)
class Selection:
    """What to draw, field by field; None means everything that the run has.

    Panel, x and y are the last three dimensions of a workload.

    Raises:
        SettingError: a metric that does not exist.
    """

    metrics: Sequence[str] | None = setting(
        None, doc="{choices}", many=True, noun="name", choices=tuple(METRICS), metavar="METRIC", group=_WHAT
    )
    #: Those of the run, which may differ from these.
    phases: Sequence[str] | None = setting(None, doc=", ".join(PHASES), many=True, metavar="PHASE", group=_WHAT)
    panels: Sequence[int] | None = setting(
        None,
        doc="only these panels: third-last dimension (an MLP: layers)",
        kind=int,
        many=True,
        distinct=False,
        flag="--n",
        metavar="N",
        group=_WHAT,
    )
    x_min: int | None = setting(
        None,
        doc="only x from D on: second-last dimension (an MLP: width)",
        kind=int,
        flag="--d-min",
        metavar="D",
        group=_WHAT,
    )
    y_min: int | None = setting(
        None,
        doc="only y from M on: last dimension (an MLP: tokens)",
        kind=int,
        flag="--m-min",
        metavar="M",
        group=_WHAT,
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def suffix(self) -> str:
        """The ending of file names, so that a partial view does not replace the whole one."""
        panels = "-".join(str(n) for n in sorted(set(self.panels))) if self.panels else ""
        parts = (("n", panels), ("dmin", self.x_min), ("mmin", self.y_min))
        return "".join(f"_{name}{value}" for name, value in parts if value)

    def choosers(self) -> tuple[Callable[[Sequence[int]], list[int]], ...]:
        """For panel, x and y: which of some values are to be drawn."""

        def panels(values: Sequence[int]) -> list[int]:
            return [value for value in values if self.panels is None or value in self.panels]

        def xs(values: Sequence[int]) -> list[int]:
            return [value for value in values if value >= (self.x_min or 0)]

        def ys(values: Sequence[int]) -> list[int]:
            return [value for value in values if value >= (self.y_min or 0)]

        return panels, xs, ys

    def apply(self, frame: pd.DataFrame, axes: SurfaceAxes) -> pd.DataFrame:
        """The rows to draw; an axis that the workload does not have is a column of one value.

        Raises:
            InputError: nothing is left, with the values that the run has.
        """
        if frame.empty:
            raise InputError("the run has no records yet: nothing can be drawn")
        names = [axis.name for axis in axes.present]
        rows: Any = frame.dropna(subset=[name for name in names if name in frame])
        if rows.empty or not set(names) <= set(frame):
            raise InputError(f"the run has no rows with {', '.join(names)}: nothing can be drawn")
        rows = rows.assign(**{NO_AXIS.name: 1})
        rows = _keep(rows, "phase", "phases", self.phases)
        rows = _keep(rows, axes.panel.name, "panels", self.panels)
        for column, name, least in ((axes.x.name, "x_min", self.x_min), (axes.y.name, "y_min", self.y_min)):
            if least is not None:
                largest = int(rows[column].max())
                rows = rows[rows[column] >= least]
                if rows.empty:
                    problem = f"<{name}> {least} leaves no points: the largest that the run has is {largest}"
                    raise SettingError(problem)
        return rows


def _keep(rows: Any, column: str, name: str, wanted: Sequence[Any] | None) -> Any:
    if wanted is None:
        return rows
    present = sorted(rows[column].unique().tolist())
    for value in wanted:
        if value not in present:
            raise SettingError(f"<{name}> {value}: the run has only {', '.join(str(p) for p in present)}")
    return rows[rows[column].isin(list(wanted))]
