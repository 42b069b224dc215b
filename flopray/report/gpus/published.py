"""flopmetrics' published Llama results in the form of our rows, for comparison.

Three things are changed, and nothing else: names (`h100` becomes `H100`, `llama3.2_1b` the built-in name), columns that
follow from published ones (tokens per second, energy per token, MFU), and a third row for each pair of phases: the sum
of both, which is a whole training step. Where their forward window closed too early, the rest of the forward pass fell
into the next window, so only the sum does not depend on where the cut was made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flopray.audit.hardware import peak_flops_per_s
from flopray.errors import InputError
from flopray.point import PRECISIONS
from flopray.report.gpus.data import PUBLISHED, REST, Frame, tidy
from flopray.report.published import load_published

#: Their names of models that are built in here.
_MODELS = {"llama3.2_1b": "llama-3.2-1b", "llama3.2_3b": "llama-3.2-3b"}
STEP_REMARK = "sum of the two published phases, forward and backward_and_optimizer"


def load(path: Path) -> Frame:
    """Published rows as `flopray.report.gpus.data.tidy` gives rows, audited, with the sums of both phases.

    Args:
        path: flopmetrics' folder, or one of its files.

    Raises:
        InputError: no results of flopmetrics there, or an unknown precision.
    """
    frame = load_published(path)
    if unknown := {str(name) for name in frame["precision"]} - set(PRECISIONS):
        raise InputError(f"{path}: unknown precision {min(unknown)!r:.80}: choose from {', '.join(PRECISIONS)}")
    frame["model"] = frame["model"].replace(_MODELS)
    frame["device_type"] = frame["device_type"].astype(str).str.upper()
    frame["tokens_per_iteration"] = frame["batch_size"] * frame["sequence_length"]
    frame = pd.concat([frame, _steps(frame)], ignore_index=True)
    peaks = [peak_flops_per_s(name, kind) for name, kind in zip(frame["device_name"], frame["precision"], strict=True)]
    frame["mfu"] = frame["flops_per_s"] / pd.Series(peaks, index=frame.index, dtype=float)
    known = pd.Series([peak is not None for peak in peaks], index=frame.index)
    frame["mfu_reason"] = ("no " + frame["precision"] + " peak of this GPU").where(~known, "")
    frame["run"] = "flopmetrics"
    return tidy(frame, PUBLISHED)


def _steps(frame: Frame) -> Frame:
    """A row for each line that has both phases: their sum, with errors added in quadrature."""
    by_phase = {phase: part.set_index(["source", "config"]) for phase, part in frame.groupby("phase")}
    first, second = by_phase["forward"], by_phase[REST]
    second = second.reindex(first.index)
    step = first.copy()
    step["phase"], step["status_reason"] = "train_step", STEP_REMARK
    for name in ("time_s", "energy_j", "model_flops"):
        step[name] = first[name] + second[name]
    for name, error in (("time_s", "time_rel_error"), ("energy_j", "energy_rel_error")):
        spread = np.hypot(first[name] * first[error], second[name] * second[error])
        step[error] = spread / step[name]
    step["power_w"] = step["energy_j"] / step["time_s"]
    step["flops_per_s"], step["flops_per_j"] = (step["model_flops"] / step[name] for name in ("time_s", "energy_j"))
    missing: Any = step["time_s"].isna()
    step.loc[missing, "status"] = "failed"
    step.loc[missing, "status_reason"] = "no backward published for this configuration"
    return step.reset_index()
