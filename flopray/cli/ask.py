"""What will it cost? `flopray ask MODEL ...`: seconds, kilowatt-hours, CO2e and money of a step and of a whole run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flopray.cli.answer import Answer, answer, cheapest, fastest
from flopray.cli.axes import flag_of
from flopray.cli.endings import ended, results_console
from flopray.cli.parser import OneLineParser, told
from flopray.cli.question import (
    add_fields,
    asked_of,
    axes_of,
    count,
    joules,
    named_workload,
    points_of,
    seconds,
    steps_of,
    tokens_of,
    ways_of,
)
from flopray.cli.synonyms import synonyms
from flopray.errors import InputError
from flopray.footprint.assumptions import PUE, SERVER, Assumption, Ranged, given
from flopray.footprint.bill import Prices
from flopray.footprint.country import grid_of
from flopray.point import EXECUTIONS, PRECISIONS
from flopray.predict.predictor import Predictor
from flopray.predict.shipped import shipped
from flopray.predict.work import family_of
from flopray.report.text_table import TextTable
from flopray.units import prefixed
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
#: More answers than this are a line each; a range wider than this is shown by its ends.
_MOST_IN_FULL, _WIDE = 2, 0.2
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
_PRICES = (
    ("--pue", "PUE", "power of the building over that of its servers", 1.0, ""),
    ("--server-factor", "server over boards", "power of a server over that of its boards", 1.0, ""),
    ("--grid-intensity", "grid", "g CO2e per kWh of your grid", 0.0, "g CO2e/kWh"),
    ("--price-per-kwh", "electricity", "in any currency", 0.0, "a kWh"),
    ("--price-per-gpu-hour", "rent", "of one GPU, in any currency", 0.0, "a GPU hour"),
)


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
    for flag, _, words, _, _ in _PRICES:
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


def prices_of(options: argparse.Namespace) -> Prices:
    """What is assumed of overheads and prices.

    Raises:
        InputError: a number that cannot be, or a country that is not known.
    """
    named: dict[str, Assumption] = {}
    for flag, name, _, least, unit in _PRICES:
        value = getattr(options, flag[2:].replace("-", "_"))
        if value is not None:
            named[flag] = given(name, flag, value, unit, least=least)
    if options.country is not None and "--grid-intensity" in named:
        raise InputError("--country and --grid-intensity name the same: leave one out")
    grid = named.get("--grid-intensity") or (grid_of(options.country) if options.country is not None else None)
    return Prices(
        server=named.get("--server-factor", SERVER),
        pue=named.get("--pue", PUE),
        grid=grid,
        price_per_kwh=named.get("--price-per-kwh"),
        price_per_gpu_hour=named.get("--price-per-gpu-hour"),
    )


@dataclasses.dataclass(frozen=True)
class Reply:
    """The whole answer.

    Attributes:
        title: the question in words.
        answers: one for each type of GPU, precision and number.
        prices: what was assumed.
        lines: further assumptions, and what the numbers rest on.
        choices: sentences on which is best.
    """

    title: str
    answers: list[Answer]
    prices: Prices
    lines: list[str]
    choices: list[str]


def reply_of(workload: Workload, model: str | None, options: argparse.Namespace) -> Reply:
    """Answer the question of a command line.

    Raises:
        InputError: an impossible question, or models that cannot be read.
    """
    if options.steps is not None and options.total_tokens is not None:
        raise InputError("--steps and --total-tokens name the same: leave one out")
    if not 0 < options.utilisation <= 1:
        raise InputError(f"--utilisation {options.utilisation:g}: it must be above 0 and at most 1")
    steps = None if options.steps is None else count("--steps", options.steps)
    total = None if options.total_tokens is None else count("--total-tokens", options.total_tokens)
    numbers = [int(count("--gpus", word)) for word in options.gpus]
    deadline = None if options.deadline is None else seconds(options.deadline)
    budget = None if options.energy_budget is None else joules(options.energy_budget)
    phase = options.phase or ("train_step" if "train_step" in workload.phases else workload.phases[0])
    if phase not in workload.phases:
        raise InputError(f"--phase {phase}: {workload.name} has {', '.join(workload.phases)}")
    prices = prices_of(options)
    predictor = Predictor.load(options.models) if options.models else shipped()
    gpus, family = _types(options.gpu, predictor), family_of(workload.name)
    ways = {gpu: ways_of(workload, predictor.ways(gpu, family), options.precision, options.execution) for gpu in gpus}
    axes, assumed = axes_of(workload, options, model, predictor.shapes(ways, family, phase))
    points = points_of(workload, axes, ways)
    answers = []
    for point in points:
        asked = asked_of(point, phase)
        for number in dict.fromkeys(numbers):
            often = steps_of(steps, total, tokens_of(point, phase), number)
            how = {"gpus": number, "steps": often, "utilisation": options.utilisation}
            answers.append(answer(asked, predictor, prices, **how))
    label = points[0].label().replace(f" {points[0].precision} {points[0].execution}", "")
    lines = _lines(answers, assumed, options, predictor)
    return Reply(f"{phase} of {workload.name} {label}", answers, prices, lines, _choices(answers, deadline, budget))


def _types(named: Sequence[str] | None, predictor: Predictor) -> tuple[str, ...]:
    """The types of GPU that are asked about, by their names in the models.

    Raises:
        InputError: there are no models of any of them.
    """
    known = {name.lower(): name for name in predictor.device_types}
    types = tuple(dict.fromkeys(known.get(name.lower(), name) for name in named or predictor.device_types))
    if not set(types) & set(predictor.device_types):
        there = ", ".join(predictor.device_types)
        raise InputError(f"--gpu {' '.join(types)}: nothing was fitted for it; there are models of {there}")
    return types


def _lines(answers: Sequence[Answer], assumed: Sequence[str], options: argparse.Namespace, fit: Predictor) -> list[str]:
    lines = [f"taken by default: {', '.join(assumed)}"] if assumed else []
    if any(one.gpus > 1 for one in answers):
        lines.append("each GPU has its own batch; the cost of exchanging gradients is not included: --utilisation")
    if options.utilisation < 1:
        waiting = ", ".join(f"{name} {fit.waiting_w(name):.0f} W" for name in sorted({a.device_type for a in answers}))
        lines.append(
            f"GPUs compute {options.utilisation:.0%} of the time, as given; a board that waits takes {waiting}"
        )
    answered = [one for one in answers if one.step_s]
    if answered:
        lines.append(
            "ranges of step and boards: 90 % interval for a board of the type; energy is that of the boards alone, at "
            f"{fit.reference_c:g} °C; ranges from servers on: this interval with all assumptions at the same end"
        )
        lines += [f"fitted to {basis}" for basis in dict.fromkeys(one.basis for one in answered) if basis]
    return lines


def _choices(answers: Sequence[Answer], deadline: float | None, budget: float | None) -> list[str]:
    lines = []
    if deadline is not None:
        best = cheapest(answers, deadline)
        within = f"within {_time(deadline)}"
        lines.append(
            f"least energy {within}: {best.label}, {_energy(best.run_j)} of the boards in {_span(best.run_s)}"
            if best
            else f"none is sure to end {within}: the high end of its interval must lie before that"
        )
    if budget is not None:
        best = fastest(answers, budget)
        within = f"within {_kwh(budget)} of the boards"
        lines.append(
            f"fastest {within}: {best.label}, {_span(best.run_s)} and {_energy(best.run_j)}"
            if best
            else f"none is sure to stay {within}: the high end of its interval must lie below that"
        )
    return lines


def _ends(ranged: Ranged | None, words: Any) -> str:
    """A number with its range."""
    if ranged is None:
        return "not known"
    if ranged.low is None or ranged.high is None:
        return f"{words(ranged.value)} (interval not known)"
    return f"{words(ranged.value)} ({words(ranged.low)} to {words(ranged.high)})"


def _time(value_s: float) -> str:
    for unit, each_s in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value_s >= 2 * each_s:
            return f"{value_s / each_s:.3g} {unit}"
    return prefixed(value_s, "s")


def _kwh(value_j: float) -> str:
    return prefixed(value_j / 3600, "Wh") if value_j >= 3600 else prefixed(value_j, "J")


def _span(ranged: Ranged | None) -> str:
    return _ends(ranged, _time)


def _energy(ranged: Ranged | None) -> str:
    return _ends(ranged, _kwh)


def _rows(one: Answer) -> list[list[str]]:
    """The rows of one answer: what, number, range. The names are short, to fit into a table's first column."""

    def row(name: str, ranged: Ranged | None, words: Any) -> list[list[str]]:
        if ranged is None:
            return []
        ends = "not known"
        if ranged.low is not None and ranged.high is not None:
            ends = "as given" if ranged.low == ranged.high else f"{words(ranged.low)} to {words(ranged.high)}"
        return [[name, words(ranged.value), ends]]

    rows = row("step, time", one.step_s, _time) + row("step, one board", one.step_j, _kwh)
    if one.steps is not None:
        rows += [["run, steps", f"{one.steps:,}", ""]]
        rows += row("run, time", one.run_s, _time) + row("run, boards", one.run_j, _kwh)
    if one.bill is not None:
        what = "step" if one.steps is None else "run"
        rows += row(f"{what}, servers", one.bill.server_kwh, lambda kwh: _kwh(kwh * 3.6e6))
        rows += row(f"{what}, building", one.bill.building_kwh, lambda kwh: _kwh(kwh * 3.6e6))
        rows += row(f"{what}, CO2e", one.bill.co2e_kg, lambda kg: prefixed(kg * 1000, "g"))
        rows += row(f"{what}, electricity", one.bill.electricity, lambda price: f"{price:,.3g}")
        rows += row(f"{what}, rent", one.bill.rent, lambda price: f"{price:,.3g}")
    return rows


