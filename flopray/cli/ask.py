"""What will it cost? `flopray ask MODEL ...`: seconds, kilowatt-hours, CO2e and money of a step and of a whole run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flopray.cli.axes import flag_of
from flopray.cli.endings import ended, results_console
from flopray.cli.parser import OneLineParser, told
from flopray.cli.prices import PRICES
from flopray.cli.question import (
    add_fields,
    named_workload,
)
from flopray.cli.reply import reply_of
from flopray.cli.reply_tables import show, to_json
from flopray.cli.synonyms import synonyms
from flopray.point import EXECUTIONS, PRECISIONS
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


def build_parser(workload: Workload | None) -> argparse.ArgumentParser:
    """The command line, with the fields of a workload."""
    parser = OneLineParser(
        prog="flopray ask",
        description=_WHAT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "mlp, causal_lm, FILE.py:NAME, or a language model by its name, config.json, folder or hub id"
    parser.add_argument("workload", metavar="WORKLOAD", help=text)
    what = parser.add_argument_group("what is done, and how often")
    what.add_argument("--phase", help="default train_step, where there is one")
    what.add_argument("--steps", metavar="N", help="steps of the run, such as 1e6 (default: one)")
    what.add_argument("--total-tokens", metavar="N", help="tokens of the run instead, such as 1e9")
    where = parser.add_argument_group("on what")
    where.add_argument("--gpu", nargs="+", metavar="TYPE", help="such as H100 (default: every type that is known)")
    where.add_argument("--gpus", nargs="+", default=["1"], metavar="N", help="how many, each with a batch of its own")
    where.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, metavar="P", help="default bf16, where models were fitted to it"
    )
    where.add_argument(
        "--execution", choices=EXECUTIONS, metavar="E", help=f"{', '.join(EXECUTIONS)} (default: what models know)"
    )
    where.add_argument(
        "--utilisation", type=float, default=1.0, metavar="U", help="share of the time that GPUs compute (default 1)"
    )
    where.add_argument("--models", type=Path, metavar="FILE", help="of flopray fit --out (default: those of flopray)")
    choice = parser.add_argument_group("which is best")
    choice.add_argument("--deadline", metavar="TIME", help="the least energy that ends in time, such as 24h")
    choice.add_argument("--energy-budget", metavar="ENERGY", help="the fastest within it, such as 5kWh of the boards")
    price = parser.add_argument_group("carbon and money")
    for flag, _, words, _, _ in PRICES:
        price.add_argument(flag, type=float, metavar="X", help=words)
    price.add_argument("--country", metavar="CODE", help="its grid, such as FRA, by the data of codecarbon")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    if workload is not None:
        taken = {flag for action in parser._actions for flag in action.option_strings}
        add_fields(parser.add_argument_group(f"shape of {workload.name}"), workload, taken)
        of_a_step = synonyms(workload.fields, {name: f"--{name.removesuffix('s')}" for name in _ALSO_SETTINGS})
        tokens = {word: f"{flag} (of a step) or --total-tokens (of the run)" for word, flag in of_a_step.items()}
        parser.synonyms = of_a_step | {word: tokens[word] for word in _TOKENS if word in tokens} | _ELSEWHERE
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words and not words[0].startswith("-") else None
    if name is None:
        build_parser(None).parse_args(words)
        return 2

    flags = {"country": "--country", "grid_intensity": "--grid-intensity"}

    def work(console: Console) -> None:
        workload, model = named_workload(name)
        flags.update({field.name: flag_of(field) for field in workload.fields})
        reply = reply_of(workload, model, build_parser(workload).parse_args(words))
        if "--json" in words:
            print(to_json(reply))
        else:
            show(console, reply)

    return ended(lambda: work(results_console()), lambda error: told(error, **flags))


if __name__ == "__main__":
    sys.exit(main())
