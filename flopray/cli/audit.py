"""Which numbers of a run cannot be true: `python analysis/audit.py PATH`.

PATH is a run's folder, a table (Parquet, CSV or JSON) that need not be flopray's, or a folder of flopmetrics' results.
Exit code 0: nothing impossible, 1: something is, 2: PATH cannot be audited.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flopray.audit import RULES, Finding, Severity, audit
from flopray.audit.explanations import COMMAND
from flopray.audit.findings import has_numbers, is_missing
from flopray.audit.hardware import find_gpu
from flopray.cli.audit_table import PER, load_records, parse_renames
from flopray.cli.endings import carry_out, fault
from flopray.cli.parser import SWEEP_FLAGS, SettingsParser
from flopray.cli.terminal import LineConsole
from flopray.errors import FloprayError, InputError, SettingError, with_names
from flopray.settings import check_settings, setting
from flopray.store import atomic
from flopray.store.location import local_folder, open_run
from flopray.units import counted

_STYLES = {Severity.IMPOSSIBLE: "bold red", Severity.IMPLAUSIBLE: "yellow", Severity.NOTE: "dim"}
#: Characters of a name from a table that are shown.
_LONGEST_NAME = 100
#: A terminal with fewer columns would break words in the table of findings.
_TABLE_WIDTH = 120
#: Flags of the settings that a sentence may name.
_FLAGS = SWEEP_FLAGS | {"rename": "--rename", "per": "--per"}
_PEAK_RULES = ("rate_above_limit", "efficiency_above_peak")


def devices(frame: pd.DataFrame) -> dict[str, str]:
    """For each device that the frame names, the GPU whose limits are used."""
    column = next((name for name in ("device_name", "device_type") if name in frame.columns), None)
    names = sorted({str(name) for name in frame[column] if not is_missing(name)}) if column else []
    found = {name: find_gpu(name) for name in names}
    return {name: gpu.name if gpu else "no limit known" for name, gpu in found.items()}


def groups(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings by severity and rule in the order they come, the worst of each group first."""
    grouped: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings:
        grouped.setdefault((finding.severity, finding.rule), []).append(finding)
    return [sorted(group, key=lambda finding: -finding.excess) for group in grouped.values()]


def by_phase(frame: pd.DataFrame, findings: Sequence[Finding]) -> list[tuple[str, list[int]]]:
    """For each phase: rows with numbers, above the peak rate, above that or peak/power, impossible or implausible."""

    def rows_of(*rules: str) -> set[Any]:
        return {row for finding in findings if finding.rule in rules for row in finding.rows}

    marked = {row for f in findings if f.severity is not Severity.NOTE for row in f.rows}
    solid = frame[pd.Series([has_numbers(row) for row in frame.to_dict("records")], index=frame.index)]
    labels = {"all rows": solid.index}
    if "phase" in frame.columns:
        # as texts: a cell of a table from elsewhere may be a list
        phases = [None if is_missing(phase) else f"{phase!s:.{_LONGEST_NAME}}" for phase in solid["phase"]]
        labels = {str(phase): part.index for phase, part in solid.groupby(phases, sort=False)}
    kinds = (rows_of("rate_above_limit"), rows_of(*_PEAK_RULES), marked)
    return [(name, [len(index), *(len(kind & set(index)) for kind in kinds)]) for name, index in labels.items()]


def show(
    console: Console, path: str | Path, frame: pd.DataFrame, findings: Sequence[Finding], read_as: Sequence[str] = ()
) -> None:
    """Print the findings grouped, with the worst example of each group, and the limits that were used."""
    rows = counted(len(frame), "row")
    console.print(f"[bold]Audit of {escape(str(path))}[/bold]: {rows}", soft_wrap=True)
    for name, gpu in devices(frame).items():
        held = gpu if gpu == "no limit known" else f"judged by the limits of the {gpu}"
        console.print(f"  {escape(name[:_LONGEST_NAME])}: {held}", soft_wrap=True)
    for line in read_as:
        console.print(f"  {escape(line)}", soft_wrap=True)
    if not any(has_numbers(row) for row in frame.to_dict("records")):
        console.print("no row has a number that can be judged: nothing was judged", soft_wrap=True)
    else:
        _show_findings(console, [finding for finding in findings if finding.rule != "not_judged"])
    for finding in findings:
        if finding.rule == "not_judged":
            console.print(f"[dim]not judged: {escape(with_names(finding.sentence, _FLAGS))}[/dim]", soft_wrap=True)
    phases = Table("Phase", "Rows with numbers", "Above peak rate", "Above peak rate or peak/power", "Any mark")
    for name, counts in by_phase(frame, findings):
        phases.add_row(escape(name), *map(str, counts))
    console.print(phases)
    console.print(totals(findings), soft_wrap=True)
    if findings:
        console.print(f"what a rule means: {COMMAND}", highlight=False, soft_wrap=True)


