"""The report for people: one line for all nodes that agree, and one more for each that differs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import flopray
from flopray.cluster.doctor.checks import ORDER, State, checks_of
from flopray.cluster.doctor.cluster import Node
from flopray.cluster.doctor.machine import Machine

_COLOURS: dict[State, str] = {"ok": "green", "missing": "bold red", "note": "bold yellow"}
#: Most nodes that are named; the rest is only counted.
_NAMED = 4


@dataclass
class _Group:
    """All nodes and GPUs with the same line."""

    state: State
    text: str
    gpus: list[int] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    numbers: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what it is about.
        state: whether it is there.
        where: the nodes or GPUs it applies to; empty for all of them.
        text: what it is, or what would give it.
    """

    what: str
    state: State
    where: str
    text: str


def rows_of(nodes: Sequence[Node]) -> list[Row]:
    """The lines of all nodes, equal ones as one; for each subject, what is missing comes last."""
    found: dict[str, dict[tuple[State, str], _Group]] = {}
    for node in nodes:
        for check in checks_of(node):
            groups = found.setdefault(check.what, {})
            group = groups.setdefault((check.state, check.text), _Group(check.state, check.text))
            group.gpus += [] if check.gpu is None else [check.gpu]
            group.nodes.append(node.name)
            for name, value in check.numbers:
                group.numbers.setdefault(name, []).append(value)
    rows = []
    for what in sorted(found, key=ORDER.index):
        groups = list(found[what].values())
        subjects = sum(len(group.nodes) for group in groups)
        for group in sorted(groups, key=lambda group: group.state == "missing"):
            every = len(group.nodes) == subjects and what != "node"
            where = _where(group, every=every, one_node=len(nodes) == 1)
            rows.append(Row(what, group.state, where, _with_numbers(group)))
    return rows


def differences(nodes: Sequence[Node]) -> list[str]:
    """Software whose versions differ between nodes, a sentence each: their numbers differ by that too."""
    machines = {node.name: node.machine for node in nodes if node.machine}
    versions = {
        "Python": {name: machine.python for name, machine in machines.items()},
        "Ray": {name: machine.ray for name, machine in machines.items()},
        "torch": {name: machine.torch.version for name, machine in machines.items()},
        "CUDA of torch": {name: machine.torch.cuda for name, machine in machines.items()},
        "the NVIDIA driver": {name: driver for name, m in machines.items() if (driver := _driver_of(m))},
        "ncu": {name: m.counters.ncu_version for name, m in machines.items() if m.counters},
    }
    return [f"{what}: {_by_version(of)}" for what, of in versions.items() if len(set(of.values())) > 1]


def _driver_of(machine: Machine) -> str | None:
    """Version of the NVIDIA driver, from a GPU that answers."""
    return next((gpu.driver_version for gpu in machine.gpus if gpu.driver_version), None)


def print_report(console: Console, nodes: Sequence[Node]) -> None:
    """Print what nodes can measure.

    Args:
        console: where to.
        nodes: one for this machine, or all of a cluster.
    """
    who = nodes[0].name if len(nodes) == 1 else f"{len(nodes)} nodes ({_listed([node.name for node in nodes])})"
    console.print(f"flopray {flopray.__version__} on {who}", highlight=False, soft_wrap=True)
    table = Table("", "", "", box=SIMPLE_HEAD, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    previous = ""
    for row in rows_of(nodes):
        where = f"{row.where}: " if row.where else ""
        if row.what == "GPU" and previous != "GPU":
            table.add_section()  # what can be measured above, what it takes below
        label = row.what if row.what != previous else ""
        table.add_row(label, Text(row.state, _COLOURS[row.state]), Text.assemble((where, "bold"), row.text))
        previous = row.what
    console.print(table)
    for line in differences(nodes):
        console.print(Text.assemble(("nodes differ in ", "bold yellow"), line), soft_wrap=True)


def as_json(nodes: Sequence[Node]) -> str:
    """Everything that was found, as one JSON object; a missing value is null and has a reason beside it."""
    found = [
        asdict(node) | {"checks": [asdict(row) | {"what": row.what.strip()} for row in rows_of([node])]}
        for node in nodes
    ]
    return json.dumps({"flopray": flopray.__version__, "nodes": found, "differences": differences(nodes)}, indent=2)


def _where(group: _Group, *, every: bool, one_node: bool) -> str:
    """What a group covers, in few words; `every`: there is no other group of the same subject."""
    nodes, count = list(dict.fromkeys(group.nodes)), len(group.gpus)
    if not count:
        return "" if every or one_node else _listed(nodes)
    if every:
        return f"all {count} GPUs" if count > 1 else ""
    indices = f"GPU {', '.join(map(str, group.gpus))}"
    if one_node:
        return indices
    return f"{indices} on {nodes[0]}" if len(nodes) == 1 else f"{count} GPUs on {_listed(nodes)}"


def _listed(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _with_numbers(group: _Group) -> str:
    """The text with its numbers filled in; a range where they differ."""
    text = group.text
    for name, values in group.numbers.items():
        low, high = f"{min(values):.1f}", f"{max(values):.1f}"
        text = text.replace(name, low if low == high else f"{low} to {high}")
    return text


def _by_version(of: Mapping[str, str | None]) -> str:
    """Versions with the nodes that have them."""
    nodes: dict[str | None, list[str]] = {}
    for name, version in of.items():
        nodes.setdefault(version, []).append(name)
    return "; ".join(f"{version or 'none'} on {_listed(names)}" for version, names in nodes.items())
