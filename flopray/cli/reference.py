"""Lists the measurements that come with flopray: `flopray reference [NAME]`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from flopray.cli.endings import carry_out, results_console
from flopray.cli.parser import SettingsParser
from flopray.reference import catalog
from flopray.reference.catalog import Entry
from flopray.report.text_table import TextTable
from flopray.settings import setting
from flopray.units import counted

_WHAT = """\
List the measurements that come with flopray: runs on H100 and H200 boards, for
users without such a GPU. Every command that takes a RUN takes reference:NAME too.
With a NAME, say what its data card says: boards by UUID, drivers, days, the
commands, what is missing, and what holds for all of it."""
_EXAMPLES = """\
examples:
  flopray reference                            the list
  flopray reference h100-mlp                   the card of one
  flopray surfaces reference:h100-mlp          draw it, into results/reference-h100-mlp/
  flopray compare-gpus reference:h100-llama reference:h200-llama
  python -c "import flopray; print(flopray.load_run('reference:h100-mlp'))"
"""


def overview() -> TextTable:
    """A row for each run."""
    rows = [
        [
            entry.name,
            entry.device_name.removeprefix("NVIDIA "),
            f"{entry.rows:,}",
            str(len(entry.boards)),
            ", ".join(entry.drivers),
            _span(entry.days),
        ]
        for entry in catalog.entries()
    ]
    header = ["reference:", "Device", "Rows", "Boards", "Driver", "Measured"]
    return TextTable("Measurements that come with flopray", header, [("", rows)])


def _span(days: tuple[str, str]) -> str:
    first, last = days
    return first if first == last else f"{first} to {last[-2:] if first[:7] == last[:7] else last}"


def missing_lines() -> list[str]:
    """What each run lacks, a line each."""
    return [f"  {entry.name}: {'; '.join(entry.missing) or 'nothing'}" for entry in catalog.entries()]


def published_lines(published: Mapping[str, Any]) -> list[str]:
    """What the audit says about the results that flopmetrics published, which are not included."""
    lines = [f"not included: the results that flopmetrics published ({published['source']}). The audit of them:"]
    for phase, n in published["verdicts"].items():
        beyond, either = n["above_peak_rate"], n["above_peak_rate_or_efficiency"]
        said = f"none of {counted(n['rows'], 'row')} is above a peak"
        if either:
            said = (
                f"{beyond} of {counted(n['rows'], 'row')} state more FLOP/s than the GPU's peak; {either} state that, "
                "or more FLOP/J than its peak over its board power"
            )
        lines.append(f"  {phase}: {said}")
    return [*lines, f"  the worst: {published['worst']}"]


def card_lines(entry: Entry) -> list[str]:
    """The data card of one run."""
    lines = [f"{entry.address}: {entry.what}", f"{entry.device_name}; {entry.points:,} points, {entry.rows:,} rows"]
    lines += [f"precisions  {', '.join(entry.precisions)}", f"phases      {', '.join(entry.phases)}"]
    for board in entry.boards:
        lines.append(
            f"board       {board.uuid}: {board.rows:,} rows, driver {', '.join(board.drivers)}, "
            f"{_span((board.first, board.last))}"
        )
    lines.append("has         " + ", ".join(f"{name} in {count:,} rows" for name, count in entry.columns.items()))
    lines += [f"at 50 °C    {count:,} rows: {how}" for how, count in entry.reference_energy.items()]
    for source in entry.sources:
        versions = ", ".join(f"{name} {version}" for name, version in source["versions"].items())
        lines += [f"run         {source['run']}, {source['day']}, {versions}", f"  {source['command']}"]
    lines += [f"missing     {sentence}" for sentence in entry.missing]
    return lines


def show(console: Console, name: str | None) -> None:
    """Print the list, or the card of one run.

    Raises:
        InputError: there is no run of that name.
    """
    if name is None:
        console.print(overview().to_rich())
        lines = ["", "missing", *missing_lines(), "", *published_lines(catalog.card()["published"])]
        lines += ["", "more about one of them: flopray reference NAME"]
    else:
        lines = [*card_lines(catalog.entry_of(name)), "", "of all", *(f"  {text}" for text in catalog.card()["limits"])]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _as_json(name: str | None) -> str:
    chosen = catalog.entries() if name is None else [catalog.entry_of(name)]
    card = catalog.card()
    content = {"limits": card["limits"], "published": card["published"]}
    return json.dumps({**content, "entries": [dataclasses.asdict(entry) for entry in chosen]}, indent=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which run."""

    name: str | None = setting(None, doc="such as h100-mlp (default: list all)", positional=True)
    json: bool = setting(False, doc="print one JSON object")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = SettingsParser(Options, prog="flopray reference", description=_WHAT, epilog=_EXAMPLES)
    return carry_out(parser, argv, _listed)


def _listed(options: Options) -> None:
    if options.json:
        print(_as_json(options.name))
    else:
        show(results_console(), options.name)
