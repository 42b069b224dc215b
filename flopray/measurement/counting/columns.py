"""The record's columns of what hardware counters say of a phase."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flopray.flops.executed.counts import KernelCount, NotCounted, PhaseCounts
from flopray.flops.executed.overheads import overheads
from flopray.records import KERNEL_CLASSES, Row, Status


def counter_columns(
    row: Mapping[str, Any], counts: PhaseCounts | NotCounted, ncu_version: str | None, elements: int | None = None
) -> Row:
    """Columns of `flopray.records.PhaseRecord` from a phase's counts.

    Args:
        row: the row so far: point, phase and closed form.
        counts: of one iteration, or why there are none.
        ncu_version: Nsight Compute that counted.
        elements: that `splitk_per_element` refers to; None where there is no such number.
    """
    if isinstance(counts, NotCounted):
        return {"counters_status": counts.status, "counters_reason": counts.reason, "ncu_version": ncu_version}
    by_class = {
        f"executed_{kind}_flops": sum(kernel.flops for kernel in counts.kernels if kernel.kind == kind)
        for kind in KERNEL_CLASSES
    }
    total = sum(by_class.values())
    return {
        "counters_status": str(Status.OK),
        "ncu_version": ncu_version,
        "executed_flops": total,
        **by_class,
        "executed_other_rel": by_class["executed_other_flops"] / total if total else 0.0,
        "executed_tensor_flops": sum(kernel.tensor_flops for kernel in counts.kernels),
        "executed_cuda_flops": sum(kernel.cuda_flops for kernel in counts.kernels),
        "executed_rel_difference": total / row["model_flops"] - 1 if row.get("model_flops") else None,
        **overheads({**row, **by_class}, elements),
        "kernel_launches": counts.launches,
        "kernel_launches_counted": counts.counted,
        "kernels": tuple(_as_text(kernel) for kernel in counts.kernels),
    }


def _as_text(kernel: KernelCount) -> str:
    return json.dumps(
        {
            "name": kernel.name,
            "class": kernel.kind,
            "launches": kernel.launches,
            "tensor_flops": kernel.tensor_flops,
            "cuda_flops": kernel.cuda_flops,
        }
    )
