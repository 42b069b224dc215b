"""A short table for a README: published numbers of the forward pass on a GPU, and what this project measures."""

from __future__ import annotations

from typing import Any

import numpy as np

from flopray.audit.hardware import efficiency_limit_flops_per_j, peak_flops_per_s
from flopray.errors import SettingError
from flopray.records import Row
from flopray.report.gpus.data import CONFIGS, MEASURED, PUBLISHED, Frame, iter_rows

_TERA = 1e12


def truth_table(rows: Frame, gpu: str, precision: str) -> str:
    """Markdown with a line for each of flopmetrics' configurations.

    Args:
        rows: published and measured ones, as `flopray.report.gpus.data.tidy` gives them.
        gpu: as published rows name it, such as `H100`.
        precision: such as `bf16`.

    Raises:
        SettingError: nothing was published for this GPU and precision.
    """
    chosen = rows[(rows["phase"] == "forward") & (rows["status"] == "ok") & (rows["precision"] == precision)]
    theirs = chosen[(chosen["source"] == PUBLISHED) & (chosen["gpu"].str.upper() == gpu.upper())]
    if theirs.empty:
        there = sorted(set(rows.loc[rows["source"] == PUBLISHED, "gpu"]))
        raise SettingError(f"<truth> {gpu}:{precision}: nothing published; there is {', '.join(there) or 'no GPU'}")
    ours = chosen[chosen["source"] == MEASURED]
    known = theirs[theirs["config"].isin(CONFIGS.values())].sort_values("shape_rank")
    lines = [_line(row, _measured(ours, row)) for row in iter_rows(known)]
    first = theirs.iloc[0]
    model = f"{first['model']}, {precision}, {first['gpu']}, forward"
    head = f"| {model} | published FLOP/J | verdict of the audit | measured FLOP/J | published J | measured J |"
    return "\n".join([head, "|---|---:|---|---:|---:|---:|", *lines, "", _remark(first)])


def _measured(ours: Frame, published: Row) -> Row | None:
    """The measured row of the same GPU, model and shape: eager, with attention left to torch, where there is a choice.

    `gpu` may name the board where several of a type were measured; then the published name is that of the type.
    """
    same = (ours["device_type"].str.upper() == published["gpu"]) & (ours["model"] == published["model"])
    for name in ("batch_size", "sequence_length"):
        same &= ours[name] == published[name]
    found = ours[same & ~ours["checkpointing"]]
    if found.empty:
        return None
    usual = (found["execution"] != "eager").astype(int) * 2 + (found["attention"] != "auto").astype(int)
    return next(iter_rows(found.loc[[usual.idxmin()]]))


def _line(published: Row, measured: Row | None) -> str:
    name = f"{published['config']}: {published['shape']} tokens"
    cells = [name, f"{published['flops_per_j'] / _TERA:.2f} T", _verdict(published)]
    if measured is None:
        cells += ["not measured", f"{published['energy_j']:.1f}", "not measured"]
    else:
        error = f" ± {measured['energy_rel_error']:.1%}" if np.isfinite(measured["energy_rel_error"]) else ""
        cells += [f"{measured['flops_per_j'] / _TERA:.2f} T{error}", f"{published['energy_j']:.1f}"]
        at = f" at {measured['energy_at']:g} °C" if np.isfinite(measured["energy_at"]) else ""
        cells.append(f"{measured['energy_j']:.1f}{error}{at}")
    return f"| {' | '.join(cells)} |"


def _verdict(published: Row) -> str:
    """The published rate and efficiency against the datasheet, and the audit's finding."""
    device, precision = published["device_name"], published["precision"]
    peak, limit = peak_flops_per_s(device, precision), efficiency_limit_flops_per_j(device, precision)
    parts = [f"{published['flops_per_s'] / peak:.2g} x peak FLOP/s"] if peak else []
    parts += [f"{published['flops_per_j'] / limit.bound:.2g} x peak / power"] if limit else []
    if any(code.endswith(":launch_window") for code in published["findings"]):
        parts.append("energy does not rise with FLOPs")
    said = f"**{published['severity']}**: " if published["severity"] else ""
    return said + ", ".join(parts)


def _remark(first: Any) -> str:
    """A remark below the table, on how to read it."""
    limit = efficiency_limit_flops_per_j(first["device_name"], first["precision"])
    ceiling = f"{limit.basis} is {limit.bound / _TERA:.2f} TFLOP/J. " if limit else ""
    return (
        f"{ceiling[:1].upper()}{ceiling[1:]}Energy is that of one batch. Published FLOPs leave attention out "
        "(5 % at 1024 tokens); their forward window closed before the GPU had finished."
    )
