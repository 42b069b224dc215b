"""FLOPs counted several ways: closed form, dispatcher, and what the chip executed, with its three overheads."""

from __future__ import annotations

import numpy as np

from flopray.report.boards.data import numbers_of
from flopray.report.document.content import Bars, Section, without_empty
from flopray.report.document.data import Measured
from flopray.report.document.words import DASH
from flopray.report.gpus.data import Frame, phase_name
from flopray.report.text_table import TextTable

_OVERHEADS = {
    "gemm_overhead": "extra products (ω)",
    "splitk_per_element": "sums per number (ρ)",
    "activation_overhead": "extra activations (κ)",
}
#: What each is, in the order of the columns.
_MEANINGS = {
    "gemm_overhead": (
        "ω, extra products: FLOPs that matrix products executed over those of the closed form, less 1; they come from "
        "padding to whole tiles, so 0.05 means 5 % more than the mathematics needs"
    ),
    "splitk_per_element": (
        "ρ, sums per number: FLOPs of split-K sums and other reductions for each number that a layer writes; 0 where "
        "no product is split"
    ),
    "activation_overhead": (
        "κ, extra activations: FLOPs that elementwise kernels executed over those of the closed form, which counts 1 "
        "for each activation, less 1; a sigmoid takes many instructions"
    ),
}


def section(measured: Measured) -> Section | None:
    """The section; None where FLOPs were counted one way only."""
    frame = measured.frame
    rows, timed = [], bool(frame["time_s"].notna().any())
    # the dispatcher's count is the same on every device
    counted = bool(frame["executed_flops"].notna().any())
    by = ["device_type", "precision", "phase"] if counted else ["workload", "phase"]
    for key, part in frame.groupby(by, sort=True):
        cells = [_ratio(part, "dispatched_flops"), _ratio(part, "executed_flops")]
        overheads = [_spread(part, name) for name in _OVERHEADS]
        if {*cells, *overheads} != {DASH}:
            name = " ".join(phase_name(str(word)) for word in key)
            rows.append([name, str(len(part)), *cells, *overheads])
    if not rows:
        return None
    header = ["", "Rows", "dispatched / closed form", "executed / closed form", *_OVERHEADS.values()]
    notes = [
        "median (least to most) over the points",
        "dispatched: products and attention that the framework was asked for, nothing elementwise; executed: by the "
        "hardware's counters",
    ]
    if not counted:
        notes.append("executed FLOPs were not counted: the instrument counters counts them, on a GPU that permits it")
    else:
        notes += [meaning for name, meaning in _MEANINGS.items() if np.isfinite(numbers_of(frame, name)).any()]
    return Section(
        "flops",
        "FLOPs, counted several ways",
        [without_empty(Bars(TextTable("FLOPs", header, [("", rows)], notes), {}))],
        not timed,
    )


def _ratio(part: Frame, name: str) -> str:
    return _told(numbers_of(part, name) / numbers_of(part, "model_flops"))


def _spread(part: Frame, name: str) -> str:
    return _told(numbers_of(part, name))


def _told(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return DASH
    low, middle, high = (f"{value:.3g}" for value in (known.min(), np.median(known), known.max()))
    return middle if low == high else f"{middle} ({low} to {high})"
