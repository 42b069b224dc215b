"""The measurements that flopmetrics published, in flopray's columns, with notes on how to read them.

flopmetrics (https://github.com/jmetrikat/flopmetrics) trains Llama-3.2-1B and publishes JSON lines, one for each GPU,
precision and configuration. What the names do not say:

* `*_gpu_time_mean` is in microseconds, `*_energy_mean` in joules for one batch, `*_energy_sum` joules of all batches,
  and `*_flops_sum` the FLOPs of one batch.
* FLOPs are those of `torch.profiler(with_flops=True)`: linear layers and elementwise products and sums; attention is
  left out.
* `backward` contains the optimizer step and the tail of the forward pass, so it is called `backward_and_optimizer`.
* `fp32` is taken literally, as CUDA cores without TF32: its backward rows run at 0.3 to 0.7 of the CUDA cores' peak.
* A GPU is named by its family only, and is taken for the SXM board where there are several: `hardware.find_gpu`.

Energy and FLOPs are kept as published; `flopray.audit` judges whether they can be true.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from flopray.audit.findings import number, precision_of
from flopray.errors import InputError
from flopray.records import Row
from flopray.report.table_reader import parsed, read_table

CONVENTION = "torch.profiler(with_flops): linear layers and elementwise mul/add of one batch; attention left out"
#: Their phase, ours, and a remark on it.
_PHASES = (
    ("forward", "forward", None),
    ("backward", "backward_and_optimizer", "contains the optimizer step and the tail of the forward pass"),
)
_FILE = re.compile(
    r"(?P<device>[^_]+)_(?P<precision>fp32|tf32|bf16|fp16)_(?P<model>.+?)_(all_configs|energy|[a-z]+)_results?"
)
#: More than any count or cost, and small enough that its square is finite.
_LARGEST = 1e150
_SMALLEST = 1e-100
#: The largest count: beyond it, a whole number takes more than 64 bits.
_LARGEST_COUNT = 1e18
#: Ranges of the columns of the metrics: least, most, and whether they are whole numbers.
_METRICS = {
    **dict.fromkeys(("n_layers", "width", "tokens"), (1, 1e6, True)),
    "model_flops": (1, _LARGEST_COUNT, False),
    "executed_flops": (0, _LARGEST_COUNT, False),
    **dict.fromkeys(("gemm_overhead", "activation_overhead"), (-1, 1e9, False)),
    "splitk_per_element": (-1e9, 1e9, False),
}
_Z95 = 1.96  # half width of a 95 % interval over the standard error of the mean


def is_published(path: str | Path) -> bool:
    """Whether a path is a folder with flopmetrics' JSON lines, or one such file."""
    files = _files(Path(path))
    if not files:
        return False
    with files[0].open(encoding="utf-8", errors="replace") as stream:
        first = next((line for line in stream if line.strip()), "")
    return "_gpu_time_mean" in first and "_flops_sum" in first


