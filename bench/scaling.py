"""Do several GPUs of one machine measure as fast as separate machines, and does each row have its own GPU's energy?

Runs the same sweep on the first GPU alone and on all of them. Throughput is points over the time from the beginning of
the first phase to the end of the last, so that the start of Ray and of its actors, which is the same for both, is left
out. Prints the ratio, the number of points of each GPU, and the energy of each point on all GPUs over that on one: 1 if
a row has the energy of its own GPU, about 2 if it has that of both.

    python bench/scaling.py --out results               # 60 MLPs
    python bench/scaling.py --script llama_gpu.py --flags "--precision bf16 --phases inference train_step"
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from flopray import load_run
from flopray.energy.nvml import list_gpus
from flopray.errors import FloprayError

ROOT = Path(__file__).parents[1]
MLP = (
    "--n 4 8 16 --d 512 1024 1536 2048 --m 32 64 128 192 256 --phases forward backward --target-error 0.02 "
    "--max-seconds 1 --points-per-trial 1"
)


def measure(args: argparse.Namespace, name: str, visible: str | None) -> Any:
    """All rows of a sweep on the GPUs that are visible; None shows all."""
    environment = dict(os.environ)
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    command = [sys.executable, str(ROOT / "sweeps" / args.script), *shlex.split(args.flags), "--no-plots"]
    subprocess.run([*command, "--storage", str(args.out), "--name", name], check=True, env=environment)
    return load_run(args.out / name)


def throughput(frame: Any) -> float:
    """Points per second between the first and the last of them."""
    return len(set(frame["trial_id"])) / (frame["ended_unix_s"].max() - frame["started_unix_s"].min())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", default="mlp_grid.py", help="a script of sweeps/ (default mlp_grid.py)")
    parser.add_argument("--flags", default=MLP, help="its flags, in quotes")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for both runs")
    args = parser.parse_args()
    try:
        count = len(list_gpus())
    except FloprayError as error:
        parser.error(str(error))
    if count < 2:
        parser.error(f"this bench compares one GPU with several, and this machine has {count}")
    one, all_of_them = measure(args, "scaling_one", "0"), measure(args, "scaling_all", None)
    rates = throughput(one), throughput(all_of_them)
    print(f"\n1 GPU {rates[0]:.3f} points/s, {count} GPUs {rates[1]:.3f} points/s: ratio {rates[1] / rates[0]:.2f}")
    print(f"points by GPU: {all_of_them.groupby('device_uuid')['trial_id'].nunique().to_dict()}")
    both = one.merge(all_of_them, on=["trial_id", "phase"], suffixes=("_one", "_all"))
    ratio = (both["energy_j_all"] / both["energy_j_one"]).dropna()
    low, middle, high = ratio.quantile([0.05, 0.5, 0.95])
    print(
        f"energy on {count} GPUs over energy on one: median {middle:.3f}, 90 % of {len(ratio)} in {low:.3f}..{high:.3f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
