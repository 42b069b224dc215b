"""The lines of a figure of counts: shapes that differ in one number alone."""

from __future__ import annotations

from collections.abc import Sequence

from flopray.flops.comparison import Counts

KINDS = ("closed", "dispatched", "executed")


def lines_of(table: Sequence[Counts], axis: str) -> dict[tuple[str, ...], list[Counts]]:
    """Shapes that differ in the axis alone, rising, by the rest of the shape."""
    lines: dict[tuple[str, ...], list[Counts]] = {}
    for one in table:
        rest = tuple(f"{name}={value}" for name, value in one.shape.items() if name != axis)
        lines.setdefault(rest, []).append(one)
    return {rest: sorted(line, key=lambda one: one.shape[axis]) for rest, line in lines.items()}
