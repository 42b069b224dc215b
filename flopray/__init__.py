"""flopray: what a training step really costs, in FLOPs, joules and seconds, over a Ray cluster.

    import flopray

    m = flopray.measure(step)                 # any callable; print(m) shows time, energy and FLOPs with their intervals
    frame = flopray.load_run("results/RUN")   # a run, a row for each phase of each point

Importing this package is cheap: torch, Ray and pandas are imported by the modules that need them, on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flopray.measurement.api import measure as measure
    from flopray.measurement.result import Measurement as Measurement
    from flopray.store.location import load_run as load_run

__version__ = "0.1.0"
#: Where each name of the face lives. No room may have one of these names: importing it would replace the function.
_FACE = {
    "Measurement": "flopray.measurement.result",
    "load_run": "flopray.store.location",
    "measure": "flopray.measurement.api",
}
__all__ = ["Measurement", "__version__", "load_run", "measure"]


def __getattr__(name: str) -> Any:
    """Import a name of the face on first use."""
    if name not in _FACE:
        raise AttributeError(f"module 'flopray' has no attribute {name!r}")
    value = getattr(import_module(_FACE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The face, also what was not imported yet."""
    return sorted({*globals(), *__all__})
