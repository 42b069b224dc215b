"""The content of one figure: one model (or MLPs), one execution, one kind of attention, on any number of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from flopray.point import PRECISIONS
from flopray.report.gpus.data import MEASURED, PUBLISHED, SETTING, Frame, phase_rank
from flopray.report.plot.names import file_name


@dataclass(frozen=True)
class Comparison:
    """Rows that are compared with one another.

    Attributes:
        title: such as `llama-3.2-1b, eager`.
        folder: the same as a file name.
        rows: as `tidy` gives them, sorted by GPU, precision, shape and phase, measured before published.
    """

    title: str
    folder: str
    rows: Frame

    @cached_property
    def gpus(self) -> list[str]:
        """GPUs by name."""
        return sorted(self.rows["gpu"].unique())

    @cached_property
    def precisions(self) -> list[str]:
        """Precisions in the order of the record's vocabulary."""
        present = set(self.rows["precision"])
        return [name for name in PRECISIONS if name in present]

    @cached_property
    def shapes(self) -> list[str]:
        """Labels of the shapes, smallest first."""
        return list(self.rows.sort_values("shape_rank")["shape"].unique())

    def of(self, *phases: str, source: str | None = None) -> Frame:
        """Rows of some phases, of one source or both."""
        chosen = self.rows["phase"].isin(phases)
        if source:
            chosen &= self.rows["source"] == source
        return self.rows[chosen]


def comparisons_of(rows: Frame) -> list[Comparison]:
    """The rows by what they share; published rows are in every comparison of their model.

    Args:
        rows: as `tidy` gives them.
    """
    published, measured = (rows[rows["source"] == source] for source in (PUBLISHED, MEASURED))
    beside: list[Frame] = []
    left = set(published["model"])
    for _, part in measured.groupby(SETTING, sort=True):
        # flopmetrics did not checkpoint
        model = part["model"].iloc[0] if not part["checkpointing"].iloc[0] else None
        beside.append(pd.concat([part, published[published["model"] == model]]))
        left.discard(model)
    beside += [part for model, part in published.groupby("model") if model in left]
    found: list[Comparison] = []
    for part in beside:
        title = _title(part, beside)
        name = file_name(title)
        # models of one name but different sizes
        taken = sum(file_name(other.title) == name for other in found)
        found.append(Comparison(title, f"{name}-{taken + 1}" if taken else name, _sorted(part)))
    return found


def _title(part: Frame, others: Sequence[Frame]) -> str:
    """What the rows share, if other comparisons differ in it; model and execution always."""
    first = part.iloc[0]
    words = [first["model"] or first["workload"].upper(), first["execution"]]
    if first["source"] == PUBLISHED:
        return ", ".join([*words, "published"])
    values = {name: {other[name].iloc[0] for other in others} - {""} for name in ("attention", "weights", "choices")}
    differing = [name for name, found in values.items() if len(found) > 1 and first[name]]
    words += [first[name] if name == "choices" else f"{first[name]} {name}" for name in differing]
    return ", ".join([*words, *(["checkpointing"] if first["checkpointing"] else [])])


def _sorted(part: Frame) -> Frame:
    ranks = {"precision_rank": part["precision"].map(PRECISIONS.index)}
    ranks["phase_rank"] = part["phase"].map(phase_rank)
    keys = ["gpu", "precision_rank", "source", "shape_rank", "phase_rank"]
    ordered = part.assign(**ranks).sort_values(keys, kind="stable", ignore_index=True)
    return ordered.drop(columns=list(ranks))
