"""The tables of a comparison: what each phase costs on each GPU at each precision, and published beside measured."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from flopray.records import Row
from flopray.report.boards.data import UNKNOWN_BOARD, board_names
from flopray.report.gpus.comparison import Comparison
from flopray.report.gpus.data import MEASURED, PUBLISHED, REST, Frame, iter_rows
from flopray.report.gpus.types import intervals_said, temperatures_said
from flopray.report.plot.scales import display_unit
from flopray.report.text_table import IMPLAUSIBLE_MARK, IMPOSSIBLE_MARK, TextTable
from flopray.units import counted

MARKS = {"impossible": IMPOSSIBLE_MARK, "implausible": IMPLAUSIBLE_MARK, "": ""}
#: Texts that the tables do not repeat.
EXPLANATION = (
    "±: half width of a 95 % interval; the note below each table says of what: of the type (the mean over its boards), "
    "of one board at the reference temperature, or of one window alone. FLOP/s, MFU and tokens/s have the error of "
    f"time; FLOP/J and J/token that of energy. {IMPOSSIBLE_MARK} impossible, {IMPLAUSIBLE_MARK} implausible, by the "
    "audit."
)
_PHASE_NAMES = {"forward_backward": "fwd + bwd", REST: "bwd + optim.", "optimizer_step": "optimizer"}
_STATUS_WORDS = {"out_of_memory": "OOM", "unsupported": "no", "failed": "failed"}
#: HFU is shown where it differs from MFU by more than rounding.
_HFU_DIFFERENCE = 0.005
_REASON_LENGTH = 110


def tables_of(comparison: Comparison, shapes: Sequence[str] | None = None) -> Iterator[TextTable]:
    """A table for each GPU, precision and source.

    Args:
        comparison: what to show.
        shapes: only these; default all.
    """
    rows = comparison.rows
    if shapes is not None:
        rows = rows[rows["shape"].isin(shapes)]
    for (gpu, precision, source), part in rows.groupby(["gpu", "precision", "source"], sort=False):
        words = [gpu, precision, comparison.title, *(["published by flopmetrics"] if source == PUBLISHED else [])]
        sections = [
            (_section(group.iloc[0]), [_cells(row) for row in iter_rows(group)])
            for _, group in part.groupby("shape", sort=False)
        ]
        notes = [*_intervals(part), *_failures(part), *_findings(part)]
        yield TextTable(", ".join(map(str, words)), _header(part), sections, notes)


def beside_table(comparison: Comparison) -> TextTable | None:
    """Published and measured numbers of the same GPU, precision and shape; None where there are no such pairs.

    A published training step is the sum of both published phases.
    """
    keys = ["gpu", "precision", "shape", "phase"]
    phases = ("forward", "train_step")
    pairs = comparison.of(*phases, source=MEASURED).merge(
        comparison.of(*phases, source=PUBLISHED), on=keys, suffixes=("", "_published")
    )
    pairs = pairs[(pairs["status"] == "ok") & (pairs["status_published"] == "ok")]
    if pairs.empty:
        return None
    header = ["Phase", *("Energy", "±", "theirs", "±", "ratio", "Time", "±", "theirs", "ratio"), ""]
    sections: dict[str, list[list[str]]] = defaultdict(list)
    for row in iter_rows(pairs):
        energy = [_quantity(row, "energy_j", "energy_rel_error", "J")]
        energy += [_quantity(row, "energy_j_published", "energy_rel_error_published", "J")]
        times = [_si(row["time_s"], "s"), _percent(row["time_rel_error"]), _si(row["time_s_published"], "s")]
        ratios = [row[f"{name}_published"] / row[name] if row[name] > 0 else np.nan for name in ("energy_j", "time_s")]
        cells = [_phase_name(row), *energy[0], *energy[1], _ratio(ratios[0])]
        cells += [*times, _ratio(ratios[1]), MARKS[row["severity_published"]]]
        sections[f"{row['gpu']} {row['precision']} {row['shape']}"].append(cells)
    notes = ["theirs: published by flopmetrics, train_step being the sum of both phases; ratio: theirs over measured"]
    if (pairs["severity_published"] != "").any():
        notes.append("the mark is that of the published row")
    return TextTable(f"Published beside measured, {comparison.title}", header, list(sections.items()), notes)


def ratio_tables(comparison: Comparison, shapes: Sequence[str] | None = None) -> Iterator[TextTable]:
    """Each measured GPU over the first one, with the intervals of both types.

    Ratios have no interval where a type has none (one board of a type of which nothing is known).

    Args:
        comparison: what to show.
        shapes: only these; default all.
    """
    rows = comparison.rows
    rows = rows[(rows["source"] == MEASURED) & (rows["status"] == "ok")]
    if shapes is not None:
        rows = rows[rows["shape"].isin(shapes)]
    first, *others = sorted(rows["gpu"].unique()) or [""]
    for other in others:
        part = rows[rows["gpu"].isin([first, other])]
        both = part[part["gpu"] == other].merge(part[part["gpu"] == first], on=_SAME, suffixes=("", "_first"))
        sections: dict[str, list[list[str]]] = defaultdict(list)
        for row in iter_rows(both):
            cells = [_phase_name(row), *_over(row, "time", "time_s"), *_over(row, "energy", "energy_j")]
            sections[f"{row['precision']} {row['shape']}"].append(cells)
        if sections:
            title = f"{other} over {first}, {comparison.title}"
            table = TextTable(title, _RATIO_HEADER, list(sections.items()), [])
            table = table.of_columns(table.filled_columns())
            shows = {"±", "± "} & set(table.header)
            yield replace(table, notes=[*([_OF_RATIOS] if shows else []), *_not_alike(both), *_without_interval(part)])


_SAME = ["precision", "shape", "phase"]
_OF_RATIOS = "±: of the ratio of both types' means, the root of the sum of squares of their intervals"


def _without_interval(rows: Frame) -> Iterator[str]:
    for gpu, part in rows.groupby("gpu", sort=True):
        if part["time_type_rel_error"].isna().all() and part["energy_type_rel_error"].isna().all():
            yield f"{gpu}: {_boards_said(part)}, and so no interval of the type: ratios have none either"


_RATIO_HEADER = ["Phase", "Time", "±", "Energy", "± "]


def _over(row: Row, what: str, column: str) -> tuple[str, str]:
    """The ratio of a row to that of the first GPU, and the relative half width of its interval."""
    if what == "energy" and not _alike(row["energy_at"], row["energy_at_first"]):
        return "-", "-"  # one at the reference temperature, the other as measured
    error = float(np.hypot(row[f"{what}_type_rel_error"], row[f"{what}_type_rel_error_first"]))
    return _ratio(row[column] / row[f"{column}_first"]), _percent(error)


def _not_alike(both: Frame) -> Iterator[str]:
    """A note on each two temperatures at which energies of the two GPUs are, and so are not compared."""
    there = both[np.isfinite(both["energy_j"]) & np.isfinite(both["energy_j_first"])]
    pairs = zip(there["energy_at"], there["energy_at_first"], strict=True)
    kinds = Counter(" and the other ".join(sorted(map(_at, pair))) for pair in pairs if not _alike(*pair))
    for kind, count in kinds.items():
        yield f"energies are not compared where one is {kind} ({counted(count, 'row')})"


def _at(celsius: float) -> str:
    return f"at {celsius:g} °C" if np.isfinite(celsius) else "as measured"


def _alike(one: float, other: float) -> bool:
    return one == other or (np.isnan(one) and np.isnan(other))


def _boards_said(part: Frame) -> str:
    boards = set(board_names(part)) - {UNKNOWN_BOARD}
    return f"{len(boards)} boards that share no row" if len(boards) > 1 else "one board"


def _intervals(part: Frame) -> Iterator[str]:
    """What the intervals of a table are of, and at which temperature its energy is; nothing for published rows."""
    for what in ("time", "energy"):
        if part[f"{what}_rel_error"].notna().any() and (said := intervals_said(part, what)):
            yield f"± of {what}: {said}"
    if temperatures := temperatures_said(part):
        yield temperatures


def _header(part: Frame) -> list[str]:
    mfu = "MFU/\nHFU" if _has_hfu(part).any() else "MFU"
    return ["Phase", "Time", "±", "Energy", "±", "FLOP/s", "FLOP/J", mfu, "J/token", "token/s", ""]


def _has_hfu(part: Any) -> Any:
    return (part["hfu"] / part["mfu"] - 1) > _HFU_DIFFERENCE


def _cells(row: Row) -> list[str]:
    phase = _phase_name(row)
    if row["status"] != "ok":
        return [phase, _STATUS_WORDS.get(row["status"], str(row["status"])), *[""] * 9]
    mfu = _percent(row["mfu"])
    if np.isfinite(row["hfu"]) and _has_hfu(row):
        mfu = f"{row['mfu'] * 100:.0f}/{row['hfu']:.0%}"
    return [
        phase,
        *_quantity(row, "time_s", "time_rel_error", "s"),
        *_quantity(row, "energy_j", "energy_rel_error", "J"),
        *(_si(row["flops_per_s"], ""), _si(row["flops_per_j"], ""), mfu),
        *(_si(row["energy_per_token_j"], "J"), _si(row["tokens_per_s"], ""), MARKS[row["severity"]]),
    ]


def _phase_name(row: Row) -> str:
    return _PHASE_NAMES.get(row["phase"], str(row["phase"]))


def _quantity(row: Row, column: str, error_column: str, unit: str) -> tuple[str, str]:
    """A value with its unit, and its relative error."""
    return _si(row[column], unit), _percent(row[error_column]) if np.isfinite(row[column]) else ""


def _si(value: float, unit: str) -> str:
    if not np.isfinite(value):
        return "-"
    shown = display_unit(unit, value)
    return f"{shown.text(value)} {shown.label}".rstrip()


def _percent(ratio: float) -> str:
    """Two or three digits, such as `0.4%` or `45%`."""
    if not np.isfinite(ratio):
        return "-"
    return f"{ratio:.0%}" if abs(ratio) >= 0.0995 else f"{ratio:.1%}" if abs(ratio) >= 0.00095 else "<0.1%"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"


def _section(row: Any) -> str:
    return f"{row['config']} {row['shape']}".strip()


def _failures(part: Frame) -> Iterator[str]:
    """A sentence for each reason why rows have no numbers, or no energy."""
    missing: dict[str, list[str]] = defaultdict(list)
    for row in iter_rows(part):
        if row["status"] != "ok":
            words, reason = row["status"].replace("_", " "), row["status_reason"]
        elif not np.isfinite(row["energy_j"]):
            words, reason = f"no energy: {row['energy_status'].replace('_', ' ')}", row["energy_reason"]
        else:
            continue
        said = words if not reason or reason == words else f"{words}: {reason}"
        missing[textwrap.shorten(said, _REASON_LENGTH, placeholder=" …")].append(f"{row['shape']} {_phase_name(row)}")
    for reason, places in missing.items():
        yield f"{reason} ({_some(places)})"


def _findings(part: Frame) -> Iterator[str]:
    """A sentence for each finding of the audit, the worst first, and for each remark on rows with numbers."""
    marked: dict[str, list[str]] = defaultdict(list)
    remarks: dict[str, list[str]] = defaultdict(list)
    for row in iter_rows(part):
        name = _phase_name(row)
        for code in row["findings"]:
            marked[code].append(f"{row['shape']} {name}")
        if row["status"] == "ok" and row["status_reason"]:
            remarks[f"{name}: {row['status_reason']}"].append(row["shape"])
    for code in sorted(marked, key=lambda code: not code.startswith("impossible")):
        severity, _, rule = code.partition(":")
        yield f"{MARKS[severity]} {rule.replace('_', ' ')} ({_some(marked[code])})"
    yield from remarks


def _some(places: Sequence[str]) -> str:
    return ", ".join(places) if len(places) <= 4 else f"{', '.join(places[:3])} and {len(places) - 3} more"
