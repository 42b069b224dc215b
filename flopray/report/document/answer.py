"""What a step costs: the answer in a sentence for each type of device, and a table of a few shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flopray.audit.hardware import GpuSpec, find_gpu
from flopray.records import Row
from flopray.report.boards.data import noun_of
from flopray.report.document import certainty
from flopray.report.document.content import Bars, Block, Section, Words, without_empty
from flopray.report.document.data import Measured, step_of
from flopray.report.document.words import amount, listed, percent, quantity
from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import Frame, compared_shapes, iter_rows, phase_name
from flopray.report.gpus.types import intervals_said, temperatures_said
from flopray.report.text_table import IMPLAUSIBLE_MARK, IMPOSSIBLE_MARK, TextTable
from flopray.units import counted, prefixed

_MOST_SHAPES, _MOST_SENTENCES = 3, 6
_MARKS = {"impossible": f"{IMPOSSIBLE_MARK} impossible", "implausible": f"{IMPLAUSIBLE_MARK} implausible", "": ""}
PHASE_WORDS = {
    "train_step": "a whole training step",
    "forward_backward": "forward and backward together",
    "forward": "the forward pass",
    "backward": "the backward pass",
    "inference": "a forward pass without gradients",
    "optimizer_step": "the optimizer's step",
    "prefill": "reading the prompt (prefill)",
    "decode": "making one token (decode)",
}


def section(measured: Measured) -> Section:
    """The first section."""
    blocks: list[Block] = []
    for comparison in measured.comparisons:
        step = step_of(comparison.rows)
        if step["time_s"].isna().all():
            blocks.append(Words([_without_time(comparison, step)], "answer"))
            continue
        blocks.append(Words(list(_sentences(comparison, step, _telling(comparison, measured.comparisons))), "answer"))
        blocks.append(_table(comparison, step))
    if letters := list(_letters(measured)):
        blocks.append(Words(letters, "note"))
    blocks.append(Words(list(certainty.in_short(measured))))
    return Section("answer", "What a step costs", blocks, short=True)


def _telling(comparison: Comparison, comparisons: Sequence[Comparison]) -> Sequence[str]:
    """The words of a title, such as `compile`, that tell it from others of the same model, whose steps cost more."""
    model, *words = comparison.title.split(", ")
    others = [each.title.split(", ") for each in comparisons if each.title.split(", ")[0] == model]
    return [word for word in words if not all(word in other for other in others)]


def _letters(measured: Measured) -> Iterator[str]:
    """What the letters of the shapes mean, a line for each workload."""
    workloads = {folder.workload.name: folder.workload for folder in measured.folders}
    for name, workload in workloads.items():
        known = [f"{one.letter} = {one.doc}" for one in workload.fields if one.letter and one.type is int and one.doc]
        if known:
            yield f"Sizes of {name}: {'; '.join(known)}."


def _sentences(comparison: Comparison, step: Frame, telling: Sequence[str]) -> Iterator[str]:
    """For the largest shape: the cheapest precision on each type of device; `telling` as in `sentence`."""
    shape = comparison.of(step["phase"].iloc[0]).sort_values("shape_rank")["shape"].iloc[-1]
    largest = step[step["shape"] == shape]
    if largest.empty:
        largest = step[step["shape_rank"] == step["shape_rank"].max()]
    gpus = largest["gpu"].unique()
    for gpu in gpus[:_MOST_SENTENCES]:
        part = largest[largest["gpu"] == gpu]
        what = "energy" if part["energy_j"].notna().any() else "time"
        column = "energy_j" if what == "energy" else "time_s"
        best, *others = sorted(iter_rows(part), key=lambda row: (np.isnan(row[column]), row[column]))
        yield sentence(best, comparison, _against(best, others, column, f"{what}_rel_error"), telling)
    if len(gpus) > _MOST_SENTENCES:
        yield f"{len(gpus) - _MOST_SENTENCES} more types of device are in the table."
    if "flops_per_j" in step and step["flops_per_j"].notna().sum() > 1 and (said := _range(step)):
        yield said


def _without_time(comparison: Comparison, step: Frame) -> str:
    if step.empty:
        return f"{comparison.title}: no point gave a number; the reasons are below."
    return (
        f"{comparison.title}: FLOPs were counted, time and energy were not measured. The instruments time "
        "and energy measure them."
    )


def _against(best: Row, others: Sequence[Row], column: str, error: str) -> str:
    """How the cheapest precision compares with the others that were measured."""
    if not others:
        return ""
    if not all(np.isfinite(row[error]) for row in (best, *others)):
        return ", by its value the cheapest measured,"  # without all errors this is unknown
    reach = best[column] * (1 + best[error])
    same = [row["precision"] for row in others if row[column] * (1 - row[error]) <= reach]
    alike = f" (the intervals do not tell it from {listed(same)})" if same else ""
    return f", the cheapest precision measured{alike},"


def sentence(row: Row, comparison: Comparison, against: str, telling: Sequence[str]) -> str:
    """One row as a sentence.

    Args:
        row: of the table.
        comparison: which it is part of.
        against: how its precision compares with the others.
        telling: what tells this comparison from others of the same model.
    """
    phase = PHASE_WORDS.get(row["phase"], phase_name(row["phase"]))
    where = f"On {_a(row['gpu'])} {row['gpu']}, {phase} of {comparison.title.partition(',')[0]} "
    where += f"({', '.join([_shape(row), *telling])})"
    how = f" in {row['precision']}{against}"
    costs = [quantity(row["time_s"], row["time_rel_error"], "s")]
    if np.isfinite(row["energy_j"]):
        at = f" at {row['energy_at']:g}\u00a0°C" if np.isfinite(row["energy_at"]) else ""
        costs.append(quantity(row["energy_j"], row["energy_rel_error"], "J") + at)
    more = []
    if np.isfinite(row["flops_per_j"]):
        more.append(f"{prefixed(row['flops_per_j'], 'FLOP/J')}")
    if np.isfinite(row["mfu"]):
        more.append(f"{percent(row['mfu'])} of {_peak(row)}")
    if np.isfinite(row["energy_per_token_j"]):
        more.append(f"{prefixed(row['energy_per_token_j'], 'J')} a token")
    said = f"{where}{how} takes {' and '.join(costs)}{_of_boards(row)}"
    said += f": {listed(more)}." if more else "."
    if not np.isfinite(row["energy_j"]):
        reason = row["energy_reason"] or row["energy_status"].replace("_", " ") or "not measured"
        asked = row["energy_status"] != "not_requested"
        said += f" Its energy is missing: {reason.rstrip('.')}." if asked else " Its energy was not asked for."
    return said


def _peak(row: Row) -> str:
    """What a share is of, with the rate: model FLOP/s over it. No datasheet states that of a CPU, which is measured."""
    rate = prefixed(row["flops_per_s"] / row["mfu"], "FLOP/s") if row["mfu"] > 0 else ""
    if _spec(row["gpu"], row["device_name"]):
        return f"the dense {row['precision']} peak" + (f" ({rate})" if rate else "")
    return f"what {row['precision']} products reach on it" + (f" ({rate}, measured)" if rate else "")


def _spec(gpu: object, device_name: object) -> GpuSpec | None:
    return find_gpu(str(gpu)) or find_gpu(str(device_name))


def _peaks(step: Frame) -> Iterator[str]:
    """What MFU is a share of, for each type of device: its peaks, and the datasheet or measurement they are from."""
    for gpu, part in step[step["mfu"] > 0].groupby("gpu", sort=False):
        rates = (part["flops_per_s"] / part["mfu"]).groupby(part["precision"], sort=False).median()
        spec = _spec(gpu, part["device_name"].iloc[0])
        stated = listed([f"{precision} {prefixed(float(rate), 'FLOP/s')}" for precision, rate in rates.items()])
        if spec:
            over, source = "over the datasheet's dense peak, without sparsity", f" ({spec.name}: {spec.source})"
        else:
            over, source = "over the rate of matrix products that was measured on it", ""
        yield f"MFU of {gpu}: FLOP/s of the model {over}: {stated}{source}"


def _of_boards(row: Row) -> str:
    """How many boards the numbers are of, which says what ± means."""
    if row["boards"] > 1:
        here = max(1, len(row["on_boards"]))
        some = "" if here >= row["boards"] else f", of which {here if here > 1 else 'one'} ran this step"
        return f" (mean of {counted(row['boards'], 'board')}{some})"
    return f" (this one {noun_of(row['gpu'])})"


def _shape(row: Row) -> str:
    """The shape in words where it is a batch of sequences."""
    batch, by, tokens = row["shape"].partition(" × ")
    return f"batch {batch}, {counted(int(tokens), 'token')} each" if by else row["shape"]


def _range(step: Frame) -> str:
    """How far the shapes differ in FLOPs per joule; empty where their intervals do not tell them apart."""
    ok = step[step["flops_per_j"].notna()].sort_values("flops_per_j")
    least, most = ok.iloc[0], ok.iloc[-1]
    ratio = most["flops_per_j"] / least["flops_per_j"]
    if not ratio - 1 > np.nansum([least["energy_rel_error"], most["energy_rel_error"]]):
        return ""
    return (
        "Over all shapes and precisions of such a step a joule does "
        f"{prefixed(least['flops_per_j'], 'FLOP')} ({_named(least)}) to "
        f"{prefixed(most['flops_per_j'], 'FLOP')} ({_named(most)}): a factor of {float(f'{ratio:.3g}'):,g}."
    )


def _named(row: Row) -> str:
    return f"{row['gpu']} {row['precision']} {row['shape']}"


def _a(name: str) -> str:
    return "an" if name[:1].upper() in "AEFHILMNORSX" else "a"


def _table(comparison: Comparison, step: Frame) -> Bars:
    present = [shape for shape in comparison.shapes if (step["shape"] == shape).any()]
    shown = compared_shapes(step, present, _MOST_SHAPES)
    header = ["", "Time", "Energy", "Power", "FLOPs", "FLOP/s", "FLOP/J", "MFU", ""]
    sections = []
    for shape in shown:
        rows = step[step["shape"] == shape]
        sections.append((shape, [_cells(row) for row in iter_rows(rows)]))
    notes = [
        f"± of {what}: 95 % interval {said}"
        for what in ("time", "energy")
        if step[f"{what}_rel_error"].notna().any() and (said := intervals_said(step, what))
    ]
    if any("± ?" in cell for _, rows in sections for row in rows for cell in row):
        notes.append("± ?: too few repeats to tell, or an error that was not measured")
    if at := temperatures_said(step):
        notes.append(at)
    notes += _peaks(step[step["shape"].isin(shown)])
    count = step["shape"].nunique()
    if len(shown) < count:
        notes.append(f"{len(shown)} of {counted(count, 'shape')}; the views below have all")
    phase = step["phase"].iloc[0]
    title = f"{comparison.title}: {PHASE_WORDS.get(phase, phase_name(phase))}"
    return without_empty(Bars(TextTable(title, header, sections, notes, "Shape"), {}))


def _cells(row: Row) -> list[str]:
    flops = row["flops_per_s"] * row["time_s"]
    return [
        f"{row['gpu']} {row['precision']}",
        quantity(row["time_s"], row["time_rel_error"], "s"),
        quantity(row["energy_j"], row["energy_rel_error"], "J"),
        *(amount(row["power_w"], "W"), amount(flops, "FLOP"), amount(row["flops_per_s"], "FLOP/s")),
        *(amount(row["flops_per_j"], "FLOP/J"), percent(row["mfu"]), _MARKS[row["severity"]]),
    ]
