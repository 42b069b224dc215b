"""What one call of a function executes: ncu around a process that makes the step and calls it once inside a range.

Every kernel is counted, not one of each kind as for points: a function may launch kernels that are not torch's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flopray.errors import MeasurementError
from flopray.flops.executed import ncu, report
from flopray.flops.executed.counts import NotCounted, PhaseCounts, Run, by_label, phase_counts
from flopray.flops.executed.metrics import CounterPass, SharedRun, chip_of, shared_runs
from flopray.measurement.counting.process import environment_of, events_of, last_line_of

_WORKER = (sys.executable, "-m", "flopray.measurement.counting.function_worker")
#: Reading the counters of a kernel takes 10 ms, and a step may have tens of thousands.
_QUIET_FOR_S = 900.0
_LABEL = "point0-step"


def count_function(
    path: str,
    attribute: str,
    shape: Mapping[str, Any],
    *,
    device: str | None,
    precisions: Sequence[str],
    compute_capability: str,
) -> tuple[PhaseCounts | NotCounted, str]:
    """Count what one call of the step of a function executes.

    Args:
        path: of the file.
        attribute: the function in it.
        shape: its arguments, JSON-ready.
        device: as in `flopray.workloads.target.StepFactory.make`.
        precisions: of `flopray.point.PRECISIONS`: which tensor cores are counted, and whether halves are.
        compute_capability: of the GPU.

    Returns:
        The kernels, or why there are none; and ncu's version.

    Raises:
        MeasurementError: nothing can be counted here; the message says what would help.
    """
    program = ncu.find_ncu()
    version = ncu.ncu_version(program)
    if (chip := chip_of(compute_capability)) is not None:
        ncu.check_chip(program, chip)
    told = {"path": path, "attribute": attribute, "shape": dict(shape), "device": device, "parent": os.getpid()}
    runs = []
    for shared in _runs(precisions, compute_capability):
        run = _run(program, shared.counters, told)
        if "status" in run.outcomes[0, "step"]:
            return NotCounted(run.outcomes[0, "step"]["status"], run.outcomes[0, "step"]["reason"]), version
        runs.append(run)
    return phase_counts(runs, 0, "step"), version


def _runs(precisions: Sequence[str], compute_capability: str) -> list[SharedRun]:
    """One for CUDA cores, and one for each type of tensor core."""
    return shared_runs(dict.fromkeys(precisions or ("fp32",)), compute_capability)


def _run(program: Path, counters: CounterPass, told: Mapping[str, Any]) -> Run:
    with tempfile.TemporaryDirectory(prefix="flopray-") as name:
        folder = Path(name)
        spec, progress, log, output = (folder / n for n in ("step.json", "progress.jsonl", "ncu.csv", "output"))
        spec.write_text(json.dumps(told))
        command = ncu.command(program, counters, log, [*_WORKER, str(spec), str(progress)])
        with ncu.Process(command, output=output, environment=environment_of(folder)) as process:
            how = process.finish(
                quiet_for_s=_QUIET_FOR_S, progress=lambda: progress.exists() and progress.stat().st_size
            )
        text = log.read_text(errors="replace") if log.exists() else ""
        if problem := report.problem_of(text + output.read_text(errors="replace")):
            raise problem
        found = [event for event in events_of(progress) if "phase" in event]
        if not found or (how and "status" not in found[0]):
            last = last_line_of(output)
            ended = f"{how or 'it told nothing'}{f' ({last})' if last else ''}"
            raise MeasurementError(f"counting failed: its process ended early ({ended})")
        return Run(
            counters=counters,
            launches=by_label(report.launches(text.splitlines())),
            outcomes={(0, "step"): {"operations": {}, **found[0]}},
            operations={},
        )
