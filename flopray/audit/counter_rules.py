"""Rules about hardware FLOP counters that one row can break by itself."""

from __future__ import annotations

from collections.abc import Callable

from flopray.audit.findings import Finding, Row, Severity, Unjudged, Verdict, keys_of, number

#: Share of executed FLOPs whose kernels have no class that deserves a note.
UNCLASSIFIED_NOTE = 0.01
_NO_COUNTERS = "no executed_gemm_flops and gemm_flops"


def executed_below_closed_form(row: Row) -> Verdict:
    """Fewer FLOPs executed in products than their closed form has: some cores were not counted.

    No library multiplies matrices of this kind by a method that needs fewer operations.
    """
    executed, closed = number(row, "executed_gemm_flops"), number(row, "gemm_flops")
    if executed is None or not closed:
        return Unjudged("executed_below_closed_form", _NO_COUNTERS)
    if executed >= closed:
        return None
    sentence = (
        f"the products executed {executed / closed:.1%} of the FLOPs of their closed form: some cores were not counted"
    )
    compared = {"executed_gemm_flops": executed, "gemm_flops": closed}
    excess = 2 - executed / closed
    return Finding(
        "executed_below_closed_form",
        Severity.IMPOSSIBLE,
        sentence,
        numbers=compared,
        rows=(0,),
        keys=keys_of(row),
        excess=excess,
    )


def unclassified_kernels(row: Row) -> Verdict:
    """Executed FLOPs in kernels whose names tell no class."""
    share = number(row, "executed_other_rel")
    if share is None:
        return Unjudged("unclassified_kernels", "no executed_other_rel")
    if share <= UNCLASSIFIED_NOTE:
        return None
    sentence = f"{share:.1%} of the executed FLOPs are in kernels whose names tell no class; `kernels` lists them"
    return Finding(
        "unclassified_kernels",
        Severity.NOTE,
        sentence,
        numbers={"executed_other_rel": share},
        rows=(0,),
        keys=keys_of(row),
        excess=share / UNCLASSIFIED_NOTE,
    )


COUNTER_RULES: tuple[Callable[[Row], Verdict], ...] = (executed_below_closed_form, unclassified_kernels)
