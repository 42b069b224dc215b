"""The commands of `python -m flopray`. Exit codes: 0 it did what was asked, 2 bad input, 130 interrupted."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from flopray import __version__
from flopray.cli import calibrate
from flopray.cli.exits import once_a_line
from flopray.cli.parser import OneLineParser
from flopray.cli.terminal import LineConsole
from flopray.errors import EXIT_INTERRUPTED, FloprayError, InputError
from flopray.store.journal_index import RunWarning

if TYPE_CHECKING:
    from flopray.cluster.doctor.cluster import Node
    from flopray.workloads.base import Workload

_DOCTOR = """\
Look at what this machine, or every node of a Ray cluster, can measure: FLOPs,
time, energy and hardware counters. What is missing is named with its reason and
with what would give it. Nothing is changed and nothing runs on a GPU; it takes
about ten seconds."""
_DOCTOR_EXAMPLES = """\
examples:
  python -m flopray doctor                     this machine; starts no Ray
  python -m flopray doctor --address auto      every node of the cluster here
  python -m flopray doctor --address ray://HEAD:10001     and from outside
  python -m flopray doctor --json > here.json  for programs
"""
_MERGE = """\
Unite runs of several clusters, or the shards of one sweep, in a new run. A
point that was measured more than once with other values is kept as often, apart
by device and time, and never averaged; equal measurements are one. How far
boards of one type are apart is printed. The sources are only read, and nothing
is overwritten."""
_MERGE_EXAMPLES = """\
examples:
  python -m flopray merge results/part-1 results/part-2 --into results/whole
  python -m flopray merge h100/mlp a100/mlp --into results/both
"""
_STATUS = """\
Say where a run stands, from its folder alone: how many points are finished, at
which rate, how long the rest takes, what failed and why, what the audit found,
whether somebody measures it now, and the command that goes on with it."""
_STATUS_EXAMPLES = """\
examples:
  python -m flopray status results/RUN            also while it runs
  python -m flopray status results/RUN --json     for programs
"""
_EXPLAIN = """\
Say what a finding of the audit means: what the rule compares, how much it
allows, and what to do. Without a RULE, list all of them."""
_EXPLAIN_EXAMPLES = """\
examples:
  python -m flopray explain                       every rule in a line
  python -m flopray explain launch_window         one in full
  python -m flopray explain note:additivity       as a summary writes it
"""
_EXAMPLES = """\
examples:
  flopray sweep mlp --n 2 4 --d 128:512:128 --m 64
  flopray sweep models.py:ConvNet         a workload of your own: docs/python.md
  flopray resume results/RUN              after Ctrl-C, a kill or a lost node
  flopray report results/RUN              one page: what does a step cost, how sure?
  flopray surfaces results/RUN            draw it
  flopray surfaces reference:h100-mlp     draw measurements that come with flopray
  flopray run -- python train.py          what does this program cost?
  flopray ask mlp --steps 1e6             what will it cost on an H100?
  python -m flopray doctor                what can be measured here?
  python -m flopray status results/RUN    how far is it? What failed?
  python -m flopray calibrate             this GPU's factor against its type
  python -m flopray merge A B --into C    unite runs
  python -m flopray explain               what do the audit's findings mean?
  python -m flopray doctor --help         the flags of a command

