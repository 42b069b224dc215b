"""How far the executed FLOPs of the feature-first MLP lie above the closed form, as three numbers.

The definitions are those of flopmetrics (https://github.com/jmetrikat/flopmetrics):

    omega = executed GEMM FLOPs / closed-form GEMM FLOPs - 1             (`gemm_overhead`)
    rho   = FLOPs of split-K and other reductions per element            (`splitk_per_element`)
    kappa = executed elementwise FLOPs / closed-form activation FLOPs - 1  (`activation_overhead`)

An element of rho is one number that a layer writes: n d m of them forward, (2n - 1) d m backward, where every layer
but the first also returns the gradient of its input. With them the closed form gives the executed total back:

    executed = GEMM (1 + omega) + rho elements + activation (1 + kappa) + the classes the closed form does not have
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Classes that enter the reconstruction as they were counted.
_AS_COUNTED = ("attention", "normalisation", "optimizer", "other")


def elements(n: int, d: int, m: int, phase: str) -> int | None:
    """Elements that rho refers to.

    Args:
        n: layers.
        d: width.
        m: tokens.
        phase: one of `flopray.records.PHASES`.

    Returns:
        Their number; None for the optimizer alone, which has no products to split.
    """
    forward, backward = n * d * m, (2 * n - 1) * d * m
    return {
        "inference": forward,
        "forward": forward,
        "backward": backward,
        "forward_backward": forward + backward,
        "train_step": forward + backward,
    }.get(phase)


def overheads(row: Mapping[str, Any], count: int | None) -> dict[str, float | None]:
    """`gemm_overhead`, `splitk_per_element` and `activation_overhead` of a row.

    Args:
        row: closed-form components and executed FLOPs by class, as in `flopray.records.PhaseRecord`.
        count: elements that rho refers to; None where there is no such number.

    Returns:
        The three columns; None where the workload or the phase has no such part.
    """
    if row.get("gemm_flops") is None or row.get("activation_flops") is None:
        return {"gemm_overhead": None, "splitk_per_element": None, "activation_overhead": None}
    return {
        "gemm_overhead": _excess(row["executed_gemm_flops"], row["gemm_flops"]),
        "splitk_per_element": None if count is None else row["executed_reduction_flops"] / count,
        "activation_overhead": _excess(row["executed_elementwise_flops"], row["activation_flops"]),
    }


def reconstruct(row: Mapping[str, Any]) -> int:
    """The executed total from closed form and overheads; equal to `executed_flops` for every row of the MLP.

    Args:
        row: a row with its overheads.

    Returns:
        FLOPs of one iteration, a whole number: rounding loses less than half a FLOP for counts below 2^51.
    """
    count = elements(int(row["n_layers"]), int(row["width"]), int(row["tokens"]), row["phase"])
    parts = (
        _part(row["gemm_flops"], row["gemm_overhead"], row["executed_gemm_flops"]),
        _part(row["activation_flops"], row["activation_overhead"], row["executed_elementwise_flops"]),
        row["executed_reduction_flops"] if count is None else round(row["splitk_per_element"] * count),
        *(row[f"executed_{name}_flops"] for name in _AS_COUNTED),
    )
    return sum(int(part) for part in parts)


def _excess(executed: int, closed: int) -> float | None:
    return executed / closed - 1 if closed else None


def _part(closed: int, overhead: float | None, executed: int) -> int:
    """A component with its overhead; as counted where the closed form lacks it."""
    return round(closed * (1 + overhead)) if overhead is not None else executed