def load_published(path: str | Path) -> pd.DataFrame:
    """Read flopmetrics' JSON lines: one row for each device, precision, configuration and phase.

    A folder's `*_all_configs_results.jsonl` are read where there are any, else all of its `.jsonl` files. A phase that
    a line lacks becomes a row with a status and a reason, without numbers.

    Args:
        path: the folder, or one file.

    Returns:
        A frame with the columns of `flopray.records` that can be known, and `source`, `model`, `config`, `batch_size`
        and `sequence_length`. Times in s, energy in J of one batch, errors as half widths of 95 % intervals.

    Raises:
        InputError: nothing to read, or a line that is not flopmetrics'.
    """
    files = _files(Path(path))
    if not files:
        raise InputError(f"{path}: no .jsonl file of flopmetrics here")
    rows: list[Row] = []
    for file in files:
        for place, line in enumerate(file.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
            if line.strip():
                rows += _rows(f"{file}, line {place}", file, line)
    if all(row["status"] != "ok" for row in rows):
        names = "forward_flops_sum, forward_gpu_time_mean and forward_energy_mean"
        raise InputError(f"{path}: no line has a phase with all its numbers ({names} above 0)")
    if not rows:
        raise InputError(f"{path}: no results in it")
    return pd.DataFrame(rows)


def load_metrics(path: str | Path) -> pd.DataFrame:
    """Read one of flopmetrics' `metrics/<date>-<time>_n.._d.._m...csv`: FLOPs of the MLP by hardware counters.

    Args:
        path: the CSV.

    Returns:
        One row for each point and phase: `n_layers, width, tokens, phase, precision, model_flops, executed_flops` and
        the overheads `gemm_overhead`, `splitk_per_element`, `activation_overhead`. The file does not name its GPU (an
        Ampere one).

    Raises:
        InputError: a file without these columns. A cell that is not a number stays as it is.
    """
    table = read_table(Path(path))
    phases = []
    for suffix, phase, gemm in (("fwd", "forward", "epsilon_gemm"), ("bwd", "backward", "epsilon_gemm_bwd")):
        names = {
            "n": "n_layers",
            "d": "width",
            "m": "tokens",
            f"theoretical_total_flops_{suffix}": "model_flops",
            f"ncu_total_flops_{suffix}": "executed_flops",
            _first(table, f"omega_{suffix}", gemm): "gemm_overhead",
            _first(table, f"rho_{suffix}", "rho"): "splitk_per_element",
            f"kappa_{suffix}": "activation_overhead",
        }
        absent = sorted(str(name) for name in names if name not in table.columns)
        if absent:
            raise InputError(f"{path}: not a metrics table of flopmetrics, it has no column {absent[0]!r}")
        part = table[list(names)].set_axis(list(names.values()), axis="columns").apply(_as_numbers)
        phases.append(part.assign(phase=phase, workload="mlp", precision="fp32"))
    return pd.concat(phases, ignore_index=True)


def _as_numbers(column: pd.Series) -> pd.Series:
    """A column of texts as numbers, if all are."""
    values = [number({"": cell}, "") for cell in column]
    return column if None in values else pd.Series(values, index=column.index, dtype=float)


def check_metrics(path: Path, frame: pd.DataFrame) -> None:
    """Check that each cell of `load_metrics` is a number that can be compared.

    Raises:
        InputError: one is not; it is named.
    """
    if frame.empty:
        raise InputError(f"{path}: has no rows")
    for column, (least, most, whole) in _METRICS.items():
        for place, (cell, phase) in enumerate(zip(frame[column], frame["phase"], strict=True)):
            value = number({"": cell}, "")
            if value is None or not least <= value <= most or (whole and value != int(value)):
                kind = "a whole number" if whole else "a number"
                row = place % (len(frame) // 2) + 1  # forward passes first, then as many backward passes
                raise InputError(
                    f"{path}: {column} of the {phase} pass in row {row} is {str(cell)!r:.40}: it must be {kind} from "
                    f"{least:g} to {most:g}; mend the row or leave it out"
                )


def _first(table: pd.DataFrame, *names: str) -> str:
    """The first of several names that a table has; an older file calls the overheads differently."""
    return next((name for name in names if name in table.columns), names[0])


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".jsonl" else []
    found = [sorted(filter(Path.is_file, path.glob(name))) for name in ("*_all_configs_results.jsonl", "*.jsonl")]
    return found[0] or found[1]


def _rows(where: str, file: Path, line: bytes) -> list[Row]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text (byte {error.start + 1})") from error
    fields = parsed(where, text)
    if not isinstance(fields, dict) or "forward_flops_sum" not in fields:
        raise InputError(f"{where}: not a result of flopmetrics, it has no forward_flops_sum")
    named = match.groupdict() if (match := _FILE.fullmatch(file.stem)) else {}
    device = _word(where, fields, "gpu_config") or named.get("device")
    shared = {
        "source": file.name,
        "workload": "llama",
        "model": named.get("model"),
        "config": _word(where, fields, "config_name"),
        "batch_size": _size(where, fields, "batch_size"),
        "sequence_length": _size(where, fields, "input_length"),
        "device_type": device,
        "device_name": device,
        "precision": precision_of({"precision": _word(where, fields, "precision") or named.get("precision")}),
        "execution": "eager",
    }
    return [{**shared, **_phase(where, fields, theirs, ours, remark)} for theirs, ours, remark in _PHASES]


def _word(where: str, fields: Mapping[str, object], name: str) -> str | None:
    """A text of a line; null where it has none."""
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value
    raise InputError(f"{where}: {name} is {value!r:.40}, not a text")


def _number(where: str, fields: Mapping[str, object], name: str) -> Any:
    """A number of a line that a cost can have: finite and not negative; null where it has none."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{where}: {name} is {value!r:.40}, not a number")
    if value != 0 and not _SMALLEST <= value <= _LARGEST:  # NaN is in no range either
        raise InputError(
            f"{where}: {name} is {value!s:.20}: it must be 0 or a finite number from {_SMALLEST:g} to {_LARGEST:g}"
        )
    return float(value) if value > _LARGEST_COUNT else value  # a column of larger whole numbers is none of numbers


def _size(where: str, fields: Mapping[str, object], name: str) -> int | None:
    """A size of a line: a whole number of at least 1; null where it has none."""
    value = _number(where, fields, name)
    if value is None:
        return None
    if value != int(value) or not 1 <= value <= _LARGEST_COUNT:
        raise InputError(f"{where}: {name} is {value!s:.20}: it must be a whole number from 1 to {_LARGEST_COUNT:g}")
    return int(value)


def _phase(where: str, fields: Row, theirs: str, ours: str, remark: str | None) -> Row:
    """The numbers of one phase in SI units, or the reason why there are none."""
    names = ("flops_sum", "gpu_time_mean", "energy_mean", "gpu_time_sem", "energy_sem")
    flops, micros, joules, micros_sem, joules_sem = (_number(where, fields, f"{theirs}_{name}") for name in names)
    if flops and flops > _LARGEST_COUNT:
        raise InputError(f"{where}: {theirs}_flops_sum is {flops!s:.20}: it must be below {_LARGEST_COUNT:g}")
    if not (flops and micros and joules):
        return {"phase": ours, "status": "failed", "status_reason": f"no {theirs} published for this configuration"}
    time_s = micros * 1e-6
    return {
        "phase": ours,
        "status": "ok",
        "status_reason": remark,
        "model_flops": flops,
        "model_flops_convention": CONVENTION,
        "time_s": time_s,
        "time_rel_error": None if micros_sem is None else _Z95 * micros_sem / micros,
        "time_clock": "torch.profiler",
        "energy_j": joules,
        "energy_rel_error": None if joules_sem is None else _Z95 * joules_sem / joules,
        "energy_source": "published",
        "energy_status": "ok",
        "power_w": joules / time_s,
        "flops_per_s": flops / time_s,
        "flops_per_j": flops / joules,
    }
