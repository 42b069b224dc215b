"""Models compared with one another: what a token costs over the size of the model, a line for each GPU and precision.

Models are compared only where they did the same work: one phase of one shape, run in one way. Where that way failed for
a model and another gave a value, the value is shown, marked with its execution. A token is one that an iteration
processes (in `decode`: makes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from flopray.point import EXECUTIONS, is_captured, is_compiled
from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import ENERGY_PER_TOKEN, MEASURED, SETTING, Frame, in_order, iter_rows, why_missing
from flopray.report.gpus.types import intervals_said, temperatures_said
from flopray.report.surface.selection import Metric
from flopray.report.text_table import IMPLAUSIBLE_MARK, IMPOSSIBLE_MARK, TextTable
from flopray.units import prefixed

#: Phases that process tokens as a whole job; `forward` stands in for `inference` where that was not measured.
PHASES = ("inference", "forward", "train_step", "prefill", "decode")
TIME_PER_TOKEN = Metric(
    *("time_per_token", "time_per_token_s", "Time per token", "time per token", "s", "time_rel_error"), ("status",)
)
#: Sizes of models on axes: column, name on the axis, unit.
SIZES = (("parameters", "parameters", ""), ("flops_per_token", "model FLOPs per token", "FLOP"))
_SAME = [name for name in SETTING if name not in ("workload", "model", "model_config")]
#: What a row shares with one of another execution that stands in for it.
_WORK = [*(name for name in SETTING if name != "execution"), "shape", "gpu", "precision", "phase"]
_MARKS = {"impossible": IMPOSSIBLE_MARK, "implausible": IMPLAUSIBLE_MARK, "": ""}
_REASON_LENGTH = 140


@dataclass(frozen=True)
class Models:
    """Models that did the same work.

    Attributes:
        title: such as `8 × 1024, eager`.
        folder: the same as a file name.
        rows: as `flopray.report.gpus.types.rows_of_types` gives them, with the columns of `SIZES`, the size of an
            iteration's tokens, `time_per_token_s`, and `instead_of`: the execution of the others, in a row that was
            measured in another one since there is no value in that; otherwise empty. Its reason is `instead_reason`.
    """

    title: str
    folder: str
    rows: Frame

    @property
    def metric(self) -> Metric:
        """Energy of a token; its time where no row has an energy."""
        return ENERGY_PER_TOKEN if self.has_energy else TIME_PER_TOKEN

    @property
    def has_energy(self) -> bool:
        """Whether any row has an energy."""
        return bool(self.rows["energy_per_token_j"].notna().any())

    @cached_property
    def names(self) -> list[str]:
        """Models, the smallest first; those of unknown size last."""
        sizes = self.rows.groupby("model")["parameters"].max()
        return list(sizes.sort_values(na_position="last").index)

    @cached_property
    def phases(self) -> list[str]:
        """The compared phases, in order."""
        there = in_order(set(self.rows["phase"]))
        return [phase for phase in there if phase != "forward" or "inference" not in there]

    @cached_property
    def look_of(self) -> Comparison:
        """GPUs and precisions, which markers and colours are given to."""
        return Comparison(self.title, self.folder, self.rows)

    def missing(self) -> list[str]:
        """A line for each row without a value or of another execution, and for each model without model FLOPs."""
        lines = [
            f"{row['phase']} of {row['model']} on {row['gpu']} {row['precision']}: {_short(reason)}"
            for row in iter_rows(self.rows)
            if (reason := why_missing(row, self.metric) or _why_instead(row))
        ]
        without = self.rows[self.rows["flops_per_token"].isna() & self.rows["parameters"].notna()]
        for model in dict.fromkeys(without["model"]):
            reasons = [r for r in without.loc[without["model"] == model, "model_flops_reason"] if r]
            why = _short(reasons[0]) if reasons else "no reason recorded"
            lines.append(f"{model} has no model FLOPs and is on the axis of parameters only: {why}")
        return list(dict.fromkeys(lines))

    def why_time(self) -> str:
        """Why time is shown instead of energy; empty where energy was measured."""
        if self.has_energy:
            return ""
        reasons = [reason for reason in dict.fromkeys(self.rows["energy_reason"]) if reason]
        return f"no energy was measured, time instead: {_short(reasons[0]) if reasons else 'no reason recorded'}"


def models_of(rows: Frame) -> list[Models]:
    """Groups of two models or more that did the same work.

    Args:
        rows: as `flopray.report.gpus.types.rows_of_types` gives them.
    """
    kept = rows[(rows["model"] != "") & (rows["source"] == MEASURED) & rows["phase"].isin(PHASES)]
    sized = kept["tokens_per_iteration"].groupby(kept["phase"]).transform("max")
    kept = kept[sized.notna()] if len(kept) else kept
    kept = kept.assign(
        flops_per_token=kept["model_flops"] / kept["tokens_per_iteration"],
        time_per_token_s=1 / kept["tokens_per_s"],
    )
    found = []
    for _, part in kept.groupby([*_SAME, "shape"], sort=True):
        if part["model"].nunique() > 1:
            found.append(_with_other_executions(part, kept))
    return [_named(part, found, place) for place, part in enumerate(found)]


def _with_other_executions(part: Frame, measured: Frame) -> Frame:
    """The rows, with values of other executions in place of rows that have none."""
    own = str(part["execution"].iloc[0])
    part = part.assign(instead_of="", instead_reason="")
    lacking = part["status"] != "ok"
    others = measured[(measured["execution"] != own) & (measured["status"] == "ok")]
    if not lacking.any() or others.empty:
        return part
    rank = {execution: place for place, execution in enumerate(_nearest(own))}
    others = others.assign(rank=others["execution"].map(rank)).sort_values("rank", kind="stable")
    others = others.drop(columns="rank").drop_duplicates(_WORK)
    reasons = part.loc[lacking, [*_WORK, "status", "status_reason"]]
    said = reasons["status"].str.replace("_", " ") + ": " + reasons["status_reason"]
    reasons = reasons[_WORK].assign(instead_of=own, instead_reason=said.str.removesuffix(": "))
    found = others.merge(reasons, on=_WORK)
    key = pd.MultiIndex.from_frame(part[_WORK])
    replaced = lacking & key.isin(pd.MultiIndex.from_frame(found[_WORK]))
    return pd.concat([part[~replaced], found], ignore_index=True)


def _nearest(execution: str) -> list[str]:
    """Other executions: first those that are compiled, or not, as this one is, and captured, or not.

    >>> _nearest("compile_graph"), _nearest("graph")
    (['compile', 'graph', 'eager'], ['eager', 'compile_graph', 'compile'])
    """
    others = [other for other in EXECUTIONS if other != execution]

    def differs(other: str) -> tuple[bool, bool]:
        return is_compiled(other) != is_compiled(execution), is_captured(other) != is_captured(execution)

    return sorted(others, key=differs)


def _why_instead(row: Any) -> str:
    return f"as {row['execution']}, since {row['instead_of']} is {row['instead_reason']}" if row["instead_of"] else ""


def _named(part: Frame, others: Sequence[Frame], place: int) -> Models:
    first = part[part["instead_of"] == ""].iloc[0]
    words = [str(first["shape"]), first["execution"]]
    differ = [n for n in ("attention", "weights", "choices") if len({o[n].iloc[0] for o in others}) > 1 and first[n]]
    words += [first[name] if name == "choices" else f"{first[name]} {name}" for name in differ]
    words += ["checkpointing"] if first["checkpointing"] else []
    plain = "".join(c if c.isalnum() else "-" for c in "_".join(words).replace(" × ", "x"))
    taken = sum(other is not part and other["shape"].iloc[0] == first["shape"] for other in others[:place])
    name = f"{plain}-{taken + 1}" if taken else plain
    keys = {"rank": part["precision"].rank(method="dense")}
    ordered = part.assign(**keys).sort_values(["gpu", "rank", "parameters"], kind="stable", ignore_index=True)
    return Models(", ".join(words), name, ordered.drop(columns="rank"))


def models_table(models: Models) -> TextTable:
    """A section for each phase, GPU and precision; a row for each model, the smallest first."""
    sections = []
    for phase in models.phases:
        part = models.rows[models.rows["phase"] == phase]
        for (gpu, precision), group in part.groupby(["gpu", "precision"], sort=False):
            rows = [_cells(row) for row in iter_rows(group.sort_values("parameters", kind="stable"))]
            sections.append((f"{phase}, {gpu} {precision}", rows))
    notes = [note for what in ("energy", "time") if (note := _interval(models.rows, what))]
    notes += [note for note in (temperatures_said(models.rows), models.why_time()) if note]
    header = ("model", "params", "FLOP/token", "J/token", "±", "s/token", "±", "")
    return TextTable(f"A token by model, {models.title}", header, sections, [*notes, *models.missing()])


def _cells(row: Any) -> tuple[str, ...]:
    sizes = [_si(row["parameters"], ""), _si(row["flops_per_token"], "FLOP")]
    model = f"{row['model']} ({row['execution']})" if row["instead_of"] else row["model"]
    if row["status"] != "ok":
        return (model, *sizes, row["status"].replace("_", " "), "", "-", "", "")
    energy = _si(row["energy_per_token_j"], "J"), _percent(row["energy_rel_error"], row["energy_per_token_j"])
    time = _si(row["time_per_token_s"], "s"), _percent(row["time_rel_error"], row["time_per_token_s"])
    return (model, *sizes, *energy, *time, _MARKS[row["severity"]])


def _interval(rows: Frame, what: str) -> str:
    said = intervals_said(rows[rows[f"{what}_{'j' if what == 'energy' else 's'}"].notna()], what)
    return f"{what}: 95 % intervals {said}" if said else ""


def models_csv(groups: Sequence[Models]) -> Frame:
    """A line for each row in SI units."""
    columns = [
        *("gpu", "device_name", "model", "parameters", "flops_per_token", "precision", "execution", "shape", "phase"),
        *("status", "status_reason", "energy_per_token_j", "energy_rel_error", "energy_reason", "time_per_token_s"),
        *("time_rel_error", "model_flops", "model_flops_reason", "tokens_per_iteration", "severity", "instead_of"),
        "instead_reason",
    ]
    rows: Any = pd.concat([group.rows for group in groups], ignore_index=True)
    return rows[columns]


def _si(value: float, unit: str) -> str:
    return prefixed(value, unit).strip() if np.isfinite(value) else "-"


def _percent(error: float, value: float) -> str:
    return "" if not np.isfinite(value) else f"{error:.1%}" if np.isfinite(error) else "?"


def _short(reason: str) -> str:
    return reason if len(reason) <= _REASON_LENGTH else f"{reason[:_REASON_LENGTH]} …"
