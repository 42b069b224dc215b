"""Rows of several runs as one table for comparing GPUs: merged, audited, with readable names.

Points without numbers keep their row and say why.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopray.audit import Severity, audit
from flopray.audit.cells import rows_of
from flopray.description import Description
from flopray.errors import InputError
from flopray.point import PRECISIONS
from flopray.records import PHASES, Row
from flopray.report.boards.comparable import TOLD_LATER, WIDENED, of_runs
from flopray.report.boards.means import with_windows
from flopray.report.surface.selection import METRICS, Metric
from flopray.store.location import open_run
from flopray.workloads.registry import BUILT_IN, refuse_scores

#: A pandas DataFrame, whose stubs do not know whether a selection of it is one.
Frame = Any
MEASURED, PUBLISHED = "measured", "published"
#: flopmetrics' second phase, as `flopray.report.published` calls it, and the order of all phases.
REST = "backward_and_optimizer"
PHASE_ORDER = (*PHASES[:3], REST, *PHASES[3:])
#: Columns that rows of one comparison share; `model_config` distinguishes models of one name.
SETTING = ["workload", "model", "model_config", "weights", "execution", "attention", "checkpointing", "choices"]
#: flopmetrics' names of (batch, tokens of a sequence).
CONFIGS = {(8, 256): "small", (8, 512): "mid", (8, 1024): "large"}
ENERGY_PER_TOKEN = Metric(
    *("energy_per_token", "energy_per_token_j", "Energy per token", "energy per token", "J", "energy_rel_error"),
    ("status", "energy_status"),
)
EFFICIENCY, TIME, ENERGY, MFU = (METRICS[name] for name in ("flops_per_j", "time", "energy", "mfu"))

_TEXTS = [
    *("run", "trial_id", "workload", "model", "model_config", "weights", "attention", "attention_backend"),
    *("precision", "execution", "phase", "device_type", "device_name", "status", "status_reason"),
    *("energy_status", "energy_reason", "mfu_reason", "device_uuid", "node", "driver_version", "torch_version"),
    *("cuda_version", "energy_at_reference_reason", "model_flops_reason"),
]
_NUMBERS = [
    *("batch_size", "sequence_length", "n_layers", "width", "tokens", "model_flops", "recomputed_flops"),
    *("time_s", "time_rel_error", "energy_j", "energy_rel_error", "power_w", "flops_per_s", "flops_per_j"),
    *("mfu", "hfu", "tokens_per_iteration", "energy_per_token_j", "memory_peak_bytes", "ended_unix_s"),
    *("target_error", "energy_at_reference_j", "energy_at_reference_rel_error", "reference_temperature_c"),
    *("temperature_end_c", "parameters"),
]
#: Columns without meaning where the time or the energy has none.
_OF_TIME = ["time_rel_error", "flops_per_s", "mfu", "hfu", "power_w"]
_OF_ENERGY = ["energy_rel_error", "flops_per_j", "power_w", "energy_per_token_j"]
_SEVERITIES = (str(Severity.IMPOSSIBLE), str(Severity.IMPLAUSIBLE))


def load_runs(paths: Sequence[Path]) -> Frame:
    """All rows of some runs; `flopray.report.gpus.types.rows_of_types` makes one of each point and phase on a type.

    Args:
        paths: folders of runs; one that is named twice is read once.

    Raises:
        InputError: a path is not a run, or the runs have no rows, or a workload, phase or precision is unknown.
    """
    unique = list({os.path.realpath(path): path for path in paths}.values())
    folders = [open_run(path) for path in unique]
    for folder in folders:
        refuse_scores(folder.workload, folder.path)
    workloads = {folder.workload.name: folder.workload for folder in folders if folder.workload.name}
    frame = of_runs(folders)
    if frame.empty:
        raise InputError(f"{', '.join(map(str, unique))}: no rows yet")
    check_words(frame, workloads, ", ".join(map(str, unique)))
    return tidy(frame, MEASURED, workloads)


def check_words(frame: Frame, workloads: Mapping[str, Description], named: str) -> None:
    """Refuse rows whose workload, phase or precision is unknown.

    Args:
        frame: rows of runs.
        workloads: of the runs, by name.
        named: the runs, for the message.

    Raises:
        InputError: naming the first unknown word.
    """
    phases = {*PHASES, *(phase for workload in workloads.values() for phase in workload.phases)}
    known = {*workloads, *BUILT_IN}
    for name, words in (("workload", known), ("phase", phases), ("precision", PRECISIONS)):
        if unknown := set(frame[name]) - set(words):
            raise InputError(f"{named}: unknown {name} {min(unknown)!r:.80}")


def tidy(frame: Frame, source: str, workloads: Mapping[str, Description] | None = None) -> Frame:
    """Audited rows in one form, whatever their source: texts without missing values, numbers with NaN.

    Args:
        frame: rows with any of the columns of `flopray.records`.
        source: `MEASURED` or `PUBLISHED`.
        workloads: of the rows, by name; without one a row has the shape of an MLP or of a batch of sequences.

    Returns:
        The columns that comparisons use, and `source`, `gpu`, `shape`, `shape_rank`, `config`, `tokens_per_s`,
        `findings` (those recorded and those of the whole table, of the two serious severities) and `severity` (the
        worst of them, or empty).
    """
    frame = frame.reset_index(drop=True)
    workloads = workloads or {}
    numbers = dict.fromkeys([*_NUMBERS, *(f.name for w in workloads.values() for f in w.dimensions)])
    rows = pd.DataFrame({name: _texts(frame, name) for name in _TEXTS} | {n: _numbers(frame, n) for n in numbers})
    rows["choices"] = _choices(frame, workloads)
    for name in ("checkpointing", TOLD_LATER, WIDENED):
        rows[name] = _texts(frame, name).isin(["True", "true"])
    rows = _without_impossible(rows)
    rows["source"] = source
    rows["status"] = rows["status"].replace("", "ok")
    rows["gpu"] = _gpu_names(rows)
    rows["shape"], rows["shape_rank"], rows["config"] = zip(*_shapes(rows, workloads), strict=True)
    per_iteration = rows["tokens_per_iteration"].fillna(rows["tokens"].where(rows["phase"] != "optimizer_step"))
    rows["tokens_per_s"] = per_iteration / rows["time_s"]
    rows["energy_per_token_j"] = rows["energy_per_token_j"].fillna(rows["energy_j"] / per_iteration)
    rows = with_windows(rows)
    rows["findings"] = _findings(frame)
    rows["severity"] = [next((s for s in _SEVERITIES if any(f.startswith(s) for f in fs)), "") for fs in rows.findings]
    return rows


def _without_impossible(rows: Frame) -> Frame:
    """Costs that cannot be drawn or divided by (zero, negative, beyond any scale) become holes with that reason."""
    for column, needed in (("time_s", _OF_TIME), ("energy_j", _OF_ENERGY)):
        bad = rows[column].notna() & ~rows[column].between(1e-150, 1e150)
        rows.loc[bad, [column, *needed]] = np.nan
        if column == "energy_j":
            rows.loc[bad, "energy_status"] = "not_a_possible_value"
    for column in ("time_rel_error", "energy_rel_error", "energy_at_reference_rel_error"):
        rows[column] = rows[column].where(rows[column].between(0, 1e3))
    for column in (
        "energy_at_reference_j",
        "flops_per_s",
        "flops_per_j",
        "mfu",
        "hfu",
        "power_w",
        "energy_per_token_j",
    ):
        rows[column] = rows[column].where(rows[column].between(1e-150, 1e150))
    return rows


def why_missing(row: Any, metric: Metric) -> str:
    """Why a row has no value of a metric, in words; empty where it has one."""
    if row["status"] == "ok" and math.isfinite(row[metric.column]):
        return ""
    columns = ("status_reason", *metric.reason_columns) if row["status"] == "failed" else metric.reason_columns
    said = (row[column] for column in columns)
    return next((word.replace("_", " ") for word in said if word not in ("", "ok")), "no value recorded")


def some_of(items: Sequence[str], at_most: int) -> list[str]:
    """Some of the items, evenly spread, the first and the last included."""
    if len(items) <= at_most:
        return list(items)
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, at_most).round()]


def compared_shapes(rows: Frame, shapes: Sequence[str], at_most: int) -> list[str]:
    """Some of many shapes: those that most GPUs have come first, of these those that most precisions have.

    Where GPUs ran different grids, shapes evenly spread over all of them may be of one GPU alone, and compare nothing.

    Args:
        rows: with `gpu`, `precision`, `shape` and `status`.
        shapes: of the rows, in the order that they are shown in.
        at_most: how many.
    """
    if len(shapes) <= at_most:
        return list(shapes)
    there = rows.loc[rows["status"] == "ok", ["shape", "gpu", "precision"]].drop_duplicates()
    pairs = there["shape"].value_counts().to_dict()
    gpus = there[["shape", "gpu"]].drop_duplicates()["shape"].value_counts().to_dict()
    ranks = [(gpus.get(shape, 0), pairs.get(shape, 0)) for shape in shapes]
    chosen: set[str] = set()
    for best in sorted(set(ranks), reverse=True):
        alike = [shape for shape, rank in zip(shapes, ranks, strict=True) if rank == best]
        chosen.update(some_of(alike, at_most - len(chosen)))
        if len(chosen) == at_most:
            break
    return [shape for shape in shapes if shape in chosen]


def in_order(phases: Iterable[str]) -> list[str]:
    """Phases in the order of a training step, then those of generating."""
    return sorted(phases, key=lambda phase: (phase_rank(phase), phase))


def phase_name(phase: str) -> str:
    """A phase as figures name it.

    >>> phase_name("train_step"), phase_name("optimizer_step")
    ('training step', 'optimizer step')
    """
    return "training step" if phase == "train_step" else phase.replace("_", " ")


def phase_rank(phase: str) -> int:
    """Place of a phase; phases of only one workload come last."""
    return PHASE_ORDER.index(phase) if phase in PHASE_ORDER else len(PHASE_ORDER)


def _texts(frame: Frame, name: str) -> Any:
    column: Any = frame[name] if name in frame else pd.Series(None, index=frame.index, dtype=object)
    return column.astype(object).where(column.notna(), "").astype(str).astype(object)


def _numbers(frame: Frame, name: str) -> Any:
    column: Any = frame[name] if name in frame else pd.Series(np.nan, index=frame.index)
    numbers: Any = pd.to_numeric(column, errors="coerce")
    return numbers.astype("Float64").astype(float)


def _gpu_names(rows: Frame) -> list[str]:
    """The type of device; where boards of one type have different names, those names."""
    models = {kind: set(part["device_name"]) - {""} for kind, part in rows.groupby("device_type")}
    return [
        kind if len(models[kind]) < 2 else name.replace("NVIDIA ", "") or f"{kind} (board unknown)"
        for kind, name in zip(rows["device_type"], rows["device_name"], strict=True)
    ]


def _choices(frame: Frame, workloads: Mapping[str, Description]) -> Any:
    """What a row chose besides the columns that every comparison has, such as `kernel=5`."""
    names = {f.name for w in workloads.values() for f in w.choices if not f.implied} - set(SETTING)
    said = pd.Series("", index=frame.index, dtype=object)
    for name in sorted(names):
        texts = _texts(frame, name)
        said += texts.where(texts == "", name + "=" + texts + " ")
    return said.str.strip()


def _shapes(rows: Frame, workloads: Mapping[str, Description]) -> list[tuple[str, tuple[float, ...], str]]:
    """`_shape` of each row; a grid has each shape many times."""
    sizes = {"batch_size", "sequence_length", "n_layers", "width", "tokens"}
    sizes |= {f.name for workload in workloads.values() for f in workload.dimensions}
    columns = ["workload", *sorted(sizes)]
    values = list(zip(*(rows[name].tolist() for name in columns), strict=True))
    # NaN is not equal to itself, and would make each row a shape of its own
    keys = [tuple(None if value != value else value for value in row) for row in values]
    first = dict(zip(reversed(keys), reversed(values), strict=True))
    known = {key: _shape(dict(zip(columns, row, strict=True)), workloads) for key, row in first.items()}
    return [known[key] for key in keys]


def _shape(row: dict[Any, Any], workloads: Mapping[str, Description]) -> tuple[str, tuple[float, ...], str]:
    """A shape's label, its sort key, and flopmetrics' name of it."""
    batch, tokens = row["batch_size"], row["sequence_length"]
    workload = workloads.get(row["workload"])
    if np.isfinite(tokens) and (workload is None or len(workload.dimensions) == 2):
        return f"{batch:.0f} × {tokens:.0f}", (tokens, batch), CONFIGS.get((batch, tokens), "")
    letters = {"n_layers": "n", "width": "d", "tokens": "m"}
    if workload is not None:
        letters = {f.name: f.letter or f.name for f in workload.dimensions}
    sizes = tuple(row[name] for name in letters)
    label = " ".join(f"{letter}={size:.0f}" for letter, size in zip(letters.values(), sizes, strict=True))
    # Shapes of the MLP with the same product of dimensions differ in work by their width, which counts twice.
    twice = row["width"] if "width" in letters else 1.0
    return label, (float(np.prod([*sizes, twice])), *sizes), ""


def _findings(frame: Frame) -> list[tuple[str, ...]]:
    """For each row the serious findings recorded with it, and those of the audit of the whole table."""
    codes: list[list[str]] = [[] for _ in range(len(frame))]
    if "findings" in frame:
        codes = [list(found) if isinstance(found, (list, tuple)) else [] for found in frame["findings"]]
    # a run leaves many of its hundred columns empty, and the audit reads all that it is given
    for finding in audit(frame.dropna(axis=1, how="all")):
        for place in finding.rows:
            codes[place].append(finding.code)
    return [tuple(dict.fromkeys(code for code in found if code.startswith(_SEVERITIES))) for found in codes]


def iter_rows(frame: Frame) -> Iterator[Row]:
    """Rows as dictionaries."""
    yield from (dict(row) for row in rows_of(frame))
