"""`flopray count`: the FLOPs of any function or workload in three ways, and any counters of any program."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from flopray.cli.axes import flag_of, parse_values, values_of
from flopray.cli.endings import carry_out, results_console
from flopray.cli.parser import SettingsParser
from flopray.cli.synonyms import meant, synonyms
from flopray.errors import InputError, SettingError, spaced
from flopray.point import PRECISIONS
from flopray.report.plot.figures import IMAGE_FORMATS
from flopray.settings import check_settings, setting
from flopray.store import atomic
from flopray.units import counted

#: Flags of the command that have other names in other tools.
_FLAGS = {"precision": "--precision", "phases": "--phase", "device_type": "--device"}
_ABOUT = """\
Count the FLOPs of one call of a function, or of a phase of a workload, in three
ways side by side:

  closed      what the mathematics needs, where a workload states it
  dispatched  what torch is asked for, by module and operator
  executed    what the GPU does, by its hardware counters (Nsight Compute in a
              process of its own)

What makes them differ is listed and adds up. A partial count is refused, with
its reason.

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


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is counted and what is shown; other flags are the shape.

    Raises:
        SettingError: a value that cannot be.
    """

    target: str = setting(doc="FILE.py:NAME, or the name of a workload; comes first", positional=True)
    phase: str | None = setting(None, doc="of a workload (default forward_backward)")
    device: str | None = setting(
        None,
        doc="where a function makes tensors that name no device, such as cuda or meta; its parameter `device` gets it",
    )
    precision: str | None = setting(
        None,
        doc="of a workload (default fp32); of a function, whose cores' counters are read (default: by its products)",
        choices=PRECISIONS,
        metavar=f"{{{','.join(PRECISIONS)}}}",
    )
    executed: bool = setting(True, doc="leave out the hardware counters", flag="--no-executed")
    levels: int | None = setting(
        None,
        doc="of modules in the table (default: all)",
        kind=int,
        must="be at least 1",
        holds=lambda value: value >= 1,
        metavar="N",
    )
    plot: Path | None = setting(
        None, doc="of several shapes: draw the counts over the shape", kind=Path, metavar="FILE"
    )
    csv: Path | None = setting(None, doc="write a row for each shape", kind=Path, metavar="FILE")
    json: bool = setting(False, doc="print JSON: an object, or of several shapes a list")

    def __post_init__(self) -> None:
        check_settings(self)
        for name, path in (("plot", self.plot), ("csv", self.csv)):
            if path is not None and path.exists():
                raise SettingError(f"<{name}> {path}: the file exists, name another one")
            if path is not None and not path.absolute().parent.is_dir():
                raise SettingError(f"<{name}> {path}: there is no folder {path.absolute().parent}")
        if self.plot is not None and (kind := self.plot.suffix.lstrip(".")) not in IMAGE_FORMATS:
            known = ", ".join(IMAGE_FORMATS)
            raise SettingError(f"<plot> {self.plot}: unknown format {kind!r:.20}, choose from {known}")


class _CountParser(SettingsParser):
    """Keeps the words of the shape, which it does not know."""

    def read(self, words: Sequence[str] | None = None) -> tuple[Any, ...]:
        """The options, and the other words."""
        words = list(sys.argv[1:] if words is None else words)
        end = _end_of_flags(words)
        given, shape = self.parse_known_args(words[:end])
        if end < len(words):
            raise InputError("a command behind -- is counted by its metrics: name them, as --metrics NAME -- COMMAND")
        return *self.read_known(given), shape


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if any(word.partition("=")[0] == "--metrics" for word in words[: _end_of_flags(words)]):
        from flopray.cli.count_metrics import main as metrics_main

        return metrics_main(words)
    parser = _CountParser(Options, prog="flopray count", description=_ABOUT, epilog=_EXAMPLES)
    return carry_out(parser, words, lambda options, shape: _count(options, shape, parser))


def _end_of_flags(words: Sequence[str]) -> int:
    return words.index("--") if "--" in words else len(words)


def _count(options: Options, words: Sequence[str], parser: SettingsParser) -> None:
    from flopray.measurement.count import count, shapes_of
    from flopray.workloads.target import StepFactory, find_target

    if options.target.startswith("-"):
        raise InputError("flopray count: name the function or workload first, as step.py:make_step")
    _check_device(options.device)
    target = find_target(options.target)
    given = flags_of(words)
    if isinstance(target, StepFactory):
        axes = _of_function(target, given)
    else:
        parser.names |= {field.name: flag_of(field) for field in target.fields}
        axes = _of_workload(target, given)
    shapes = shapes_of(axes)
    if options.plot is not None and len(shapes) < 2:
        raise SettingError("<plot> draws several shapes: give a parameter several values, as --width 256 512 1024")
    said = f"counting {options.target}: {counted(len(shapes), 'shape')}"
    with Console(stderr=True).status(said):  # shown in a terminal only
        table: Any = count(
            options.target,
            shapes=shapes,
            phase=options.phase,
            device=options.device,
            precision=options.precision,
            executed=options.executed,
        )
    # Files first: the reader of the output may stop, as `| head` does.
    if options.csv:
        atomic.write(options.csv, table.frame().to_csv(index=False))
    path = table.plot(options.plot) if options.plot else None
    if options.json:
        found = [one.to_dict() for one in table]
        print(json.dumps(found[0] if len(found) == 1 else found, indent=2, default=str))
    else:
        _show(table, options.levels, results_console())
    if path:
        print(f"{path}", file=sys.stderr if options.json else sys.stdout)


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
        raise SettingError(f"<device> {device!r:.40}: {why:.160}") from None


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
                raise InputError(f"{flag} is named twice: write its values one after the other")
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
    if re.fullmatch(r"-?\d+(:-?\d+)+", word):  # also an incomplete or negative range, which is refused
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