def _overview(title: str, answers: Sequence[Answer]) -> list[TextTable]:
    """A line for each answer, where there are too many to show each in full: what is measured, and what is assumed."""
    measured: list[_Column] = [
        ("Step", [one.step_s for one in answers], _time),
        ("Board", [one.step_j for one in answers], _kwh),
    ]
    if answers[0].steps is not None:
        measured += [("Run", [one.run_s for one in answers], _time), ("Boards", [one.run_j for one in answers], _kwh)]
    bills = [one.bill for one in answers if one.bill]
    assumed: list[_Column] = [
        ("Building", [bill.building_kwh for bill in bills], lambda kwh: _kwh(kwh * 3.6e6)),
        ("CO2e", [bill.co2e_kg for bill in bills], lambda kg: prefixed(kg * 1000, "g")),
        ("Electricity", [bill.electricity for bill in bills], lambda price: f"{price:,.3g}"),
        ("Rent", [bill.rent for bill in bills], lambda price: f"{price:,.3g}"),
    ]
    labels = [one.label for one in answers]
    return [_lines_of(title, labels, measured), _lines_of("With what is assumed", labels, assumed)]


#: Heading, numbers, and how a number is written.
_Column = tuple[str, Sequence[Ranged | None], Callable[[float], str]]


def _lines_of(title: str, labels: Sequence[str], columns: Sequence[_Column]) -> TextTable:
    there = [column for column in columns if any(column[1])]
    rows = [[label, *(_brief(values[at], words) for _, values, words in there)] for at, label in enumerate(labels)]
    return TextTable(title, ["GPUs", *(name for name, _, _ in there)], [("", rows)])


