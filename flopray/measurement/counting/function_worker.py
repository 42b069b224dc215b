"""The process that ncu runs around a step: makes it, calls it twice outside of a range, and once inside.

    python -m flopray.measurement.counting.function_worker STEP.json PROGRESS.jsonl

Progress is a JSON line with `phase` when the call is over, and `status` and `reason` where it failed.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import nvtx
import torch

from flopray.errors import InputError
from flopray.flops.executed.report import DOMAIN
from flopray.mappings import Json
from flopray.measurement.columns import failure_of
from flopray.measurement.counting.worker import end_with
from flopray.workloads.target import StepFactory, find_target

#: Calls that prepare later ones: an optimizer's state, workspaces, compiled code.
_WARM_UP = 2


def _call(told: Json) -> None:
    target = find_target(f"{told['path']}:{told['attribute']}")
    if not isinstance(target, StepFactory):
        raise InputError(f"{told['attribute']} is not a function that makes a step")
    step = target.make(told["shape"], told["device"])
    for _ in range(_WARM_UP):
        step()
    _synchronize()
    # Start/end and not push/pop: autograd launches from a thread of its own, whose kernels the latter would miss.
    handle = nvtx.start_range(message="point0-step", domain=DOMAIN)
    step()
    _synchronize()
    nvtx.end_range(handle)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main(arguments: list[str]) -> int:
    """Entry point."""
    told = json.loads(Path(arguments[0]).read_text())
    threading.Thread(target=end_with, args=(told["parent"],), daemon=True).start()
    with Path(arguments[1]).open("w") as progress:
        event: Json = {"phase": "step"}
        try:
            _call(told)
        except Exception as error:
            failure = failure_of(error)
            event |= {"status": failure.status, "reason": failure.reason}
        progress.write(json.dumps(event) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
