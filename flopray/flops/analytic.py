"""Closed-form FLOPs of any workload's phase: the sum of the components that the workload's model states."""

from __future__ import annotations

from typing import Any

from flopray.models import mlp
from flopray.records import TrialSpec

_MODELS = {"mlp": mlp}


def model_flops(spec: TrialSpec, phase: str) -> dict[str, Any]:
    """The record columns of the closed form: `model_flops`, its components and its convention.

    Args:
        spec: the point.
        phase: one of `flopray.records.PHASES`.

    Returns:
        Counts for one iteration, as exact integers.
    """
    model = _MODELS[spec.workload]
    components = model.closed_form(spec, phase)
    return {"model_flops": sum(components.values()), **components, "model_flops_convention": model.CONVENTION}
