"""Three counts of FLOPs as text: side by side with their differences, and by module and operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from flopray.flops.comparison import Counts, ModuleCount
from flopray.units import prefixed

_OUTSIDE = "(outside of modules)"
#: Columns of the table of modules.
_DIRECTIONS = ("forward", "backward", "recomputed")


def comparison_table(counts: Counts) -> Table:
    """The three counts, and below them what makes them differ."""
    table = Table(title=counts.label, title_justify="left", title_style="bold")
    for name, how in (("count", "left"), ("FLOPs", "right"), ("to dispatched", "right"), ("what it is", "left")):
        table.add_column(name, justify="right" if how == "right" else "left", overflow="fold")
    words = {
        "closed": counts.closed.convention or "what the mathematics needs",
        "dispatched": "what torch was asked for: products, convolutions, attention as full squares",
        "executed": f"what {counts.executed.device_name or 'the chip'} did, by its counters",
    }
    base = counts.dispatched.flops
    for name, flops, reason in counts.counted():
        ratio = f"{flops / base - 1:+.2%}" if flops is not None and base and name != "dispatched" else ""
        table.add_row(name, "none" if flops is None else f"{flops:,}", ratio, reason if flops is None else words[name])
    for place, one in enumerate(counts.differences):
        if place == 0:
            table.add_section()
        ratio = f"{one.flops / base:+.2%}" if base else ""
        table.add_row(f"  {one.between}", f"{one.flops:+,}", ratio, one.words)
    return table


def notes(counts: Counts) -> list[str]:
    """Notes on the dispatched count, in sentences."""
    count, lines = counts.dispatched, []
    if count.causal_flops:
        lines.append(
            f"{_flops(count.causal_flops)} dispatched are attention with a causal mask, counted as full squares: the "
            "mathematics needs about half of them."
        )
    if count.recomputed_flops:
        lines.append(f"{_flops(count.recomputed_flops)} dispatched are forward passes that checkpointing repeats.")
    if count.scores_again_flops:
        lines.append(
            f"{_flops(count.scores_again_flops)} dispatched are attention's scores, which its fused backward pass "
            "computes again."
        )
    if count.elementwise_calls:
        lines.append(f"{count.elementwise_calls} dispatched operations work on elements and are not counted.")
    return lines


@dataclass
class _Node:
    """A module with its operators and the modules within."""

    flops: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    unknown: bool = False
    operators: dict[str, _Node] = field(default_factory=dict)
    children: dict[str, _Node] = field(default_factory=dict)

    def add(self, direction: str, calls: int, flops: int | None) -> None:
        """Add what an operator did."""
        self.calls += calls
        self.unknown |= flops is None
        self.flops[direction] = self.flops.get(direction, 0) + (flops or 0)

    @property
    def total(self) -> int:
        """FLOPs in all directions."""
        return sum(self.flops.values())


def module_table(count: ModuleCount, levels: int | None = None) -> Table:
    """FLOPs by module and operator, as a tree.

    Args:
        count: at the dispatcher.
        levels: of modules that are shown; those below are added to the last one. None shows all.
    """
    root = _tree(count, levels)
    directions = [name for name in _DIRECTIONS if name in root.flops]
    table = Table(title="dispatched FLOPs by module and operator", title_justify="left", title_style="bold")
    table.add_column("module, operator", no_wrap=True)
    for name in ("calls", *directions, "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for depth, name, node in _walk(root, 0):
        share = "-" if root.unknown or not root.total else f"{node.total / root.total:.1%}"
        table.add_row("  " * depth + name, f"{node.calls:,}", *_cells(node, directions), share)
    table.add_section()
    table.add_row("all", f"{root.calls:,}", *_cells(root, directions), "-" if root.unknown else "100%")
    return table


def _cells(node: _Node, directions: Sequence[str]) -> list[str]:
    """FLOPs by direction; where an operator has no formula, what the others have is no more than a lower bound."""
    return [
        ("no formula" if node.unknown and not node.flops.get(name) else "> " * node.unknown + _flops(node.flops[name]))
        if name in node.flops
        else "0"
        for name in directions
    ]


def _tree(count: ModuleCount, levels: int | None) -> _Node:
    root = _Node()
    for one in count.operators:
        path = one.module[:levels] or (_OUTSIDE,)
        node = root
        node.add(one.direction, one.calls, one.flops)
        for name in path:
            node = node.children.setdefault(name, _Node())
            node.add(one.direction, one.calls, one.flops)
        node.operators.setdefault(one.operator, _Node()).add(one.direction, one.calls, one.flops)
    return root


def _walk(node: _Node, depth: int) -> Iterator[tuple[int, str, _Node]]:
    for name, operator in node.operators.items():
        yield depth, name, operator
    for name, child in node.children.items():
        yield depth, name, child
        yield from _walk(child, depth + 1)


def _flops(value: int) -> str:
    return "0" if value == 0 else prefixed(value, "FLOP")
