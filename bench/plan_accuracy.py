"""How long small sweeps are planned to take, and how long they take. Needs an idle machine of some cores; 4 minutes.

    python bench/plan_accuracy.py --storage FOLDER

Each sweep is planned by `flopray sweep ... --dry-run` and then carried out, both as commands of their own. The time is
that of the whole command, with the start of Ray. Prints a line for each, and planned over taken.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

SWEEPS = {
    "12 points, whole default step": "mlp --n 2 4 --d 128 256 512 --m 16 64 --max-seconds 1",
    "wide, three phases, 2 s": "mlp --n 2 8 --d 1024 2048 --m 64 --phases forward backward train_step --max-seconds 2 "
    "--target-error 0.05",
    "compiled": "mlp --n 2 --d 256 512 --m 64 --execution compile --phases forward train_step --max-seconds 1",
    "a language model": "causal_lm --model smollm2-135m --tokens 64 --batch 1 --precision fp32 "
    "--phases prefill forward --max-seconds 3",
    "operators": "mlp --n 2 --d 512 1024 --m 128 --instruments time operators --phases train_step --max-seconds 1",
    "32 short points": "mlp --n 1 2 3 4 --d 64:512:64 --m 16 --phases forward --max-seconds 0.3",
}
_PLANNED = re.compile(r"│ CPU +│.*│ +(?:(\d+) h +)?(?:(\d+) min +)?(?:(\d+) s +)?│[^│]*│$", re.MULTILINE)


def planned_s(words: list[str]) -> float:
    """Seconds of the plan."""
    command = [sys.executable, "-m", "flopray", "sweep", *words, "--dry-run"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = _PLANNED.search(said)
    if found is None:
        raise SystemExit(f"no planned time in:\n{said}")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds


def taken_s(words: list[str], storage: Path) -> float:
    """Seconds of the sweep."""
    begin_s = time.perf_counter()
    command = [sys.executable, "-m", "flopray", "sweep", *words, "--storage", str(storage), "--no-plots", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin_s


def main() -> None:
    """Plan and measure each sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, default=Path("results"), metavar="DIR", help="folder for the runs")
    storage = parser.parse_args().storage
    print("| sweep | planned | taken | planned / taken |\n|---|---|---|---|")
    for name, line in SWEEPS.items():
        plan_s, took_s = planned_s(line.split()), taken_s(line.split(), storage)
        print(f"| {name} | {plan_s:.0f} s | {took_s:.1f} s | {plan_s / took_s:.2f} |", flush=True)


if __name__ == "__main__":
    main()
