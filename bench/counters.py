"""How fast are hardware FLOP counters for a whole grid, and do they agree with slower methods? Needs a GPU and ncu.

1. The grid, as a user runs it: `sweeps/mlp_grid.py --instruments counters`, start of Ray included.
2. The three-process method of flopmetrics on a sample of points: one ncu process each for building the model, for
   building and forward, and for building, forward and backward; every kernel of the process is counted and the phases
   are differences. flopmetrics did this in fp32, whose FLOPs one run of ncu counts; the other precisions need three
   more processes for tensor cores, just as their grid needs a second run.
3. Every launch of the same sample counted, instead of one of equal operations. It must give the same numbers.

    python bench/counters.py --out results                     # 1,280 points in fp32
    python bench/counters.py --precision bf16 --out results
    python bench/counters.py --small --out /tmp/bench          # does it run? eight points
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flopray import load_run
from flopray.flops.executed import ncu, report
from flopray.flops.executed.metrics import CounterPass, passes_for
from flopray.flops.executed.overheads import reconstruct
from flopray.measurement.counting.chunk import Chunks
from flopray.measurement.counting.columns import counter_columns
from flopray.measurement.device import Device
from flopray.point import Point
from flopray.workloads.base import closed_columns
from flopray.workloads.mlp import MLP
from flopray.workloads.registry import make_point

PHASES = ("forward", "backward")
SMALL = ["--n", "2", "4", "--d", "256", "1024", "--m", "64", "128"]
#: What each of the three processes runs in addition to the one before.
STEPS = ("setup", "forward", "forward_backward")
ROOT = Path(__file__).parents[1]


def count_grid(args: argparse.Namespace) -> tuple[Any, float]:
    """The grid through a sweep; all rows and the seconds from the command's start to its end."""
    name = f"counters_{args.precision}"
    arguments = ["--phases", *PHASES, "--instruments", "counters", "--precision", args.precision, "--no-plots"]
    arguments += ["--storage", str(args.out), "--name", name, *(SMALL if args.small else [])]
    begin = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "sweeps" / "mlp_grid.py"), *arguments], check=True)
    seconds = time.perf_counter() - begin
    return load_run(args.out / name), seconds


def three_processes(point: Point, capability: str) -> tuple[dict[str, int], float]:
    """FLOPs of both phases by differences between whole processes, and the seconds that this took."""
    passes, begin = passes_for(point.precision, capability), time.perf_counter()
    setup, forward, both = (sum(flops_of_process(point, step, counters) for counters in passes) for step in STEPS)
    return {"forward": forward - setup, "backward": both - forward}, time.perf_counter() - begin


def flops_of_process(point: Point, step: str, counters: CounterPass) -> int:
    """FLOPs of all kernels of a process that does only one of the three steps."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        shape = (str(value) for value in point.shape().values())
        worker = [sys.executable, __file__, "--precision", point.precision, "--worker", step, *shape]
        command = [part for part in ncu.command(ncu.find_ncu(), counters, log, worker) if "nvtx" not in part]
        command.remove(f"regex:{report.DOMAIN}@.+")
        subprocess.run(command, check=True, capture_output=True)
        found = report.launches(log.read_text().splitlines(), everywhere=True)
        return sum(counters.flops(launch.values) for launch in found)


def run_step(step: str, precision: str, n: int, d: int, m: int) -> None:
    """Run the step of one of the three processes."""
    import torch

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    spec = make_point(workload="mlp", device_type="GPU", precision=precision, n_layers=n, width=d, tokens=m)
    built = MLP().build(spec, device="cuda:0", dtype=dtype, seed=0)
    module, gradient = built.module, built.gradient
    if step != "setup":
        y = module(built.x)
        if step == "forward_backward":
            torch.autograd.grad(y, list(module.parameters()), grad_outputs=gradient)
    torch.cuda.synchronize()


def every_launch(points: list[Point], capability: str) -> dict[tuple[str, str], int | None]:
    """Executed FLOPs with each kernel counted, by point and phase."""
    chunks = Chunks(PHASES, compute_capability=capability, every_launch=True)
    found = {}
    for point, outcome in chunks.count(points):
        for phase, counts in outcome.items():
            row = {"workload": "mlp", "phase": phase, **point.shape(), **closed_columns(point, phase)}
            found[point.id, phase] = counter_columns(row, counts, None).get("executed_flops")
    return found


def sample_of(frame: Any, size: int) -> list[Point]:
    """Points from all parts of the run, always the same ones."""
    rows = frame[frame["phase"] == PHASES[0]].to_dict("records")
    fields = ("workload", "device_type", "precision", "execution", "n_layers", "width", "tokens")
    chosen = random.Random(0).sample(rows, min(size, len(rows)))
    return [make_point(**{name: row[name] for name in fields}) for row in chosen]


def compare(args: argparse.Namespace, frame: Any, seconds: float) -> None:
    """Print the grid compared with the two other methods."""
    device = Device("GPU")
    about: dict[str, Any] = device.columns()
    points = len(set(frame["trial_id"]))
    counted = frame[frame["executed_flops"].notna()]
    exact = sum(reconstruct(row) == row["executed_flops"] for row in counted.to_dict("records"))
    print(f"\n{about['device_name']}, driver {about.get('driver_version')}, ncu {ncu.ncu_version(ncu.find_ncu())}")
    each = seconds / points
    print(f"{args.precision} grid: {points} points x {len(PHASES)} phases in {seconds:.1f} s, {each * 1e3:.0f} ms each")
    print(f"{len(counted)} of {len(frame)} rows counted; overheads reproduce the executed total exactly in {exact}")
    launches, read = int(counted["kernel_launches"].sum()), int(counted["kernel_launches_counted"].sum())
    print(f"{launches} kernel launches, from the counters of {read} (fewer if points shared them)")
    ours = {(row["trial_id"], row["phase"]): int(row["executed_flops"]) for row in counted.to_dict("records")}
    sample = sample_of(frame, args.sample)
    begin = time.perf_counter()
    whole = every_launch(sample, about["compute_capability"])
    took = time.perf_counter() - begin
    same = sum(value is not None and ours.get(key) == value for key, value in whole.items())
    print(f"every launch of {len(sample)} points counted in {took:.1f} s: {same} of {len(whole)} rows are the same")
    if args.no_three:
        return
    spent = 0.0
    for point in sample[: args.three]:
        totals, took = three_processes(point, about["compute_capability"])
        spent += took
        above = ", ".join(f"{p} {totals[p] / ours[point.id, p] - 1:+.2%}" for p in PHASES)
        print(f"three processes, {point.label()}: {took:.1f} s; relative to ours: {above}")
    theirs = spent / min(args.three, len(sample))
    hours = theirs * points / 3600
    print(f"three processes: {theirs:.1f} s per point, {hours:.1f} h for this grid; ratio {theirs / each:.0f}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    parser.add_argument("--sample", type=int, default=6, help="points whose every launch is counted")
    parser.add_argument("--three", type=int, default=2, help="of these, points for the three-process method")
    parser.add_argument("--no-three", action="store_true", help="leave out the three-process method")
    parser.add_argument("--small", action="store_true", help="eight points instead of 1,280")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for the run")
    parser.add_argument("--worker", nargs=4, metavar=("STEP", "N", "D", "M"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        step, n, d, m = args.worker
        run_step(step, args.precision, int(n), int(d), int(m))
        return 0
    import torch

    if not torch.cuda.is_available():
        parser.error("this bench counts on a CUDA GPU, and this machine has none")
    compare(args, *count_grid(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
