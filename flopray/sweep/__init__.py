"""From a search space to finished points: Ray Tune, its trials, and what happens when they fail.

`definition.Sweep` says what is measured, `driver.run_sweep` measures it, `trial.PointTrial` is what Tune runs.
`trainable` is for a Tuner of your own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flopray.sweep.own_tuner import trainable as trainable

__all__ = ["trainable"]


def __getattr__(name: str) -> Any:
    """Import Ray only when `trainable` is used."""
    if name != "trainable":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("flopray.sweep.own_tuner").trainable
