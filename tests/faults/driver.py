"""`sweeps/mlp_grid.py` with a profiler that replays rows, for rounds that test everything around a measurement.

A point takes the time that the plan says and answers with the row of a point that an H100 measured
(`docs/results/h100_mlp_fp32`) under its own specification. Flags, session, Tune, actors, recorder, writer, journal and
messages are the real ones. The plan, JSON in `FLOPRAY_FAULT_PLAN`, can also make one point misbehave:

    {"point_s": 0.01, "act": "exit", "shape": {"n_layers": 1, "width": 16, "tokens": 8}}

and the act `fail` makes all of them fail. The act `poison` takes the real profiler, and breaks the CUDA context of its
process at one point.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import flopray.sweep.driver  # noqa: E402
from flopray.cli.main import run_script  # noqa: E402
from flopray.point import Point  # noqa: E402
from flopray.records import PhaseRecord  # noqa: E402
from flopray.store.run import RunFolder  # noqa: E402
from flopray.sweep.trial import PointTrial  # noqa: E402
from flopray.testing.replay import Replay  # noqa: E402
from flopray.workloads.mlp import MLP  # noqa: E402

PLAN_VARIABLE = "FLOPRAY_FAULT_PLAN"
TEMPLATE = ROOT / "docs" / "results" / "h100_mlp_fp32"
#: How a point can misbehave, each time it is tried. Further ways belong here, with a kind in `catalogue`.
ACTS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(1),
    "sleep": lambda: time.sleep(1e6),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "eat": lambda: [bytes(range(256)) * 2**20 for _ in iter(lambda: time.sleep(0.05), 0)],
}


class Misbehaving(Replay):
    """Measured rows, and what the plan says of a point."""

    def __init__(self, row: dict[str, Any], plan: dict[str, Any]) -> None:
        super().__init__([row | {"phase": "forward"}], plan["point_s"])
        self._plan = plan

    def act(self, spec: Point) -> dict[str, Any]:
        """As the plan says."""
        if self._plan.get("act") == "fail":
            return {"status": "failed", "status_reason": f"no number for {spec.label()}"}
        if spec.shape() == self._plan.get("shape"):
            ACTS[self._plan["act"]]()
        return {}


class ReplayTrial(PointTrial):
    """The real trainable with another profiler."""

    row: dict[str, Any]
    plan: dict[str, Any]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The act `die-between` ends each process when it is handed its second slab, as often as the plan says."""
        marks = Path(self.plan.get("marks", "."))
        if self.plan.get("act") == "die-between" and len(list(marks.iterdir())) < self.plan["times"]:
            (marks / str(os.getpid())).touch()
            os._exit(1)
        return super().reset_config(new_config)

    def _open_profiler(self) -> Any:
        self._profiler: Any = Misbehaving(self.row | {"run": self._sweep["run"]}, self.plan)
        return self._profiler


class PoisonedTrial(PointTrial):
    """The real trainable, which breaks its CUDA context at the point of the plan."""

    plan: dict[str, Any]

    def _open_profiler(self) -> Any:
        profiler: Any = super()._open_profiler()
        measure = profiler.measure_point

        def measure_point(spec: Point, **further: Any) -> list[PhaseRecord]:
            if spec.shape() == self.plan["shape"]:
                poison()
            return measure(spec, **further)

        profiler.measure_point = measure_point
        return profiler


def poison() -> None:
    """Read out of bounds on the GPU: after a device-side assert a CUDA context cannot compute any more."""
    import torch

    torch.zeros(1, device="cuda")[torch.tensor([5], device="cuda")]  # raised at the next synchronisation


def main() -> None:
    """Run the command line with the trainable of the plan."""
    PoisonedTrial.plan = ReplayTrial.plan = {"point_s": 0.01} | json.loads(os.environ.get(PLAN_VARIABLE, "{}"))
    ReplayTrial.row = next(
        record.columns() for record in RunFolder.open(TEMPLATE).records() if record.phase == "forward"
    )
    trainable = PoisonedTrial if ReplayTrial.plan.get("act") == "poison" else ReplayTrial
    flopray.sweep.driver.run_sweep = functools.partial(flopray.sweep.driver.run_sweep, trainable=trainable)
    run_script(MLP())


if __name__ == "__main__":
    main()
