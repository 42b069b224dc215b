"""Runs any program under ncu, its output untouched, and returns the readings and the program's exit code."""

from __future__ import annotations

import difflib
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flopray.errors import InputError, MeasurementError, NoCounterPermission, one_line
from flopray.flops.executed import ncu, report
from flopray.flops.executed.permission import PARAMS, counter_permission
from flopray.flops.executed.readings import Reading, readings
from flopray.settings import check_settings, setting

#: Writes down the program's exit code, which ncu does not pass on; `$0` is the file for it.
_TELL_CODE = '"$@"; code=$?; echo $code > "$0"; exit $code'
#: How long the program may take to end after Ctrl-C.
_END_S = 10.0
_NOT_FOUND = re.compile(r"Failed to find metric (\S+)")
_ERROR = "==ERROR== "


@dataclass(frozen=True)
class Selection:
    """Which launches are read, each field says which.

    Raises:
        SettingError: a number that cannot be.
    """

    kernels: str | None = setting(None, doc="only kernels whose name matches", metavar="REGEX")
    ranges: tuple[str, ...] = setting(
        (), doc="only launches in this NVTX range", flag="--range", metavar="NAME", repeats=True, distinct=False
    )
    skip: int = setting(
        0, doc="leave out the first launches", must="be at least 0", holds=lambda value: value >= 0, metavar="N"
    )
    launches: int | None = setting(
        None,
        doc="read at most this many launches",
        kind=int,
        must="be at least 1",
        holds=lambda value: value >= 1,
        metavar="N",
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def options(self) -> list[str]:
        """As options of ncu. A name alone is a range with start and end, one with a slash was pushed."""
        found = ["--kernel-name", f"regex:{self.kernels}"] if self.kernels else []
        for name in self.ranges:
            found += ["--nvtx-include", name, "--nvtx-include", f"{name}/"]
        found += ["--launch-skip", str(self.skip)] if self.skip else []
        return found + (["--launch-count", str(self.launches)] if self.launches else [])


@dataclass(frozen=True)
class Read:
    """What a program left.

    Attributes:
        readings: of all launches.
        exit_code: of the program, 128 and more where a signal ended it.
        interrupted: Ctrl-C ended it.
    """

    readings: list[Reading]
    exit_code: int
    interrupted: bool = False


def read_program(metrics: Sequence[str], command: Sequence[str], selection: Selection) -> Read:
    """Run a program and read metrics of its kernels.

    Args:
        metrics: of ncu, such as `sm__cycles_active.avg`.
        command: the program with its arguments.
        selection: which launches are read.

    Raises:
        InputError: there is no such program or metric.
        MeasurementError: ncu cannot read here; the message says what would help.
    """
    if not command:
        raise InputError("name the program behind --, as -- python train.py")
    if shutil.which(command[0]) is None:
        raise InputError(f"command not found: {command[0]!r:.200}")
    program = ncu.find_ncu()
    allowed, why = counter_permission()
    if not allowed and PARAMS.exists():
        raise NoCounterPermission(str(why))
    check_metrics(program, metrics)
    with tempfile.TemporaryDirectory(prefix="flopray-") as name:
        log, code = Path(name) / "ncu.csv", Path(name) / "code"
        arguments = [
            *(str(program), "--clock-control", "none", "--cache-control", "none", "--print-units", "base", "--nvtx"),
            *("--target-processes", "all", "--csv", "--page", "details", "--log-file", str(log)),
            *selection.options(),
            *("--metrics", ",".join(metrics)),
            *("sh", "-c", _TELL_CODE, str(code), *command),
        ]
        ncu_code, interrupted = _run(arguments)
        text = log.read_text(errors="replace") if log.exists() else ""
        told = int(code.read_text()) if code.exists() and code.read_text().strip() else None
        return Read(_found(text, ncu_code, told), ncu_code if told is None else told, interrupted)


def check_metrics(program: Path, metrics: Sequence[str]) -> None:
    """Refuse a metric that ncu does not list for this GPU, before the program runs.

    Names of units that ncu does not list, such as `launch__grid_size`, are left to ncu.

    Raises:
        InputError: it is unknown, with the nearest one that is known.
    """
    known = ncu.listed_metrics(program)
    units = {name.partition("__")[0] for name in known}
    for metric in metrics:
        base = metric.partition(".")[0]
        if base not in known and base.partition("__")[0] in units and ":" not in metric:
            near = difflib.get_close_matches(base, sorted(known), n=1)
            meant = f": did you mean {near[0]}?" if near else ""
            raise InputError(f"unknown metric {metric!r:.120}{meant} (ncu --query-metrics lists all)")


def _run(arguments: Sequence[str]) -> tuple[int, bool]:
    """The program's input and output are this process's own, and Ctrl-C reaches both."""
    try:
        process = subprocess.Popen(arguments)
    except OSError as error:
        raise MeasurementError(f"{arguments[0]} does not start: {error.strerror or error}") from error
    try:
        return process.wait(), False
    except KeyboardInterrupt:
        # What was read until then is in the log once ncu has ended.
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
        return process.returncode, True


def _found(text: str, ncu_code: int, program_code: int | None) -> list[Reading]:
    """The readings, or the reason why ncu gave none."""
    if unknown := _NOT_FOUND.search(text):
        raise InputError(f"unknown metric {unknown[1].strip(chr(34))!r:.120} (ncu --query-metrics lists all)")
    if problem := report.problem_of(text):
        raise problem
    found = readings(text.splitlines())
    errors = [line.removeprefix(_ERROR) for line in text.splitlines() if line.startswith(_ERROR)]
    if not found and errors and "returned an error code" not in errors[0]:
        raise MeasurementError(f"ncu: {one_line(errors[0])}")
    if not found and program_code is None and ncu_code != 0:
        raise MeasurementError(f"ncu ended with exit code {ncu_code} before the program did")
    return found
