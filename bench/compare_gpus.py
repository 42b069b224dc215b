"""How long `compare_gpus.py` takes for a large grid, as a ratio to reading the run: `python bench/compare_gpus.py`.

The run is simulated: 16,384 MLPs, forward and backward, on two types of GPU, with costs from a formula and seeded
noise. Times are CPU times, which other work on the machine changes less than wall-clock times. The ratio shows whether
the time of the comparison grows with its figures and tables (which show a few shapes) or with the points.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flopray.audit.hardware import peak_flops_per_s
from flopray.cli import compare_gpus
from flopray.point import Point
from flopray.records import PhaseRecord
from flopray.store.location import load_run
from flopray.store.run import RunFolder
from flopray.workloads.base import closed_columns
from flopray.workloads.registry import make_point

_DEVICES = {"H100": "NVIDIA H100 80GB HBM3", "A100": "NVIDIA A100-SXM4-80GB"}
_PHASES = ("forward", "backward")


def records(points: int, seed: int = 0) -> Iterator[list[PhaseRecord]]:
    """Rows of this many simulated points, one point at a time."""
    rng = np.random.default_rng(seed)
    side = max(1, round((points / 2 / 8) ** 0.5))
    shapes = itertools.product(_DEVICES, range(1, 9), range(64, 64 + 32 * side, 32), range(16, 16 + 16 * side, 16))
    for device, n, d, m in itertools.islice(shapes, points):
        spec = make_point(workload="mlp", device_type=device, precision="bf16", n_layers=n, width=d, tokens=m)
        yield [_record(spec, device, phase, rng) for phase in _PHASES]


def _record(spec: Point, device: str, phase: str, rng: np.random.Generator) -> PhaseRecord:
    flops = closed_columns(spec, phase)["model_flops"]
    time_s = (1e-5 + flops / 2e14) * rng.uniform(0.95, 1.05)
    energy_j = time_s * 300
    peak = peak_flops_per_s(_DEVICES[device], spec.precision) or math.inf
    return PhaseRecord.of(
        **spec.fields(),
        run="made-up",
        trial_id=spec.id,
        phase=phase,
        device_name=_DEVICES[device],
        model_flops=int(flops),
        time_s=time_s,
        time_rel_error=0.005,
        energy_j=energy_j,
        energy_rel_error=0.015,
        energy_status="ok",
        power_w=300.0,
        flops_per_s=flops / time_s,
        flops_per_j=flops / energy_j,
        mfu=flops / time_s / peak,
        status="ok",
    )


def main() -> int:
    """Make the run, read it, compare it; print CPU seconds and their ratio."""
    parser = argparse.ArgumentParser(description="Time of compare_gpus.py relative to that of reading its run.")
    parser.add_argument("--points", type=int, default=16_384)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder), "made-up", {})
        with run.writer() as journal:
            journal.append(list(records(options.points)))
        run.compact()
        begin = time.process_time()
        rows = len(load_run(run.path))
        read_s = time.process_time() - begin
        begin = time.process_time()
        code = compare_gpus.main([str(run.path), "--out", folder])
        compare_s = time.process_time() - begin
    print(f"{rows} rows: {read_s:.2f} CPU s to read, {compare_s:.1f} CPU s to compare, ratio {compare_s / read_s:.1f}")
    return code


if __name__ == "__main__":
    sys.exit(main())