`python -m flopray` is the same as `flopray`, and so are the scripts in sweeps/
and analysis/ for their commands.
"""


_WORKLOADS = "mlp, causal_lm, llama, the name of an installed workload, or FILE.py:NAME"
#: Commands with a parser of their own: what they do, and their module. The scripts of `analysis/` are the same.
_TOOLS = {
    "run": ("run any program and say what it cost: flopray run -- python train.py", "flopray.cli.run_program"),
    "report": ("one page of runs that answers what a step costs, and how sure that is", "flopray.cli.report"),
    "surfaces": ("draw a run: surfaces, heat maps, the interactive page", "flopray.cli.surfaces"),
    "series": ("power and temperature over time in the windows of a point", "flopray.cli.series"),
    "audit": ("which numbers of a run or a table cannot be true", "flopray.cli.audit"),
    "compare-flops": ("closed form, dispatcher and executed FLOPs compared", "flopray.cli.compare_flops"),
    "count": ("the FLOPs of any function: closed form, dispatched by module, executed", "flopray.cli.count"),
    "ask": ("what will it cost? Time, energy, CO2e and money of a run on GPUs that are not here", "flopray.cli.ask"),
    "reference": ("runs on H100 and H200 that come with flopray, for who has no GPU", "flopray.cli.reference"),
    "fit": ("models of time and energy fitted to runs, and how wrong they are", "flopray.cli.fit"),
    "compare-gpus": ("GPUs compared by what a model costs on them", "flopray.cli.compare_gpus"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in _TOOLS:
        return import_module(_TOOLS[words[0]][1]).main(words[1:])
    if words and words[0] in ("sweep", "resume") and words[1:] not in (["-h"], ["--help"]):
        return _sweep(words[0], words[1:])
    args = _parser().parse_args(words)
    # Without markup: a path or a message with [brackets] is text.
    errors = LineConsole(stderr=True, markup=False, highlight=False)
    warnings.filterwarnings("ignore", module="ray")  # what Ray warns of in paragraphs, our errors say in a line
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster is left as cleanly as after Ctrl-C
    try:
        return args.run(args, errors)
    except FloprayError as error:
        errors.print(f"error: {error}", soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        errors.print("interrupted")
        return EXIT_INTERRUPTED


def _sweep(command: str, words: list[str]) -> int:
    """`sweep WORKLOAD ...` and `resume RUN ...`: the search space by name, or by the manifest of the run."""
    from flopray.cli.exits import main as sweep_main
    from flopray.cli.flags import told
    from flopray.workloads.registry import find_workload

    try:
        named, words = _named_workload(words)
        name = words[0] if words else ""
        if command == "sweep":
            if named is None and (not name or name.startswith("-")):
                raise InputError(f"flopray sweep: name the workload first: {_WORKLOADS}")
            return sweep_main(find_workload(named or name), words if named else words[1:])
        if not name or name.startswith("-"):
            raise InputError("flopray resume: name the run first, such as flopray resume results/RUN")
        return sweep_main(_workload_of(name, named), ["--resume", *words])
    except FloprayError as error:
        LineConsole(stderr=True, markup=False, highlight=False).print(f"error: {told(error)}", soft_wrap=True)
        return error.exit_code


def _named_workload(words: list[str]) -> tuple[str | None, list[str]]:
    """The value of `--workload`, and the other words."""
    for place, word in enumerate(words):
        if word.startswith("--workload="):
            return word.partition("=")[2], words[:place] + words[place + 1 :]
        if word == "--workload":
            if place + 1 == len(words):
                raise InputError(f"--workload needs a name: {_WORKLOADS}")
            return words[place + 1], words[:place] + words[place + 2 :]
    return None, words


def _workload_of(run: str, named: str | None) -> Workload:
    """The workload of a run, with its code.

    Raises:
        RunError: it is no run, or its manifest describes no sweep.
        InputError: its code is not here.
    """
    from flopray.cli.trust import workload_of_run
    from flopray.store.location import open_run

    folder = open_run(run)
    return workload_of_run(folder.manifest, folder.address, named)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="flopray",
        description="What a training step really costs: FLOPs, energy and time.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flopray {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, words: str, text: str, examples: str) -> argparse.ArgumentParser:
        form = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(name, help=words, description=text, epilog=examples, formatter_class=form)

    spaces = f"{_WORKLOADS}, then flags"
    commands.add_parser(
        "sweep",
        help=f"measure a search space: {spaces}",
        description=f"WORKLOAD is {spaces}. `flopray sweep WORKLOAD --help` lists its axes and all flags.",
    )
    text = "go on with a run of any kind: flopray resume RUN"
    commands.add_parser("resume", help=text, description=f"{text}, then flags such as --address")
    for name, (words, _) in _TOOLS.items():
        commands.add_parser(name, help=words)
    doctor = command("doctor", "what this machine, or every node of a cluster, can measure", _DOCTOR, _DOCTOR_EXAMPLES)
    doctor.add_argument("--address", help="a running Ray cluster: auto, host:port or ray://host:port")
    doctor.add_argument("--json", action="store_true", help="print one JSON object with everything that was found")
    doctor.set_defaults(run=_doctor)
    board = command(
        "calibrate", "how much more energy this GPU takes than its type", calibrate.WHAT, calibrate.EXAMPLES
    )
    calibrate.add_flags(board)
    board.set_defaults(run=calibrate.run)
    merge = command("merge", "unite runs of several clusters or shards in a new one", _MERGE, _MERGE_EXAMPLES)
    merge.add_argument("runs", nargs="+", metavar="RUN", help="folders or URIs, which are only read, or reference:NAME")
    merge.add_argument("--into", type=Path, required=True, metavar="RUN", help="folder of the new run")
    merge.set_defaults(run=_merge)
    status = command(
        "status", "where a run stands: progress, ETA, failures, how to resume it", _STATUS, _STATUS_EXAMPLES
    )
    status.add_argument("path", metavar="RUN", help="folder or URI of a run, running or not, or reference:NAME")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(run=_status)
    explain = command("explain", "what a finding of the audit means, and what to do", _EXPLAIN, _EXPLAIN_EXAMPLES)
    explain.add_argument("rules", nargs="*", metavar="RULE", help="such as launch_window (default: list all)")
    explain.set_defaults(run=_explain)
    return parser


def _merge(args: argparse.Namespace, messages: Console) -> int:
    """Unite runs and print what was united."""
    from flopray.sweep.merge import merge

    warnings.simplefilter("always", RunWarning)
    warnings.showwarning = once_a_line(messages)
    merged = merge(args.runs, args.into)
    console = LineConsole(markup=False, highlight=False)
    line = f"{merged.path}: {merged.points} points of {len(args.runs)} runs"
    if merged.identical:
        line += f"; {merged.identical} measurements were in several of them and are kept once"
    console.print(line, soft_wrap=True)
    more = merged.measurements - merged.points
    if more:
        text = (
            f"{more} further measurements of these points are kept beside the first ones: trial_id ends in -2, -3, ..."
        )
        console.print(text, soft_wrap=True)
    for line in merged.boards:
        console.print(line, soft_wrap=True)
    if merged.not_resumable:
        console.print(f"the new run cannot be resumed: {merged.not_resumable}", soft_wrap=True)
    return 0


def _doctor(args: argparse.Namespace, progress: Console) -> int:
    """Print the report; returns 0 whatever was found."""
    from flopray.cluster.doctor.report import as_json, print_report

    with progress.status("looking at what is there, about ten seconds"):  # shown in a terminal only
        nodes = _look(args.address)
    if args.json:
        print(as_json(nodes))
    else:
        print_report(LineConsole(markup=False), nodes)
    return 0


def _status(args: argparse.Namespace, _: Console) -> int:
    """Print the status; returns 0 whenever the folder could be read."""
    from flopray.monitoring.status import as_json, print_status, status_of_run

    status = status_of_run(args.path)
    if args.json:
        print(as_json(status))
    else:
        print_status(LineConsole(markup=False), status)
    return 0


def _explain(args: argparse.Namespace, _: Console) -> int:
    """Explain rules, or list them all."""
    from flopray.audit import RULES
    from flopray.audit.explanations import COMMAND, explain

    console = LineConsole(markup=False, highlight=False)
    if args.rules:
        console.print("\n\n".join([explain(rule) for rule in args.rules]), soft_wrap=True)
        return 0
    for name, line in RULES.items():
        console.print(f"{name}: {line}", soft_wrap=True)
    console.print(f"\nmore about one: {COMMAND}", soft_wrap=True)
    return 0


def _look(address: str | None) -> list[Node]:
    """This machine, or all nodes of the cluster at an address."""
    from flopray.cluster.doctor.cluster import look_everywhere, look_here

    if address is None:
        return [look_here()]
    from flopray.cluster.connection import connected

    with connected(address):
        return look_everywhere()
