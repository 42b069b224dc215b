"""What is measured: models, their phases, their closed forms, and how a phase is executed.

`Workload` is what a model is to flopray: subclass it to sweep one of your own. `MLP`, `Llama` and `CausalLM` are three
of them; `registry` finds them by name, `phases` turns a point into one callable for each phase, `execution` runs them
eagerly, as a CUDA graph or compiled.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flopray.description import Column, Field
    from flopray.workloads.base import Built, Workload
    from flopray.workloads.causal_lm.workload import CausalLM
    from flopray.workloads.llama import Llama
    from flopray.workloads.mlp import MLP

__all__ = ["MLP", "Built", "CausalLM", "Column", "Field", "Llama", "Workload"]

_HOMES = {
    "MLP": "flopray.workloads.mlp",
    "Llama": "flopray.workloads.llama",
    "CausalLM": "flopray.workloads.causal_lm.workload",
    "Workload": "flopray.workloads.base",
    "Built": "flopray.workloads.base",
    "Field": "flopray.description",
    "Column": "flopray.description",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
