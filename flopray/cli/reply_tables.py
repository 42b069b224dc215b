"""A reply of `flopray ask` in tables and lines, or as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

from rich.console import Console

from flopray.cli.answer import Answer
from flopray.cli.quantities import Words, co2e_text, ends_text, energy_text, kwh_text, price_text, time_text
from flopray.cli.reply import Reply
from flopray.footprint.assumptions import Ranged
from flopray.report.text_table import TextTable

#: More answers than this are a line each; a range wider than this is shown by its ends.
_MOST_IN_FULL, _WIDE = 2, 0.2


def _rows(one: Answer) -> list[list[str]]:
    """The rows of one answer: what, number, range. The names are short, to fit into a table's first column."""

    def row(name: str, ranged: Ranged | None, words: Words) -> list[list[str]]:
        if ranged is None:
            return []
        ends = "not known"
        if ranged.low is not None and ranged.high is not None:
            ends = "as given" if ranged.low == ranged.high else ends_text(ranged.low, ranged.high, ranged.value, words)
        return [[name, words(ranged.value), ends]]

    rows = row("step, time", one.step_s, time_text) + row("step, one board", one.step_j, energy_text)
    if one.steps is not None:
        rows += [["run, steps", f"{one.steps:,}", ""]]
        rows += row("run, time", one.run_s, time_text) + row("run, boards", one.run_j, energy_text)
    if one.bill is not None:
        what = "step" if one.steps is None else "run"
        rows += row(f"{what}, servers", one.bill.server_kwh, kwh_text)
        rows += row(f"{what}, building", one.bill.building_kwh, kwh_text)
        rows += row(f"{what}, CO2e", one.bill.co2e_kg, co2e_text)
        rows += row(f"{what}, electricity", one.bill.electricity, price_text)
        rows += row(f"{what}, rent", one.bill.rent, price_text)
    return rows


def _overview(title: str, answers: Sequence[Answer]) -> list[TextTable]:
    """A line for each answer, where there are too many to show each in full: what is measured, and what is assumed."""
    measured: list[_Column] = [
        ("Step", [one.step_s for one in answers], time_text),
        ("Board", [one.step_j for one in answers], energy_text),
    ]
    if answers[0].steps is not None:
        measured += [
            ("Run", [one.run_s for one in answers], time_text),
            ("Boards", [one.run_j for one in answers], energy_text),
        ]
    bills = [one.bill for one in answers if one.bill]
    assumed: list[_Column] = [
        ("Building", [bill.building_kwh for bill in bills], kwh_text),
        ("CO2e", [bill.co2e_kg for bill in bills], co2e_text),
        ("Electricity", [bill.electricity for bill in bills], price_text),
        ("Rent", [bill.rent for bill in bills], price_text),
    ]
    labels = [one.label for one in answers]
    return [_lines_of(title, labels, measured), _lines_of("With what is assumed", labels, assumed)]


#: Heading, numbers, and how a number is written.
_Column = tuple[str, Sequence[Ranged | None], Words]


def _lines_of(title: str, labels: Sequence[str], columns: Sequence[_Column]) -> TextTable:
    there = [column for column in columns if any(column[1])]
    rows = [[label, *(_brief(values[at], words) for _, values, words in there)] for at, label in enumerate(labels)]
    return TextTable(title, ["GPUs", *(name for name, _, _ in there)], [("", rows)])


def _brief(ranged: Ranged | None, words: Words) -> str:
    """A number with the larger half of its range in percent, or with its ends where they are far apart."""
    if ranged is None or ranged.low is None or ranged.high is None:
        return "-" if ranged is None else words(ranged.value)
    wide = max(ranged.high / ranged.value - 1, 1 - ranged.low / ranged.value) if ranged.value else 0.0
    if wide <= _WIDE:
        return f"{words(ranged.value)} ±{math.ceil(100 * wide)}%" if wide else words(ranged.value)
    low, high = words(ranged.low, ranged.value).partition(" "), words(ranged.high, ranged.value)
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
    with_energy = any(one.step_j for one in answered)
    rent = reply.prices.price_per_gpu_hour
    used = reply.prices.assumptions if with_energy else [rent] if answered and rent else []
    lines += [assumption.line for assumption in used]
    if with_energy and reply.prices.grid is None:
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
