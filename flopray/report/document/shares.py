"""Where the time, the joules and the FLOPs of a step go: by its phases, by the parts of the closed form, at rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flopray.records import Row
from flopray.report.document.content import Bars, Block, Section, Words, without_empty
from flopray.report.document.data import Measured, step_of
from flopray.report.document.words import amount, percent, quantity
from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import Frame, iter_rows, phase_name
from flopray.report.text_table import TextTable

_WHOLES = ("train_step", "forward_backward")
_REST = "the rest, by difference"
_REST_WORDS = "everything but forward and backward (by difference: the step less those two), the optimizer among it,"
#: Columns of every record that are parts of the closed form, with what they are.
_COMMON = {"gemm_flops": "matrix products", "activation_flops": "activations", "optimizer_flops": "optimizer"}
_MOST_TYPES = 6
#: A part whose share of the time is this many times its share of the FLOPs, and not small, gets a sentence.
_MUCH, _NOTABLE = 3.0, 0.1


@dataclass(frozen=True)
class _Part:
    """Time, energy and FLOPs of a part of a step, with the half widths of their intervals in the same units."""

    name: str
    time_s: float
    time_error_s: float
    energy_j: float
    energy_error_j: float
    flops: float

    @classmethod
    def of(cls, row: Row) -> _Part:
        costs = (row["time_s"], row["time_s"] * row["time_rel_error"], row["energy_j"])
        name = phase_name(row["phase"])
        return cls(name, *costs, row["energy_j"] * row["energy_rel_error"], row["flops_per_s"] * row["time_s"])

    def without(self, others: list[_Part], name: str) -> _Part:
        """The rest of a whole; errors of parts that were measured apart add in quadrature."""
        each = [self, *others]
        return _Part(
            name,
            self.time_s - sum(part.time_s for part in others),
            float(np.sqrt(sum(part.time_error_s**2 for part in each))),
            self.energy_j - sum(part.energy_j for part in others),
            float(np.sqrt(sum(part.energy_error_j**2 for part in each))),
            self.flops - sum(part.flops for part in others),
        )


def section(measured: Measured) -> Section:
    """The section; a sentence where a run has no parts."""
    blocks: list[Block] = []
    for comparison in measured.comparisons:
        for part in (
            _costly(comparison),
            _by_phase(comparison),
            _by_component(measured, comparison),
            _at_rest(measured, comparison),
        ):
            blocks += [part] if part else []
    if not blocks:
        said = "No parts were measured: that needs forward, backward and train_step of one shape."
        blocks.append(Words([said]))
    return Section("shares", "Where time, joules and FLOPs go", blocks, short=True)


def _largest(rows: Frame) -> Frame:
    return rows[rows["shape_rank"] == rows["shape_rank"].max()]


def _chosen(rows: Frame) -> Iterator[tuple[tuple[str, str], Frame]]:
    """Of the largest shape whose step was measured: on each type the first precision, and the cheapest."""
    step = _largest(step_of(rows))
    largest = rows[rows["shape_rank"].isin(step["shape_rank"])]
    for gpu in largest["gpu"].unique()[:_MOST_TYPES]:
        part = largest[largest["gpu"] == gpu]
        steps = step_of(part)
        by = "energy_j" if steps["energy_j"].notna().any() else "time_s"
        cheapest = steps.sort_values(by)["precision"].head(1).tolist()
        for precision in dict.fromkeys([*part["precision"].head(1), *cheapest]):
            yield (gpu, precision), part[part["precision"] == precision]


def _by_phase(comparison: Comparison) -> Bars | None:
    """The parts of a step, on the largest shape."""
    rows = comparison.rows[comparison.rows["status"] == "ok"]
    sections: list[tuple[str, list[list[str]]]] = []
    shares: dict[int, list[float]] = {2: [], 4: [], 6: []}
    for (gpu, precision), group in _chosen(rows):
        parts, whole = _taken_apart({row["phase"]: _Part.of(row) for row in iter_rows(group)})
        if not parts:
            continue
        lines = [_cells(part, whole) for part in [*parts, whole]]
        sections.append((f"{gpu} {precision}, {group['shape'].iloc[0]}", lines))
        for column, what in ((2, "time_s"), (4, "energy_j"), (6, "flops")):
            shares[column] += [getattr(part, what) / getattr(whole, what) for part in [*parts, whole]]
    if not sections:
        return None
    notes = [
        "a share is of the whole, which was measured by itself: parts need not add up to it, since caches serve them "
        "differently"
    ]
    if any(line[0].startswith(_REST) for _, lines in sections for line in lines):
        notes.append(
            "the rest: the whole less the parts that were measured, with the optimizer's step in it; its ± is the root "
            "of the sum of squares of theirs, as if they were independent, and how often it holds was not measured"
        )
    header = ["Phase", "Time", "of the whole", "Energy", "of the whole ", "FLOPs", "of the whole  "]
    table = TextTable(f"{comparison.title}: the phases of a step", header, sections, notes, "Shape")
    return without_empty(Bars(table, shares))


def _costly(comparison: Comparison) -> Words | None:
    """The part of a step that costs far more than its FLOPs, on each type and precision."""
    rows, said = comparison.rows[comparison.rows["status"] == "ok"], []
    for (gpu, precision), group in _chosen(rows):
        parts, whole = _taken_apart({row["phase"]: _Part.of(row) for row in iter_rows(group)})
        for part in parts:
            time, flops = part.time_s / whole.time_s, part.flops / whole.flops
            if time > max(_MUCH * flops, _NOTABLE):
                energy = part.energy_j / whole.energy_j
                joules = f" and {percent(energy)} of its joules" if np.isfinite(energy) else ""
                name = _REST_WORDS if part.name == _REST else part.name
                said.append(
                    f"{gpu} {precision}, {group['shape'].iloc[0]}: {name} has {percent(flops)} of the step's FLOPs and "
                    f"takes {percent(time)} of its time{joules}."
                )
    return Words(said) if said else None


def _taken_apart(phases: dict[str, _Part]) -> tuple[list[_Part], _Part]:
    """The parts of the largest whole that was measured; no part where there is none."""
    nothing = _Part("", *[np.nan] * 5)
    whole = next((phases[name] for name in _WHOLES if name in phases), None)
    passes = [phases[name] for name in ("forward", "backward") if name in phases]
    if whole is None or len(passes) < 2:
        return [], nothing
    parts = list(passes)
    if whole is phases.get("train_step"):
        if "optimizer_step" in phases:
            parts.append(phases["optimizer_step"])
        else:
            both = [phases["forward_backward"]] if "forward_backward" in phases else passes
            parts.append(whole.without(both, _REST))
    return parts, whole


def _cells(part: _Part, whole: _Part) -> list[str]:
    return [
        part.name,
        quantity(part.time_s, part.time_error_s / part.time_s, "s"),
        percent(part.time_s / whole.time_s),
        quantity(part.energy_j, part.energy_error_j / part.energy_j, "J"),
        percent(part.energy_j / whole.energy_j),
        amount(part.flops, "FLOP"),
        percent(part.flops / whole.flops),
    ]


def _by_component(measured: Measured, comparison: Comparison) -> Bars | None:
    """The parts of the closed form of the largest shape's step, which are the same on every device."""
    step = _largest(step_of(comparison.rows))
    if step.empty:
        return None
    raw = measured.raw(step.head(1)).iloc[0]
    own = _own_columns(measured, str(raw["workload"]))
    # a workload's own columns divide products and activations more finely
    names = {"optimizer_flops": _COMMON["optimizer_flops"], **own} if own else _COMMON
    parts = {words: float(raw[name]) for name, words in names.items() if name in raw and _positive(raw[name])}
    total = sum(parts.values())
    if len(parts) < 2:
        return None
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    rows = [[words, amount(flops, "FLOP"), percent(flops / total)] for words, flops in ordered]
    title = f"{comparison.title}: FLOPs of {phase_name(step['phase'].iloc[0])} by component, closed form"
    table = TextTable(title, ["Component", "FLOPs", "of the sum"], [(str(step["shape"].iloc[0]), rows)], [], "Shape")
    return Bars(table, {2: [flops / total for _, flops in ordered]})


