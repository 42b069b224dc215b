"""Time of the default run on this machine's CPU, and the time that `--dry-run` predicts: `python bench/cpu_default.py`.

Each round plans the default sweep of `sweeps/mlp_grid.py` and then runs it, figures included. A line of the table has
the load before and after (`os.getloadavg`, one minute; on an idle machine near 0 before), the predicted and the real
time of the command, when the first point was finished, when measuring ended, and how many rows reached the target.
Flags after `--` are passed to the sweep: `-- --target-error 0.01 --max-seconds 3`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "sweeps" / "mlp_grid.py"
_UNITS = {"s": 1, "min": 60, "h": 3600}
HEADER = "| load before, after | predicted | took | first point | measured until | rows at target | drift |"


def predicted_s(flags: list[str]) -> float:
    """Seconds that `--dry-run` predicts."""
    plan = subprocess.run([sys.executable, SCRIPT, "--dry-run", *flags], check=True, capture_output=True, text=True)
    found = re.search(r"│ ([\d.]+) (s|min|h) +│", plan.stdout)
    if found is None:
        raise SystemExit(f"the plan says no time:\n{plan.stdout}")
    return float(found[1]) * _UNITS[found[2]]


def run(flags: list[str], storage: str) -> dict[str, Any]:
    """Run the sweep; returns the times of its events, in seconds since its start, and the summary."""
    begin = time.monotonic()
    seen: dict[str, Any] = {}
    command = [sys.executable, str(SCRIPT), "--json", "--storage", storage, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout or ():
            event, now = json.loads(line), time.monotonic() - begin
            if event["event"] == "point":
                seen.setdefault("first_s", now)
                seen["last_s"] = now
            elif event["event"] == "summary":
                seen["summary"] = event
    return seen | {"took_s": time.monotonic() - begin}


def main() -> None:
    """Plan and run a few times, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("flags", nargs="*", help="of the sweep, after --")
    args = parser.parse_args()
    print(HEADER, "|---|---|---|---|---|---|---|", sep="\n", flush=True)
    for _ in range(args.rounds):
        before = os.getloadavg()[0]
        planned = predicted_s(args.flags)
        with tempfile.TemporaryDirectory() as storage:
            seen = run(args.flags, storage)
        summary = seen["summary"]
        drifted = sum(count for code, count in summary["findings"].items() if code.endswith("sentinel_drift"))
        print(
            f"| {before:.1f}, {os.getloadavg()[0]:.1f} | {planned:.0f} s | {seen['took_s']:.0f} s "
            f"| {seen['first_s']:.0f} s | {seen['last_s']:.0f} s "
            f"| {summary['rows_at_target_in_time']} of {summary['rows']} | {drifted} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
