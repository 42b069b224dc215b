"""Cost of orchestration per point, compared with plain Tune and a bare pool of actors, in one run on this machine.

    python bench/orchestration.py --out results/orchestration          # about ten minutes on two cores
    python bench/orchestration.py --out results/orchestration --plot   # draw again from the JSON

Writes `orchestration.json` and `orchestration.png` and prints a table. `orchestration_cases.py` describes
the points of flopray's cases. The baselines have few points, since each takes seconds; larger numbers of points are
extrapolated from the cost per point, and are labelled so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from orchestration_plot import draw, print_table

HERE = Path(__file__).resolve().parent
BASELINES = (("actor_pool", 5000), ("tune_class", 500), ("tune_function", 20))


def run(script: str, *words: str) -> dict[str, Any]:
    """Run one case in a separate process; returns what it printed last."""
    command = [sys.executable, str(HERE / script), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{words[0]} {found['points']} points: {json.dumps(found)}", file=sys.stderr)
    return found


def measure(points: list[int]) -> list[dict[str, Any]]:
    """Run all cases, one after the other."""
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        found = [run("orchestration_baselines.py", name, str(n), "--folder", folder) for name, n in BASELINES]
        for count in points:
            words = str(count), "--folder", folder
            found += [run("orchestration_cases.py", case, *words) for case in ("flopray", "resume")]
        found.append(run("orchestration_cases.py", "slow_starts", "1000", "--folder", folder))
    return found


def main() -> None:
    """Measure, or read earlier results, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and the plot")
    parser.add_argument("--points", type=int, nargs="+", default=[1000, 10_000, 100_000], help="sizes of sweeps")
    parser.add_argument("--plot", action="store_true", help="only draw")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "orchestration.json"
    if not args.plot:
        path.write_text(json.dumps(measure(args.points), indent=1) + "\n")
    found = json.loads(path.read_text())
    print_table(found)
    draw(found, args.out / "orchestration.png")


if __name__ == "__main__":
    main()
