"""flopray: what a training step really costs, in FLOPs, joules and seconds, over a Ray cluster.

    import flopray

    m = flopray.measure(step)                 # any callable; print(m) shows time, energy and FLOPs with their intervals
    w = flopray.watch()                       # around a loop: with w.step(): ...; print(w.summary())
    counts = flopray.count("step.py:make_step", width=1024)  # FLOPs three ways, by module, with their differences
    records = flopray.profile(flopray.workloads.MLP(n_layers=8, width=1024, tokens=128), precision="bf16")
    run = flopray.Sweep("mlp", axes={"n_layers": [2, 4], "tokens": [64]}).run("results/RUN")
    frame = flopray.load_run("results/RUN")   # a run, a row for each phase of each point

Importing this package is cheap: torch, Ray and pandas are imported by the modules that need them, on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flopray import sweep as sweep
    from flopray import workloads as workloads
    from flopray.cli.python import Sweep as Sweep
    from flopray.cli.python import resume as resume
    from flopray.measurement.api import measure as measure
    from flopray.measurement.count import count as count
    from flopray.measurement.profile import profile as profile
    from flopray.measurement.result import Measurement as Measurement
    from flopray.store.location import load_run as load_run
    from flopray.watching.api import watch as watch
    from flopray.workloads.base import Workload as Workload

__version__ = "0.1.0"
#: The module of each name of the face. No room may have one of these names: importing it would replace the function.
_FACE = {
    "Measurement": "flopray.measurement.result",
    "Sweep": "flopray.cli.python",
    "Workload": "flopray.workloads.base",
    "count": "flopray.measurement.count",
    "load_run": "flopray.store.location",
    "measure": "flopray.measurement.api",
    "profile": "flopray.measurement.profile",
    "resume": "flopray.cli.python",
    "watch": "flopray.watching.api",
}
#: Rooms that are imported on first use; `sweep` has `trainable`, for a Tuner of your own.
_ROOMS = ("sweep", "workloads")
__all__ = [
    "Measurement",
    "Sweep",
    "Workload",
    "__version__",
    "count",
    "load_run",
    "measure",
    "profile",
    "resume",
    "watch",
    "workloads",
]


def __getattr__(name: str) -> Any:
    """Import a name of the face on first use."""
    if name in _ROOMS:
        return import_module(f"flopray.{name}")
    if name not in _FACE:
        raise AttributeError(f"module 'flopray' has no attribute {name!r}")
    value = getattr(import_module(_FACE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The face, also what was not imported yet."""
    return sorted({*globals(), *__all__})
