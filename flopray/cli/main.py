"""The commands of `flopray`.

Exit codes: 0 it did what was asked, 2 bad input (nothing was started), 130 interrupted (a run can be resumed). Of a
sweep also: 1 it began and its disk, folder or cluster is gone, 3 it finished and some points failed, 4 it stopped
because every device only failed, 5 every point is safe and a table or figure could not be made.
"""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from flopray import __version__
from flopray.cli.endings import fault, interrupt_on_signals, once_a_line
from flopray.cli.parser import OneLineParser
from flopray.cli.streams import lasting_streams
from flopray.cli.terminal import LineConsole
from flopray.errors import ENDING_SIGNALS, EXIT_INTERRUPTED, EXIT_NOT_FINISHED, FloprayError, InputError

if TYPE_CHECKING:
    from flopray.cli.request import Request
    from flopray.workloads.base import Workload

_EXAMPLES = """\
examples:
  flopray sweep mlp --n 2 4 --d 128:512:128 --m 64
  flopray sweep models.py:ConvNet         a workload of your own: docs/python.md
  flopray resume results/RUN              after Ctrl-C, a kill or a lost node
  flopray report results/RUN              one page: what does a step cost?
  flopray surfaces results/RUN            draw it
  flopray surfaces reference:h100-mlp     draw what comes with flopray
  flopray run -- python train.py          what does this program cost?
  flopray ask mlp --steps 1e6             what will it cost on an H100?
  flopray evaluate MODEL --tasks rte      how good, and for what joules?
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
#: What each command does, and its module. The scripts of `analysis/` do the same.
_COMMANDS = {
    "evaluate": ("a language model's score on tasks, and joules and seconds of it", "flopray.cli.evaluate"),
    "doctor": ("what this machine, or every node of a cluster, can measure", "flopray.cli.doctor"),
    "calibrate": ("how much more energy this GPU takes than its type", "flopray.cli.calibrate"),
    "status": ("how far a run is: progress, ETA, failures, how to resume it", "flopray.cli.status"),
    "merge": ("unite runs of several clusters or shards in a new one", "flopray.cli.merge"),
    "report": ("one page of runs: what a step costs, and how sure that is", "flopray.cli.report"),
    "surfaces": ("draw a run: surfaces, heat maps, the interactive page", "flopray.cli.surfaces"),
    "scores": ("draw and tabulate evaluations: scores against energy", "flopray.cli.scores"),
    "series": ("power and temperature over time in the windows of a point", "flopray.cli.series"),
    "audit": ("which numbers of a run or a table cannot be true", "flopray.cli.audit"),
    "explain": ("what a finding of the audit means, and what to do", "flopray.cli.explain"),
    "compare-flops": ("closed form, dispatcher and executed FLOPs compared", "flopray.cli.compare_flops"),
    "fit": ("models of time and energy fitted to runs, and their errors", "flopray.cli.fit"),
    "ask": ("what will it cost? Time, energy, CO2e and money of a run on GPUs that are not here", "flopray.cli.ask"),
    "reference": ("runs on H100 and H200 that come with flopray, for users without a GPU", "flopray.cli.reference"),
    "compare-gpus": ("GPUs compared by what a model costs on them", "flopray.cli.compare_gpus"),
    "count": ("the FLOPs of any function: closed form, dispatched by module, executed", "flopray.cli.count"),
    "run": ("run any program and say what it cost: flopray run -- python train.py", "flopray.cli.run_program"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in _COMMANDS:
        return import_module(_COMMANDS[words[0]][1]).main(words[1:])
    if words and words[0] in ("sweep", "resume") and words[1:] not in (["-h"], ["--help"]):
        return _sweep(words[0], words[1:])
    if words and not words[0].startswith("-") and words[0] not in ("sweep", "resume"):
        LineConsole(stderr=True, markup=False, highlight=False).print(f"error: {_no_command(words[0])}", soft_wrap=True)
        return InputError.exit_code
    _parser().parse_args(words)  # answers --help and --version, and refuses other flags
    return 0


def _no_command(word: str) -> str:
    """What to write instead of a word that is no command: a workload's name stands behind `sweep`."""
    from flopray.workloads.registry import BUILT_IN

    commands = ("sweep", "resume", *_COMMANDS)
    if word in BUILT_IN or word.partition(":")[0].endswith(".py"):
        return f"{word!r:.60} is a workload and no command: did you mean flopray sweep {word:.60}?"
    near = get_close_matches(word.lower().replace("_", "-"), commands, n=1)
    meant = f"did you mean {near[0]}? The commands are " if near else "the commands are "
    return f"there is no command {word!r:.60}: {meant}{', '.join(commands)}"


