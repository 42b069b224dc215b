"""`flopray count --metrics NAME... -- COMMAND`: metrics of Nsight Compute of any program, by kernel and named range."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flopray.cli.endings import carry_out
from flopray.cli.parser import SettingsParser
from flopray.cli.terminal import LineConsole
from flopray.errors import EXIT_INTERRUPTED, InputError, MeasurementError, SettingError
from flopray.measurement.counting.program import Selection, read_program
from flopray.settings import check_settings, setting

_ABOUT = """\
Run any program under Nsight Compute (ncu) and show metrics of its kernels, by
kernel and by the named NVTX range that they were launched in
(torch.cuda.nvtx.range("step"), nvtx.annotate, ...). The program's output and
exit code do not change; the table goes to stderr.

Each kernel is run again for each group of counters, so that the program takes
much longer: choose few launches with --kernels, --range, --skip, --launches.
Do not measure time or energy meanwhile."""
_EXAMPLES = """\
examples:
  flopray count --metrics sm__cycles_active.avg dram__bytes.sum -- python train.py
  flopray count --metrics gpu__time_duration.sum --range step --launches 200 \\
      --out kernels.parquet -- python train.py --epochs 1
  flopray count --metrics sm__inst_executed_pipe_tensor.sum --kernels gemm -- ./a.out
  ncu --query-metrics                     which metrics there are

exit codes: that of COMMAND; 2 bad input, or ncu cannot read here; 130 interrupted"""
_ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which metrics are read, and where they go.

    Raises:
        SettingError: no metric, or a file that cannot be written.
    """

    metrics: tuple[str, ...] = setting(
        doc="of ncu, such as dram__bytes.sum", many=True, distinct=False, noun="name", metavar="NAME"
    )
    out: Path | None = setting(
        None, doc="write a row for each metric of each launch: .csv or .parquet", kind=Path, metavar="FILE"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        _check_out(self.out)

    @property
    def names(self) -> list[str]:
        """The metrics, each once; a word may have several, separated by commas."""
        return list(dict.fromkeys(name for word in self.metrics for name in word.split(",") if name))


def main(words: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    place = words.index("--") if "--" in words else len(words)
    usage = "flopray count --metrics NAME [NAME ...] [flags] -- COMMAND [ARGUMENT ...]"
    parser = SettingsParser(Options, Selection, prog="flopray count", usage=usage, description=_ABOUT, epilog=_EXAMPLES)
    return carry_out(parser, words[:place], lambda *settings: _read(*settings, command=words[place + 1 :]))


def _read(options: Options, selection: Selection, command: Sequence[str]) -> int:
    try:
        read = read_program(options.names, command, selection)
    except MeasurementError as error:  # nothing was read, and the program need not have run
        raise InputError(str(error)) from error
    console = LineConsole(stderr=True, markup=False, highlight=False)
    _show(read.readings, options.out, console)
    if read.interrupted:
        console.print("interrupted")
        return EXIT_INTERRUPTED
    return read.exit_code


def _check_out(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix not in _ENDINGS:
        raise SettingError(f"<out> {path}: name a file that ends in {' or '.join(_ENDINGS)}")
    if path.exists():
        raise SettingError(f"<out> {path}: the file exists, name another one")
    if not path.absolute().parent.is_dir():
        raise SettingError(f"<out> {path}: there is no folder {path.absolute().parent}")


def _show(found: Sequence[object], out: Path | None, console: LineConsole) -> None:
    from flopray.report.counts.readings import readings_table, write_readings

    if not found:
        console.print("no kernel was read: the program launched none that --kernels and --range choose", soft_wrap=True)
        return
    wide = LineConsole(stderr=True, markup=False, width=None if sys.stderr.isatty() else 160)
    wide.print(readings_table(found))  # type: ignore[arg-type]
    if out is not None:
        write_readings(found, out)  # type: ignore[arg-type]
        console.print(str(out), soft_wrap=True)