def _brief(ranged: Ranged | None, words: Callable[[float], str]) -> str:
    """A number with the larger half of its range in percent, or with its ends where they are far apart."""
    if ranged is None or ranged.low is None or ranged.high is None:
        return "-" if ranged is None else words(ranged.value)
    wide = max(ranged.high / ranged.value - 1, 1 - ranged.low / ranged.value) if ranged.value else 0.0
    if wide <= _WIDE:
        return f"{words(ranged.value)} ±{math.ceil(100 * wide)}%" if wide else words(ranged.value)
    low, high = words(ranged.low).partition(" "), words(ranged.high)
    return f"{low[0] if high.endswith(f' {low[2]}') else ''.join(low)} to {high}"


def show(console: Console, reply: Reply) -> None:
    """Print the answers, what is best, and every assumption."""
    answered = [one for one in reply.answers if one.step_s]
    if len(answered) > _MOST_IN_FULL:
        for table in _overview(reply.title, answered):
            console.print(table.to_rich())
    elif answered:
        sections = [(one.label, _rows(one)) for one in answered]
        console.print(TextTable(reply.title, ["", "Most likely", "Between"], sections, section_name="GPUs").to_rich())
    else:
        console.print(reply.title, highlight=False, markup=False)
    lines = [f"{one.label}: no answer; {one.why_none}" for one in reply.answers if one.why_none]
    lines = list(dict.fromkeys(lines))
    if any(one.why_none and one.outside for one in reply.answers):
        lines.append("models fitted to your own runs can answer more: flopray fit RUN --out FILE, then --models FILE")
    lines += [f"{one.label}: {one.outside}" for one in reply.answers if _far(one)]
    lines += reply.choices
    lines += reply.lines
    lines += [assumption.line for assumption in reply.prices.assumptions] if answered else []
    if answered and reply.prices.grid is None:
        lines.append("no CO2e: name --country or --grid-intensity")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _far(one: Answer) -> bool:
    return one.outside is not None and one.why_none is None


def to_json(reply: Reply) -> str:
    """One JSON object; numbers in SI units, energies of bills in kWh."""
    content = {
        "question": reply.title,
        "answers": [dataclasses.asdict(one) for one in reply.answers],
        "assumptions": [dataclasses.asdict(one) for one in reply.prices.assumptions],
        "best": reply.choices,
        "notes": reply.lines,
    }
    return json.dumps(content, indent=2)


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