def _sweep(command: str, words: list[str]) -> int:
    """`sweep WORKLOAD ...` and `resume RUN ...`: the search space by name, or by the manifest of the run."""
    from flopray.cli.flags import told
    from flopray.workloads.registry import find_workload

    try:
        named, words = _named_workload(words)
        name = words[0] if words else ""
        if command == "sweep":
            if named is None and (not name or name.startswith("-")):
                raise InputError(f"flopray sweep: name the workload first: {_WORKLOADS}")
            return sweep_command(find_workload(named or name), words if named else words[1:])
        if not name or name.startswith("-"):
            raise InputError("flopray resume: name the run first, such as flopray resume results/RUN")
        return sweep_command(_workload_of(name, named), ["--resume", *words])
    except FloprayError as error:
        LineConsole(stderr=True, markup=False, highlight=False).print(f"error: {told(error)}", soft_wrap=True)
        return error.exit_code


def sweep_command(
    workload: Workload,
    argv: Sequence[str] | None = None,
    read: Callable[[Workload, Sequence[str] | None], Request] | None = None,
) -> int:
    """Sweep a search space, or go on with a run; returns the exit code.

    Args:
        workload: what is measured.
        argv: the flags; by default those of this process.
        read: makes a request of them; by default that of a sweep.
    """
    with lasting_streams() as streams:
        return streams.code(_sweep_command(workload, argv, read), EXIT_NOT_FINISHED)


def _sweep_command(
    workload: Workload,
    argv: Sequence[str] | None,
    read: Callable[[Workload, Sequence[str] | None], Request] | None,
) -> int:
    from flopray.cli.flags import parse, told
    from flopray.store.journal_index import RunWarning

    # Without markup: a path or a message with [brackets] is text.
    console = LineConsole(stderr=True, markup=False)
    try:
        request = (read or parse)(workload, argv)
        warnings.filterwarnings("ignore", module="ray")  # our errors say in a line what Ray warns of in paragraphs
        warnings.simplefilter("always", RunWarning)
        warnings.showwarning = once_a_line(console)
        interrupt_on_signals()
        from flopray.cli.session import run

        return run(workload, request, console)
    except FloprayError as error:
        console.print(f"error: {told(error, workload)}", highlight=False, markup=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("interrupted", highlight=False)
        return EXIT_INTERRUPTED
    except Exception as error:
        said = f"error: {fault(error)}; a run that had begun has its finished points, and `flopray resume RUN` goes on"
        console.print(said, highlight=False, markup=False, soft_wrap=True)
        return FloprayError.exit_code


def run_script(workload: Workload) -> None:
    """Sweep as a script in `sweeps/` does, and end the process."""
    sys.exit(as_process(lambda: sweep_command(workload)))


def as_process(work: Callable[[], int]) -> int:
    """Do all the work of this process; returns its exit code, which signals at the process's end do not change.

    Args:
        work: returns the exit code.
    """
    # Runs after all others, Ray's clearing up included; then Python itself would let a signal end it without a word.
    for number in ENDING_SIGNALS:
        atexit.register(signal.signal, number, signal.SIG_IGN)
    code = work()
    if "ray" in sys.modules:
        # What is left is Ray's own clearing up: another Ctrl-C ends it at once, and not in a traceback.
        for number in ENDING_SIGNALS:
            signal.signal(number, lambda *_: os._exit(code))
    return code


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
        RunError: it is not a run, or its manifest describes no sweep.
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
    )
    parser.add_argument("--version", action="version", version=f"flopray {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    spaces = f"{_WORKLOADS}, then flags"
    commands.add_parser(
        "sweep",
        help=f"measure a search space: {spaces}",
        description=f"WORKLOAD is {spaces}. `flopray sweep WORKLOAD --help` lists its axes and all flags.",
    )
    text = "go on with a run of any kind: flopray resume RUN"
    commands.add_parser("resume", help=text, description=f"{text}, then flags such as --address")
    for name, (words, _) in _COMMANDS.items():
        commands.add_parser(name, help=words)
    return parser
