"""What this machine, or every node of a cluster, can measure: `flopray doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flopray.cli.endings import carry_out
from flopray.cli.parser import SettingsParser
from flopray.cli.terminal import LineConsole
from flopray.settings import setting

if TYPE_CHECKING:
    from flopray.cluster.doctor.cluster import Node

_WHAT = """\
Look at what this machine, or every node of a Ray cluster, can measure: FLOPs,
time, energy and hardware counters. What is missing is named with its reason and
remedy. Nothing is changed and nothing runs on a GPU; it takes ten seconds."""
_EXAMPLES = """\
examples:
  python -m flopray doctor                     this machine; starts no Ray
  python -m flopray doctor --address auto      every node of the cluster here
  python -m flopray doctor --address ray://HEAD:10001     and from outside
  python -m flopray doctor --json > here.json  for programs
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where to look."""

    address: str | None = setting(None, doc="a running Ray cluster: auto, host:port or ray://host:port")
    json: bool = setting(False, doc="print one JSON object with everything that was found")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; returns 0 whatever was found."""
    parser = SettingsParser(Options, prog="flopray doctor", description=_WHAT, epilog=_EXAMPLES)
    return carry_out(parser, argv, _report)


def _report(options: Options) -> None:
    from flopray.cluster.doctor.report import as_json, print_report

    progress = LineConsole(stderr=True)
    with progress.status("looking at what is there, about ten seconds"):  # shown in a terminal only
        nodes = _look(options.address)
    if options.json:
        print(as_json(nodes))
    else:
        print_report(LineConsole(markup=False), nodes)


def _look(address: str | None) -> list[Node]:
    """This machine, or all nodes of the cluster at an address."""
    from flopray.cluster.doctor.cluster import look_everywhere, look_here

    if address is None:
        return [look_here()]
    from flopray.cluster.connection import connected

    with connected(address):
        return look_everywhere()
