"""flopray's cases of `orchestration.py`, each run in a process of its own so that its peak memory is its own.

Their points cost nothing to measure: `ReplayTrial` is the real trainable with only the profiler replaced. The double
returns at once the rows of a point that was measured on an H100 (`docs/results/h100_mlp_fp32`), with the shape that was
asked for. So records are as wide, the journal as long and their checks as expensive as in a real sweep, while slabs,
Tune, actors, recorder, drain, journal, Parquet and summary are real.
"""

from __future__ import annotations

import io
import os
import random
import time
from pathlib import Path
from typing import Any

import ray
from orchestration_case import peak_bytes, run_case
from rich.console import Console

from flopray.cluster.connection import NAMESPACE, connected
from flopray.cluster.quiet import quiet_ray
from flopray.monitoring.progress import Progress
from flopray.records import Row
from flopray.settings import MeasureSettings
from flopray.store.run import RunFolder
from flopray.sweep.definition import Sweep
from flopray.sweep.driver import run_sweep
from flopray.sweep.summary import summarise, summary_columns
from flopray.sweep.trial import PointTrial
from flopray.testing.replay import Replay
from flopray.workloads.mlp import MLP

TEMPLATE = Path(__file__).resolve().parents[1] / "docs" / "results" / "h100_mlp_fp32"
#: Which of the template's two phases stands in for each phase of a default sweep.
STAND_INS = {"forward": "forward", "backward": "backward", "optimizer_step": "forward", "train_step": "backward"}


def replayed(run: str, phases: tuple[str, ...]) -> list[Row]:
    """Rows of one measured point, one for each phase."""
    rows = [record for record in RunFolder.open(TEMPLATE).records() if record.width == 1024]
    by_phase = {record.phase: record.columns() for record in rows[:2]}
    return [by_phase[STAND_INS[phase]] | {"phase": phase, "run": run} for phase in phases]


class ReplayTrial(PointTrial):
    """flopray's trainable whose points cost nothing."""

    def _open_profiler(self) -> Any:
        self._profiler: Any = Replay(replayed(self._sweep["run"], self._settings().phases))
        return self._profiler


class SlowTrial(PointTrial):
    """flopray's trainable with a device that takes `FLOPRAY_BENCH_STARTS` seconds to open, and with slow points."""

    def _open_profiler(self) -> Any:
        begin_s = time.time()
        low, high, point_s = (float(word) for word in os.environ["FLOPRAY_BENCH_STARTS"].split())
        time.sleep(random.Random(os.getpid()).uniform(low, high))
        rows = replayed(self._sweep["run"], self._settings().phases)
        own = {"node": str(os.getpid()), "warmup_s": time.time() - begin_s}
        self._profiler: Any = Replay([row | own for row in rows], point_s)
        return self._profiler


def mlp_sweep(points: int, cores: int = 1) -> Sweep:
    """A grid of about this many points: 10 layers x widths x tokens."""
    widths = max(1, round((points / 10) ** 0.5 / 10) * 10)
    axes: dict[str, tuple[Any, ...]] = {
        "device_type": ("CPU",),
        "precision": ("fp32",),
        "execution": ("eager",),
        "n_layers": tuple(range(1, 11)),
        "width": tuple(range(16, 16 * (widths + 1), 16)),
        "tokens": tuple(range(8, 8 * (points // (10 * widths) + 1), 8)),
    }
    return Sweep(workload=MLP(), axes=axes, settings=MeasureSettings(), cpus_per_trial={"CPU": cores})


class _FirstPoint(Progress):
    """Notes when the first point arrived."""

    first_s: float | None = None

    def update(self, points: Any, working_on: Any) -> None:
        if points and self.first_s is None:
            self.first_s = time.monotonic()
        super().update(points, working_on)


def flopray(points: int, folder: Path) -> dict[str, Any]:
    """A sweep of points that cost nothing, from its definition to its summary; then the reading of a resume."""
    begin_s = time.monotonic()
    sweep = mlp_sweep(points)
    run = RunFolder.create(folder, f"points-{points}", sweep.to_manifest(f"points-{points}", {}))
    defined_s = time.monotonic() - begin_s
    with connected(None):
        connected_s = time.monotonic()
        progress = _FirstPoint(Console(file=io.StringIO()), total=sweep.size)
        with progress:
            run_sweep(sweep, run, {"CPU": 2}, progress, finished={}, trainable=ReplayTrial)
        swept_s = time.monotonic() - connected_s
        swept_bytes = peak_bytes()
        begin_s = time.monotonic()
        finish(run)
        finished_s = time.monotonic() - begin_s
    assert progress.done == sweep.size
    assert progress.first_s is not None
    return {
        "points": sweep.size,
        "define_s": defined_s,
        "start_s": progress.first_s - connected_s,
        "sweep_s": swept_s,
        "finish_s": finished_s,
        "peak_sweep_bytes": swept_bytes,
        "peak_bytes": peak_bytes(),
        "journal_bytes": run.journal_path.stat().st_size,
        "parquet_bytes": run.records_path.stat().st_size,
        "folder": str(run.path),
    }


def finish(run: RunFolder) -> None:
    """The work of a session after the last point, without plots."""
    run.compact()
    run.write_kernels()
    run.write_summary(summarise(run.load(summary_columns(run)), None))


def resume(points: int, folder: Path) -> dict[str, Any]:
    """The work of a resume before Ray starts, for a run whose points are all finished."""
    begin_s = time.monotonic()
    run = RunFolder.open(folder / f"points-{points}")
    sweep = Sweep.from_manifest(run.manifest)
    left = sweep.size - len(run.finished())
    run.check_unlocked()
    with run.writer() as journal:
        todo = [point for point in sweep.points() if point.id not in journal.finished]
    assert left == 0
    assert not todo
    return {"points": sweep.size, "resume_s": time.monotonic() - begin_s, "peak_bytes": peak_bytes()}


def slow_starts(points: int, folder: Path) -> dict[str, Any]:
    """Device use with four slots whose actors take 3 to 10 s to open their device; points take 0.5 s."""
    sweep = mlp_sweep(points)
    run = RunFolder.create(folder, "slow", sweep.to_manifest("slow", {}))
    os.environ["FLOPRAY_BENCH_STARTS"] = "3 10 0.5"
    quiet_ray()
    ray.init("local", num_cpus=4, namespace=NAMESPACE, log_to_driver=False)
    begin_s = time.time()
    try:
        with Progress(Console(file=io.StringIO()), total=sweep.size) as progress:
            run_sweep(sweep, run, {"CPU": 4}, progress, finished={}, trainable=SlowTrial)
        end_s = time.time()
    finally:
        ray.shutdown()
    rows: Any = run.load().drop_duplicates("trial_id")
    busy_s = float((rows.ended_unix_s - rows.started_unix_s).sum())
    return {
        "points": len(rows),
        "slots": 4,
        "actors": int(rows.node.nunique()),
        "starts_s": sorted(round(float(s), 1) for s in rows.warmup_s.unique()),
        "wall_s": end_s - begin_s,
        "busy_share_from_start": busy_s / (4 * (end_s - begin_s)),
        "busy_share_of_points": busy_s / (4 * float(rows.ended_unix_s.max() - rows.started_unix_s.min())),
    }


if __name__ == "__main__":
    run_case({"flopray": flopray, "resume": resume, "slow_starts": slow_starts})
