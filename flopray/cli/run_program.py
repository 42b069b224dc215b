"""`flopray run -- COMMAND ...`: the cost of any program, watched from outside.

    flopray run -- python train.py --epochs 3
    flopray run --every 0.5 --out results/night -- torchrun --nproc-per-node 8 train.py

The exit code is that of the program, 128 + N where signal N ended it; 2 where it could not be started.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flopray.cli.endings import carry_out
from flopray.cli.parser import SettingsParser
from flopray.cli.terminal import LineConsole
from flopray.errors import FloprayError, InputError, SettingError
from flopray.settings import check_settings, setting
from flopray.watching.programs import block_signals

if TYPE_CHECKING:
    from flopray.watching.program_run import ProgramRun
    from flopray.watching.series import Series

_EXAMPLES = """examples:
  flopray run -- python train.py --epochs 3
  flopray run --every 0.5 --out results/night -- torchrun --nproc-per-node 8 train.py

Energy is that of the whole GPUs which the program used, from its start to its end, with whatever else ran there (it
is named). The exit code is that of the program, 128 + N where signal N ended it; 2 where it could not be started."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a program is watched, and where its series go.

    Raises:
        SettingError: a value that cannot be.
    """

    every_s: float = setting(
        0.1,
        doc="seconds between samples (default {default})",
        must="be at least 0.02 s",
        holds=lambda value: value >= 0.02,
        flag="--every",
        metavar="S",
    )
    out: Path | None = setting(
        None, doc="new folder of the series (default: results/programs/NAME-TIME)", kind=Path, metavar="DIR"
    )
    journal: Path | None = setting(
        None,
        doc="gets a line of JSON for each program (default: programs.jsonl beside the folder)",
        kind=Path,
        metavar="FILE",
    )
    figure: bool = setting(True, doc="draw nothing", flag="--no-figure")

    def __post_init__(self) -> None:
        check_settings(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    place = words.index("--") if "--" in words else _end_of_flags(words)
    parser = SettingsParser(
        Options,
        prog="flopray run",
        usage="flopray run [--every S] [--out DIR] [--journal FILE] [--no-figure] -- COMMAND ...",
        description="Run any program and say what it cost: energy, peak power and time series of each GPU it used.",
        epilog=_EXAMPLES,
    )
    command = words[place + 1 :]
    if "--" not in words and place < len(words):  # a flag of the program's would be taken for one of flopray's
        said = shlex.join(words[place:])
        command, error = [], f"write -- before the program: flopray run {' '.join([*words[:place], '--'])} {said:.200}"
    else:
        error = "name the program behind --, such as: flopray run -- python train.py"
    return carry_out(parser, words[:place], lambda options: _run(options, command, error))


def _end_of_flags(words: Sequence[str]) -> int:
    """Where a program that was named without `--` begins: at the first word that belongs to no flag."""
    place = 0
    while place < len(words) and words[place].startswith("-"):
        takes_value = words[place] in ("--every", "--out", "--journal")
        place += 1 + takes_value
    return place


def _run(options: Options, command: list[str], without: str) -> int:
    console = LineConsole(stderr=True, markup=False, highlight=False)
    if not command:
        raise InputError(without)
    folder = options.out or _new_folder(command[0])
    journal = options.journal or folder.parent / "programs.jsonl"
    if journal.is_dir() or not os.access(_existing(journal), os.W_OK):
        raise SettingError(f"<journal>: {journal} cannot be written")
    mask = block_signals()  # before imports that start threads
    try:
        run, series = _watched(command, folder, options.every_s, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    from flopray.watching.run_journal import append_entry

    for line in run.lines():
        console.print(f"flopray: {line}", soft_wrap=True)
    try:
        append_entry(journal, run.to_dict())
        console.print(f"flopray: {folder}", soft_wrap=True)
        if options.figure:
            _draw(run, series, folder, console)
    except FloprayError as error:  # the program has run: its exit code counts
        console.print(f"flopray: error: {error}", soft_wrap=True)
    return run.exit_code or 0


def _watched(command: list[str], folder: Path, every_s: float, mask: set[int]) -> tuple[ProgramRun, Series]:
    from flopray.watching.program_run import run_program

    return run_program(command, folder, every_s=every_s, mask=mask)


def _draw(run: ProgramRun, series: Series, folder: Path, console: LineConsole) -> None:
    from flopray.report.series.figure import draw_series

    if not (series.samples[["power_w", "temperature_c"]].notna()).to_numpy().any():
        console.print("flopray: no figure: no device reported power or temperature", soft_wrap=True)
        return
    title = " ".join(run.command)
    draw_series(series.samples, [], folder / "series", title=title if len(title) <= 90 else f"{title[:90]}...")


def _new_folder(program: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(program).name) or "program"
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path("results") / "programs" / f"{name}-{now}"
    number = 2
    while folder.exists():
        folder, number = folder.with_name(f"{name}-{now}-{number}"), number + 1
    return folder


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
