"""What will it cost? `flopray ask MODEL ...`: seconds, kilowatt-hours, CO2e and money of a step and of a whole run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flopray.cli.axes import dest_of, flag_of
from flopray.cli.endings import ended, results_console
from flopray.cli.parser import SettingsParser
from flopray.cli.prices import Overheads
from flopray.cli.question import Question, add_fields, fields_of, named_workload
from flopray.cli.reply import reply_of
from flopray.cli.reply_tables import show, to_json
from flopray.cli.synonyms import synonyms
from flopray.errors import InputError
from flopray.settings import settings_of
from flopray.workloads.base import Workload

_WHAT = """\
Say what a step and a whole run will cost on GPUs that need not be here: time,
energy of the boards and at the building's meter, CO2e and money, each with its
interval or range. Numbers come from models that were fitted to measurements. An
answer outside the measured range says so; far outside there is only the reason."""
_EXAMPLES = """\
examples:
  flopray ask mlp --n 8 --d 1024 --m 128 --steps 1e6
      a training step of an MLP, and a million of them, on every GPU known
  flopray ask mlp --n 8 --d 1024 --m 128 --total-tokens 1e10 --gpus 1 8 --deadline 24h
      which GPUs take the least energy and still end within a day
  flopray ask mlp --n 8 --d 1024 --m 128 --steps 1e8 --energy-budget 5kWh
      which are the fastest within 5 kWh of the boards
  flopray ask mlp --n 8 --d 1024 --m 128 --steps 1e8 --country FRA --pue 1.2 --price-per-kwh 0.25
      with CO2e (flopray[carbon]) and the price of electricity
  flopray ask llama-3.2-1b --batch 8 --tokens 1024 --total-tokens 1e9 --gpu H100
  flopray ask my_step.py:Net --models fitted.json
      a workload of your own, by models of your own: flopray fit RUN --out fitted.json

`flopray ask WORKLOAD --help` lists the flags of its shape.
exit codes: 0 answered, also where a GPU has no answer, 2 bad input."""
_TOKENS = ("tokens", "num-tokens", "n-tokens", "max-tokens")
_ALSO_SETTINGS = ("precision", "execution", "phases")
#: Flags of other calculators, and what they are here.
_ELSEWHERE = {
    **dict.fromkeys(("num-gpus", "n-gpus", "gpu-count", "world-size", "nodes", "devices"), "--gpus"),
    **dict.fromkeys(("device", "gpu-type", "gpu-name", "accelerator", "hardware"), "--gpu"),
    **dict.fromkeys(("carbon-intensity", "intensity"), "--grid-intensity"),
    **dict.fromkeys(("region", "grid", "zone"), "--country"),
    **dict.fromkeys(("iterations", "iters", "max-steps", "train-steps"), "--steps"),
    **dict.fromkeys(("budget", "kwh", "max-energy"), "--energy-budget"),
    **dict.fromkeys(("time-limit", "max-time", "hours"), "--deadline"),
    **dict.fromkeys(("utilization", "util"), "--utilisation"),
    **dict.fromkeys(("electricity-price", "kwh-price"), "--price-per-kwh"),
    **dict.fromkeys(("gpu-price", "price", "cost-per-hour", "hourly-rate"), "--price-per-gpu-hour"),
}


def build_parser(workload: Workload | None) -> SettingsParser:
    """The command line, with the fields of a workload.

    Raises:
        InputError: a field whose flag another one has.
    """
    parser = SettingsParser(Question, Overheads, prog="flopray ask", description=_WHAT, epilog=_EXAMPLES)
    if workload is not None:
        taken = {known.option for cls in (Question, Overheads) for known in settings_of(cls).values()}
        add_fields(parser.heading(f"shape of {workload.name}"), workload, {*taken, "--help", "-h"})
        of_a_step = synonyms(workload.fields, {name: f"--{name.removesuffix('s')}" for name in _ALSO_SETTINGS})
        tokens = {word: f"{flag} (of a step) or --total-tokens (of the run)" for word, flag in of_a_step.items()}
        parser.synonyms = of_a_step | {word: tokens[word] for word in _TOKENS if word in tokens} | _ELSEWHERE
        parser.names = {field.name: flag_of(field) for field in workload.fields}
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(None)
    if not words or {"-h", "--help"} & set(words[:1]):
        parser.parse_args(words)

    def work() -> None:
        nonlocal parser
        if words[0].startswith("-"):
            raise InputError("flopray ask: name the workload or model first, as in: flopray ask mlp --steps 1e6")
        workload, model = named_workload(words[0])
        parser = build_parser(workload)
        given = parser.parse_args(words)
        question, overheads = parser.read_known(given)
        found = {field.name: getattr(given, dest_of(field)) for field in fields_of(workload)}
        named = {name: values for name, values in found.items() if values is not None}
        reply = reply_of(workload, model, question, overheads, named, parser.flags)
        if question.json:
            print(to_json(reply))
        else:
            show(results_console(), reply)

    return ended(work, lambda error: parser.told(error))


if __name__ == "__main__":
    sys.exit(main())
