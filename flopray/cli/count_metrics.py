"""`flopray count --metrics NAME... -- COMMAND`: metrics of Nsight Compute of any program, by kernel and named range."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flopray.cli.parser import OneLineParser
from flopray.cli.terminal import LineConsole
from flopray.errors import EXIT_INTERRUPTED, FloprayError, InputError

_ABOUT = """\
Run any program under Nsight Compute (ncu) and show metrics of its kernels, by
kernel and by the named NVTX range that they were launched in
(torch.cuda.nvtx.range("step"), nvtx.annotate, ...). The program's output and
exit code stay what they are; the table goes to stderr.

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


def main(words: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    console = LineConsole(stderr=True, markup=False, highlight=False)
    flags, command = _split(words)
    args = _parser().parse_args(flags)
    try:
        return _read(args, command, console)
    except FloprayError as error:
        console.print(f"error: {error}", soft_wrap=True)
        return InputError.exit_code
    except KeyboardInterrupt:
        console.print("interrupted")
        return EXIT_INTERRUPTED


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    place = words.index("--") if "--" in words else len(words)
    return list(words[:place]), list(words[place + 1 :])


def _parser() -> OneLineParser:
    form = argparse.RawDescriptionHelpFormatter
    usage = "flopray count --metrics NAME [NAME ...] [flags] -- COMMAND [ARGUMENT ...]"
    parser = OneLineParser(
        prog="flopray count", usage=usage, description=_ABOUT, epilog=_EXAMPLES, formatter_class=form
    )
    parser.add_argument("--metrics", nargs="*", required=True, metavar="NAME", help="of ncu, such as dram__bytes.sum")
    parser.add_argument("--kernels", metavar="REGEX", help="only kernels whose name matches")
    parser.add_argument(
        "--range", dest="ranges", action="append", default=[], metavar="NAME", help="only launches in this NVTX range"
    )
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first launches")
    parser.add_argument("--launches", type=int, metavar="N", help="read at most so many launches")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write a row for each metric of each launch: .csv or .parquet"
    )
    return parser


def _read(args: argparse.Namespace, command: Sequence[str], console: LineConsole) -> int:
    from flopray.measurement.counting.program import Selection, read_program

    metrics = [name for word in args.metrics for name in word.split(",") if name]
    if not metrics:
        raise InputError("--metrics needs a name, such as --metrics dram__bytes.sum")
    if args.skip < 0 or (args.launches is not None and args.launches < 1):
        raise InputError("--skip must be at least 0, and --launches at least 1")
    _check_out(args.out)
    selection = Selection(args.kernels, tuple(args.ranges), args.skip, args.launches)
    read = read_program(list(dict.fromkeys(metrics)), command, selection)
    _show(read.readings, args.out, console)
    if read.interrupted:
        console.print("interrupted")
        return EXIT_INTERRUPTED
    return read.exit_code


def _check_out(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix not in _ENDINGS:
        raise InputError(f"--out {path}: name a file that ends in {' or '.join(_ENDINGS)}")
    if path.exists():
        raise InputError(f"--out {path}: the file exists, name another one")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.absolute().parent}")


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
