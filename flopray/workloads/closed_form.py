"""Closed-form FLOPs of any workload's phase: the sum of the components that the workload's model states."""

from __future__ import annotations

from typing import Any

from flopray.point import Point
from flopray.workloads.registry import MODELS


def model_flops(spec: Point, phase: str) -> dict[str, Any]:
    """The record columns of the closed form: `model_flops`, its components and its convention.

    Args:
        spec: the point.
        phase: one of `flopray.records.PHASES`.

    Returns:
        Counts for one iteration, as exact integers.
    """
    model = MODELS[spec.workload]
    components = model.closed_form(spec, phase)
    total = {"model_flops": sum(components.values()), "model_flops_convention": model.CONVENTION}
    return total | components | model.beside(spec, phase)
