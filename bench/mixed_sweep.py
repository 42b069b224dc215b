"""Cost of counting and of measuring: a sweep of time and energy, of counters, and of all three. Needs a GPU and ncu.

1. 16 MLPs (8 shapes in fp32 and bf16), 4 phases: time and energy; only counters; all three in one sweep. The last one
   should take at most 0.8 times the sum of the other two, since it starts Ray once and not twice.
2. The grid of 1,280 MLPs, forward and backward, bf16, only counters (`--grid`), and for a sample of its points every
   launch counted, which must give the same numbers.

For each sweep: its duration from the command's start to its end, its ncu processes with their seconds, as a program
that replaces ncu notes them, and what each process spent its time on, from the run's log.

    python bench/mixed_sweep.py --out mixed.json             # both, about seven minutes on an H100
    python bench/mixed_sweep.py --out mixed.json --no-grid
    python bench/mixed_sweep.py --out grid.json --grid       # only the grid
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flopray import load_run
from flopray.flops.executed import ncu
from flopray.measurement.counting.chunk import Chunks
from flopray.workloads.registry import make_point

ROOT = Path(__file__).parents[1]
MIXED = ["--n", "2", "8", "--d", "512", "1536", "--m", "64", "256", "--precision", "fp32", "bf16"]
MIXED += ["--phases", "forward", "backward", "optimizer_step", "train_step"]
SWEEPS = {"measured": ["time", "energy"], "counted": ["counters"], "mixed": ["time", "energy", "counters"]}
GRID = ["--phases", "forward", "backward", "--precision", "bf16", "--instruments", "counters"]
#: Replaces ncu and notes when each counting process began and ended.
NOTING = """#!/bin/sh
case "$1" in --version|--list-chips) exec "{ncu}" "$@";; esac
begin=$(date +%s.%N)
"{ncu}" "$@"
code=$?
echo "$begin $(date +%s.%N)" >> "{notes}"
exit $code
"""


def sweep(name: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run a sweep as a user does; returns its seconds, and the part that ncu took."""
    notes, program = folder / f"{name}.notes", folder / f"{name}-ncu"
    notes.touch()
    program.write_text(NOTING.format(ncu=ncu.find_ncu(), notes=notes))
    program.chmod(0o755)
    command = [sys.executable, str(ROOT / "sweeps" / "mlp_grid.py"), *arguments, "--no-plots"]
    print(f"{name}: {' '.join(arguments)}", flush=True)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    begin = time.perf_counter()
    subprocess.run(
        [*command, "--storage", str(folder), "--name", name],
        check=True,
        env={**os.environ, "FLOPRAY_NCU": str(program), "PYTHONPATH": os.pathsep.join(paths)},
    )
    seconds = time.perf_counter() - begin
    spans = [tuple(map(float, line.split())) for line in notes.read_text().splitlines()]
    frame: Any = load_run(folder / name)
    counters = frame.get("counters_status")
    found = {
        "name": name,
        "seconds": seconds,
        "points": int(frame["trial_id"].nunique()),
        "rows": len(frame),
        "rows_ok": int((frame["status"] == "ok").sum()),
        "rows_counted": int((counters == "ok").sum()) if counters is not None else 0,
        "device": str(frame["device_name"].iloc[0]),
        "ncu_processes": len(spans),
        "ncu_seconds": sum(end - start for start, end in spans),
        "ncu_span_s": max((end for _, end in spans), default=0.0) - min((start for start, _ in spans), default=0.0),
        "ncu_said": [line.split("ncu counted")[1].strip() for line in log_of(folder / name) if "ncu counted" in line],
        "shares": shares(frame),
    }
    print(
        f"{name}: {seconds:.1f} s for {found['points']} points, {found['rows_ok']} of {found['rows']} rows ok, "
        f"{found['rows_counted']} counted; {len(spans)} ncu processes, {found['ncu_seconds']:.1f} s of ncu, "
        f"from the first one's start to the last one's end {found['ncu_span_s']:.1f} s",
        flush=True,
    )
    for line in found["ncu_said"]:
        print(f"    ncu counted {line}", flush=True)
    return found


def log_of(run: Path) -> list[str]:
    """Lines of the run's logs."""
    return [line for path in sorted(run.glob("*.log")) for line in path.read_text(errors="replace").splitlines()]


def shares(frame: Any) -> dict[str, float]:
    """Seconds from the first row's start to the last one's end, and the seconds of these in windows."""
    span = float(frame["ended_unix_s"].max() - frame["started_unix_s"].min())
    windows = float(frame["window_s"].sum()) if "window_s" in frame else 0.0
    return {"span_s": span, "windows_s": windows}


def compare_launches(folder: Path, size: int) -> dict[str, Any]:
    """Count every launch of a sample of the grid's points, and compare with the sweep's counts."""
    import torch

    frame: Any = load_run(folder / "grid")
    rows = frame[frame["phase"] == "forward"].to_dict("records")
    fields = ("workload", "device_type", "precision", "execution", "n_layers", "width", "tokens")
    sample = [make_point(**{name: row[name] for name in fields}) for row in random.Random(0).sample(rows, size)]
    capability = "{}.{}".format(*torch.cuda.get_device_capability())
    ours = {(row["trial_id"], row["phase"]): row["executed_flops"] for row in frame.to_dict("records")}
    chunks = Chunks(("forward", "backward"), compute_capability=capability, every_launch=True)
    same = {}
    for point, outcome in chunks.count(sample):
        for phase, counts in outcome.items():
            every = sum(kernel.flops for kernel in getattr(counts, "kernels", ()))
            same[f"{point.label()} {phase}"] = (every, int(ours[point.id, phase]))
    differ = {name: pair for name, pair in same.items() if pair[0] != pair[1]}
    print(
        f"every launch counted: {len(same) - len(differ)} of {len(same)} rows are the same {differ or ''}", flush=True
    )
    return {"rows": len(same), "differ": differ}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file for the JSON")
    parser.add_argument("--grid", action="store_true", help="only the grid")
    parser.add_argument("--no-grid", action="store_true", help="only the 16 MLPs")
    parser.add_argument("--sample", type=int, default=6, help="points of the grid whose every launch is counted")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mixed-") as name:
        folder = Path(name)

        def keep() -> None:
            args.out.write_text(json.dumps(found, indent=1) + "\n")

        if not args.grid:
            for kind, instruments in SWEEPS.items():
                found[kind] = sweep(kind, [*MIXED, "--instruments", *instruments], folder)
                keep()
            apart = found["measured"]["seconds"] + found["counted"]["seconds"]
            found["ratio"] = found["mixed"]["seconds"] / apart
            print(f"mixed / (measured + counted) = {found['ratio']:.2f} (wanted: at most 0.80)", flush=True)
            keep()
        if not args.no_grid:
            found["grid"] = sweep("grid", GRID, folder)
            print(f"grid: {found['grid']['seconds']:.0f} s (wanted: at most 200 s)", flush=True)
            keep()
            found["every_launch"] = compare_launches(folder, args.sample)
            keep()
    return 0


if __name__ == "__main__":
    sys.exit(main())
