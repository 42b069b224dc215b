"""`flopray count`: the FLOPs of any function or workload in three ways, and any counters of any program."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flopray.cli.axes import flag_of, parse_values, values_of
from flopray.cli.endings import carry_out
from flopray.cli.parser import OneLineParser
from flopray.cli.synonyms import meant, synonyms
from flopray.errors import EXIT_INTERRUPTED, FloprayError, InputError, spaced
from flopray.point import PRECISIONS
from flopray.report.plot.figures import IMAGE_FORMATS

#: Flags of the command that other tools call otherwise.
_FLAGS = {"precision": "--precision", "phases": "--phase", "device_type": "--device"}
_ABOUT = """\
Count the FLOPs of one call of a function, or of a phase of a workload, in three
ways side by side:

  closed      what the mathematics needs, where a workload states it
  dispatched  what torch is asked for, by module and operator
  executed    what the GPU does, by its hardware counters (Nsight Compute in a
              process of its own)

What makes them differ is listed and adds up. A count that would be partial is
none, and its reason is named.

TARGET is FILE.py:NAME of a function that makes a step, FILE.py:NAME of a
Workload, or the name of one (mlp, causal_lm, llama). All other flags are the shape: the
function's parameters, or the workload's fields. Several values, or ranges
first:last:step, count each combination.

    def make_step(width, batch=8):          # step.py
        layer = torch.nn.Linear(width, width)
        x = torch.randn(batch, width)
        return lambda: layer(x).sum().backward()

With --metrics, flopray count reads any counters of any program instead:
`flopray count --metrics --help`."""
_EXAMPLES = """\
examples:
  flopray count step.py:make_step --width 1024
  flopray count step.py:make_step --width 256 512 1024 --plot flops.png
      how the counts grow, with logarithmic axes
  flopray count step.py:make_step --width 65536 --device meta
      without memory: dispatched FLOPs alone
  flopray count mlp --n 8 --d 1024 --m 128 --phase train_step
  flopray count step.py:make_step --width 1024 --json > counts.json
  flopray count --metrics sm__cycles_active.avg -- python train.py

exit codes: 0 counted, 2 bad input, 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if any(word.partition("=")[0] == "--metrics" for word in words[: _end_of_flags(words)]):
        from flopray.cli.count_metrics import main as metrics_main

        return metrics_main(words)
    try:
        args, rest = _parser().parse_known_args(words[: _end_of_flags(words)])
        if _end_of_flags(words) < len(words):
            raise InputError("a command behind -- is counted by its metrics: name them, as --metrics NAME -- COMMAND")
        return carry_out(lambda console: _count(args, rest, console))
    except FloprayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _end_of_flags(words: Sequence[str]) -> int:
    return words.index("--") if "--" in words else len(words)


def _parser() -> OneLineParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="flopray count", description=_ABOUT, epilog=_EXAMPLES, formatter_class=form)
    parser.add_argument("target", metavar="TARGET", help="FILE.py:NAME, or the name of a workload; comes first")
    parser.add_argument("--phase", help="of a workload (default forward_backward)")
    parser.add_argument(
        "--device",
        help="where a function makes tensors that name no device, such as cuda or meta; its parameter `device` gets it",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of a workload (default fp32); of a function, whose cores' counters are read (default: by its products)",
    )
    parser.add_argument("--no-executed", action="store_true", help="leave out the hardware counters")
    parser.add_argument("--levels", type=int, metavar="N", help="of modules in the table (default: all)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="of several shapes: draw the counts over the shape")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each shape")
    parser.add_argument("--json", action="store_true", help="print JSON: an object, or of several shapes a list")
    return parser


def _count(args: argparse.Namespace, words: Sequence[str], console: Console) -> None:
    from flopray.measurement.count import count, shapes_of
    from flopray.workloads.target import StepFactory, find_target

    if args.target.startswith("-"):
        raise InputError("flopray count: name the function or workload first, as step.py:make_step")
    if args.levels is not None and args.levels < 1:
        raise InputError(f"--levels must be at least 1, got {args.levels}")
    _check_device(args.device)
    target = find_target(args.target)
    given = flags_of(words)
    axes = _of_function(target, given) if isinstance(target, StepFactory) else _of_workload(target, given)
    shapes = shapes_of(axes)
    _check_files(args, len(shapes))
    with Console(stderr=True).status(f"counting {args.target}: {len(shapes)} shapes"):  # shown in a terminal only
        table: Any = count(
            args.target,
            shapes=shapes,
            phase=args.phase,
            device=args.device,
            precision=args.precision,
            executed=not args.no_executed,
        )
    # Files first: whoever reads the output may stop reading, as `| head` does.
    if args.csv:
        table.frame().to_csv(args.csv, index=False)
    path = table.plot(args.plot) if args.plot else None
    if args.json:
        found = [one.to_dict() for one in table]
        print(json.dumps(found[0] if len(found) == 1 else found, indent=2, default=str))
    else:
        _show(table, args.levels, console)
    if path:
        print(f"{path}", file=sys.stderr if args.json else sys.stdout)


