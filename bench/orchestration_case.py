"""Runs one case of `orchestration.py` in this process, so that its peak of memory is its own."""

from __future__ import annotations

import argparse
import json
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Case = Callable[[int, Path], dict[str, Any]]


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_case(cases: Mapping[str, Case]) -> None:
    """Run the case that the command line names and print what it found as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=cases)
    parser.add_argument("points", type=int)
    parser.add_argument("--folder", type=Path, required=True, help="for the files of the case")
    args = parser.parse_args()
    loads = [os.getloadavg()[0]]
    found = cases[args.case](args.points, args.folder)
    loads.append(os.getloadavg()[0])
    print(json.dumps(found | {"case": args.case, "load_average": loads}))