def _show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """A table of groups; where it would break words, a paragraph for each group."""
    if not findings:
        console.print("[green]no finding[/green]")
        return
    table = Table("Severity", "Rule", "Findings", "Rows", "Worst example", "What is wrong", show_lines=True)
    table.columns[2].justify = table.columns[3].justify = "right"
    for group in groups(findings):
        worst = group[0]
        rows = str(len({row for finding in group for row in finding.rows}))
        severity = f"[{_STYLES[worst.severity]}]{worst.severity}[/]"
        where, sentence = escape(worst.where), escape(with_names(worst.sentence, _FLAGS))
        table.add_row(severity, worst.rule, str(len(group)), rows, where, sentence)
        if console.width < _TABLE_WIDTH:
            text = f"{severity} [bold]{worst.rule}[/bold], findings: {len(group)}, rows: {rows}; the worst"
            console.print(f"{text}{f', {where}' if where else ''}: {sentence}\n", soft_wrap=True)
    if console.width >= _TABLE_WIDTH:
        console.print(table)


def totals(findings: Sequence[Finding]) -> str:
    """How many findings there are; rules that could not judge are counted apart."""
    found = Counter(finding.severity for finding in findings if finding.rule != "not_judged")
    unjudged = {finding.numbers.get("rule") for finding in findings if finding.rule == "not_judged"}
    notes = found[Severity.NOTE]
    line = f"{found[Severity.IMPOSSIBLE]} impossible, {found[Severity.IMPLAUSIBLE]} implausible, "
    line += counted(notes, "note")
    if unjudged:
        rules = counted(len(unjudged), "rule")
        line += f"; {rules} could not judge all rows"
    return line


def to_json(path: str | Path, frame: pd.DataFrame, findings: Sequence[Finding], read_as: Sequence[str] = ()) -> str:
    """The findings as one JSON object, with the rules' explanations."""
    listed = [
        {
            "severity": str(finding.severity),
            "rule": finding.rule,
            "sentence": finding.sentence,
            "rows": list(finding.rows),
            "keys": dict(finding.keys),
            "numbers": dict(finding.numbers),
        }
        for finding in findings
    ]
    content = {"path": str(path), "rows": len(frame), "devices": devices(frame), "read_as": list(read_as)}
    content |= {"rules": RULES, "findings": listed}
    return json.dumps(content, indent=2, default=str)


def to_csv(path: Path, findings: Sequence[Finding]) -> None:
    """Write one line for each finding, with the labels of its rows joined by spaces.

    Raises:
        SettingError: the file cannot be written.
    """
    table = [
        (str(f.severity), f.rule, f.where, f.sentence, " ".join(map(str, f.rows)), json.dumps(f.numbers, default=str))
        for f in findings
    ]
    columns = ["severity", "rule", "where", "sentence", "rows", "numbers"]
    try:
        atomic.write(path, pd.DataFrame(table, columns=columns).to_csv(index=False))
    except OSError as error:
        raise SettingError(f"<csv> {path}: cannot be written ({error.strerror or error})") from error


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is audited, and how its columns are read.

    Raises:
        SettingError: a value that cannot be.
    """

    path: str = setting(
        doc="run's folder or URI, reference:NAME, .parquet, .csv, .tsv, .jsonl, .json, or flopmetrics' results",
        positional=True,
    )
    csv: Path | None = setting(None, doc="also write every finding to a CSV file", kind=Path, metavar="FILE")
    json: bool = setting(False, doc="print JSON instead of tables")
    rename: tuple[str, ...] = setting(
        (),
        doc="what columns are: latency=time_s energy=energy_mJ",
        repeats=True,
        distinct=False,
        metavar="NAME=COLUMN",
    )
    per: str | None = setting(
        None,
        doc="where rows cover several devices: FLOPs, energy and power of all (job) or of each",
        choices=PER,
        metavar="{job,device}",
    )

    def __post_init__(self) -> None:
        check_settings(self)


def build_parser() -> SettingsParser:
    """The command line of this script."""
    return SettingsParser(
        Options,
        prog="flopray audit",
        description="Which numbers cannot be true, which need an explanation, and why.",
        epilog="exit code: 0 nothing impossible, 1 something is impossible, 2 PATH cannot be audited",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Audit what the command line names and return the exit code."""
    parser = build_parser()
    return carry_out(parser, argv, lambda options: _audited(options, parser.told))


def _audited(options: Options, told: Callable[[FloprayError], str]) -> int:
    folder = Path(options.path)
    try:
        folder = local_folder(options.path)
        frame, read_as = load_records(folder, rename=parse_renames(options.rename), per=options.per)
        frame = frame.reset_index(drop=True)
        findings = audit(frame, **_stated_by(folder))
        if options.csv:
            to_csv(options.csv, findings)
    except FloprayError as error:
        said = told(error).replace(str(folder), options.path)  # of a run in a store, the folder is a copy
        raise InputError(said) from error
    except Exception as error:  # for any error: Python's own exit code would mean that something is impossible
        raise InputError(fault(error) if isinstance(error, OSError) else f"{options.path}: {fault(error)}") from error
    if options.json:
        print(to_json(options.path, frame, findings, read_as))
    else:
        show(LineConsole(width=None if sys.stdout.isatty() else 160), options.path, frame, findings, read_as)
    return int(any(finding.severity is Severity.IMPOSSIBLE for finding in findings))


def _stated_by(folder: Path) -> dict[str, list[str]]:
    """What a run's workload states: `fields`, which tell its points apart, and `columns`; nothing of other tables."""
    with suppress(FloprayError):
        workload = open_run(folder).workload
        fields = [field.name for field in workload.fields if not field.implied]
        return {"fields": fields, "columns": [column.name for column in workload.columns]}
    return {}