def _own_columns(measured: Measured, workload: str) -> dict[str, str]:
    """Columns of a workload that are FLOPs of a component; causal parts belong to another column."""
    columns = next((folder.workload.columns for folder in measured.folders if folder.workload.name == workload), ())
    names = [column.name for column in columns if column.name.endswith("_flops") and "causal" not in column.name]
    return {name: name.removesuffix("_flops").replace("_", " ") for name in names}


def _positive(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(np.isfinite(value)) and float(value) > 0


def _at_rest(measured: Measured, comparison: Comparison) -> Words | None:
    """The share of energy that a board would have taken without any work."""
    step = step_of(comparison.rows)
    step = step[step["energy_j"].notna()]
    said = list(_rest_sentences(step, measured.raw(step))) if len(step) else []
    return Words(said) if said else None


def _rest_sentences(step: Frame, raw: Frame) -> Iterator[str]:
    rest = (raw["awake_idle_power_w"].fillna(raw["idle_power_w"]) / raw["power_w"]).to_numpy(float)
    for gpu in step["gpu"].unique()[:_MOST_TYPES]:
        shares = rest[(step["gpu"] == gpu).to_numpy()]
        shares = shares[np.isfinite(shares)]
        if len(shares):
            low, high = percent(float(shares.min())), percent(float(shares.max()))
            between = f"{low} to {high}" if low != high else low
            yield (
                f"{gpu}: an awake board without work takes {between} of the power of these steps. That part depends on "
                f"time, not on FLOPs."
            )