def _check_device(device: str | None) -> None:
    """Refuse a device that torch does not know or that is not here."""
    if device is None:
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        first = str(error).splitlines()[0]
        why = "torch sees no GPU here" if device.startswith("cuda") and not torch.cuda.is_available() else first
        if "device type at start of device string" in first:
            why = "torch has no such device; name cpu, cuda or meta"
        raise InputError(f"--device {device!r:.40}: {why:.160}") from None


def _show(table: Any, levels: int | None, console: Console) -> None:
    from flopray.report.counts.text import comparison_table, module_table, notes

    if len(table) > 1:
        console.print(table.table())
        for reason in table.reasons():
            console.print(reason, markup=False, highlight=False, soft_wrap=True)
        return
    (counts,) = table
    console.print(comparison_table(counts))
    for line in notes(counts):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if counts.dispatched.operators:
        console.print()
        console.print(module_table(counts.dispatched, levels))


def _check_files(args: argparse.Namespace, shapes: int) -> None:
    """Refuse what could not be written, before anything is counted."""
    if args.plot is not None:
        if shapes < 2:
            raise InputError("--plot draws several shapes: give a parameter several values, as --width 256 512 1024")
        if (kind := args.plot.suffix.lstrip(".")) not in IMAGE_FORMATS:
            raise InputError(f"--plot {args.plot}: unknown format {kind!r:.20}, choose from {', '.join(IMAGE_FORMATS)}")
    for flag, path in (("--plot", args.plot), ("--csv", args.csv)):
        if path is not None and path.exists():
            raise InputError(f"{flag} {path}: the file exists, name another one")
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"{flag} {path}: there is no folder {path.absolute().parent}")


def flags_of(words: Sequence[str]) -> dict[str, list[str]]:
    """Words by flag, such as `{"--width": ["256", "512"]}`.

    Raises:
        InputError: a word before the first flag, a flag without a value, or one that is named twice.
    """
    given: dict[str, list[str]] = {}
    flag = ""
    for word in words:
        if re.match(r"--[A-Za-z]", word):
            flag, _, value = word.partition("=")
            if flag in given:
                raise InputError(f"{flag} is named twice: write its values one behind the other")
            given[flag] = [value] if value else []
        elif not flag:
            raise InputError(f"{word!r:.60}: name the parameter that it is the value of, as --width {word}")
        else:
            given[flag].append(word)
    for flag, values in given.items():
        if not values:
            raise InputError(f"{flag} needs a value")
    return given


def _of_function(target: Any, given: dict[str, list[str]]) -> dict[str, list[Any]]:
    axes = {
        flag[2:].replace("-", "_"): [one for word in words for one in _values(flag, word)]
        for flag, words in given.items()
    }
    for name, values in axes.items():
        if len({repr(one) for one in values}) < len(values):
            raise InputError(f"--{name.replace('_', '-')}: a value is named twice")
    target.check({name: values[0] for name, values in axes.items()})
    return axes


def _values(flag: str, word: str) -> Sequence[Any]:
    """What a word on the command line stands for: a number, a range of whole numbers, a truth value, or itself."""
    if re.fullmatch(r"-?\d+(:-?\d+)+", word):  # also a range that is incomplete or negative, which is refused
        return parse_values(flag, [word])
    known = {"true": True, "false": False, "none": None}
    if word.lower() in known:
        return [known[word.lower()]]
    for kind in (int, float):
        try:
            return [kind(word)]
        except ValueError:
            continue
    if re.fullmatch(r"[\d.]+([,;][\d.]+)+", word):
        raise InputError(f"{flag}: {word!r:.60} is not a number{spaced(flag, word)}")
    return [word]


def _of_workload(target: Any, given: dict[str, list[str]]) -> dict[str, Sequence[Any]]:
    fields = {flag: field for field in target.fields for flag in (flag_of(field), *field.old_flags)}
    fields |= {"--" + field.name.replace("_", "-"): field for field in target.fields}
    if unknown := [flag for flag in given if flag not in fields]:
        own = [flag_of(field) for field in target.fields if not field.implied]
        near = meant(unknown[0], synonyms(target.fields, _FLAGS), [*own, *_FLAGS.values()])
        asked = f"did you mean {near}?" if near else f"its shape is {', '.join(own)}"
        raise InputError(f"{target.name} has no {unknown[0]}: {asked}")
    return {fields[flag].name: values_of(fields[flag], words) for flag, words in given.items()}
